"""Bits for each quantizer under an average."""

import copy
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from basicsr.quant.insertion.coverage import CoverageRule
from basicsr.quant.insertion.insert import insert_quantizers, named_quantizers
from basicsr.training.bit_allocation import allocate_bits
from basicsr.training.bit_choice import as_overrides, choose_bits, expected_errors, quantizers_with_bits
from basicsr.training.calibration.network_calibration import calibrate_network
from basicsr.utils.errors import OptionsError
from basicsr.utils.options import CalibrationOptions


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), average=st.sampled_from([2.0, 2.7, 3.0, 3.9, 4.0]))
def test_no_other_choice_is_better(seed, average):
    generator = torch.Generator().manual_seed(seed)
    choices = (2, 3, 4)
    errors = {f"q{i}": dict(zip(choices, torch.rand(3, generator=generator).tolist(), strict=True)) for i in range(5)}
    sizes = {name: int(torch.randint(1, 100, (), generator=generator)) for name in errors}
    found = allocate_bits(errors, sizes, average)
    total = sum(sizes.values())

    def mean(bits):
        return sum(b * sizes[name] for name, b in zip(errors, bits, strict=True)) / total

    possible = [bits for bits in itertools.product(choices, repeat=5) if mean(bits) <= average + 1e-9]
    best = min(sum(errors[name][b] for name, b in zip(errors, bits, strict=True)) for bits in possible)
    assert mean(found.values()) <= average + 1e-6
    assert sum(errors[name][found[name]] for name in errors) == pytest.approx(best, rel=1e-6)


def test_errors_of_any_size_are_told_apart():
    errors = {"a": {2: 1e-20, 3: 0.0}, "b": {2: 1e-21, 3: 0.0}}
    assert allocate_bits(errors, {"a": 10, "b": 10}, 2.5) == {"a": 3, "b": 2}


def test_an_average_below_all_choices_is_refused():
    with pytest.raises(OptionsError, match=r"average of 1\.5 bits cannot be met: no quantizer has fewer than 2"):
        allocate_bits({"a": {2: 1.0, 4: 0.1}}, {"a": 1}, 1.5)


def test_without_scipy_a_sentence_says_what_to_do(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "scipy.optimize", None)
    with pytest.raises(
        OptionsError, match=r"'scipy' is needed for choosing bits .* by hand, with quantization:overrides"
    ):
        allocate_bits({"a": {2: 1.0, 4: 0.1}}, {"a": 1}, 3)


class Uneven(nn.Module):
    """A layer whose channels count a hundred times as much as those of the other one, and a split linear layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.loud, self.quiet = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 8, 3, padding=1)
        self.qkv = nn.Linear(8, 6)

    def forward(self, x):
        features = torch.relu(10 * self.loud(x) + 0.1 * self.quiet(x))
        return self.qkv(features.movedim(1, -1)).movedim(-1, 1)


RULES = [CoverageRule("qkv", "QSplitLinear", split=("q", "k")), CoverageRule("*", "QConv2d")]


def quantized(bits, overrides=()):
    network = Uneven().eval().requires_grad_(False)
    student = copy.deepcopy(network)
    insert_quantizers(student, RULES, bits, bits, overrides=overrides)
    return network, student


@pytest.fixture
def crops():
    return torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def test_what_counts_gets_more_bits_and_the_output_comes_nearer(crops):
    network, student = quantized(4)
    names = quantizers_with_bits(student, 4, 4)
    errors = expected_errors(student, names, crops)
    bits = choose_bits(errors, 4)
    assert set(bits) == set(names)
    for slot in ("weight_quantizer", "act_quantizer"):
        assert bits[f"loud.{slot}"] > bits[f"quiet.{slot}"]
    assert bits["qkv.q.act_quantizer"] == bits["qkv.k.act_quantizer"]
    options = CalibrationOptions(weights={"type": "DOBI"}, activations={"type": "DOBI"})
    distances = []
    for overrides in ((), as_overrides(errors, bits)):
        student = quantized(4, overrides)[1]
        calibrate_network(student, crops, options)
        with torch.no_grad():
            distances.append(float((student(crops) - network(crops)).square().mean()))
    assert distances[1] < 0.7 * distances[0]
    assert {name: quantizer.spec.bits for name, quantizer in named_quantizers(student)} == bits


def test_more_bits_make_smaller_errors_and_eight_nearly_none(crops):
    _, student = quantized(4)
    for found in expected_errors(student, quantizers_with_bits(student, 4, 4), crops).values():
        assert list(found.of_bits) == [2, 3, 4, 5, 6, 7, 8]
        assert sorted(found.of_bits.values(), reverse=True) == list(found.of_bits.values())
        assert found.of_bits[8] < 0.002 * found.of_bits[2]


@pytest.mark.parametrize("name", ["loud.act_quantizer", "qkv.q.act_quantizer"])
def test_the_expected_error_is_what_an_activation_makes(crops, name):
    network, student = quantized(5)
    calibrate_network(student, crops, CalibrationOptions(weights={"type": "DOBI"}, activations={"type": "DOBI"}))
    expected = expected_errors(student, [name], crops)[name].of_bits[5]
    group = {name, "qkv.k.act_quantizer"} if name.startswith("qkv") else {name}
    for other, quantizer in named_quantizers(student):
        quantizer.bypass = other not in group
    with torch.no_grad():
        made = float((student(crops) - network(crops)).square().sum()) / len(crops)
    assert made == pytest.approx(expected, rel=0.3)


def test_quantizers_with_bits_of_their_own_are_left_out():
    _, student = quantized(4, [{"match": "quiet", "w_bits": 8, "a_bits": 8}])
    assert not [name for name in quantizers_with_bits(student, 4, 4) if name.startswith("quiet")]
