"""Which device a command works on: the one place where names of devices become devices."""

import os

import torch

from basicsr.utils import dist
from basicsr.utils.device_names import KNOWN_DEVICES, is_device_name
from basicsr.utils.errors import OptionsError


def select_device(name: str = "auto", where: str = "Option 'device'") -> torch.device:
    """Return the device that a name stands for, and make it the current one.

    Args:
        name: `auto` is CUDA where there is any, else the CPU. `auto` and `cuda` give each process of torchrun its own GPU.
        where: what the name was given as, for messages.

    Raises:
        OptionsError: no device is called so, torch does not find it, or several processes would share it.
    """
    if not is_device_name(name):
        raise OptionsError(f"{where} is '{name}', but must be {KNOWN_DEVICES}.")
    if name == "mps":
        if not torch.backends.mps.is_available():
            raise OptionsError(f"{where} is 'mps', but torch finds no such device. Choose 'cpu' or 'auto'.")
        return torch.device("mps")
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cpu" or (name == "auto" and not found):
        return torch.device("cpu")
    if not found:
        raise OptionsError(f"{where} is '{name}', but torch finds no CUDA device. Choose 'cpu' or 'auto'.")
    if name in ("auto", "cuda"):
        device = torch.device("cuda", dist.local_rank() % found)
    else:
        device = _numbered(name, found, where)
    torch.cuda.set_device(device)
    return device


def _numbered(name: str, found: int, where: str) -> torch.device:
    number = int(name.removeprefix("cuda:"))
    if number >= found:
        raise OptionsError(
            f"{where} is '{name}', but torch finds no CUDA device above 'cuda:{found - 1}'. Choose 'auto'."
        )
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if processes > 1:
        raise OptionsError(f"{where} is '{name}', but {processes} processes cannot share one GPU. Choose 'cuda'.")
    return torch.device("cuda", number)
