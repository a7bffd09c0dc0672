"""Pac: which bounds each of its stages trains, with which gradients; and that it continues to the same bits."""

import copy
import math

import pytest
import torch

from basicsr import train as train_command
from basicsr.archs import build_network
from basicsr.models.pac_model import PacModel
from basicsr.quant.insertion.insert import named_quantizers
from basicsr.utils.checkpoint import load_torch, save_torch
from basicsr.utils.errors import OptionsError, TrainingError
from basicsr.utils.options import load_options
from tests import tiny
from tests.test_resume import assert_same, final_files

OPTIONS = tiny.ROOT / "options/train/demo_DBDC_Pac.yml"
ITERATIONS = 6


def load(folder, *more, architecture="SwinIR"):
    changes = tiny.train_overrides(folder, *more, architecture=architecture, optimizers=())
    return load_options(OPTIONS, changes)


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    return load(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def crops():
    return torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(5))


def build(options, crops, calibrate=True, **changes):
    torch.manual_seed(3)
    network = build_network(options.network_g)
    model = PacModel(network, options, torch.device("cpu"), **{**options.train.model_extra, **changes})
    if calibrate:
        model.calibrate(crops)
    return model


def batch(crops, iteration):
    return {"lq": crops.roll(iteration, dims=0)[:2]}


def bounds(model):
    return {role: [p.detach().clone() for p in model.stages[i].parameters] for i, role in enumerate(("act", "weight"))}


def num_changed(before, after):
    return sum(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("architecture", ["SwinIR", "EDSR"])
def test_each_stage_trains_its_bounds_only(tmp_path, crops, architecture):
    model = build(load(tmp_path, architecture=architecture), crops)
    weights = copy.deepcopy(model.full_precision.state_dict())
    states = [bounds(model)]
    rates = []
    for iteration in range(ITERATIONS):
        rates.append(model.optimizer.param_groups[0]["lr"])
        losses = model.optimize_parameters(batch(crops, iteration))
        assert set(losses) == {"l_pix", "l_feature"} and not any(loss.requires_grad for loss in losses.values())
        states.append(bounds(model))
    start, middle, end = states[0], states[3], states[6]
    assert num_changed(start["act"], middle["act"]) > len(start["act"]) / 2 and not num_changed(
        middle["act"], end["act"]
    )
    assert not num_changed(start["weight"], middle["weight"]) and num_changed(middle["weight"], end["weight"]) > 0
    assert_same(dict(model.full_precision.state_dict()), dict(weights))
    assert rates[0] == 5e-3 and rates[3] == 5e-6 and rates == sorted(rates, reverse=True)
    assert model.stage is model.stages[1] and model.stage.is_over


def test_the_groups_hold_every_bound_once(options, crops):
    model = build(options, crops)
    activations, weights = (stage.quantizers for stage in model.stages)
    assert len(activations) == 4 * 10 and len(weights) == 4 * 6
    assert [*activations, *weights] == sorted(dict(named_quantizers(model.network)), key=lambda n: "weight" in n)
    layer = "layers.1.residual_group.blocks.0"
    for part in "qkv":
        assert weights[f"{layer}.attn.qkv.{part}.weight_quantizer"].upper_bound.shape == (12,)
        assert activations[f"{layer}.attn.qkv.{part}.act_quantizer"].upper_bound.shape == ()
    assert f"{layer}.attn.av.b_quantizer" in activations
    quantizer = weights[f"{layer}.attn.qkv.k.weight_quantizer"]
    rows = model.full_precision.get_submodule(f"{layer}.attn.qkv").weight[12:24]
    assert torch.equal(quantizer.lower_bound, rows.amin(1)) and torch.equal(quantizer.upper_bound, rows.amax(1))


def test_the_ends_of_edsr_have_eight_bits(tmp_path, crops):
    model = build(load(tmp_path, architecture="EDSR"), crops)
    bits = {name: quantizer.spec.bits for name, quantizer in named_quantizers(model.network)}
    eight = {name.rsplit(".", 1)[0] for name, b in bits.items() if b == 8}
    assert eight == {"conv_first", "conv_last"} and set(bits.values()) == {4, 8}


@pytest.mark.parametrize(("share", "lengths"), [(0.5, (3, 3)), (0.0, (0, 6)), (1.0, (6, 0)), (0.3, (2, 4))])
def test_the_share_of_the_activations(options, crops, share, lengths):
    model = build(options, crops, calibrate=False, activation_share=share)
    assert tuple(stage.length for stage in model.stages) == lengths
    assert model.stage.role == ("activation" if share else "weight")


def gradients(options, crops, stage=0, accumulation_steps=1, **changes):
    model = build(options, crops, activation_share=1.0 - stage, **changes)
    model.accumulation_steps = accumulation_steps
    model.accumulate_gradients(crops)
    assert all(parameter.grad is None for parameter in model.stages[1 - stage].parameters)
    quantizers = model.stages[stage].quantizers
    return {name: [parameter.grad for parameter in q.parameters()] for name, q in quantizers.items()}


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 1])
def test_gradients_are_scaled_by_elements_and_bits(options, crops, stage):
    plain, scaled = (gradients(options, crops, stage, gradient_scale=scale) for scale in (False, True))
    parts = gradients(options, crops, stage, accumulation_steps=2)
    # 4 crops of 16 x 16 pixels; q, k and v have 2 heads of 6 channels in each of the 4 windows of 64 pixels
    elements = [
        {"mlp.fc1.act_quantizer": 4 * 256 * 12, "attn.qk.a_quantizer": 4 * 256 * 12, "attn.av.a_quantizer": 4 * 4 * 2 * 64**2},
        {"mlp.fc1.weight_quantizer": 24 * 12, "attn.qkv.k.weight_quantizer": 12 * 12},
    ][stage]  # fmt: skip
    for slot, number in elements.items():
        name = f"layers.0.residual_group.blocks.1.{slot}"
        for before, after, part in zip(plain[name], scaled[name], parts[name], strict=True):
            torch.testing.assert_close(after, before / math.sqrt(number * 7))
            torch.testing.assert_close(part, after, rtol=1e-3, atol=1e-7)


