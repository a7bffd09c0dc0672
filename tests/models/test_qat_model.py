"""Quantization-aware training on a tiny EDSR: what is trained, by which gradients, and how it resumes."""

import copy

import pytest
import torch
from torch import nn

from basicsr.archs import build_network
from basicsr.losses.mismatch_loss import MismatchLoss
from basicsr.models.qat_model import QATModel
from basicsr.quant.insertion.insert import named_quantizers, quantizer_parameters
from basicsr.quant.observe.capture import tap_activations
from basicsr.quant.spec import QuantizationError
from basicsr.utils.checkpoint import load_torch, save_torch
from basicsr.utils.errors import OptionsError, TrainingError
from basicsr.utils.options import load_options
from tests import tiny

OPTIONS = tiny.ROOT / "options/train/demo_ODM.yml"
NETWORK = {"type": "EDSR", "num_feat": 6, "num_block": 2, "img_range": 1.0}
BATCH = {"lq": (4, 3, 6, 5), "gt": (4, 3, 24, 20)}
ODM = {"mismatch_loss": {"type": "MismatchLoss", "loss_weight": 1e-2}, "gradient_rule": {"type": "CosineGate"}}
ADAM = {"optim_g": {"type": "Adam", "lr": 1e-3}}


def make_batch(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {key: torch.rand(shape, generator=generator) for key, shape in BATCH.items()}


def make_network():
    torch.manual_seed(3)
    return build_network(NETWORK)


def make(*overrides, **arguments):
    options = load_options(OPTIONS, ["network=edsr_baseline", "bit=2", *overrides])
    model = QATModel(make_network(), options, torch.device("cpu"), **{**ADAM, **arguments})
    model.calibrate(make_batch()["lq"])
    return model


def train(model, steps, start=0):
    for i in range(start, start + steps):
        losses = model.optimize_parameters(make_batch(i))
    return losses


def same_state(first, second):
    a, b = first.network.state_dict(), second.network.state_dict()
    return set(a) == set(b) and all(torch.equal(a[key], b[key]) for key in a)


def joint_gradients(model):
    """Return the gradients of both losses for each parameter, each from a forward and backward pass of its own."""
    batch, results = make_batch(), []
    network = copy.deepcopy(model.network).train()
    for loss_of in (
        lambda output, _: nn.functional.l1_loss(output, batch["gt"]),
        lambda _, pairs: MismatchLoss(loss_weight=1e-2)(pairs),
    ):
        network.zero_grad()
        with tap_activations(network) as pairs:
            output = network(batch["lq"])
        loss_of(output, pairs).backward()
        results.append({name: p.grad for name, p in network.named_parameters()})
    return results


def test_weights_biases_and_quantizers_are_trained_and_the_full_precision_network_is_not():
    model = make(**ODM)
    full_precision = copy.deepcopy(model.full_precision.state_dict())
    before = copy.deepcopy(dict(model.network.named_parameters()))
    assert not model.network.training
    losses = train(model, 2)
    assert not model.network.training and set(losses) == {"l_pix", "l_mismatch"}
    unchanged = [name for name, p in model.network.named_parameters() if torch.equal(p, before[name])]
    assert not unchanged
    assert all(torch.equal(v, full_precision[k]) for k, v in model.full_precision.state_dict().items())


@pytest.mark.parametrize("arguments", [{}, ODM], ids=["plain", "ODM"])
def test_each_weight_moves_against_its_own_gradient(arguments):
    model = make(**arguments)
    before = {name: p.detach().clone() for name, p in model.network.named_parameters()}
    train(model, 1)
    for name, weight in model.network.named_parameters():
        if name.endswith(".weight"):
            gradient, move = weight.grad, weight.detach() - before[name]
            large = gradient.abs() > 1e-3 * gradient.abs().max()
            assert torch.equal(move[large].sign(), -gradient[large].sign()), name


def test_learning_rates_by_role():
    model = make(optim_g={"type": "AdamW", "lr": 2e-4}, quantizer_lr_ratio=10.0, weight_quantizer_lr_ratio=0.5)
    weights, activations, of_weights = model.optimizer.param_groups
    assert [group["lr"] for group in model.optimizer.param_groups] == pytest.approx([2e-4, 2e-3, 1e-4])
    assert [group["weight_decay"] for group in model.optimizer.param_groups] == [0.01, 0.0, 0.0]
    for group, role in ((activations, "activation"), (of_weights, "weight")):
        assert {id(p) for p in group["params"]} == {id(p) for p in quantizer_parameters(model.network, role)}
    assert len(weights["params"]) == len(list(model.full_precision.parameters()))


def test_learning_rates_by_name():
    ratios = {"*.act_quantizer.*": 5.0, "body.0.conv1.*.upper_bound": 20.0}
    model = make(optim_g={"type": "Adam", "lr": 1e-3}, quantizer_lr_ratios=ratios)
    names = {id(p): name for name, p in model.network.named_parameters()}
    groups = [({names[id(p)] for p in g["params"]}, g["lr"]) for g in model.optimizer.param_groups]
    assert [rate for _, rate in groups] == pytest.approx([1e-3, 1e-3, 5e-3, 2e-2])
    assert groups[3][0] == {"body.0.conv1.act_quantizer.upper_bound"}
    assert groups[2][0] == {n for n in names.values() if "act_quantizer" in n} - groups[3][0]
    assert groups[1][0] == {n for n in names.values() if "weight_quantizer" in n}
    assert sum(len(group) for group, _ in groups) == len(names)
    with pytest.raises(OptionsError, match=r"names '\*\.gate\.\*', but.*such as 'body\.0\.conv1\.act_quantizer\."):
        make(quantizer_lr_ratios={"*.gate.*": 1.0})


def test_a_mismatch_of_weight_0_is_plain_training_bit_for_bit():
    plain, odm = make(), make(**{**ODM, "mismatch_loss": {"type": "MismatchLoss", "loss_weight": 0.0}})
    train(plain, 3)
    train(odm, 3)
    assert same_state(plain, odm)
    other = make(**ODM)
    train(other, 3)
    assert not same_state(plain, other)


@pytest.mark.parametrize("arguments", [{}, ODM])
def test_diagnostics_change_nothing(arguments):
    silent, recorded = make(**arguments), make(**arguments, diagnostics_freq=1)
    train(silent, 2)
    train(recorded, 2)
    assert same_state(silent, recorded)


def test_the_gradient_is_that_of_two_passes_joined_by_hand():
    model = make(optim_g={"type": "Adam", "lr": 1e-30}, **ODM)
    main, mismatch = joint_gradients(model)
    own = {name for name, _ in model.network.named_parameters() if "quantizer" not in name}
    both = [name for name in own if mismatch[name] is not None]
    assert 0 < len(both) < len(own)  # the mismatch does not depend on the layers behind the last quantizer
    a, b = (torch.cat([gradients[name].flatten() for name in both]) for gradients in (main, mismatch))
    gate = (a @ b / (a.norm() * b.norm()) + 1) / 2
    train(model, 1)
    for name, parameter in model.network.named_parameters():
        expected = main[name] + gate * mismatch[name] if name in both else main[name]
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-4, atol=1e-7, msg=name)


