"""A step of every type of model on every architecture, on a device that is not the CPU: its losses are those of the CPU, and nothing is left behind."""

import pytest
import torch

from basicsr.training.host_waits import HostWaits
from basicsr.utils.options import load_options
from basicsr.utils.registry import MODEL_REGISTRY
from tests import tiny
from tests.devices.lane_of_steps import LOSS_OF_A_STEP, WAITS_OF_A_STEP, same, tiny_options, training, trainings
from tests.devices.second import SecondDevice, skipped

pytestmark = skipped


def a_file_of_each_type():
    found = {"SRModel": tiny.ROOT / "options/train/train_FP.yml"}  # that of the demonstration has the options of EDSR
    for file in trainings():
        found.setdefault(load_options(file).model_type, file)
    return found


FILES = a_file_of_each_type()


def test_every_registered_model_is_among_them():
    assert set(FILES) == set(MODEL_REGISTRY.names())


@pytest.mark.parametrize("architecture", tiny.NETWORKS)
@pytest.mark.parametrize("model_type", FILES)
def test_a_step_gives_the_losses_of_the_cpu(model_type, architecture, tmp_path):
    second = SecondDevice()  # before the first backward pass of this process
    changes = ["train:total_iter=40"]
    if model_type != "SRModel":
        changes.append("quantization:coverage=full")
    options = tiny_options(FILES[model_type], tmp_path, *changes, architecture=architecture)
    _, step = training(options, torch.device("cpu"))
    expected = step()
    with second:
        model, step = training(options, second.device)
        losses = step()
        with HostWaits() as looked_at:
            step()
    exactly = architecture != "SwinIR"  # whose attention has a way of its own for CPUs
    assert losses.keys() == expected.keys() and all(same(losses[k], expected[k], exactly) for k in losses)
    assert all(parameter.device == second.device for parameter in model.network.parameters())
    assert len(looked_at.waits) <= WAITS_OF_A_STEP, looked_at.by_place
    assert all(LOSS_OF_A_STEP in wait.place for wait in looked_at.waits), looked_at.by_place
