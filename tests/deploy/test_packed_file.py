"""A packed network is the trained one, and small; a file that is not one is refused."""

import pytest
import torch
from safetensors.torch import load_file

from basicsr.deploy.packed_file import load_packed, save_packed
from basicsr.quant.insertion.insert import named_quantizers
from basicsr.quant.observe.capture import count_codes
from tests.deploy.networks import EDSR, IMAGE, SWINIR, calibrated

GRANULARITIES = [{}, {"weight_granularity": "per_channel"}, {"weight_symmetric": True}, {"activation_symmetric": True}]


@pytest.mark.parametrize("insertion", GRANULARITIES, ids=str)
@pytest.mark.parametrize("coverage", ["2dquant", "full"])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_the_loaded_network_gives_the_same_output_to_the_last_bit(tmp_path, coverage, bits, insertion):
    network, quantization_map = calibrated(coverage, bits, **insertion)
    save_packed(network, SWINIR, quantization_map, tmp_path / "a.safetensors", method="MinMax")
    loaded, description = load_packed(tmp_path / "a.safetensors")
    with torch.no_grad():
        expected, output = network(IMAGE), loaded(IMAGE)
    assert torch.equal(expected, output)
    assert (description.scale, description.method, description.network) == (2, "MinMax", SWINIR)
    assert not loaded.training and loaded.scale == 2
    with count_codes(loaded) as counts, torch.no_grad():
        loaded(IMAGE)
    levels = {name: quantizer.spec.num_levels for name, quantizer in named_quantizers(loaded)}
    assert counts and all(count <= levels[name] for name, count in counts.items())


@pytest.mark.parametrize("coverage", ["body_and_skips", "all_and_skips"])
def test_quantized_sums_are_packed_too(tmp_path, coverage):
    network, quantization_map = calibrated(coverage, 3, options=EDSR)
    save_packed(network, EDSR, quantization_map, tmp_path / "a.safetensors")
    loaded, _ = load_packed(tmp_path / "a.safetensors")
    with torch.no_grad():
        assert torch.equal(loaded(IMAGE), network(IMAGE))
    assert dict(named_quantizers(loaded)).keys() == dict(named_quantizers(network)).keys()


@pytest.mark.parametrize("lower", [0.04, 0.0, -0.04])
def test_bounds_that_training_drove_past_each_other_can_be_packed(tmp_path, lower):
    network, quantization_map = calibrated("2dquant", 2)
    quantizer = network.get_submodule("layers.0.residual_group.blocks.0.attn.qkv.v.weight_quantizer")
    with torch.no_grad():
        quantizer.lower_bound.fill_(lower)
        quantizer.upper_bound.fill_(lower - 0.1)
        expected = network(IMAGE)
    save_packed(network, SWINIR, quantization_map, tmp_path / "a.safetensors")
    loaded, _ = load_packed(tmp_path / "a.safetensors")
    with torch.no_grad():
        torch.testing.assert_close(loaded(IMAGE), expected)


def test_packing_a_loaded_network_gives_the_same_tensors(tmp_path):
    network, quantization_map = calibrated()
    files = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    save_packed(network, SWINIR, quantization_map, files[0])
    loaded, description = load_packed(files[0])
    save_packed(loaded, description.network, quantization_map, files[1])
    first, second = (load_file(file) for file in files)
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_half_precision_changes_little_and_saves_space(tmp_path):
    network, quantization_map = calibrated()
    sizes = [
        save_packed(network, SWINIR, quantization_map, tmp_path / f"{half}.safetensors", half=half)
        for half in (False, True)
    ]
    assert sizes[1] < sizes[0] == (tmp_path / "False.safetensors").stat().st_size
    loaded, _ = load_packed(tmp_path / "True.safetensors")
    with torch.no_grad():
        difference = (loaded(IMAGE) - network(IMAGE)).abs()
    assert 0 < float(difference.mean()) < 0.05


def test_quantized_weights_take_their_bits(tmp_path):
    sizes = {}
    for bits in (2, 4, 8):
        network, quantization_map = calibrated("2dquant", bits)
        save_packed(network, SWINIR, quantization_map, tmp_path / "a.safetensors")
        sizes[bits] = load_file(tmp_path / "a.safetensors")["codes"].numel()
    weights = 4 * (12 * 12 * 4 + 2 * 12 * 24)  # in each Swin layer q, k, v, proj and the two layers of the MLP
    assert sizes == {2: weights // 4, 4: weights // 2, 8: weights}
