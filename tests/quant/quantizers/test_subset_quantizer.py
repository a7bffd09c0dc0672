"""The subset quantizer: its state, and what it refuses."""

import pytest
import torch

from basicsr.quant.calibration import SubsetPoints
from basicsr.quant.ops import subset
from basicsr.quant.ops.universal_set import universal_set
from basicsr.quant.quantizers.subset_quantizer import SubsetQuantizer
from basicsr.quant.spec import QuantizationError, QuantSpec

PER_CHANNEL = QuantSpec(2, granularity="per_channel", channel_axis=1)


def result(channels=3, word_sets=4, post_relu=True):
    universal = universal_set(word_sets)
    chosen = torch.stack([torch.randperm(len(universal))[:4].sort().values for _ in range(channels)])
    values = universal.values[chosen].float()
    return SubsetPoints(values, universal.word_indices[chosen], universal.word_sets, post_relu)


def test_keys_of_the_state_dict():
    quantizer = SubsetQuantizer(PER_CHANNEL, 3)
    quantizer.load_calibration(result())
    assert {k: tuple(v.shape) for k, v in quantizer.state_dict().items()} == {
        "bits": (),
        "calibrated": (),
        "points": (3, 4),
        "post_relu": (),
        "word_indices": (3, 4, 4),
        "word_sets": (4, 4),
    }
    assert not list(quantizer.parameters())
    assert SubsetQuantizer(QuantSpec(3)).points.shape == (8,)


@pytest.mark.parametrize("word_sets", [2, 5, [[1, 0.5, 0.25, 0.125, 0], [1, 0.5]]])
def test_the_state_tells_the_words_of_any_universal_set(word_sets):
    quantizer, fresh = SubsetQuantizer(PER_CHANNEL, 3), SubsetQuantizer(PER_CHANNEL, 3)
    quantizer.load_calibration(result(word_sets=word_sets))
    fresh.load_state_dict(quantizer.state_dict())
    words = torch.stack(
        [words[fresh.word_indices[..., s].long()] for s, words in enumerate(fresh.word_sets)], dim=-1
    ).sum(dim=-1)
    torch.testing.assert_close(fresh.points.sign() * words / fresh.word_sets.amax(dim=1).sum(), fresh.points)
    assert bool(fresh.post_relu)
    x = torch.randn(2, 3, 5, 5)
    assert torch.equal(fresh(x), quantizer(x))


def test_forward_is_the_function_with_its_points():
    quantizer = SubsetQuantizer(PER_CHANNEL, 3)
    quantizer.load_calibration(result(post_relu=False))
    x = torch.randn(2, 3, 5, 5)
    assert torch.equal(quantizer(x), subset.fake_quantize(x, quantizer.points, torch.tensor(False), 1))
    assert torch.equal(quantizer.codes(x), subset.quantize(x, quantizer.points, torch.tensor(False), 1))


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (torch.zeros(2, 4), r"have the shape \(2, 4\)"),
        (torch.zeros(3, 8), r"have the shape \(3, 8\)"),
        (torch.tensor([[0.0, 1.0, 0.5, 2.0]]).expand(3, 4), "'body.0.act_quantizer' cannot be used.*ascending"),
        (torch.full((3, 4), torch.nan), "finite and ascending"),
    ],
)
def test_points_that_cannot_be_used_are_refused(points, message):
    quantizer = SubsetQuantizer(PER_CHANNEL, 3)
    quantizer.name = "body.0.act_quantizer"
    words = torch.zeros(*points.shape, 4, dtype=torch.uint8)
    with pytest.raises(QuantizationError, match=message):
        quantizer.load_calibration(SubsetPoints(points, words, torch.ones(4, 4), False))
    assert not bool(quantizer.calibrated)


def test_a_checkpoint_with_points_that_cannot_be_used_is_refused():
    parent = torch.nn.ModuleDict({"a": SubsetQuantizer(PER_CHANNEL, 3)})
    parent["a"].load_calibration(result())
    for bad in (torch.nan, 2.0):
        state = {k: v.clone() for k, v in parent.state_dict().items()}
        state["a.points"][1, 0] = bad
        with pytest.raises(QuantizationError, match=r"holds in 'a\.points' cannot be used"):
            parent.load_state_dict(state)


def test_a_checkpoint_of_other_channels_is_refused():
    quantizer, other = SubsetQuantizer(PER_CHANNEL, 3), SubsetQuantizer(PER_CHANNEL, 5)
    other.load_calibration(result(5))
    with pytest.raises(RuntimeError, match="size mismatch for points"):
        quantizer.load_state_dict(other.state_dict())


def test_what_it_cannot_be_is_refused():
    with pytest.raises(QuantizationError, match="set 'quantization:activation_symmetric' to false"):
        SubsetQuantizer(QuantSpec(4, symmetric=True))
    with pytest.raises(QuantizationError, match="axis 0, the axis of the samples"):
        SubsetQuantizer(QuantSpec(4, granularity="per_channel", channel_axis=0), 3)


@pytest.mark.gpu
def test_a_step_on_a_gpu_reads_nothing_back():
    quantizer = SubsetQuantizer(PER_CHANNEL, 3).cuda()
    quantizer.load_calibration(result())
    x = torch.randn(2, 3, 5, 5, device="cuda", requires_grad=True)
    torch.cuda.set_sync_debug_mode("error")
    try:
        output = quantizer(x)
        output.sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(output.cpu(), quantizer.cpu()(x.detach().cpu()))
