"""Calibration of whole networks: what cannot be calibrated is named."""

import pytest
import torch

from basicsr.archs import build_network
from basicsr.models.calibration import calibrate_network
from basicsr.quant.insertion import insert_quantizers
from basicsr.quant.spec import QuantizationError
from basicsr.utils.options import CalibrationOptions
from tests import tiny

CROPS = torch.rand(2, 3, 16, 16)


def quantized(change=lambda network: None):
    network = build_network({"type": "SwinIR", **tiny.NETWORK})
    with torch.no_grad():
        change(network)
    insert_quantizers(network, "2dquant", 4, 4)
    return network.eval()


def options(calibrator):
    return CalibrationOptions(weights={"type": calibrator}, activations={"type": calibrator})


@pytest.mark.parametrize("calibrator", ["MinMax", "Percentile", "DOBI", "DBDC"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_activations_that_are_not_finite_are_named(calibrator, value):
    network = quantized(lambda n: n.layers[1].residual_group.blocks[0].norm1.bias.fill_(value))
    with pytest.raises(
        QuantizationError, match=r"'layers\.1\.residual_group\.blocks\.0\.attn\.qkv.* NaN and .* infinite"
    ):
        calibrate_network(network, CROPS, options(calibrator))


def test_weights_that_are_not_finite_are_named():
    network = quantized()
    fc2 = network.layers[1].residual_group.blocks[1].mlp.fc2
    calibrate_network(network, CROPS, options("MinMax"))
    with torch.no_grad():
        network.layers[1].conv.weight.zero_()  # so that the damage does not reach another layer first
        fc2.weight[0, 0] = float("nan")
    with pytest.raises(
        QuantizationError, match=r"'layers\.1\.residual_group\.blocks\.1\.mlp\.fc2\.weight_quantizer'.*1 NaN"
    ):
        calibrate_network(network, CROPS, options("MinMax"))


@pytest.mark.parametrize("calibrator", ["MinMax", "Percentile", "DOBI", "DBDC"])
def test_constant_activations_and_weights_are_reported_and_run(calibrator):
    def silence(network):
        block = network.layers[0].residual_group.blocks[0]
        block.norm2.weight.zero_()
        block.norm2.bias.fill_(0.25)
        block.mlp.fc1.weight.zero_()

    network = quantized(silence)
    report = {row.name: row.result for row in calibrate_network(network, CROPS, options(calibrator))}
    constant = {name for name, bounds in report.items() if bounds.constant}
    layer = "layers.0.residual_group.blocks.0.mlp.fc1"
    assert {f"{layer}.act_quantizer", f"{layer}.weight_quantizer"} <= constant
    assert report[f"{layer}.act_quantizer"].lower_bound == 0.25
    assert all((bounds.lower_bound < bounds.upper_bound).all() for bounds in report.values())
    assert network(CROPS).isfinite().all()