@pytest.mark.slow
def test_detached_features_train_nothing(options, crops):
    assert options.train.model_extra["feature_loss"]["type"] == "AttentionTransferLoss"
    loud = {"type": "AttentionTransferLoss", "loss_weight": 1e3, "distance": "norm"}
    without = gradients(options, crops, feature_loss=None)
    assert_same(gradients(options, crops, feature_loss=loud, feature_gradient=False), without)
    name = "layers.0.residual_group.blocks.0.mlp.fc1.act_quantizer"
    assert gradients(options, crops, feature_loss=loud)[name][1].abs() > 10 * without[name][1].abs()
    model = build(options, crops, feature_loss=loud, feature_gradient=False)
    losses = model.distillation_losses(crops)
    assert losses["l_feature"] > 0 and not losses["l_feature"].requires_grad


def test_feature_loss_alone_trains_what_it_sees(options, crops):
    last = "layers.1.residual_group.blocks.1.mlp.fc2.act_quantizer"
    found = gradients(options, crops, pixel_loss=None, feature_layers=["layers.0"])
    assert found[last] == [None, None] and found[last.replace("layers.1", "layers.0")][0] is not None


def test_nothing_to_train_is_refused(options, crops):
    with pytest.raises(OptionsError, match="nothing would be trained"):
        build(options, crops, calibrate=False, pixel_loss=None, feature_gradient=False)
    products_only = options.model_copy(deep=True)
    products_only.quantization.exclude = ["*.attn.qkv", "*.attn.proj", "*.mlp.*"]
    with pytest.raises(OptionsError, match="the weight quantizers of this network have none"):
        build(products_only, crops, calibrate=False)


@pytest.mark.slow
def test_continuing_at_any_iteration_gives_the_same_bits(tmp_path, options, crops):
    model = build(options, crops)
    for iteration in range(ITERATIONS):
        save_torch({"params": model.network.state_dict()}, tmp_path / f"{iteration}.pth")
        save_torch(model.training_state(), tmp_path / f"{iteration}.state")
        model.optimize_parameters(batch(crops, iteration))
    for first in range(ITERATIONS):
        other = build(options, crops, calibrate=False)
        other.load(tmp_path / f"{first}.pth", load_torch(tmp_path / f"{first}.state"))
        assert other.stage.role == ("activation" if first < 3 else "weight")
        for iteration in range(first, ITERATIONS):
            other.optimize_parameters(batch(crops, iteration))
        assert_same(dict(other.network.state_dict()), dict(model.network.state_dict()))
        assert_same(other.training_state(), model.training_state())


@pytest.mark.slow
def test_a_run_that_stops_at_the_switch_continues(tmp_path, monkeypatch):
    def run(folder, *more):
        changes = tiny.train_overrides(folder, "logger:save_checkpoint_freq=3", optimizers=())
        return train_command.main(["-opt", str(OPTIONS), "--root", str(folder), *more, "--force_yml", *changes])

    folders = tmp_path / "whole", tmp_path / "stopped"
    for folder in folders:
        folder.mkdir()
    assert run(folders[0]) == 0
    step = PacModel.optimize_parameters

    def stop_in_second_stage(self, batch):
        if self.stage.role == "weight":
            raise TrainingError("Stopped.")
        return step(self, batch)

    with monkeypatch.context() as patched:
        patched.setattr(PacModel, "optimize_parameters", stop_in_second_stage)
        assert run(folders[1]) == 2
    assert run(folders[1], "--auto_resume") == 0
    for got, want in zip(final_files(folders[1]), final_files(folders[0]), strict=True):
        assert_same(got, want)
