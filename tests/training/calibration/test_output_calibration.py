"""Bounds by output in whole networks."""

import pytest
import torch

from basicsr.quant.insertion.insert import named_quantizers
from basicsr.quant.modules.matmul_qmodule import QMatMul
from basicsr.quant.observe.capture import bypass_quantizers
from basicsr.quant.observe.module_calls import call_module, capture_call
from basicsr.training.calibration.network_calibration import calibrate_network, check_calibrators
from basicsr.utils.errors import OptionsError
from basicsr.utils.options import CalibrationOptions
from tests.training.calibration.test_network_calibration import SUBSET, quantized

MAPS = "*.attn.av.a_quantizer"
CROPS = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(5))


def options(*globs, **more):
    one = {"type": "DOBI", "search": "auto"}
    return CalibrationOptions(weights=one, activations=one, by_output=list(globs), **more)


def sharper(network):
    """Give softmax maps a few large values."""
    for name, parameter in network.named_parameters():
        if "qkv.weight" in name:
            parameter.mul_(20)


def calibrated(*globs, **more):
    torch.manual_seed(0)
    network = quantized(sharper, bits=3)
    report = calibrate_network(network, CROPS, options(*globs, **more))
    return network, {row.name: row.result for row in report}


@pytest.mark.slow
def test_only_what_is_named_gets_other_bounds_and_the_report_has_them():
    _, plain = calibrated()
    network, report = calibrated(MAPS)
    assert report.keys() == plain.keys()
    named = [name for name in report if name.endswith("attn.av.a_quantizer")]
    assert named and any(not torch.equal(report[name].upper_bound, plain[name].upper_bound) for name in named)
    for name, quantizer in named_quantizers(network):
        lower, upper = quantizer.bounds()
        assert torch.equal(lower, report[name].lower_bound) and torch.equal(upper, report[name].upper_bound)
        if name in named:
            assert report[name].search == "output"
        else:
            assert torch.equal(upper, plain[name].upper_bound) and torch.equal(lower, plain[name].lower_bound)


@pytest.mark.slow
def test_the_batch_size_changes_rounding_only():
    _, one = calibrated(MAPS, batch_size=1)
    _, three = calibrated(MAPS, batch_size=3)
    for name, result in one.items():
        torch.testing.assert_close(result.upper_bound, three[name].upper_bound, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_the_output_of_the_named_modules_comes_nearer():
    def error(network, name):
        module = network.get_submodule(name)
        with torch.no_grad():
            with bypass_quantizers(network):
                call = capture_call(network, name, CROPS)
            module.b_quantizer.bypass = True
            return float((call_module(module, call.arguments) - call.output).square().mean())

    plain, refined = calibrated()[0], calibrated(MAPS)[0]
    names = [name for name, module in plain.named_modules() if isinstance(module, QMatMul) and name.endswith("av")]
    assert len(names) == 4
    assert all(error(refined, name) < error(plain, name) for name in names)


@pytest.mark.parametrize(
    ("glob", "message"),
    [
        (
            "*.attn.va.*",
            "names '\\*\\.attn\\.va\\.\\*', but no quantizer of an activation is called so. Names are such as 'layers",
        ),
        ("*.weight_quantizer", "no quantizer of an activation is called so"),
    ],
)
def test_globs_without_effect_are_refused_before_any_work(glob, message):
    with pytest.raises(OptionsError, match=message):
        check_calibrators(quantized(), options(glob))


def test_quantizers_without_one_pair_of_bounds_are_refused():
    with pytest.raises(OptionsError, match="a SubsetQuantizer per_channel, but"):
        check_calibrators(quantized(**SUBSET), options("*.mlp.fc1.act_quantizer"))
