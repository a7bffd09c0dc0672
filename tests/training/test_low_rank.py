"""Corrections of low rank that weights always hold."""

import copy

import pytest
import torch
from torch import nn

from basicsr.archs import build_network
from basicsr.models.ptq_model import PTQModel
from basicsr.quant.insertion.coverage import CoverageRule
from basicsr.quant.insertion.insert import insert_quantizers, quantized_weights
from basicsr.training.low_rank import LowRankCorrections
from basicsr.utils.errors import OptionsError
from basicsr.utils.options import load_options
from tests import tiny

ADAM = {"type": "Adam", "lr": 0.06}


def quantized_linear(**more):
    network = nn.Sequential(nn.Linear(3, 2, bias=False))
    insert_quantizers(network, [CoverageRule("0", "QLinear")], 2, 2, **more)
    return network.requires_grad_(False)


def test_gradients_and_weights_by_hand():
    network = quantized_linear()
    weight = network[0].weight
    with torch.no_grad():
        weight.copy_(torch.ones(2, 3))
    corrections = LowRankCorrections(network, 1, 0)
    up, down = corrections.parameters
    assert torch.equal(up, torch.zeros(2, 1)) and down.shape == (1, 3)
    with torch.no_grad():
        up.copy_(torch.tensor([[2.0], [0.5]]))
        down.copy_(torch.tensor([[1.0, 0.0, -1.0]]))
    weight.grad = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    corrections.take_gradients()
    assert up.grad.tolist() == [[-2.0], [-2.0]] and down.grad.tolist() == [[4.0, 6.5, 9.0]]
    assert weight.grad is None
    corrections.begin()
    corrections.merge()
    assert weight.tolist() == [[3.0, 1.0, -1.0], [1.5, 1.0, 0.5]]
    corrections.merge()  # again adds nothing again
    assert weight.tolist() == [[3.0, 1.0, -1.0], [1.5, 1.0, 0.5]]


def test_units_are_steps_of_the_weight_and_a_rank_beyond_the_weight_is_cut():
    network = quantized_linear(weight_granularity="per_channel")
    network[0].weight_quantizer.set_bounds(torch.tensor([-3.0, 0.0]), torch.tensor([3.0, 0.6]))
    corrections = LowRankCorrections(network, 8, 0)
    (up, of_up), (down, of_down) = corrections.units()
    assert up.shape == (2, 2) and down.shape == (2, 3)
    torch.testing.assert_close(of_up, torch.tensor([[2.0, 2.0], [0.2, 0.2]]))
    torch.testing.assert_close(of_down, torch.full((2, 3), 0.5**0.5))


@pytest.fixture
def make(tmp_path):
    torch.manual_seed(3)
    network = build_network({"type": "SwinIR", **tiny.NETWORK}).eval()
    quick = [f"calibration:{role}={{type: MinMax}}" for role in ("weights", "activations")]
    options = load_options(tiny.TRAIN, tiny.train_overrides(tmp_path, "bit=3", "calibration:by_output=[]", *quick))

    def build(**arguments):
        arguments = {"optim_bound": ADAM, "relative_lr": True, "correction_rank": 2, **arguments}
        return PTQModel(copy.deepcopy(network), options, torch.device("cpu"), **arguments)

    return build


def test_weights_change_by_matrices_of_the_rank_and_a_run_that_continues_has_the_same_bits(make, tmp_path):
    crops = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    whole, first, second = make(), make(), make()
    for model in (whole, first):
        model.calibrate(crops)
    start = {name: weight.clone() for name, weight in quantized_weights(whole.network).items()}
    for _ in range(4):
        whole.optimize_parameters({"lq": crops})
    for _ in range(2):
        first.optimize_parameters({"lq": crops})
    torch.save(first.checkpoint(), tmp_path / "net.pth")
    second.load(tmp_path / "net.pth", copy.deepcopy(first.training_state()))
    for _ in range(2):
        second.optimize_parameters({"lq": crops})
    for key, value in whole.network.state_dict().items():
        assert torch.equal(second.network.state_dict()[key], value), key
    for name, weight in quantized_weights(whole.network).items():
        change = (weight - start[name]).flatten(1)
        values = torch.linalg.svdvals(change)
        assert values[0] > 0 and (values[2:] < 1e-4 * values[0] + 1e-6).all(), name
    trained = dict(whole.network.named_parameters())
    for name, parameter in whole.full_precision.named_parameters():
        kept = name.endswith(("bias", "bias_table")) or "norm" in name or "conv" in name or "upsample" in name
        assert torch.equal(trained[name], parameter) == kept, name


def test_rates_that_are_not_relative_and_weights_in_full_precision_are_refused(make):
    with pytest.raises(OptionsError, match="'train:correction_rank' learns weights at a rate in quantization steps"):
        make(relative_lr=False)
    network = nn.Sequential(nn.Linear(3, 2))
    insert_quantizers(network, [CoverageRule("0", "QLinear")], 32, 4)
    with pytest.raises(OptionsError, match="but no weight is quantized. Set it to 0"):
        LowRankCorrections(network, 2, 0)
