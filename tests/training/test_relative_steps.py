"""Learning rates in quantization steps."""

import copy

import pytest
import torch
from torch import nn

from basicsr.archs import build_network
from basicsr.models.ptq_model import PTQModel
from basicsr.quant.calibration import Bounds
from basicsr.quant.insertion.insert import named_quantizers
from basicsr.quant.modules.conv2d_qmodule import QConv2d
from basicsr.quant.modules.linear_qmodule import QSplitLinear
from basicsr.quant.quantizers.affine_quantizer import AffineQuantizer
from basicsr.quant.spec import QuantSpec
from basicsr.training.relative_steps import weight_units
from basicsr.utils.checkpoint import save_torch
from basicsr.utils.errors import OptionsError
from basicsr.utils.options import load_options
from tests import tiny

LEARNING_RATE = 0.125
RELATIVE = {"optim_bound": {"type": "Adam", "lr": LEARNING_RATE}, "relative_lr": True}


def options(folder, *more):
    return load_options(tiny.TRAIN, tiny.train_overrides(folder, *more))


def model_of(options, **arguments):
    torch.manual_seed(3)
    network = build_network({"type": "SwinIR", **tiny.NETWORK}).eval()
    return PTQModel(network, options, torch.device("cpu"), **arguments)


@pytest.fixture
def crops():
    return torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(5))


def bounds_of(model):
    return {
        name: tuple(bound.detach().clone() for bound in quantizer.bounds())
        for name, quantizer in named_quantizers(model.network)
    }


@pytest.mark.slow
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("bit", [2, 4])
def test_the_first_step_is_the_learning_rate_in_quantization_steps(tmp_path, crops, bit, per_channel):
    more = ["quantization:weight_granularity=per_channel"] if per_channel else []
    model = model_of(options(tmp_path, f"bit={bit}", *more), **RELATIVE)
    model.calibrate(crops)
    before = bounds_of(model)
    model.optimize_parameters({"lq": crops})
    shares = []
    for name, after in bounds_of(model).items():
        step = (before[name][1] - before[name][0]) / (2**bit - 1)
        shares += [((new - old).abs() / step).reshape(-1) for new, old in zip(after, before[name], strict=True)]
    shares = torch.cat(shares)
    # the first step of Adam is its learning rate wherever the gradient is not about as small as its `eps`
    assert shares.max() <= LEARNING_RATE * 1.01
    assert (shares > LEARNING_RATE * 0.99).float().mean() > 0.5


@pytest.mark.slow
def test_quantization_steps_are_those_before_the_first_iteration(tmp_path, crops):
    model = model_of(options(tmp_path), **RELATIVE)
    model.calibrate(crops)
    before = bounds_of(model)
    for _ in range(3):
        model.optimize_parameters({"lq": crops})
    expected = [
        (before[name][1] - before[name][0]) / 15
        for name, quantizer in named_quantizers(model.network)
        for _ in quantizer.parameters()
    ]
    for step, one in zip(model.training_state()["quantization_steps"], expected, strict=True):
        torch.testing.assert_close(step, one)


@pytest.mark.slow
@pytest.mark.parametrize("iterations", [0, 2])
def test_a_resumed_run_takes_the_same_steps(tmp_path, crops, iterations):
    recipe = options(tmp_path)
    model = model_of(recipe, **RELATIVE)
    model.calibrate(crops)
    for _ in range(iterations):
        model.optimize_parameters({"lq": crops})
    save_torch(model.checkpoint(), tmp_path / "net.pth")
    state = copy.deepcopy(model.training_state())
    resumed = model_of(recipe, **RELATIVE)
    resumed.load(tmp_path / "net.pth", state)
    for each in (model, resumed):
        each.optimize_parameters({"lq": crops})
    assert all(torch.equal(a, b) for a, b in zip(model.parameters, resumed.parameters, strict=True))


def test_quantizers_that_learn_what_has_no_unit_are_refused(tmp_path):
    recipe = options(
        tmp_path,
        "quantization:activation_quantizer={type: DDTB}",
        "calibration:activations={type: DDTB}",
        "calibration:by_output=[]",
    )
    with pytest.raises(
        OptionsError,
        match="'train:relative_lr' counts .*steps. The quantizer '.*' is a DDTBQuantizer.*Take the option away",
    ):
        model_of(recipe, **RELATIVE)


def quantizer_between(lower, upper):
    quantizer = AffineQuantizer(QuantSpec(2))
    quantizer.load_calibration(Bounds(torch.tensor(lower), torch.tensor(upper)))
    return quantizer


def test_rows_that_are_not_quantized_count_with_the_mean_step_of_the_others():
    weight_quantizers = {"q": quantizer_between(-3.0, 3.0), "k": quantizer_between(0.0, 12.0), "v": nn.Identity()}
    quantizers = {f"{part}.weight_quantizer": quantizer for part, quantizer in weight_quantizers.items()}
    layer = QSplitLinear(nn.Linear(5, 6), quantizers | {f"{part}.act_quantizer": nn.Identity() for part in "qkv"})
    ((weight, unit),) = weight_units(nn.Sequential(layer))
    assert weight is layer.weight
    torch.testing.assert_close(unit, torch.tensor([2.0, 2.0, 4.0, 4.0, 3.0, 3.0])[:, None].expand(6, 5))


@pytest.mark.parametrize(("inputs", "share"), [(None, 1.0), (16, 2 / 3), (4, 1 / 3), (36, 1.0), (100, 1.0)])
def test_weights_of_many_inputs_have_a_shorter_step_by_the_root_of_their_number(inputs, share):
    quantizers = {"weight_quantizer": quantizer_between(-3.0, 3.0), "act_quantizer": nn.Identity()}
    layer = QConv2d(nn.Conv2d(4, 2, 3), quantizers)  # 4 channels x 9 taps
    ((weight, unit),) = weight_units(nn.Sequential(layer), inputs)
    assert weight is layer.weight
    torch.testing.assert_close(unit, torch.full((2, 4, 3, 3), 2.0 * share))


def test_weights_of_which_no_row_is_quantized_have_no_unit():
    names = [f"{part}.{name}" for part in "qk" for name in ("weight_quantizer", "act_quantizer")]
    assert weight_units(QSplitLinear(nn.Linear(5, 6), {name: nn.Identity() for name in names})) == []


def test_an_optimiser_whose_steps_grow_with_the_gradient_is_refused(tmp_path):
    with pytest.raises(OptionsError, match="SGD grow with the gradient"):
        model_of(options(tmp_path), optim_bound={"type": "SGD", "lr": 0.1}, relative_lr=True)