@pytest.mark.parametrize("reached", [False, True])
def test_bounds_get_the_gradient_of_the_mismatch_only_where_asked_and_gamma_never(reached):
    model = make(mismatch_trains_bounds=reached, **{**ODM, "gradient_rule": {"type": "Sum"}})
    main, mismatch = joint_gradients(model)
    train(model, 1)
    for name, parameter in model.network.named_parameters():
        if "quantizer" in name:
            takes_part = reached and "act_quantizer" in name
            expected = main[name] + mismatch[name] if takes_part else main[name]
            torch.testing.assert_close(parameter.grad, expected, rtol=1e-4, atol=1e-7, msg=name)


def test_one_forward_pass_and_no_hook_is_left():
    model, passes = make(**ODM), []
    handle = model.network.register_forward_hook(lambda *_: passes.append(1))
    train(model, 2)
    handle.remove()
    assert len(passes) == 2
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.network.modules())


def test_parts_of_a_batch_give_the_gradient_of_the_whole():
    whole, parts = make(), make("train:accumulation_steps=4")
    train(whole, 1)
    train(parts, 1)
    for a, b in zip(whole.network.parameters(), parts.network.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-7)


def test_the_teacher_is_the_full_precision_network():
    model = make(
        distillation_loss={"type": "MSELoss"}, feature_loss={"type": "NormalizedFeatureLoss"}, feature_layers=["body.1"]
    )
    losses = train(model, 1)
    assert set(losses) == {"l_pix", "l_distill", "l_feature"} and all(loss > 0 for loss in losses.values())
    for _, quantizer in named_quantizers(model.network):
        quantizer.bypass = True
    fresh = make(distillation_loss={"type": "MSELoss"}, pixel_loss=None)
    for _, quantizer in named_quantizers(fresh.network):
        quantizer.bypass = True
    assert float(train(fresh, 1)["l_distill"]) < 1e-10


