"""The recipes of the learned quantizers on a tiny EDSR: calibration, training, counted codes, and going on after a stop."""

import json

import pytest
import torch

from basicsr.deploy.packed_file import load_packed, save_packed
from basicsr.deploy.runtime_layers import eight_bit_network
from basicsr.evaluation.evaluator import Evaluator, check_levels
from basicsr.evaluation.results import write_results
from basicsr.metrics.stated import metrics_in
from basicsr.pipeline import build_model
from basicsr.quant.insertion.insert import named_quantizers
from basicsr.quant.observe.capture import count_codes
from basicsr.quant.spec import QuantizationError
from basicsr.utils.options import load_options
from tests import tiny

RECIPES = ["LSQ", "PAMS", "DAQ", "DDTB", "FQSR", "CADyQ", "QuantSR"]
RELEASED = ["PAMS", "DAQ", "DDTB"]
CROPS = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(5))
BATCH = {"lq": CROPS, "gt": torch.nn.functional.interpolate(CROPS, scale_factor=4)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("weights")


def build(folder, recipe, suffix="", *more, architecture="EDSR"):
    variant = [f"recipe={recipe}{suffix}"] if suffix else []
    overrides = tiny.overrides(folder, "calibration:batch_size=2", *variant, *more, architecture=architecture)
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
    alone = recipe == "CADyQ" and bit == 2  # one choice, so that selectors have nothing to learn
    assert not [name for name in unchanged if "gate" not in name and not (alone and "selector" in name)]
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


class Pictures(list):
    name = "pictures"


def test_the_average_bits_of_cadyq_are_measured_and_recorded(folder, tmp_path):
    options_of_val = ["val:metrics={psnr: {type: calculate_psnr}}"]
    model = build(folder, "CADyQ", "", "bit=8", *options_of_val)
    model.calibrate(CROPS)
    quantizers = dict(named_quantizers(model.network, "activation"))
    losses = model.optimize_parameters(BATCH)
    assert float(losses["l_quantizer"]) > 0 and all(int(q.steps) == 1 for q in quantizers.values())
    first = next(iter(quantizers.values()))
    with torch.no_grad():
        first.selector.bias.copy_(torch.tensor([1e6, 0.0, 0.0]))  # 4 bits in one of four places, 8 in the others
    pictures = Pictures(
        {"name": str(i), "lq": lq, "gt": gt} for i, (lq, gt) in enumerate(zip(CROPS, BATCH["gt"], strict=True))
    )
    for tile in (None, 8):
        val = model.options.val.model_copy(update={"tile": tile, "tile_overlap": 0, "batch_size": 3})
        result = Evaluator(val, 4, None).evaluate(model.network_for_evaluation(), pictures)
        assert result.means["average_bits"] == pytest.approx((4 + 3 * 8) / 4)
    assert "average_bits" not in Evaluator(val, 4, None).evaluate(model.full_precision, pictures).means
    write_results(tmp_path / "metrics.json", model.options, [result], {})
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert written["activation_ranges"] == "dynamic" and written["datasets"]["pictures"]["average_bits"] == 7.0
    assert metrics_in(written)["average_bits"].heading == "activations (bits)"
    assert model.quantization_map.activation_ranges == "dynamic"


def test_networks_that_choose_their_bits_are_packed_but_have_no_graph(folder, tmp_path):
    model = build(folder, "CADyQ", "", "bit=8")
    model.calibrate(CROPS)
    network = model.network_for_evaluation()
    save_packed(network, model.options.network_g, model.quantization_map, tmp_path / "net.safetensors")
    loaded, _ = load_packed(tmp_path / "net.safetensors")
    with torch.no_grad():
        torch.testing.assert_close(loaded(CROPS), network(CROPS), rtol=1e-4, atol=1e-4)
    with pytest.raises(
        QuantizationError, match="cannot be exported. The quantizer 'body.0.conv1.act_quantizer' is a CADyQ"
    ):
        eight_bit_network(network)


def test_an_average_out_of_reach_is_told(folder):
    with pytest.raises(QuantizationError, match="average of 9 bits is out of reach"):
        build(folder, "CADyQ", "", "bit=8", "quantization:activation_quantizer:average_bits=9")


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["MSRResNet", "RDN", "SwinIR"])
@pytest.mark.parametrize("recipe", ["PAMS_as_released", "DDTB_as_released", "FQSR", "CADyQ", "QuantSR"])
def test_they_train_the_other_networks(recipe, architecture, tmp_path):
    name, suffix, _ = recipe.partition("_as_released")
    model = build(tmp_path, name, suffix and "_as_released", "bit=4", architecture=architecture)
    model.calibrate(CROPS)
    assert all(bool(loss.isfinite()) for loss in model.optimize_parameters(BATCH).values())
    check_levels(model.network_for_evaluation(), CROPS[0])
