"""Density-based dual clipping: against the reference, the literal walk, and cases worked by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from basicsr.quant.calibrators.base import calibrate_tensor
from basicsr.quant.calibrators.dbdc_calibrator import DBDCCalibrator, kept_bins
from basicsr.quant.spec import QuantizationError, QuantSpec
from tests.quant.calibrators import oracle

SPEC = QuantSpec(4)
PER_CHANNEL = QuantSpec(4, granularity="per_channel", channel_axis=0)


def run(calibrator, batches):
    while True:
        for batch in batches:
            calibrator.update(batch)
        if not calibrator.end_pass():
            return calibrator.finish()


def float64_bounds(tensor, spec=SPEC, **options):
    calibrator = DBDCCalibrator(spec, **options)
    calibrate_tensor(calibrator, tensor)
    found = calibrator._find_bounds()
    return torch.stack([found.lower, found.upper], dim=1).numpy()


def walk(counts, removed_mass):
    """The definition, step by step."""
    first, last, kept, limit = 0, len(counts) - 1, sum(counts), (1 - removed_mass) * sum(counts)
    while kept > limit:
        if counts[first] < counts[last]:
            kept -= counts[first]
            first += 1
        else:
            kept -= counts[last]
            last -= 1
    return first, last


def test_parity(reference):
    tensors, expected = np.load(reference / "dobi.npz"), np.load(reference / "bounds.npz")
    for row, name in enumerate(tensors["names"]):
        values = tensors[f"x_{name}"]
        extent = np.ptp(values.astype(np.float64))
        for column, mass in enumerate(expected["dbdc_p"]):
            found = float64_bounds(torch.from_numpy(values), removed_mass=float(mass))[0]
            bins = np.rint((found - values.min()) / (extent / 2048)) - 1
            assert bins.tolist() == expected["dbdc_index"][row, column].tolist(), (name, mass)
            np.testing.assert_allclose(found, expected["dbdc_float64"][row, column], rtol=0, atol=1e-9 * extent)
            tolerance = 0.12 if name == "constantish" else 2e-4
            np.testing.assert_allclose(
                found, expected["dbdc_reference"][row, column], rtol=0, atol=tolerance * extent / 2048
            )


def test_parity_of_batches(reference):
    expected = np.load(reference / "bounds.npz")
    batches = torch.from_numpy(expected["dbdc_batches"])
    for number in range(1, 5):
        calibrator = DBDCCalibrator(SPEC, batches="mean")
        bounds = run(calibrator, batches[:number])
        found = [bounds.lower_bound.item(), bounds.upper_bound.item()]
        np.testing.assert_allclose(found, expected["dbdc_running"][number - 1], rtol=2e-6)
        alone = run(DBDCCalibrator(SPEC, batches="mean"), batches[number - 1 : number])
        found = [alone.lower_bound.item(), alone.upper_bound.item()]
        np.testing.assert_allclose(found, expected["dbdc_single_batch"][number - 1], rtol=2e-6)


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.lists(st.integers(0, 6), min_size=7, max_size=7).filter(any), min_size=1, max_size=4),
    removed_mass=st.floats(1e-4, 0.99),
)
def test_sorting_gives_the_walk(counts, removed_mass):
    first, last = kept_bins(torch.tensor(counts), removed_mass)
    for channel, row in enumerate(counts):
        assert (first[channel], last[channel]) == walk(row, removed_mass)


@pytest.mark.parametrize(
    ("counts", "removed_mass", "kept"),
    [
        ([2, 5, 9, 3, 1], 0.01, (0, 3)),  # 20 > 19.8: the 1 at the end is fewer than the 2
        ([2, 5, 9, 3, 1], 0.10, (1, 3)),  # 19 > 18: then the 2, fewer than the 3
        ([2, 5, 9, 3, 1], 0.20, (1, 2)),  # 17 > 16: then the 3, fewer than the 5
        ([3, 1, 9, 1, 3], 0.01, (0, 3)),  # as many at both ends: the last goes
        ([3, 1, 9, 1, 3], 0.20, (0, 2)),  # and the 1 behind it
        ([0, 0, 9, 1, 0], 0.01, (2, 2)),  # empty ones cost nothing: the last, both first ones, then the 1
        ([1, 9, 0, 0, 2], 0.01, (1, 4)),  # the 1 is fewer than the 2, which protects the empty ones behind it
    ],
)
def test_worked_by_hand(counts, removed_mass, kept):
    assert walk(counts, removed_mass) == kept
    first, last = kept_bins(torch.tensor([counts]), removed_mass)
    assert (first.item(), last.item()) == kept


def test_bounds_are_the_upper_edges_of_the_kept_bins():
    values = torch.tensor([0.0, 0.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0, 4.0])  # bins of 1 from 0 to 4: 2, 3, 4, 1
    assert float64_bounds(values, num_bins=4, removed_mass=0.05).tolist() == [[1.0, 3.0]]
    assert float64_bounds(values, num_bins=4, removed_mass=0.20).tolist() == [[2.0, 3.0]]


def test_symmetric_bounds_are_the_larger_magnitude():
    values = torch.cat([torch.linspace(-1, 1, 999), torch.tensor([-40.0])])
    plain = float64_bounds(values)[0]
    symmetric = float64_bounds(values, QuantSpec(4, symmetric=True))[0]
    assert symmetric.tolist() == [-abs(plain).max(), abs(plain).max()]


@pytest.mark.parametrize("kind", oracle.tensors(64))
def test_joint_bounds_do_not_depend_on_the_batches(kind):
    values = oracle.tensors(640)[kind].flatten()
    expected = calibrate_tensor(DBDCCalibrator(SPEC), values)
    parts = run(DBDCCalibrator(SPEC), values.flip(0).split(7))
    assert (parts.lower_bound, parts.upper_bound) == (expected.lower_bound, expected.upper_bound)
    histogram = np.histogram(values.double().numpy(), 2048)[0].tolist()
    first, last = walk(histogram, 5e-4)
    if first < last and kind != "two_neighbours":
        width = np.ptp(values.double().numpy()) / 2048
        want = values.min().double().item() + width * np.array([first + 1, last + 1])
        np.testing.assert_allclose(float64_bounds(values)[0], want, rtol=1e-9, atol=0)


def test_channels_have_histograms_of_their_own():
    tensor = torch.randn(5, 700) ** 3 * torch.tensor([1e-20, 1.0, 1e10, 1e-3, 1.0])[:, None]
    for batches in ("joint", "mean"):
        together = float64_bounds(tensor, PER_CHANNEL, removed_mass=0.02, batches=batches)
        for channel, row in enumerate(tensor):
            assert float64_bounds(row, removed_mass=0.02, batches=batches)[0].tolist() == together[channel].tolist()


def test_the_mean_is_one_of_batches():
    batches = [torch.randn(300), 5 * torch.randn(300)]
    alone = [float64_bounds(batch)[0] for batch in batches]
    bounds = run(DBDCCalibrator(SPEC, batches="mean"), batches)
    np.testing.assert_allclose([bounds.lower_bound, bounds.upper_bound], sum(alone) / 2, rtol=1e-6)
    joint = run(DBDCCalibrator(SPEC), batches)
    assert joint.upper_bound > 1.2 * bounds.upper_bound


@pytest.mark.parametrize("batches", ["joint", "mean"])
def test_minimum_and_maximum_where_one_bin_holds_nearly_all(batches):
    values = torch.zeros(10_000)
    values[:3] = torch.tensor([-1.0, 0.5, 2.0])
    bounds = calibrate_tensor(DBDCCalibrator(SPEC, batches=batches), values)
    assert (bounds.lower_bound, bounds.upper_bound, bounds.search) == (-1, 2, "minmax")
    assert calibrate_tensor(DBDCCalibrator(SPEC, batches=batches), torch.randn(999)).search is None


def test_batches_that_are_constant_are_averaged():
    bounds = run(DBDCCalibrator(SPEC, batches="mean"), [torch.full((9,), 0.5), torch.linspace(-1, 1, 999)])
    alone = float64_bounds(torch.linspace(-1, 1, 999))[0]
    np.testing.assert_allclose([bounds.lower_bound, bounds.upper_bound], (alone + 0.5) / 2, rtol=1e-6)
    assert not bounds.constant


def test_eight_bits_may_have_a_mass_of_their_own():
    values = torch.randn(20_000)
    options = {"removed_mass": 1e-2, "removed_mass_8_bits": 1e-4}
    for bits, mass in ((4, 1e-2), (8, 1e-4)):
        want = float64_bounds(values, removed_mass=mass).tolist()
        assert float64_bounds(values, QuantSpec(bits), **options).tolist() == want
    assert float64_bounds(values, QuantSpec(8)).tolist() == float64_bounds(values).tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"removed_mass": 0.0}, "removed mass is 0.0"),
        ({"removed_mass": 1.0}, "removed mass is 1.0"),
        ({"removed_mass": float("nan")}, "removed mass is nan"),
        ({"num_bins": 1}, "num_bins is 1"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(QuantizationError, match=message):
        DBDCCalibrator(SPEC, **options)