def test_in_bfloat16_only_the_passes_of_a_step_are_and_losses_are_near_those_of_float32():
    distilled = {
        "pixel_loss": None,
        "distillation_loss": {"type": "L1Loss"},
        "feature_loss": {"type": "NormalizedFeatureLoss"},
    }
    exact, fast = make(**distilled), make(**distilled, autocast="bf16")
    assert same_state(exact, fast)
    seen = []
    fast.network.body[0].conv1.register_forward_hook(lambda _module, _inputs, output: seen.append(output.dtype))
    losses, of_fast = train(exact, 1), train(fast, 1)
    for name, loss in losses.items():
        assert float(of_fast[name]) == pytest.approx(float(loss), rel=0.05), name
    assert seen[0] == torch.bfloat16
    assert all(p.dtype == torch.float32 for p in fast.network.parameters())
    assert fast.network_for_evaluation()(make_batch()["lq"]).dtype == torch.float32 and seen[-1] == torch.float32


def test_the_memory_layout_changes_nothing_but_rounding():
    plain, last = make(**ODM), make(**ODM, channels_last=True)
    weight = last.network.body[0].conv1.weight
    assert weight.is_contiguous(memory_format=torch.channels_last) and same_state(plain, last)
    losses, of_last = train(plain, 3), train(last, 3)
    for name, loss in losses.items():
        assert float(of_last[name]) == pytest.approx(float(loss), rel=1e-3), name
    assert weight.is_contiguous(memory_format=torch.channels_last)
    for key, value in last.network.state_dict().items():
        torch.testing.assert_close(value, plain.network.state_dict()[key], rtol=1e-2, atol=1e-3, msg=key)


def test_scaled_inputs_have_weights_of_their_own():
    model = make("quantization:input_scales=true")
    layer, original = model.network.body[0].conv1, model.full_precision.body[0].conv1
    assert not torch.equal(layer.input_scale.factors, torch.ones(6))
    torch.testing.assert_close(layer.weight, original.weight * layer.input_scale.factors.view(1, -1, 1, 1))


def test_options_that_contradict_the_network():
    with pytest.raises(OptionsError, match="are all empty"):
        make(pixel_loss=None)
    with pytest.raises(OptionsError, match=r"names 'bodi\.1'.*Did you mean 'body\.1'"):
        make(feature_loss={"type": "NormalizedFeatureLoss"}, feature_layers=["bodi.1"])
    with pytest.raises(OptionsError, match="gradient rule.*Did you mean 'CosineGate'"):
        make(gradient_rule={"type": "CosinGate"})


def test_normalisation_inside_a_quantizer_learns_its_statistics_in_training_only():
    model = make()
    quantizer = model.network.body[0].conv1.act_quantizer
    quantizer.norm = nn.BatchNorm2d(6).eval()
    fake_quantize = quantizer.fake_quantize
    quantizer.fake_quantize = lambda x: fake_quantize(quantizer.norm(x))
    with torch.no_grad():
        model.network(make_batch()["lq"])
    assert int(quantizer.norm.num_batches_tracked) == 0
    train(model, 2)
    assert int(quantizer.norm.num_batches_tracked) == 2


@pytest.mark.parametrize("how", ["by hand", "by steps that are too large"])
def test_training_goes_on_where_bounds_have_crossed(how):
    model = make(quantizer_lr_ratio=1.0 if how == "by hand" else 300.0, **ODM)
    quantizers = [quantizer for _, quantizer in named_quantizers(model.network, "activation")]
    if how == "by hand":
        for quantizer in quantizers:
            quantizer.lower_bound.data.fill_(0.3)
            quantizer.upper_bound.data.fill_(-0.2)
    crossed = False
    for i in range(12):
        losses = train(model, 1, start=i)
        crossed |= any(q.lower_bound.item() > q.upper_bound.item() for q in quantizers)
        assert all(torch.isfinite(loss) for loss in losses.values())
    assert crossed
    assert all(torch.isfinite(p).all() for p in model.network.parameters())
    assert any(abs(q.lower_bound.item() - 0.3) > 1e-4 for q in quantizers)


def test_a_loss_that_is_not_finite_takes_no_step_and_names_the_tensor():
    """The next quantizer clips what is infinite, so that the mismatch is the loss that shows it."""
    model = make(**ODM)
    train(model, 1)
    before = copy.deepcopy(model.network.state_dict())
    model.network.body[1].conv1.register_forward_hook(lambda _m, _i, output: output * float("inf"))
    with pytest.raises(
        TrainingError, match=r"The loss 'l_mismatch' is inf\..*activation that 'body\.1\.conv1' \(QConv2d\)"
    ):
        train(model, 1)
    assert all(torch.equal(value, before[key]) for key, value in model.network.state_dict().items())


