"""Networks, quantizers and trainings on a device that is not the CPU: nothing is left behind, and no step makes a GPU wait."""

import pytest
import torch
from torch import nn

from basicsr.archs import build_network
from basicsr.quant.insertion.insert import insert_quantizers, named_quantizers
from basicsr.training.not_finite import LossWatch
from basicsr.training.reconstruction.block_cache import BlockCache
from basicsr.training.reconstruction.block_reconstruction import BlockReconstruction
from basicsr.utils.options import load_options
from basicsr.utils.registry import MODEL_REGISTRY, QUANTIZER_REGISTRY
from tests import tiny
from tests.fake_gpu import NAME, REGISTER, WAITS, FakeGPU
from tests.quant.quantizers import test_every_quantizer as quantizers

pytestmark = pytest.mark.skipif(REGISTER is None, reason="torch registers such devices from version 2.10 on")


@pytest.fixture
def gpu():
    FakeGPU.forget()
    yield FakeGPU()
    FakeGPU.forget()


@pytest.mark.parametrize(("name", "spec"), quantizers.CASES, ids=str)
def test_quantizers_stay_on_their_device_and_never_wait(gpu, name, spec):
    quantizer = quantizers.build(name, *spec)
    gpu.move(quantizer)
    with gpu.mode:
        x = torch.rand(2, 5, 6, 6, device=gpu.device, requires_grad=True)
        output = quantizer(x)
        output.sum().backward()
        assert output.device.type == quantizer.codes(x.detach()).device.type == NAME
        learned = [parameter for parameter in quantizer.parameters() if parameter.requires_grad]
        assert all(parameter.grad.device.type == NAME for parameter in learned if parameter.grad is not None)


@pytest.mark.parametrize("coverage", ["preset", "full"])
@pytest.mark.parametrize("architecture", tiny.NETWORKS)
def test_a_training_step_of_a_quantized_network_never_waits(gpu, architecture, coverage):
    network = build_network({"type": architecture, **tiny.NETWORKS[architecture]})
    preset = "2dquant" if architecture == "SwinIR" else "body"
    insert_quantizers(network, preset if coverage == "preset" else coverage, 4, 4)
    for _, quantizer in named_quantizers(network):
        quantizer.mark_calibrated()
    optimizer = torch.optim.Adam(network.parameters(), foreach=False)
    gpu.move_optimizer(optimizer, gpu.move(network))
    with gpu.mode:
        output = network(torch.rand(2, 3, 16, 16, device=gpu.device))
        (output - torch.rand(2, 3, 64, 64, device=gpu.device)).abs().mean().backward()
        optimizer.step()
        assert output.device.type == NAME and output.shape == (2, 3, 64, 64)
        assert all(p.grad.device.type == NAME for p in network.parameters() if p.grad is not None)


def trainings():
    """Return the files of the demonstration that train."""
    files = sorted((tiny.ROOT / "options/train").glob("demo_*.yml"))
    return [file for file in files if load_options(file).required_train().total_iter]


def tiny_options(file, folder):
    raw = load_options(file)
    architecture, extras = raw.network_g["type"], raw.required_train().model_extra
    changes = ["train:autocast=off"] if "autocast" in extras else []  # torch has no autocast for such devices
    if architecture == "SwinIR" and extras.get("feature_layers"):
        changes.append("train:feature_layers=[layers.0.residual_group, layers.1.residual_group]")
    optimizers = [key for key in extras if key.startswith("optim_")]
    network = {"scale": raw.scale, "architecture": architecture, "optimizers": optimizers}
    return load_options(file, tiny.train_overrides(folder, *changes, "train:total_iter=40", **network))


@pytest.fixture
def waits(monkeypatch):
    """Count the reads of losses, which are meant to be; and leave out what a block is measured by before its first step."""
    counted = []
    monkeypatch.setattr(LossWatch, "first_not_finite", lambda _watch: counted.append(1))
    monkeypatch.setattr(BlockReconstruction, "_measure", lambda _block: 1.0)
    monkeypatch.setattr(BlockCache, "_mean", lambda _cache, _name: 1.0)
    return counted


@pytest.mark.slow
@pytest.mark.parametrize("file", trainings(), ids=lambda file: file.stem)
def test_a_step_of_every_training_waits_for_its_loss_alone(gpu, file, tmp_path, monkeypatch, waits):
    options = tiny_options(file, tmp_path)
    network = build_network(options.network_g)
    monkeypatch.setattr(nn.Module, "to", lambda module, *_args, **_options: (gpu.move(module), module)[1])
    arguments = {"type": options.model_type, **options.required_train().model_extra}
    with gpu.mode:
        model = MODEL_REGISTRY.build(arguments, network, options, gpu.device, where="train")
        for _, quantizer in named_quantizers(model.network):
            quantizer.mark_calibrated()
        model.prepare(torch.rand(2, 3, 16, 16))
        size = 16 * options.scale
        batch = {
            "lq": torch.rand(2, 3, 16, 16, device=gpu.device),
            "gt": torch.rand(2, 3, size, size, device=gpu.device),
        }
        for step in (1, 2):
            losses = model.optimize_parameters({**batch, "index": torch.tensor([0, 1])})
            assert len(waits) in (0, step)
    assert losses and all(loss.device.type == NAME for loss in losses.values())
    assert all(parameter.device.type == NAME for parameter in model.network.parameters())


class LeavesOneBehind(nn.Module):
    def forward(self, x):
        return x + torch.ones(2)


class Waits(nn.Module):
    def forward(self, x):
        return x / 2 if x.max() > 1 else x


@pytest.mark.parametrize(
    ("module", "error"), [(LeavesOneBehind(), "at least two devices"), (Waits(), "_local_scalar_dense")]
)
def test_such_faults_are_found(gpu, module, error):
    with gpu.mode, pytest.raises((RuntimeError, *WAITS), match=error):
        module(torch.rand(2, device=gpu.device))


def test_every_registered_quantizer_is_among_them():
    assert {name for name, _ in quantizers.CASES} == set(QUANTIZER_REGISTRY.names())
