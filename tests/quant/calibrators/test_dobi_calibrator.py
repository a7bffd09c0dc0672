"""DOBI finds what the exhaustive search finds."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from basicsr.quant.calibration import Bounds
from basicsr.quant.calibrators.base import calibrate_tensor
from basicsr.quant.calibrators.dobi_calibrator import DOBICalibrator
from basicsr.quant.search import bound_search
from basicsr.quant.search.candidates import shrinkages
from basicsr.quant.spec import QuantizationError, QuantSpec
from tests.quant.calibrators import oracle

MODES = {
    "sym": {"search": "symmetric"},
    "one_K": {"search": "one_sided", "one_sided_step": "K"},
    "one_2K": {"search": "one_sided", "one_sided_step": "2K"},
}


def stream(calibrator: DOBICalibrator, passes: list[list[torch.Tensor]]) -> Bounds:
    """Calibrate with other batches in each pass."""
    for batches in passes:
        for batch in batches:
            calibrator.update(batch)
        if not calibrator.end_pass():
            break
    return calibrator.finish()


@pytest.mark.parametrize("mode", MODES)
def test_parity(reference, mode):
    arrays = np.load(reference / "dobi.npz")
    for row, name in enumerate(arrays["names"]):
        tensor = torch.from_numpy(arrays[f"x_{name}"])
        lowest, highest = tensor.double().min(), tensor.double().max()
        for column, bits in enumerate(arrays["bits"].tolist()):
            bounds = calibrate_tensor(DOBICalibrator(QuantSpec(bits), **MODES[mode]), tensor)
            curve = arrays[f"{mode}_curve"][row, column]
            step = (highest - lowest) / (100 if mode == "one_K" else 200)
            candidate = ((highest - bounds.upper_bound.double()) / step).item()
            assert candidate == pytest.approx(round(candidate), abs=0.1)
            assert curve[round(candidate)] == pytest.approx(curve.min(), rel=1e-6)
            expected = arrays[f"{mode}_bounds"][row, column]
            assert bounds.lower_bound.item() == pytest.approx(expected[0], abs=1e-6 * abs(expected).max())
            squared_error = bounds.mean_squared_error * tensor.numel()
            assert squared_error == pytest.approx(curve.min() ** 2, rel=5e-5)


@pytest.mark.parametrize("kind", oracle.tensors(64))
@pytest.mark.parametrize("search", ["symmetric", "one_sided", "joint"])
@pytest.mark.parametrize("max_bins", [64, 2**16])
def test_best_of_all_candidates(kind, search, max_bins, monkeypatch):
    """Also with so few bins that nearly all candidates need the second pass."""
    monkeypatch.setattr("basicsr.quant.calibrators.dobi_calibrator._BINS_PER_TENSOR", max_bins)
    tensor = oracle.tensors(640)[kind]
    for bits in (2, 3, 8):
        bounds = calibrate_tensor(DOBICalibrator(QuantSpec(bits), search=search, num_candidates=12), tensor)
        side = "upper" if bounds.search == "one_sided_mirrored" else "lower"
        errors = oracle.squared_errors(tensor, bits, shrinkages(search, side, 12, "2K")[0])
        resolution = 1e-9 * tensor.numel() * np.ptp(tensor.double().numpy()) ** 2 / 4**bits
        error = bounds.mean_squared_error * tensor.numel()
        assert error == pytest.approx(errors.min(), rel=5e-5, abs=resolution)


def test_winner_with_a_second_pass(monkeypatch):
    """Bounds are those of the first best candidate, whichever passes it took."""
    tensor = oracle.tensors(19200)["long_tailed"]
    shares, _ = shrinkages("symmetric", "both", 100, "2K")
    lowest, highest = tensor.double().min().item(), tensor.double().max().item()
    for bits in (2, 4, 8):
        winner = int(oracle.squared_errors(tensor, bits, shares).argmin())
        expected = lowest + shares[winner, 0].item() * (highest - lowest)
        for max_bins in (64, 512, 2**16):
            monkeypatch.setattr("basicsr.quant.calibrators.dobi_calibrator._BINS_PER_TENSOR", max_bins)
            calibrator = DOBICalibrator(QuantSpec(bits), search="symmetric")
            calibrator.update(tensor)
            if calibrator.end_pass():
                calibrator.update(tensor)
                assert not calibrator.end_pass()
            else:
                assert max_bins > 64
            assert calibrator.finish().lower_bound.item() == pytest.approx(expected, rel=1e-7)


@settings(max_examples=25, deadline=None)
@given(data=st.data(), bits=st.sampled_from([2, 4, 8]), search=st.sampled_from(["auto", "symmetric", "joint"]))
def test_streaming_equals_concatenation(data, bits, search):
    kind = data.draw(st.sampled_from(sorted(oracle.tensors(64))))
    tensor = oracle.tensors(640)[kind].flatten()
    whole = calibrate_tensor(DOBICalibrator(QuantSpec(bits), search=search, num_candidates=10), tensor)
    passes = []
    for _ in range(2):
        outward = data.draw(st.booleans())
        generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
        order = tensor.abs().argsort() if outward else torch.randperm(len(tensor), generator=generator)
        passes.append(list(tensor[order].split(data.draw(st.sampled_from([13, 100, 640])))))
    streamed = stream(DOBICalibrator(QuantSpec(bits), search=search, num_candidates=10), passes)
    assert torch.equal(streamed.lower_bound, whole.lower_bound)
    assert torch.equal(streamed.upper_bound, whole.upper_bound)
    assert streamed.search == whole.search


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=2, max_size=30).filter(
        lambda v: min(v) < max(v)
    ),
    data=st.data(),
)
def test_any_floats(values, data):
    tensor = torch.tensor(values, dtype=torch.float32)
    spec = QuantSpec(data.draw(st.sampled_from([2, 3, 8])))
    cut = data.draw(st.integers(1, len(values) - 1))
    whole = calibrate_tensor(DOBICalibrator(spec, search="joint", num_candidates=6), tensor)
    passes = [[tensor[:cut].view(1, -1), tensor[cut:]], [tensor[cut:], tensor[:cut].view(-1, 1)]]
    streamed = stream(DOBICalibrator(spec, search="joint", num_candidates=6), passes)
    assert torch.equal(streamed.lower_bound, whole.lower_bound)
    assert torch.equal(streamed.upper_bound, whole.upper_bound)
    errors = oracle.squared_errors(tensor, spec.bits, shrinkages("joint", "both", 6, "2K")[0])
    resolution = 1e-9 * len(values) * np.ptp(tensor.double().numpy()) ** 2 / 4**spec.bits
    assert whole.mean_squared_error * len(values) == pytest.approx(errors.min(), rel=1e-6, abs=resolution)


@pytest.mark.parametrize("kind", oracle.tensors(64))
def test_joint_never_loses(kind):
    tensor = oracle.tensors()[kind]
    for bits in (2, 4, 8):
        errors = {
            search: calibrate_tensor(DOBICalibrator(QuantSpec(bits), search=search, num_candidates=40), tensor)
            for search in ("joint", "symmetric", "one_sided", "auto")
        }
        joint = errors.pop("joint").mean_squared_error
        assert all(joint <= bounds.mean_squared_error * (1 + 1e-4) for bounds in errors.values())


@pytest.mark.parametrize("seed", range(8))
def test_first_of_equal_candidates_wins(seed):
    """In mirrored data the pairs (i, j) and (j, i) have equal errors, but for rounding; the first has i <= j."""
    half = torch.randn(500, generator=torch.Generator().manual_seed(seed)) ** 3
    tensor = torch.cat([half, -half])
    bounds = calibrate_tensor(DOBICalibrator(QuantSpec(3), search="joint"), tensor)
    assert bounds.upper_bound <= -bounds.lower_bound


def test_mirrored_data_give_mirrored_bounds():
    tensor = oracle.tensors()["gelu"]
    bounds, mirrored = (calibrate_tensor(DOBICalibrator(QuantSpec(3)), x) for x in (tensor, -tensor))
    assert (bounds.search, mirrored.search) == ("one_sided", "one_sided_mirrored")
    assert bounds.lower_bound == tensor.min()
    assert bounds.lower_bound == -mirrored.upper_bound
    assert bounds.upper_bound == -mirrored.lower_bound
    assert bounds.mean_squared_error == pytest.approx(mirrored.mean_squared_error, rel=1e-5)


@pytest.mark.parametrize("kind", ["gaussian", "softmax", "negative_only", "one_outlier"])
def test_symmetric_bounds(kind):
    tensor = oracle.tensors()[kind]
    bounds = calibrate_tensor(DOBICalibrator(QuantSpec(4, symmetric=True)), tensor)
    shares, _ = shrinkages("symmetric", "both", 100, "2K")
    errors = oracle.squared_errors(tensor, 4, shares, symmetric_bounds=True)
    assert bounds.lower_bound == -bounds.upper_bound
    assert bounds.mean_squared_error * tensor.numel() == pytest.approx(errors.min(), rel=1e-5)
    winner = shares[int(errors.argmin()), 0].item()
    assert bounds.upper_bound.item() == pytest.approx(tensor.abs().max().item() * (1 - 2 * winner), rel=1e-6)


def test_per_channel_searches_are_reported_together():
    tensor = torch.stack([oracle.tensors()["gaussian"], oracle.tensors()["gelu"]])
    spec = QuantSpec(4, granularity="per_channel", channel_axis=0)
    bounds = calibrate_tensor(DOBICalibrator(spec), tensor)
    alone = [calibrate_tensor(DOBICalibrator(QuantSpec(4)), row) for row in tensor]
    assert bounds.search == "one_sided+symmetric"
    mean = sum(found.mean_squared_error for found in alone) / 2
    assert bounds.mean_squared_error == pytest.approx(mean, rel=1e-4)


def test_many_zeros_need_no_memory():
    """A bin that holds most of the data is divided at the thresholds, not collected."""
    tensor = torch.cat([torch.zeros(300_000), oracle.tensors()["long_tailed"]])
    options = bound_search.SearchOptions(15, False, 64, "symmetric", 100, "2K")
    search = bound_search.BoundSearch(options, tensor.device)
    search.add(tensor, tensor.min().item(), tensor.max().item())
    assert search.narrow()
    parts = len(search._refinement._edges)
    assert parts <= len(search._shares) * 15 + 64
    search.add(tensor, tensor.min().item(), tensor.max().item())
    assert not search.narrow()
    errors = oracle.squared_errors(tensor, 4, shrinkages("symmetric", "both", 100, "2K")[0])
    assert search.result.squared_error == pytest.approx(errors.min(), rel=1e-9)


def test_refused_options():
    with pytest.raises(QuantizationError, match="num_candidates is 0"):
        DOBICalibrator(QuantSpec(4), num_candidates=0)
    for search in ("one_sided", "joint"):
        with pytest.raises(QuantizationError, match=f"search is '{search}'"):
            DOBICalibrator(QuantSpec(4, symmetric=True), search=search)
