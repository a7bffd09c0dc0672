"""Calibration of whole networks: what cannot be calibrated is named."""

import pytest
import torch

from basicsr.archs import build_network
from basicsr.quant.calibration import Bounds
from basicsr.quant.insertion.insert import insert_quantizers
from basicsr.quant.observe.capture import count_codes
from basicsr.quant.spec import QuantizationError
from basicsr.training.calibration.network_calibration import (
    CalibratedQuantizer,
    calibrate_network,
    check_calibrators,
    describe_errors,
)
from basicsr.utils.errors import OptionsError
from basicsr.utils.options import CalibrationOptions
from tests import tiny

CROPS = torch.rand(2, 3, 16, 16)


SUBSET = {"activation_quantizer": {"type": "Subset"}, "activation_granularity": "per_channel"}


def quantized(change=lambda network: None, bits=4, **arguments):
    network = build_network({"type": "SwinIR", **tiny.NETWORK})
    with torch.no_grad():
        change(network)
    insert_quantizers(network, "2dquant", bits, bits, **arguments)
    return network.eval()


def options(calibrator, weights=None):
    return CalibrationOptions(weights={"type": weights or calibrator}, activations={"type": calibrator})


@pytest.mark.parametrize("calibrator", ["MinMax", "Percentile", "DOBI", "DBDC"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_activations_that_are_not_finite_are_named(calibrator, value):
    network = quantized(lambda n: n.layers[1].residual_group.blocks[0].norm1.bias.fill_(value))
    with pytest.raises(
        QuantizationError, match=r"'layers\.1\.residual_group\.blocks\.0\.attn\.qkv.* NaN and .* infinite"
    ):
        calibrate_network(network, CROPS, options(calibrator))


def test_activations_of_dfsq_that_are_not_finite_are_named():
    network = quantized(lambda n: n.layers[1].residual_group.blocks[0].norm1.bias.fill_(float("nan")), **SUBSET)
    with pytest.raises(QuantizationError, match=r"'layers\.1\.residual_group\.blocks\.0\.attn\.qkv.* NaN"):
        calibrate_network(network, CROPS, options("DFSQ", "MinMax"))


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


@pytest.mark.parametrize("selection", ["exact", "kmeans"])
def test_dfsq_of_a_network_with_constant_channels(selection):
    def silence(network):
        block = network.layers[0].residual_group.blocks[0]
        block.norm2.weight[:4] = 0
        block.norm2.bias[:4] = torch.tensor([0.0, 0.25, -3.0, 1e-9])

    network = quantized(silence, bits=3, **SUBSET)
    section = CalibrationOptions(activations={"type": "DFSQ", "selection": selection})
    check_calibrators(network, section)
    report = {row.name: row for row in calibrate_network(network, CROPS, section)}
    block = "layers.0.residual_group.blocks.0"
    assert report[f"{block}.mlp.fc1.act_quantizer"].result.constant
    assert report[f"{block}.attn.av.a_quantizer"].result.post_relu  # the softmax map is not negative
    assert not report[f"{block}.attn.av.b_quantizer"].result.post_relu
    line = report[f"{block}.mlp.fc1.act_quantizer"].as_dict()
    assert len(line["points"]) == 12 and len(line["points"][0]) == 8
    assert 0 < float(describe_errors(list(report.values())).split()[-1].rstrip(".")) < 0.1
    with count_codes(network) as counts:
        assert network(CROPS).isfinite().all()
    assert max(counts.values()) <= 8


def test_dfsq_does_not_depend_on_the_batch_size():
    reports = []
    for batch_size in (1, 2):
        torch.manual_seed(2)
        network = quantized(bits=2, **SUBSET)
        section = CalibrationOptions(activations={"type": "DFSQ"}, batch_size=batch_size)
        reports.append(calibrate_network(network, CROPS, section))
    for one, two in zip(*reports, strict=True):
        if one.name.endswith("weight_quantizer"):
            continue
        assert one.result.mean_squared_error == pytest.approx(two.result.mean_squared_error, rel=1e-3)


@pytest.mark.parametrize(
    ("arguments", "section", "error", "message"),
    [
        (
            SUBSET,
            options("MinMax"),
            OptionsError,
            "is MinMax, which finds bounds, but .* is a SubsetQuantizer and needs subset points",
        ),
        ({}, options("DFSQ", "MinMax"), OptionsError, "is DFSQ, which finds subset points, but .* needs bounds"),
        (
            {**SUBSET, "bits": 8},
            CalibrationOptions(activations={"type": "DFSQ", "word_sets": 2}),
            QuantizationError,
            "act_quantizer' cannot be calibrated. The universal set of word_sets 2 has 29 values, but 8 bits need 256",
        ),
        (
            {"weight_symmetric": True},
            CalibrationOptions(weights={"type": "MinMax", "integer_zero_point": True}),
            QuantizationError,
            "weight_quantizer' cannot be calibrated. The 16 values between symmetric bounds",
        ),
    ],
)
def test_calibrators_that_cannot_work_are_refused_before_any_data(arguments, section, error, message):
    with pytest.raises(error, match=message):
        check_calibrators(quantized(**arguments), section)


@pytest.mark.parametrize(
    ("errors", "sentence"),
    [
        ([0.01, 0.0001], "The geometric mean of the squared errors is 1.000e-03."),
        ([0.5, None, 0.0], "The geometric mean of the squared errors of 1 of them is 5.000e-01."),
        ([None, None], "Their calibrators do not measure squared errors."),
        ([0.0], "All squared errors that were measured are 0."),
    ],
)
def test_the_squared_errors_are_described_as_far_as_they_are_known(errors, sentence):
    zero = torch.zeros(())
    report = [CalibratedQuantizer("a", Bounds(zero, zero + 1, mean_squared_error=error)) for error in errors]
    assert describe_errors(report) == sentence


def test_min_max_claims_no_error():
    report = calibrate_network(quantized(), CROPS, options("MinMax"))
    assert describe_errors(report) == "Their calibrators do not measure squared errors."
