"""Questions that the rows of a sweep answer: searches against each other, and the order of the methods of 2DQuant."""

import pytest

from basicsr.metrics.stated import DEFAULT_METRICS
from basicsr.sweep.comparisons import order, variants


def row(method, psnr, fidelity, search=None, error=None, **changes):
    values = {
        "arch": "SwinIR-light", "scale": 4, "w_bits": 4, "a_bits": 4, "dataset": "Set5", "seed": 0, "method": method, "published": method,
        "values": {"psnr": psnr, "fidelity": fidelity}, "traits": DEFAULT_METRICS, "activation_calibrator": "DOBI" if search else "MinMax",
        "activation_search": search, "activations_error": error, "iterations": 0, "error_correlation": -0.0625,
    }  # fmt: skip
    return {**values, **changes}


MINMAX = row("MinMax", 30.0, 40.0)
SYMMETRIC = row("DOBI symmetric", 30.2, 42.0, "symmetric", 2e-4)
JOINT = row("DOBI joint", 30.1, 43.5, "joint", 1e-4)
TRAINED = row("2DQuant", 30.3, 45.0, "symmetric", 2e-4, iterations=30)


def test_searches_are_compared_with_the_first_one():
    text = variants([MINMAX, SYMMETRIC, JOINT, TRAINED], "DOBI", ("symmetric", "auto", "joint"))
    assert "| SwinIR-light x4 | 4/4 | DOBI symmetric | 100.0 | 30.200 / 42.00 |\n" in text
    assert "| SwinIR-light x4 | 4/4 | DOBI joint | 50.0 | 30.100 / 43.50 (-0.100 / +1.50) |\n" in text
    assert "MinMax" not in text and "2DQuant" not in text
    assert text.endswith(
        "DOBI joint against DOBI symmetric: smaller squared error in 1 of 1, higher PSNR in 0 of 1, higher fidelity in 1 of 1.\n"
    )


def test_seeds_are_averaged_and_data_sets_kept_apart():
    other = [
        {**JOINT, "seed": 1, "values": {"psnr": 30.3, "fidelity": 43.5}},
        {**SYMMETRIC, "dataset": "Set14", "values": {"psnr": 28.0, "fidelity": 42.0}},
    ]
    text = variants([SYMMETRIC, JOINT, *other], "DOBI", ("symmetric", "joint"))
    assert "| DOBI joint | 50.0 | 30.200 / 43.50 (+0.000 / +1.50) | - / - (- / -) |\n" in text


@pytest.mark.parametrize(
    "rows",
    [[MINMAX, SYMMETRIC], [SYMMETRIC, {**JOINT, "w_bits": 2}], [SYMMETRIC, {**JOINT, "iterations": 9}], [JOINT], []],
)
def test_nothing_to_compare(rows):
    assert variants(rows, "DOBI", ("symmetric", "joint")) is None


def test_errors_that_are_not_known_are_left_out():
    text = variants([{**SYMMETRIC, "activations_error": None}, JOINT], "DOBI", ("symmetric", "joint"))
    assert "| DOBI joint | - |" in text and "squared error in" not in text


def test_the_order_is_read_off_the_values():
    text = order([MINMAX, SYMMETRIC, JOINT, TRAINED])
    chain = "MinMax < DOBI symmetric < 2DQuant"
    expected = (
        f"| SwinIR-light x4 | 4/4 | Set5 | {chain} | yes: 30.0000, 30.2000, 30.3000 | yes: 40.000, 42.000, 45.000 "
        "| -0.062, -0.062, -0.062 |\n"
    )
    assert expected in text and text.endswith("The order holds in PSNR in 1 of 1 lines, in fidelity in 1 of 1 lines.\n")
    text = order([MINMAX, SYMMETRIC, {**TRAINED, "values": {"psnr": 30.2, "fidelity": 45.0}}])
    assert order([MINMAX, SYMMETRIC, {**TRAINED, "error_correlation": None}]).count("45.000 | - |\n") == 1
    assert "no: 30.0000, 30.2000, 30.2000" in text and "in PSNR in 0 of 1 lines, in fidelity in 1 of 1 lines" in text


def test_each_recipe_of_2dquant_is_compared_with_the_search_that_it_starts_from():
    auto = row("DOBI one-sided", 30.1, 41.0, "auto")
    published = row("2DQuant as published", 30.3, 44.0, "auto", iterations=30, published="2DQuant")
    text = order([MINMAX, SYMMETRIC, auto, published, TRAINED])
    assert "MinMax < DOBI one-sided < 2DQuant as published" in text and "MinMax < DOBI symmetric < 2DQuant |" in text
    assert text.count("\n| SwinIR") == 2


def test_no_order_without_all_three():
    assert order([MINMAX, TRAINED]) is None and order([SYMMETRIC, TRAINED]) is None
