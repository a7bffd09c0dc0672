"""Steps in bfloat16 on `cuda`, which autocasts other operations than the CPU does: types, devices, reads, and losses close to those of the CPU."""

import pytest
import torch

from basicsr.training.host_waits import HostWaits
from basicsr.utils.options import load_options
from tests.devices.lane_of_steps import tiny_options, training, trainings
from tests.devices.second import IS_CUDA, SecondDevice

CLOSE = 0.05
"""Relative: bfloat16 has 8 bits, and lets values at the border of two codes fall to the other side."""


def files():
    return [file for file in trainings() if "autocast" in load_options(file).required_train().model_extra]


def in_bfloat16(file, folder):
    extras = load_options(file).required_train().model_extra
    casts = [f"train:{key}=bf16" for key in ("autocast", "teacher_autocast") if key in extras]
    return tiny_options(file, folder, "train:total_iter=40", *casts)


def test_the_device_is_there():
    assert IS_CUDA and len(files()) > 5


@pytest.mark.parametrize("file", files(), ids=lambda file: file.stem)
def test_steps_in_bfloat16_leave_parameters_and_gradients_in_float32_and_read_nothing(file, tmp_path):
    options = in_bfloat16(file, tmp_path)
    _, step = training(options, torch.device("cpu"))
    expected = step()
    second = SecondDevice()
    with second:
        _, step = training(tiny_options(file, tmp_path, "train:total_iter=40"), second.device)
        in_float32 = step()
        model, step = training(options, second.device)
        losses = step()
        with HostWaits() as looked_at:
            step()
    found, plain = ({name: loss.item() for name, loss in of.items()} for of in (losses, in_float32))
    assert found == {name: pytest.approx(loss.item(), rel=CLOSE) for name, loss in expected.items()}
    assert found != plain and not looked_at.waits, looked_at.by_place
    parameters = list(model.network.parameters())
    tensors = [*parameters, *(parameter.grad for parameter in parameters if parameter.grad is not None)]
    assert all(tensor.device == second.device and tensor.dtype == torch.float32 for tensor in tensors)
