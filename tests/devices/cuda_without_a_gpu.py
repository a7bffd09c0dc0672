"""The device `cuda` on a machine without a GPU, with a torch for CPUs: what a process loads before it imports torch.

`python -m pytest -p tests.devices.cuda_without_a_gpu` does so for a library that `compiled_library` has made. Tensors on the device have the
values that `second.py` gives them, or none as torch's fake tensors; autocast, pinned memory and all branches on `cuda` are those of a GPU.
"""

import ctypes
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

LIBRARY = "CUDA_WITHOUT_A_GPU"
"""The environment variable with the path of the compiled library."""
SOURCE = Path(__file__).with_suffix(".cpp")
MEMORY = 2**34  # bytes
CAPABILITY = (7, 5)
"""A GPU that gains nothing from bfloat16, so that what computes in it where that pays has the numbers of the CPU."""


def compiled_library(folder: Path) -> Path:
    """Compile the library for the torch of this interpreter.

    Raises:
        subprocess.CalledProcessError: it cannot be compiled.
    """
    found = find_spec("torch")
    assert found is not None and found.origin is not None
    torch = Path(found.origin).parent
    made = folder / "cuda_without_a_gpu.so"
    searched = [f"-I{torch / 'include'}", f"-L{torch / 'lib'}", f"-Wl,-rpath,{torch / 'lib'}", "-Wl,--no-as-needed"]
    libraries = ["-lc10", "-ltorch_cpu"]
    subprocess.run(
        ["c++", "-O1", "-std=c++20", "-shared", "-fPIC", *searched, str(SOURCE), "-o", str(made), *libraries],
        check=True,
        capture_output=True,
        text=True,
    )
    return made


class Event:
    """An event that has happened once it is recorded."""

    def record(self) -> None:
        """Take note of nothing: all that was asked for before has been computed."""

    def synchronize(self) -> None:
        """Wait for nothing."""


def stand_in() -> None:
    """Load the library, and answer what torch asks its modules for CUDA, which a torch for CPUs does not have."""
    assert "torch" not in sys.modules, "torch asks for its devices when it is imported, and only once."
    ctypes.CDLL(os.environ[LIBRARY])
    import torch

    torch.cuda._initialized = True
    answers = {
        "is_available": True,
        "is_bf16_supported": True,
        "device_count": 1,
        "current_device": 0,
        "get_device_name": "none",
        "mem_get_info": (MEMORY, MEMORY),
        "get_device_capability": CAPABILITY,
        "get_rng_state_all": [],
        **dict.fromkeys(["manual_seed", "manual_seed_all", "set_rng_state_all", "set_device", "empty_cache"]),
    }
    for name, answer in answers.items():
        setattr(torch.cuda, name, lambda *_args, _answer=answer, **_kwargs: _answer)
    torch.cuda.Event = Event
    # a module that goes to the device keeps its parameters and swaps their data, which a class of one's own cannot follow
    torch.__future__.set_overwrite_module_params_on_conversion(True)


if LIBRARY in os.environ:
    stand_in()
