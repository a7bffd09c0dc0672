"""The recipes of the learned quantizers on a tiny EDSR: calibration, training, counted codes, and going on after a stop."""

import pytest
import torch

from basicsr.evaluation.evaluator import check_levels
from basicsr.pipeline import build_model
from basicsr.quant.insertion.insert import named_quantizers
from basicsr.quant.observe.capture import count_codes
from basicsr.utils.options import load_options
from tests import tiny

RECIPES = ["LSQ", "PAMS", "DAQ", "DDTB", "FQSR", "QuantSR"]
RELEASED = ["PAMS", "DAQ", "DDTB"]
CROPS = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(5))
BATCH = {"lq": CROPS, "gt": torch.nn.functional.interpolate(CROPS, scale_factor=4)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("weights")


def build(folder, recipe, suffix="", *more):
    variant = [f"recipe={recipe}{suffix}"] if suffix else []
    overrides = tiny.overrides(folder, "calibration:batch_size=2", *variant, *more, architecture="EDSR")
    options = load_options(tiny.ROOT / f"options/train/train_{recipe}.yml", overrides)
    return build_model(options, torch.device("cpu"))


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("bit", [2, 4])
def test_training_keeps_to_the_codes_and_goes_on_to_the_same_bits(recipe, bit, folder, tmp_path):
    model = build(folder, recipe, "", f"bit={bit}")
    model.calibrate(CROPS)
    before = {name: p.detach().clone() for name, p in model.network.named_parameters()}
    losses = [model.optimize_parameters(BATCH) for _ in range(2)]
    assert all(bool(loss.isfinite()) for step in losses for loss in step.values())
    unchanged = [name for name, p in model.network.named_parameters() if torch.equal(before[name], p)]
    assert not [name for name in unchanged if "gate" not in name]
    assert check_levels(model.network, CROPS[0]) <= (2**8 if recipe == "FQSR" else 2**bit)  # with sums of 8 bits

    file = tmp_path / "net.pth"
    torch.save({"params": model.network.state_dict()}, file)
    state = model.training_state()
    torch.save(state, tmp_path / "state.pth")
    resumed = build(folder, recipe, "", f"bit={bit}")
    resumed.load(file, torch.load(tmp_path / "state.pth", weights_only=True))
    for one in (model, resumed):
        one.optimize_parameters(BATCH)
    states = [one.network.state_dict() for one in (model, resumed)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_codes_of_the_first_and_the_second_convolution(folder):
    """The input of the second one comes from a ReLU."""
    model = build(folder, "LSQ", "", "bit=3")
    model.calibrate(CROPS)
    lowest = {name: int(q.lowest_code) for name, q in named_quantizers(model.network)}
    assert lowest["body.0.conv1.act_quantizer"] == lowest["body.0.conv2.weight_quantizer"] == -4
    assert lowest["body.0.conv2.act_quantizer"] == 0
    model = build(folder, "DAQ", "", "bit=3")
    model.calibrate(CROPS)
    after_relu = {name: bool(q.post_relu) for name, q in named_quantizers(model.network) if q.dynamic}
    assert after_relu == {f"body.{i}.conv{j}.act_quantizer": j == 2 for i in range(2) for j in (1, 2)}


@pytest.mark.parametrize("recipe", RELEASED)
def test_what_the_released_code_does_otherwise(recipe, folder):
    model = build(folder, recipe, "_as_released")
    model.calibrate(CROPS)
    model.optimize_parameters(BATCH)
    names = {name for name, _ in named_quantizers(model.network)}
    assert ("body.0.conv1.act_quantizer" in names) == (recipe == "DAQ")
    assert "body.0.conv2.act_quantizer" in names and "body.0.conv1.weight_quantizer" in names
    with torch.no_grad(), count_codes(model.network) as counts:
        model.network(CROPS)
    assert max(counts.values()) <= 4


def test_gates_go_where_the_calibration_data_vary_most(folder):
    model = build(folder, "DDTB", "", "quantization:activation_quantizer:dynamic_ratio=0.5")
    report = model.calibrate(CROPS)
    variances = {row.name: row.result.range_variance for row in report if hasattr(row.result, "range_variance")}
    assert len(variances) == 4
    gated = {name for name, q in named_quantizers(model.network) if q.dynamic}
    assert gated == set(sorted(variances, key=variances.get)[-2:])


def test_gates_learn_at_a_rate_of_their_own(folder):
    model = build(folder, "DDTB")
    names = {id(p): name for name, p in model.network.named_parameters()}
    rates = {names[id(p)]: g["lr"] for g in model.optimizer.param_groups for p in g["params"]}
    assert {rate for name, rate in rates.items() if ".gate." in name} == {1e-4}
    assert {round(rate, 9) for name, rate in rates.items() if name.endswith("_bound")} == {1e-2}
    bare = build(
        folder, "DDTB", "", "quantization:activation_quantizer:dynamic_ratio=0", "train:quantizer_lr_ratios=null"
    )
    assert not any("gate" in name for name, _ in bare.network.named_parameters())


def test_a_ddtb_network_is_rebuilt_from_its_state_alone(folder):
    model, fresh = build(folder, "DDTB"), build(folder, "DDTB")
    model.calibrate(CROPS)
    model.optimize_parameters(BATCH)
    assert fresh.network.load_state_dict(model.network.state_dict()).missing_keys == []
    assert torch.equal(fresh.network(CROPS), model.network(CROPS))


@pytest.mark.parametrize("recipe", ["PAMS", "DDTB"])
def test_as_released_summands_are_quantized_and_the_input_of_a_block_is_not(recipe, folder):
    model = build(folder, recipe, "_as_released", "bit=3")
    names = list(dict(named_quantizers(model.network, "activation")))
    of_block = [name for name in names if name.startswith("body.0.")]
    assert of_block == ["body.0.conv2.act_quantizer", "body.0.add.skip_quantizer", "body.0.add.branch_quantizer"]
    assert model.teacher.feature_layers == ["add"]


def test_ddtb_pulls_its_gates_for_the_first_steps(folder):
    pull = "quantization:activation_quantizer:pull_steps=2"
    model = build(folder, "DDTB", "", "bit=3", pull, "quantization:activation_quantizer:dynamic_ratio=0.5")
    model.calibrate(CROPS)
    gated = [q for _, q in named_quantizers(model.network, "activation") if q.dynamic]
    assert len(gated) == 2 and all(int(q.pulls_left) == 2 for q in gated)
    pulled = [model.optimize_parameters(BATCH) for _ in range(2)]
    assert pulled[1]["l_quantizer"] > 0 and not any(q.is_pulled for q in gated)
    assert "l_quantizer" not in model.optimize_parameters(BATCH)


def test_fqsr_quantizes_all_but_the_picture(folder):
    model = build(folder, "FQSR", "", "bit=3")
    bits = {name: q.spec.bits for name, q in named_quantizers(model.network)}
    layers = [name for name, module in model.full_precision.named_modules() if isinstance(module, torch.nn.Conv2d)]
    expected = {f"{name}.{kind}_quantizer" for name in layers for kind in ("weight", "act")} - {
        "conv_first.act_quantizer"
    }
    assert {name for name, b in bits.items() if b == 3} == expected
    assert [name for name, b in bits.items() if b == 8] == [
        f"{name}add.act_quantizer" for name in ("body.0.", "body.1.", "")
    ]
    model.calibrate(CROPS)
    losses = model.optimize_parameters(BATCH)
    assert losses["l_mismatch"] > 0
