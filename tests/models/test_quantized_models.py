"""Calibration, distillation losses and level counting on a tiny SwinIR."""

import copy
import logging

import pytest
import torch

from basicsr.archs import build_network
from basicsr.evaluation.evaluator import Evaluator, check_levels
from basicsr.models.ptq_model import PTQModel
from basicsr.networks.quantized import quantized_copy
from basicsr.quant.insertion.insert import named_quantizers, quantized_weights, quantizers_with_same_input
from basicsr.quant.observe.capture import observe_quantizer_inputs
from basicsr.quant.spec import QuantizationError
from basicsr.training.calibration.network_calibration import calibrate_network
from basicsr.utils.errors import TrainingError
from basicsr.utils.options import CalibrationOptions, ValOptions, load_options
from tests import tiny


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    return load_options(tiny.TRAIN, tiny.train_overrides(tmp_path_factory.mktemp("weights")))


@pytest.fixture
def network():
    torch.manual_seed(3)
    return build_network({"type": "SwinIR", **tiny.NETWORK}).eval()


@pytest.fixture
def crops():
    return torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(5))


def calibrated(network, options, crops, **changes):
    quantized, _ = quantized_copy(network, options, share_weights=True)
    section = CalibrationOptions(**{"weights": {"type": "DOBI"}, "activations": {"type": "DOBI"}, **changes})
    return quantized, calibrate_network(quantized, crops, section)


def test_the_copy_shares_weights_only_where_asked(network, options):
    shared, _ = quantized_copy(network, options, share_weights=True)
    assert all(p is dict(shared.named_parameters())[name] for name, p in network.named_parameters())
    own, _ = quantized_copy(network, options, share_weights=False)
    assert not any(p is dict(own.named_parameters())[name] for name, p in network.named_parameters())


@pytest.mark.slow
def test_bounds_do_not_depend_on_the_batch_size(network, options, crops):
    for calibrator in ("MinMax", "DOBI", "Percentile"):
        changes = {"weights": {"type": calibrator}, "activations": {"type": calibrator}}
        reports = [calibrated(network, options, crops, batch_size=size, **changes)[1] for size in (1, 3)]
        for one, three in zip(*reports, strict=True):
            torch.testing.assert_close(one.result.lower_bound, three.result.lower_bound, rtol=1e-4, atol=1e-6)
            torch.testing.assert_close(one.result.upper_bound, three.result.upper_bound, rtol=1e-4, atol=1e-6)


