"""The tables of docs/which-method.md: the committed ones follow from the committed records, and small ones by hand."""

import re

import pytest

from basicsr.sweep.guide import DATASET, FILE, guide_table, with_tables
from basicsr.sweep.overview import read_sweeps
from basicsr.sweep.plan import FULL_PRECISION
from basicsr.utils.errors import OptionsError
from tests import tiny


@pytest.fixture(scope="module")
def committed():
    return {sweep.name: sweep.rows for sweep in read_sweeps()}


def test_the_committed_page_follows_from_the_committed_records(committed):
    text = (tiny.ROOT / FILE).read_text(encoding="utf-8")
    assert text == with_tables(text, committed), "run python scripts/make_tables.py and commit docs/which-method.md"


def test_every_network_of_the_benchmarks_has_its_table(committed):
    text = (tiny.ROOT / FILE).read_text(encoding="utf-8")
    networks = {row["arch"] for row in committed["benchmarks"] if row["scale"] == 4 and row["arch"]}
    placed = set(re.findall(r"<!-- from benchmarks(?: and best)?: (\S+) x4 -->", text))
    assert networks == placed and len(placed) >= 3


def incomplete(rows):
    """Return the methods that lack numbers of bits which others of their sweep have."""
    of_method = {}
    for row in rows:
        if row["method"] != FULL_PRECISION:
            of_method.setdefault(row["method"], set()).add(row["w_bits"])
    most = set().union(*of_method.values())
    return [name for name, bits in of_method.items() if bits != most]


@pytest.mark.parametrize("sweeps", [("benchmarks", "best"), ("msrresnet",)])
def test_methods_of_the_tables_have_all_their_bits_or_the_page_says_so(committed, sweeps):
    text = (tiny.ROOT / FILE).read_text(encoding="utf-8")
    shown = [
        [row for row in committed[sweep] if (row["scale"], row["dataset"]) == (4, DATASET) and row["coverage"]]
        for sweep in sweeps
    ]
    for arch in {row["arch"] for rows in shown for row in rows}:
        section = text.split(f"### {arch} x4")[1].split("\n#")[0]
        missing = [name for rows in shown for name in incomplete([row for row in rows if row["arch"] == arch])]
        assert bool(missing) is ("Empty cells have not been run" in section), missing


def row(method, bits, change, seed=0, **more):
    values = {
        "arch": "EDSR", "scale": 4, "dataset": "Set5", "method": method, "w_bits": bits, "psnr_change": change, "seed": seed,
        "psnr": 31.234, "activation_ranges": "static", "calibration_seconds": 1.6, "training_seconds": None, "bytes": 1234567.0,
        "processor": None,
    }  # fmt: skip
    return values | more


@pytest.fixture
def rows():
    return [
        row(FULL_PRECISION, 32, None),
        row("MinMax", 4, -1.0),
        row("MinMax", 2, -8.0, processor="Other"),
        row("DOBI", 4, -0.2, training_seconds=2.0, processor="Intel(R) Xeon(R) Processor, AVX2, AMX"),
        row("DOBI", 4, -0.4, seed=1, training_seconds=6.0, activation_ranges="dynamic"),
    ]


def test_a_line_has_means_over_seeds_and_leaves_out_what_was_not_run(rows):
    assert guide_table(rows).splitlines() == [
        "Full precision has 31.23 dB and 1,235 KB.",
        "",
        "| method | ranges | loss at 4 bits (dB) | 2 bits | time (s) | size (KB) | processor |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        "| MinMax | static | -1.00 | -8.00 | 2 | 1,235 |  |",
        "| DOBI | static | -0.30 |  | 6 | 1,235 | Intel Xeon Processor |",
    ]


def test_a_row_without_its_full_precision_network_has_no_loss():
    """Its sweep has not run that network yet, or not since its weights changed."""
    lines = guide_table([row("A", 4, None), row("B", 4, -0.5)]).splitlines()
    losses = [[cell.strip() for cell in line.split("|")][3] for line in lines[2:]]
    assert losses == ["", "-0.50"]


def test_no_column_of_processors_where_no_record_names_one(rows):
    text = guide_table([row | {"processor": None} for row in rows])
    assert "processor" not in text and "| MinMax | static | -1.00 | -8.00 | 2 | 1,235 |" in text


def test_only_what_stands_between_the_marks_is_made_anew(rows):
    text = "before\n<!-- from a: EDSR x4 -->\nold\n<!-- end -->\nbetween <!-- end -->\n"
    made = with_tables(text, {"a": rows})
    assert made == f"before\n<!-- from a: EDSR x4 -->\n\n{guide_table(rows)}\n\n<!-- end -->\nbetween <!-- end -->\n"
    assert with_tables(made, {"a": rows}) == made


def test_a_table_of_two_sweeps_has_each_method_once_from_the_first(rows):
    second = [row(FULL_PRECISION, 32, None), row("MinMax", 4, -0.5), row("Fitted", 4, -0.25)]
    made = with_tables("<!-- from first and second: EDSR x4 -->\n<!-- end -->", {"first": rows, "second": second})
    assert made.count("| MinMax |") == made.count("| Fitted |") == made.count("Full precision has") == 1
    assert "-0.25" in made and "-0.50" not in made
    with pytest.raises(OptionsError, match="records of 'third' for EDSR x4"):
        with_tables("<!-- from first and third: EDSR x4 -->\n<!-- end -->", {"first": rows})


@pytest.mark.parametrize("place", ["b: EDSR x4", "a: RDN x4", "a: EDSR x2"])
def test_a_place_without_records_is_told(rows, place):
    sweep, network = place.split(": ")
    with pytest.raises(OptionsError, match=f"records of '{sweep}' for {network} on Set5"):
        with_tables(f"<!-- from {place} -->\n<!-- end -->", {"a": rows})


def test_a_place_that_names_no_network_is_refused(committed):
    with pytest.raises(OptionsError, match="to be made from 'benchmarks'. Write 'SWEEP: NETWORK xSCALE' there"):
        with_tables("<!-- from benchmarks -->\n<!-- end -->\n", committed)
