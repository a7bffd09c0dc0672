"""Names of devices, on machines with and without each of them."""

import pytest
import torch

from basicsr.utils.devices import select_device
from basicsr.utils.errors import OptionsError
from basicsr.utils.options import load_options
from tests import tiny


@pytest.fixture
def machine(monkeypatch):
    """Return a function that says what torch finds; it returns the devices made current since."""
    current = []

    def finds(cuda=0, mps=False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
        monkeypatch.setattr(torch.cuda, "set_device", current.append)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        return current

    for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    return finds


@pytest.mark.parametrize(
    ("name", "found", "device"),
    [
        ("auto", {}, "cpu"),
        ("auto", {"cuda": 2}, "cuda:0"),
        ("auto", {"mps": True}, "cpu"),
        ("cpu", {"cuda": 2}, "cpu"),
        ("cuda", {"cuda": 1}, "cuda:0"),
        ("cuda:1", {"cuda": 2}, "cuda:1"),
        ("mps", {"mps": True}, "mps"),
    ],
)
def test_a_name_gives_its_device(machine, name, found, device):
    current = machine(**found)
    assert select_device(name) == torch.device(device)
    assert current == ([torch.device(device)] if device.startswith("cuda") else [])


def test_processes_get_a_gpu_each(machine, monkeypatch):
    machine(cuda=2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert select_device("cuda") == select_device("auto") == torch.device("cuda:1")
    with pytest.raises(OptionsError, match="'cuda:0', but 2 processes cannot share one GPU. Choose 'cuda'."):
        select_device("cuda:0")


@pytest.mark.parametrize(
    ("name", "found", "message"),
    [
        ("cuda", {}, "Option 'device' is 'cuda', but torch finds no CUDA device. Choose 'cpu' or 'auto'."),
        ("cuda:1", {}, "is 'cuda:1', but torch finds no CUDA device"),
        ("cuda:2", {"cuda": 2}, "is 'cuda:2', but torch finds no CUDA device above 'cuda:1'"),
        ("mps", {"cuda": 2}, "is 'mps', but torch finds no such device"),
        ("gpu", {"cuda": 2}, "is 'gpu', but must be 'auto', 'cpu', 'cuda', 'cuda:N' or 'mps'"),
        ("cuda:-1", {"cuda": 2}, "is 'cuda:-1', but must be"),
    ],
)
def test_what_is_not_there_is_refused(machine, name, found, message):
    machine(**found)
    with pytest.raises(OptionsError, match=message):
        select_device(name)


@pytest.mark.parametrize("name", ["cuda:1", "mps", "cpu"])
def test_an_options_file_may_name_a_device_of_another_machine(tmp_path, name):
    options = load_options(str(tiny.TRAIN), [*tiny.train_overrides(tmp_path), f"device={name}"])
    assert options.device == name


def test_an_options_file_may_not_name_what_is_no_device(tmp_path):
    with pytest.raises(OptionsError, match="device.*must be 'auto', 'cpu', 'cuda', 'cuda:N' or 'mps'"):
        load_options(str(tiny.TRAIN), [*tiny.train_overrides(tmp_path), "device=gpu"])