def test_minmax_bounds_are_those_of_weights_and_full_precision_activations(network, options, crops):
    quantized, _ = calibrated(network, options, crops, weights={"type": "MinMax"}, activations={"type": "MinMax"})
    seen = {}
    quantizers = dict(named_quantizers(quantized))
    weights = quantized_weights(quantized)
    callbacks = {n: (lambda x, n=n: seen.__setitem__(n, x)) for n in quantizers if n not in weights}
    with torch.no_grad(), observe_quantizer_inputs(quantized, callbacks):
        quantized(crops)
    for name, values in {**seen, **weights}.items():
        torch.testing.assert_close(quantizers[name].lower_bound.detach(), values.min(), rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(quantizers[name].upper_bound.detach(), values.max(), rtol=1e-5, atol=1e-7)


def test_quantizers_of_one_input_are_calibrated_once_and_alike(network, options, crops):
    quantized, report = calibrated(network, options, crops)
    leaders = quantizers_with_same_input(quantized)
    assert len(leaders) == 4 * 2 and all(n.endswith((".k.act_quantizer", ".v.act_quantizer")) for n in leaders)
    bounds = {row.name: row.result for row in report}
    assert all(bounds[name] is bounds[leader] for name, leader in leaders.items())


def test_overrides_of_one_part_end_the_sharing(network, options):
    changed = options.model_copy(deep=True)
    changed.quantization.overrides = [{"match": "*.attn.qkv.v", "a_bits": 8}]
    changed.quantization = type(changed.quantization).model_validate(changed.quantization.model_dump())
    quantized, _ = quantized_copy(network, changed, share_weights=True)
    assert {name.split(".")[-2] for name in quantizers_with_same_input(quantized)} == {"k"}


@pytest.mark.slow
def test_the_losses_vanish_without_quantization(network, options, crops):
    arguments = {"feature_loss": {"type": "NormalizedFeatureLoss"}}
    model = PTQModel(network, options, torch.device("cpu"), **arguments)
    model.calibrate(crops)
    losses = model.distillation_losses(crops)
    assert losses["l_pix"] > 1e-5 and losses["l_feature"] > 1e-3
    for _, quantizer in named_quantizers(model.network):
        quantizer.bypass = True
    losses = model.distillation_losses(crops)
    assert losses["l_pix"] < 1e-6 and losses["l_feature"] < 1e-4


@pytest.mark.slow
def test_only_bounds_are_trained(network, options, crops):
    before = copy.deepcopy(network.state_dict())
    model = PTQModel(network, options, torch.device("cpu"))
    model.calibrate(crops)
    bounds = [p.detach().clone() for p in model.parameters]
    model.optimize_parameters({"lq": crops})
    assert all(torch.equal(value, before[key]) for key, value in model.full_precision.state_dict().items())
    assert sum(not torch.equal(a, b) for a, b in zip(bounds, model.parameters, strict=True)) > 100


@pytest.mark.slow
def test_a_loss_that_is_not_finite_takes_no_step_and_names_the_activation(network, options, crops):
    model = PTQModel(network, options, torch.device("cpu"))
    model.calibrate(crops)
    model.optimize_parameters({"lq": crops})
    before = copy.deepcopy(model.network.state_dict())
    model.network.conv_after_body.register_forward_hook(lambda _m, _i, output: output * float("nan"))
    with pytest.raises(
        TrainingError, match=r"The loss 'l_pix' is nan\..*activation that 'conv_after_body'.*calibration report"
    ):
        model.optimize_parameters({"lq": crops})
    assert all(torch.equal(value, before[key]) for key, value in model.network.state_dict().items())


@pytest.mark.slow
def test_a_teacher_in_bfloat16_is_near_the_one_in_float32(network, options, crops):
    losses = []
    for autocast in ("off", "bf16"):
        model = PTQModel(network, options, torch.device("cpu"), teacher_autocast=autocast)
        model.calibrate(crops)
        losses.append(float(model.distillation_losses(crops)["l_pix"].detach()))
    assert losses[0] != losses[1] and losses[1] == pytest.approx(losses[0], abs=0.01)


@pytest.mark.slow
def test_in_bfloat16_the_passes_of_distillation_are_and_losses_are_near_those_of_float32(network, options, crops):
    """The network is measured in float32, and its bounds stay float32."""
    features = {"type": "NormalizedFeatureLoss"}
    found, seen = [], []
    for autocast in ("off", "bf16"):
        model = PTQModel(network, options, torch.device("cpu"), feature_loss=features, autocast=autocast)
        model.calibrate(crops)
        hook = model.network.conv_after_body.register_forward_hook(lambda _m, _i, output: seen.append(output.dtype))
        found.append({name: float(loss) for name, loss in model.optimize_parameters({"lq": crops}).items()})
        hook.remove()
    assert seen == [torch.float32, torch.bfloat16]
    near = 3 * 2**-8  # of 8 significant bits
    for name, loss in found[0].items():
        assert found[1][name] != loss and found[1][name] == pytest.approx(loss, abs=near), name
    assert all(p.dtype == torch.float32 and torch.isfinite(p).all() for p in model.parameters)
    assert model.network_for_evaluation()(crops).dtype == torch.float32


def test_a_quantizer_that_does_not_clamp_is_found(network, options, crops):
    quantized, _ = calibrated(network, options, crops)
    assert check_levels(quantized, crops[0]) <= 16
    name, quantizer = list(named_quantizers(quantized))[5]
    step = 1e-3
    quantizer.fake_quantize = lambda x: (x / step).round() * step
    with pytest.raises(QuantizationError, match=name.replace(".", r"\.") + r".*16 levels"):
        check_levels(quantized, crops[0])


def test_quantizers_whose_bounds_have_crossed_are_named(network, options, crops, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("basicsr"), "propagate", True)
    quantized, _ = calibrated(network, options, crops)
    check_levels(quantized, crops[0])
    assert "single value" not in caplog.text
    for _, quantizer in list(named_quantizers(quantized))[5:8]:
        quantizer.upper_bound.data.copy_(quantizer.lower_bound - 0.1)
    check_levels(quantized, crops[0])
    first = list(named_quantizers(quantized))[5][0]
    assert f"3 of {tiny.NUM_QUANTIZERS} quantizers give a single value" in caplog.text and f"'{first}'" in caplog.text


class Pictures(list):
    name = "pictures"


def test_the_full_precision_network_is_perfectly_faithful_to_itself(network, options):
    pictures = Pictures({"name": str(i), "lq": torch.rand(3, 16, 16), "gt": torch.rand(3, 64, 64)} for i in range(2))
    evaluator = Evaluator(ValOptions(), 4, network)
    assert evaluator.evaluate(network, pictures).means["fidelity"] == float("inf")
    other = copy.deepcopy(network)
    with torch.no_grad():
        other.conv_first.weight.mul_(1.1)
    result = evaluator.evaluate(other, pictures)
    assert 10 < result.means["fidelity"] < 100 and set(result.images) == {"0", "1"}
    with torch.no_grad():
        other.conv_first.weight.fill_(float("nan"))
    with pytest.raises(TrainingError, match="not finite"):
        evaluator.evaluate(other, pictures)