DAQ = ["quantization:weight_quantizer={type: DAQWeight}", "quantization:activation_quantizer={type: DAQ}"]
LSQ = [
    "quantization:weight_quantizer={type: LSQ}",
    "quantization:activation_quantizer={type: LSQ}",
    "calibration={weights: {type: MeanMagnitude}, activations: {type: MeanMagnitude}}",
]


@pytest.mark.parametrize("bit", [2, 4])
def test_relative_learning_rates_move_the_outermost_values_by_a_share_of_a_step(bit):
    model = make(*LSQ, f"bit={bit}", relative_quantizer_lr=True, quantizer_lr_ratio=100, weight_quantizer_lr_ratio=50)
    before = copy.deepcopy(dict(named_quantizers(model.network)))
    train(model, 1)
    for role, share in (("activation", 0.1), ("weight", 0.05)):  # the first step of Adam is at most its learning rate
        shares = []
        for name, quantizer in named_quantizers(model.network, role):
            old, new = (torch.stack(one.affine_bounds()) for one in (before[name], quantizer))
            shares.append((new - old).abs().max().item() / before[name].step.item())
        assert share / 2 < min(shares)  # gradients are small here, but larger than Adam's `eps`
        assert 0.95 * share < max(shares) < 1.001 * share


@pytest.mark.parametrize("bit", [2, 4])
@pytest.mark.parametrize("granularity", ["per_tensor", "per_channel"])
def test_relative_learning_rates_move_weights_by_a_share_of_their_step(bit, granularity):
    model = make(
        "quantization:weight_quantizer={type: Affine}",
        f"quantization:weight_granularity={granularity}",
        f"bit={bit}",
        relative_weight_lr=0.25,
    )
    before = {name: p.detach().clone() for name, p in model.network.named_parameters()}
    steps = {
        name.removesuffix("_quantizer"): (upper - lower) / (2**bit - 1)
        for name, quantizer in named_quantizers(model.network, "weight")
        for lower, upper in [quantizer.affine_bounds()]
    }
    train(model, 1)
    for name, parameter in model.network.named_parameters():
        moves = (parameter.detach() - before[name]).abs()
        if name in steps:
            largest = moves.flatten(1).amax(1) if granularity == "per_channel" else moves.max()
            shares = (largest / steps[name]).reshape(-1)
            shares = shares[shares > 0]  # no gradient reaches the weights of a channel that a ReLU makes 0
            assert len(shares) >= largest.numel() / 2
            assert 0.95 * 0.25 < shares.min() <= shares.max() < 1.001 * 0.25
        elif "quantizer" not in name:
            assert moves.max().item() == pytest.approx(ADAM["optim_g"]["lr"], rel=2e-2)


def test_weights_of_more_inputs_than_their_rate_is_meant_for_move_less():
    affine, rate = "quantization:weight_quantizer={type: Affine}", 0.25
    moves = []
    for inputs in (None, 6):  # of 6 channels x 9 taps
        model = make(affine, relative_weight_lr=rate, weight_lr_inputs=inputs)
        before = model.network.get_parameter("body.0.conv1.weight").detach().clone()
        train(model, 1)
        moves.append((model.network.get_parameter("body.0.conv1.weight") - before).abs().max().item())
    assert moves[1] == pytest.approx(moves[0] / 3, rel=1e-3)


def test_inputs_of_a_rate_that_is_not_given_are_refused():
    with pytest.raises(OptionsError, match="'train:weight_lr_inputs' is 64, .*which is not given"):
        make(weight_lr_inputs=64)


