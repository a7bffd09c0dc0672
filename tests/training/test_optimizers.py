"""Optimisers take a step with the gradient of each element, wherever that lies in memory."""

import pytest
import torch

from basicsr.training.optimizers import OPTIMIZERS, build_optimizer

SHAPE = (4, 3, 3, 2)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("of_gradient", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_first_step_goes_against_the_gradient_of_each_element(name, of_gradient, memory_format, fused):
    torch.manual_seed(0)
    parameter = torch.nn.Parameter(torch.zeros(SHAPE).contiguous(memory_format=memory_format))
    gradient = torch.randn(SHAPE)
    optimizer = build_optimizer({"type": name, "lr": 0.5, "fused": fused}, [parameter], "train:optim_g")
    parameter.grad = gradient.contiguous(memory_format=of_gradient)
    optimizer.step()
    torch.testing.assert_close(parameter.detach(), -0.5 * gradient.sign())
    assert parameter.stride() == torch.empty(SHAPE).contiguous(memory_format=memory_format).stride()


def test_a_parameter_without_a_gradient_stays():
    parameters = [torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2))]
    optimizer = build_optimizer({"type": "Adam", "lr": 0.5}, parameters, "train:optim_g")
    parameters[0].grad = torch.ones(2)
    optimizer.step()
    assert parameters[0].tolist() == pytest.approx([0.5, 0.5]) and parameters[1].tolist() == [1.0, 1.0]
