"""Optimisers take a step with the gradient of each element, wherever that lies in memory, and go on after a stop to the same bits."""

import copy
import inspect

import pytest
import torch

from basicsr.training.optimizers import OPTIMIZERS, build_optimizer
from basicsr.utils.checkpoint import load_torch, save_torch
from basicsr.utils.errors import OptionsError
from basicsr.utils.signature import options_of

SHAPE = (4, 3, 3, 2)
OTHERS = {  # beside the learning rate, so that every state that an optimiser can keep is kept
    "SGD": {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
    "RMSprop": {"momentum": 0.9, "centered": True},
    "Adam": {"amsgrad": True},
}


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("of_gradient", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", ["Adam", "AdamW"])
def test_the_first_step_goes_against_the_gradient_of_each_element(name, of_gradient, memory_format, fused):
    torch.manual_seed(0)
    parameter = torch.nn.Parameter(torch.zeros(SHAPE).contiguous(memory_format=memory_format))
    gradient = torch.randn(SHAPE)
    optimizer = build_optimizer({"type": name, "lr": 0.5, "fused": fused}, [parameter], "train:optim_g")
    parameter.grad = gradient.contiguous(memory_format=of_gradient)
    optimizer.step()
    torch.testing.assert_close(parameter.detach(), -0.5 * gradient.sign())
    assert parameter.stride() == torch.empty(SHAPE).contiguous(memory_format=memory_format).stride()


@pytest.mark.parametrize(
    ("options", "after"),
    [
        # by hand: x = 1, gradients 0.5 and then 0.25, lr 0.1
        ({"type": "SGD"}, [0.95, 0.925]),
        ({"type": "SGD", "momentum": 0.9}, [0.95, 0.88]),  # 0.9 * 0.5 + 0.25 = 0.7
        ({"type": "SGD", "momentum": 0.9, "nesterov": True}, [0.905, 0.817]),  # 0.5 + 0.45; 0.25 + 0.63
        ({"type": "SGD", "weight_decay": 0.1}, [0.94, 0.9056]),
        ({"type": "RMSprop", "alpha": 0.75}, [0.8, 0.8 - 0.025 / 0.0625**0.5]),  # 0.75 * 0.0625 + 0.25 * 0.0625
        ({"type": "Adagrad"}, [0.9, 0.9 - 0.025 / 0.3125**0.5]),
        ({"type": "Adamax"}, [0.9, 0.9 - 0.1 / 0.19 * 0.07 / 0.4995]),
        ({"type": "Rprop"}, [0.9, 0.78]),  # the step grows by 1.2 where the sign stays
        ({"type": "RAdam"}, [0.95, 0.95 - 0.1 * 0.07 / 0.19]),  # no second moment in its first five steps
        ({"type": "Adam"}, [0.9, 0.9 - 0.1 * (0.07 / 0.19) / (0.00031225 / 0.001999) ** 0.5]),
        ({"type": "ASGD", "lambd": 0.0}, [0.95, 0.925]),
    ],
)
def test_two_steps_are_those_of_the_formula(options, after):
    parameter = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
    optimizer = build_optimizer({**options, "lr": 0.1}, [parameter], "train:optim_g")
    for gradient, expected in zip((0.5, 0.25), after, strict=True):
        parameter.grad = torch.full((1,), gradient, dtype=torch.float64)
        optimizer.step()
        assert parameter.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_what_is_continued_from_a_file_goes_on_to_the_same_bits(name, tmp_path):
    options = {"type": name, "lr": 1e-2, **OTHERS.get(name, {})}
    torch.manual_seed(0)
    parameters = [torch.nn.Parameter(torch.randn(SHAPE)), torch.nn.Parameter(torch.randn(5))]
    optimizer = build_optimizer(options, parameters, "train:optim_g")
    gradients = [[torch.randn(SHAPE), torch.randn(5)] for _ in range(9)]

    def steps(own, of_steps, optimizer):
        for of_step in of_steps:
            for parameter, gradient in zip(own, of_step, strict=True):
                parameter.grad = gradient.clone()
            optimizer.step()

    steps(parameters, gradients[:6], optimizer)
    save_torch({"optimizer": optimizer.state_dict()}, tmp_path / "6.state")
    others = copy.deepcopy(parameters)
    steps(parameters, gradients[6:], optimizer)
    continued = build_optimizer(options, others, "train:optim_g")
    continued.load_state_dict(load_torch(tmp_path / "6.state")["optimizer"])
    steps(others, gradients[6:], continued)
    assert all(torch.equal(one, two) for one, two in zip(parameters, others, strict=True))


def test_defaults_are_those_of_torch():
    own = {"lr", "fused"}
    for name, build in OPTIMIZERS.items():
        if name == "Muon":  # that of torch takes no vectors, and is younger than the oldest torch
            continue
        of_torch = inspect.signature(getattr(torch.optim, name)).parameters
        stated = options_of(build)
        assert {key: option.default for key, option in stated.items() if key not in own} == {
            key: of_torch[key].default for key in stated if key not in own
        }
        assert stated["lr"].default is inspect.Parameter.empty


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"type": "SGD", "lr": 0.1, "nesterov": True}, ["train:optim_g", "momentum"]),
        ({"type": "SGD", "lr": 0.1, "betas": [0.9, 0.99]}, ["Unknown option 'train:optim_g:betas'"]),
        ({"type": "RMSprop", "lr": 0.1, "alpha": 1.5}, ["train:optim_g:alpha", "1.5"]),
        ({"type": "Rprop", "lr": 0.1, "etas": [1.5, 1.2]}, ["train:optim_g:etas"]),
        ({"type": "SGD"}, ["'train:optim_g:lr' is required"]),
        ({"type": "sgd", "lr": 0.1}, ["Did you mean 'SGD'?"]),
        ({"type": "LBFGS", "lr": 0.1}, ["Adagrad", "SGD"]),
    ],
)
def test_what_does_not_fit_is_told(options, words):
    with pytest.raises(OptionsError) as error:
        build_optimizer(options, [torch.nn.Parameter(torch.ones(2))], "train:optim_g")
    assert all(word in str(error.value) for word in words), error.value


def test_a_parameter_without_a_gradient_stays():
    parameters = [torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2))]
    optimizer = build_optimizer({"type": "Adam", "lr": 0.5}, parameters, "train:optim_g")
    parameters[0].grad = torch.ones(2)
    optimizer.step()
    assert parameters[0].tolist() == pytest.approx([0.5, 0.5]) and parameters[1].tolist() == [1.0, 1.0]
