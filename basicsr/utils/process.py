"""How the process of a run computes: its device, its place among others, threads and seeds."""

import random

import numpy as np
import torch

from basicsr.utils import dist
from basicsr.utils.devices import select_device
from basicsr.utils.launchers import Launcher
from basicsr.utils.options import Options


def join(options: Options, launcher: Launcher) -> torch.device:
    """Choose the device of the options, join the other processes of the launcher, and prepare this one; return the device.

    Raises:
        OptionsError: see `select_device`.
    """
    device = select_device(options.device)
    dist.init_distributed(launcher, device)
    prepare_process(options, device)
    return device


def prepare_process(options: Options, device: torch.device) -> None:
    """Set threads, seeds, and reproducible convolutions in full float32 precision."""
    if options.num_threads:
        torch.set_num_threads(options.num_threads)
    random.seed(options.manual_seed)
    np.random.seed(options.manual_seed % 2**32)
    torch.manual_seed(options.manual_seed)
    if device.type == "cuda":
        torch.backends.cudnn.deterministic = True
        # convolutions with 10 bits of mantissa would not give the CPU's results
        torch.backends.cudnn.allow_tf32 = False
