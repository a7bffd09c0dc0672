"""Quantizers and steps on torch's fake tensors, which say that they are on `cuda`: types and devices, and no read by the host.

Fake tensors have no values, so that the first read ends a step here with an error. What reads by its nature (calibrators, evaluations,
files, the loss of a training) runs on `cuda` in the other lanes, with values.
"""

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from basicsr.losses.pixel_loss import L1Loss
from tests import tiny
from tests.devices.lane_of_steps import quantized, read_by_the_host, step_of
from tests.devices.second import IS_CUDA
from tests.quant.quantizers import test_every_quantizer as quantizers

CUDA = torch.device("cuda", 0)
MODE = FakeTensorMode()
"""One for all tests: what is kept for a device, such as the masks of windows, is kept from one to the next."""


def on_cuda(module):
    """Return a module with fake tensors in place of its parameters and buffers."""
    for owner in module.modules():
        for name, parameter in owner.named_parameters(recurse=False):
            fake = MODE.from_tensor(parameter).detach().to(CUDA)
            setattr(owner, name, nn.Parameter(fake, requires_grad=parameter.requires_grad))
        for name, buffer in owner.named_buffers(recurse=False):
            setattr(owner, name, MODE.from_tensor(buffer).to(CUDA))
    return module


def is_there(tensor):
    return tensor.device == CUDA and tensor.dtype == torch.float32


def test_the_device_is_there():
    assert IS_CUDA


@pytest.mark.parametrize(("name", "spec"), quantizers.CASES, ids=str)
def test_quantizers_stay_on_the_device(name, spec):
    quantizer = quantizers.build(name, *spec)
    with MODE:
        quantizer = on_cuda(quantizer)
        x = torch.randn(2, 5, 6, 6, device=CUDA, requires_grad=True)
        output, codes = quantizer(x), quantizer.codes(x.detach())
        output.square().sum().backward()
    trained = [parameter for parameter in quantizer.parameters() if parameter.grad is not None]
    assert codes.device == CUDA and all(is_there(tensor) for tensor in (output, x.grad))
    assert all(is_there(parameter.grad) for parameter in trained)


@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize("coverage", ["preset", "full"])
@pytest.mark.parametrize("architecture", tiny.NETWORKS)
def test_steps_of_quantized_networks_read_nothing(architecture, coverage, bfloat16):
    network = quantized(architecture, coverage)
    with MODE:
        network = on_cuda(network)
        lr, hr = torch.rand(2, 3, 16, 16, device=CUDA), torch.rand(2, 3, 64, 64, device=CUDA)
        with torch.autocast("cuda", torch.bfloat16, enabled=bfloat16):
            output = network(lr)
        L1Loss()(output.float(), hr).backward()
        assert output.shape == hr.shape and output.device == CUDA
        gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
        assert gradients and all(is_there(gradient) for gradient in gradients)
        assert is_there(step_of(network, lr, hr))


def test_a_read_in_a_step_ends_it(monkeypatch):
    monkeypatch.setattr(L1Loss, "forward", read_by_the_host)
    with MODE, pytest.raises(DataDependentOutputException):
        L1Loss()(torch.rand(2, 3, device=CUDA), torch.rand(2, 3, device=CUDA))


def test_a_tensor_that_is_left_on_the_cpu_ends_it():
    network = quantized("EDSR", "preset")
    with MODE:
        network = on_cuda(network)
        with pytest.raises(RuntimeError, match=r"two different devices cuda:0, cpu|on the same device"):
            network(torch.rand(2, 3, 16, 16))