def test_rows_of_a_weight_move_by_the_step_of_their_own_quantizer():
    torch.manual_seed(0)
    network = build_network({"type": "SwinIR", **tiny.NETWORK}).eval()
    weight = network.layers[0].residual_group.blocks[0].attn.qkv.weight
    weight.data *= torch.tensor([1.0, 4.0, 0.5]).repeat_interleave(len(weight) // 3)[:, None]
    options = load_options(OPTIONS, ["bit=4", "quantization:weight_quantizer={type: Affine}"])
    model = QATModel(network, options, torch.device("cpu"), relative_weight_lr=0.5)
    model.calibrate(torch.rand(2, 3, 16, 16))
    after = model.network.layers[0].residual_group.blocks[0].attn.qkv
    before = after.weight.detach().clone()
    bounds = [part.weight_quantizer.affine_bounds() for part in (after.q, after.k, after.v)]
    steps = [(upper - lower).item() / 15 for lower, upper in bounds]
    model.optimize_parameters({"lq": torch.rand(1, 3, 16, 16), "gt": torch.rand(1, 3, 64, 64)})
    for rows, old, step in zip(after.weight.chunk(3), before.chunk(3), steps, strict=True):
        assert (rows - old).abs().max().item() == pytest.approx(0.5 * step, rel=0.1)  # gradients are near Adam's `eps`


def test_quantizers_that_learn_nothing_can_have_relative_rates():
    model = make(*DAQ, relative_quantizer_lr=True)
    before = copy.deepcopy(model.network.state_dict())
    train(model, 1)
    assert not torch.equal(model.network.state_dict()["body.0.conv1.weight"], before["body.0.conv1.weight"])


@pytest.mark.parametrize(("diagnostics_freq", "relative"), [(0, False), (2, True)])
def test_resumed_training_has_the_same_bits(tmp_path, diagnostics_freq, relative):
    arguments = {
        **ODM,
        "quantizer_lr_ratio": 10.0,
        "diagnostics_freq": diagnostics_freq,
        "relative_quantizer_lr": relative,
        "relative_weight_lr": 0.01 if relative else None,
    }
    undisturbed, first, second = (make("train:total_iter=5", **arguments) for _ in range(3))
    train(undisturbed, 5)
    train(first, 3)
    save_torch({"params": first.network.state_dict()}, tmp_path / "net.pth")
    save_torch(first.training_state(), tmp_path / "3.state")
    second.load(tmp_path / "net.pth", load_torch(tmp_path / "3.state"))
    train(second, 2, start=3)
    assert same_state(undisturbed, second)
    assert undisturbed.optimizer.state_dict()["param_groups"] == second.optimizer.state_dict()["param_groups"]
    if diagnostics_freq:
        a, b = (model.diagnostics.state_dict() for model in (undisturbed, second))
        assert a["records"] == b["records"] and a["records"]["iterations"] == [1, 2, 4]
        assert a["before"] == b["before"] and torch.equal(a["probe"], b["probe"])


FACTORS = [
    "quantization:coverage=[{modules: body.*.conv1, type: QConv2d}, {modules: body.*.add, type: QScaledResidualAdd, a_bits: 32}]"
]


def test_each_depth_has_an_equal_share_of_the_gradient():
    """The second block of two is kept at half of the depth, since both factors are 1 at first."""
    model, batch = make(*FACTORS, depths=[1.0, 0.5]), make_batch()
    network = copy.deepcopy(model.network).train()
    expected = {name: torch.zeros_like(p) for name, p in network.named_parameters()}
    for block in (None, network.body[0]):
        if block is not None:
            block.forward = lambda x, block=block: x * block.add.shortcut
        network.zero_grad()
        nn.functional.l1_loss(network(batch["lq"]), batch["gt"]).backward()
        for name, parameter in network.named_parameters():
            expected[name] += 0.5 * parameter.grad if parameter.grad is not None else 0.0
    losses = train(model, 1)
    for name, parameter in model.network.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=1e-7)
    whole = nn.functional.l1_loss(copy.deepcopy(make(*FACTORS).network)(batch["lq"]), batch["gt"])
    assert set(losses) == {"l_pix"} and float(losses["l_pix"]) != pytest.approx(float(whole.detach()), rel=1e-6)


def test_one_depth_alone_is_the_training_without_depths():
    plain, single = make(*FACTORS), make(*FACTORS, depths=[1.0])
    train(plain, 2)
    train(single, 2)
    assert same_state(plain, single)


def test_what_is_evaluated_may_have_fewer_blocks_than_what_is_trained():
    model = make(*FACTORS, "quantization:depth=0.5", depths=[1.0, 0.5])
    x = make_batch()["lq"]
    shallow = model.network_for_evaluation()(x)
    assert "forward" in vars(model.network.body[0]) and "forward" not in vars(model.network.body[1])
    train(model, 1)
    assert "forward" not in vars(model.network.body[0])
    assert shallow.shape == model.network(x).shape and not torch.equal(shallow, model.network(x))


@pytest.mark.parametrize(("overrides", "arguments"), [((), {"depths": [0.5]}), (("quantization:depth=0.5",), {})])
def test_depths_without_learned_factors_are_refused(overrides, arguments):
    with pytest.raises(QuantizationError, match="leaves out blocks by the learned factors"):
        make(*overrides, **arguments)
