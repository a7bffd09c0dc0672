"""Networks and quantizers on a device that is not the CPU: nothing is left behind, and no step makes a GPU wait."""

import pytest
import torch
from torch import nn

from basicsr.archs import build_network
from basicsr.quant.insertion.insert import insert_quantizers, named_quantizers
from basicsr.utils.registry import QUANTIZER_REGISTRY
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
