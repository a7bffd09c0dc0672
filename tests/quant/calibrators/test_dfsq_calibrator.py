"""The calibrator of subset points."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from basicsr.quant.calibrators import dfsq_calibrator
from basicsr.quant.calibrators.base import calibrate_tensor
from basicsr.quant.calibrators.dfsq_calibrator import DFSQCalibrator
from basicsr.quant.quantizers.subset_quantizer import SubsetQuantizer
from basicsr.quant.spec import QuantizationError, QuantSpec
from basicsr.utils.errors import OptionsError
from basicsr.utils.registry import CALIBRATOR_REGISTRY

RELEASED = {"selection": "kmeans", "restarts": 5, "pin_zero": True, "keep_restart": "quantization_error"}


def per_channel(bits=3, axis=1):
    return QuantSpec(bits, granularity="per_channel", channel_axis=axis)


def calibrate(tensor, spec=None, **options):
    return calibrate_tensor(DFSQCalibrator(spec or per_channel(), **options), tensor)


def normalized_errors(x, points, post_relu):
    """Sums of squared errors per channel, of values normalised by the definition, in float64."""
    rows = x.double().flatten(2)  # N, C, elements
    centred = rows if post_relu else rows - rows.mean(dim=2, keepdim=True)
    values = centred / (centred.abs().amax(dim=2, keepdim=True) + 1e-8)
    return (values[..., None] - points.double()[None, :, None]).square().amin(dim=-1).sum(dim=(0, 2))


@pytest.mark.parametrize("kind", ["general", "postrelu"])
@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize(("key", "pin_zero"), [("opt", False), ("opt0", True)])
def test_parity(reference, kind, bits, key, pin_zero):
    arrays = np.load(reference / "dfsq.npz")
    x, expected = torch.from_numpy(arrays[f"x_{kind}"]), arrays[f"{key}_{kind}_b{bits}_sse"]
    found = calibrate(x, per_channel(bits), pin_zero=pin_zero)
    assert found.post_relu == (kind == "postrelu")
    np.testing.assert_array_equal(found.points, arrays[f"{key}_{kind}_b{bits}"])
    assert found.mean_squared_error == pytest.approx(expected.sum() / (x.numel()), rel=1e-6)
    np.testing.assert_allclose(normalized_errors(x, found.points, found.post_relu), expected, rtol=1e-5)
    for options in ({"selection": "kmeans"}, RELEASED):
        other = calibrate(x, per_channel(bits), **options)
        if options.get("pin_zero", False) or not pin_zero:
            assert (normalized_errors(x, other.points, other.post_relu).numpy() >= expected * (1 - 1e-6)).all()


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6), bits=st.integers(2, 4), relu=st.booleans(), axis=st.sampled_from([1, -1, None]))
def test_exact_never_loses_to_kmeans_on_any_channel(seed, bits, relu, axis):
    x = torch.randn(2, 4, 6, 5, generator=torch.Generator().manual_seed(seed)) ** 3
    x = x.relu() if relu else x
    spec = QuantSpec(bits) if axis is None else per_channel(bits, axis)
    tensor = x if axis is None else x.movedim(1, axis)
    rows = x.flatten(1)[:, None] if axis is None else x
    found = [calibrate(tensor, spec, selection=selection) for selection in ("exact", "kmeans")]
    exact, kmeans = (normalized_errors(rows, r.points.view(-1, 2**bits), r.post_relu) for r in found)
    assert (exact <= kmeans * (1 + 1e-6) + 1e-6).all()


@pytest.mark.parametrize("options", [{}, {"selection": "kmeans"}, RELEASED])
def test_batches_and_chunks_do_not_matter(options, monkeypatch):
    x = torch.randn(6, 4, 9, 9)
    whole = calibrate(x, **options)
    monkeypatch.setattr(dfsq_calibrator, "_CHUNK", 1)
    calibrator = DFSQCalibrator(per_channel(), **options)
    for batch in (x[3:5], x[:1], x[5:], x[1:3]):
        calibrator.update(batch)
    assert not calibrator.end_pass()
    parts = calibrator.finish()
    assert torch.equal(parts.points, whole.points)
    assert parts.mean_squared_error == pytest.approx(whole.mean_squared_error)


def test_memory_does_not_grow_with_the_data():
    calibrator = DFSQCalibrator(per_channel())
    sizes = []
    for _ in range(3):
        calibrator.update(torch.randn(2, 4, 40, 40))
        sizes.append(sum(h.counts.numel() + h.sums.numel() for h in calibrator._histograms.values()))
    assert sizes == [2 * 4 * 4096] * 3


def test_auto_takes_max_where_nothing_is_negative():
    x = torch.randn(5, 3, 8, 8)
    positive = x.relu()
    assert calibrate(positive).post_relu
    assert not calibrate(x).post_relu
    almost = positive.clone()
    almost[4, 2, 7, 7] = -1e-6  # seen last
    calibrator = DFSQCalibrator(per_channel())
    for batch in almost.split(1):
        calibrator.update(batch)
    calibrator.end_pass()
    late = calibrator.finish()
    assert not late.post_relu
    assert torch.equal(late.points, calibrate(almost, normalization="mean_max").points)
    for normalization, post_relu in (("mean_max", False), ("max", True)):
        assert calibrate(positive, normalization=normalization).post_relu == post_relu
        assert calibrate(x, normalization=normalization).post_relu == post_relu
    assert (calibrate(x, normalization="max").points < 0).any()
    assert (calibrate(positive).points >= 0).all()


def test_words_are_those_of_the_points():
    found = calibrate(torch.randn(3, 4, 8, 8), word_sets=[[1, 0.5, 0.25, 0], [1, 0.125, 0]])
    assert found.word_indices.shape == (4, 8, 2)
    words = [one_set[found.word_indices[..., s].long()] for s, one_set in enumerate(found.word_sets)]
    torch.testing.assert_close(found.points.sign() * sum(words) / 2, found.points)


def test_per_tensor_and_last_axis():
    x = torch.randn(3, 10, 6)
    assert calibrate(x, QuantSpec(2)).points.shape == (4,)
    last, second = calibrate(x, per_channel(axis=-1)), calibrate(x.transpose(1, 2), per_channel(axis=1))
    assert torch.equal(last.points, second.points)


@pytest.mark.parametrize("options", [{}, {"selection": "kmeans"}, RELEASED])
def test_constant_and_zero_channels_are_reported_and_run(options):
    x = torch.randn(2, 4, 6, 6)
    assert not calibrate(x, **options).constant
    x[:, 1], x[:, 3] = 0, 0.7
    for tensor in (x, x.abs()):
        found = calibrate(tensor, **options)
        assert found.constant
        assert found.points.isfinite().all()
        quantizer = SubsetQuantizer(per_channel(), 4)
        quantizer.load_calibration(found)
        output = quantizer(tensor)
        assert output.isfinite().all()
        assert (output[:, 1] == 0).all() or output[:, 1].abs().max() < 1e-7


def test_other_types_are_converted_to_float32():
    x = torch.randn(2, 3, 20).to(torch.bfloat16)
    assert torch.equal(calibrate(x).points, calibrate(x.float()).points)


def test_refusals_of_data():
    calibrator = DFSQCalibrator(per_channel())
    with pytest.raises(QuantizationError, match=r"empty.*\(2, 0, 4\)"):
        calibrator.update(torch.empty(2, 0, 4))
    with pytest.raises(QuantizationError, match="1 NaN"):
        calibrator.update(torch.tensor([[[0.0], [torch.nan]]]))
    with pytest.raises(QuantizationError, match="saw no data"):
        DFSQCalibrator(per_channel()).end_pass()
    with pytest.raises(QuantizationError, match="not complete"):
        calibrator.finish()
    calibrator.update(torch.randn(2, 3, 4))
    with pytest.raises(QuantizationError, match="5 channels"):
        calibrator.update(torch.randn(2, 5, 4))
    calibrator.end_pass()
    with pytest.raises(QuantizationError, match="needs no more data"):
        calibrator.update(torch.randn(2, 3, 4))
    with pytest.raises(QuantizationError, match="has no samples"):
        DFSQCalibrator(per_channel(axis=0)).update(torch.randn(2, 3))


@pytest.mark.parametrize(
    ("bits", "options", "message"),
    [
        (3, {"word_sets": 1}, "word_sets 1 has 7 values, but 3 bits need 8 points"),
        (8, {"word_sets": 3}, "has 107 values, but 8 bits need 256"),
        (4, {"word_sets": [[1, 0.3]]}, "powers of two"),
        (2, {"word_sets": [[1, 0.5], [1, 0.5]], "pin_zero": True}, "cannot give 0"),
        (2, {"restarts": 0}, "restarts is 0"),
    ],
)
def test_refusals_of_options(bits, options, message):
    with pytest.raises(QuantizationError, match=message):
        DFSQCalibrator(per_channel(bits), **options)


@pytest.mark.parametrize(
    "options", [{"word_sets": "4"}, {"selection": "best"}, {"word_sets": [1, 0.5]}, {"retries": 3}]
)
def test_options_are_checked_by_the_registry(options):
    with pytest.raises(OptionsError, match=f"calibrator:{next(iter(options))}"):
        CALIBRATOR_REGISTRY.build({"type": "DFSQ", **options}, per_channel(), where="calibrator")
