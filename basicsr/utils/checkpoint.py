"""Networks and training states on disk: written whole or not at all, read without running any code."""

import _codecs
import contextlib
import functools
import io
import random
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from basicsr.utils.errors import CheckpointError
from basicsr.utils.files import atomic_path

_LARGEST_GAIN = 64  # of a compressed archive; weights give less
_SMALL = 1 << 20  # bytes or values that do no harm
_OF_TORCH = (b"PK\x03\x04", *(bytes([0x80, protocol]) for protocol in range(2, 6)))  # archives and pickles
_ARCHIVE = "is an archive. Unpack it, and give the file of weights in it."
_OTHER_FILES = {
    b"version https://git-lfs": "is a pointer of Git LFS, not the file itself. Get it with `git lfs pull`.",
    b"<": "is a web page or another text, as a failed download leaves it. Download the file itself.",
    b"{": "is a text such as JSON, not a file of weights. Give the file of weights beside it.",
    b"\x89PNG": "is a picture. Give a file of weights.",
    b"\xff\xd8\xff": "is a picture. Give a file of weights.",
    b"\x89HDF": "is an HDF5 file, as Keras writes it. Ask for the weights of PyTorch.",
    b"\x93NUMPY": "is an array of numpy. Ask for the weights of PyTorch.",
    b"GGUF": "is a file of llama.cpp. Ask for the weights of PyTorch.",
} | dict.fromkeys((b"\x1f\x8b", b"7z\xbc\xaf", b"Rar!", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd"), _ARCHIVE)
"""What else is given as a file of weights, by its first bytes."""
_numpy_scalar: Any = np.float64(0).__reduce__()[0]


def save_torch(content: dict[str, Any], path: Path) -> None:
    """Write a file that `torch.load(weights_only=True)` reads, under a temporary name first.

    Raises:
        CheckpointError: no space, no permission; an older file of that name is untouched.
    """
    try:
        with atomic_path(path) as temporary:
            torch.save(content, temporary)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        raise CheckpointError(
            f"'{path}' could not be saved: {error}. Free some space or check the permissions of the folder."
        ) from error


def load_torch(path: Path) -> Any:
    """Read a file of tensors, numbers (of numpy, too), text, lists and mappings. No code of the file is ever run.

    Raises:
        CheckpointError: the file is missing, damaged, or holds anything else.
    """
    try:
        with _numpy_numbers_allowed(), path.open("rb") as file:  # of a path, torch would look at the suffix
            if _is_program(file):
                raise CheckpointError(
                    f"'{path}' is a TorchScript archive, a program and no weights. Ask for a file with the state dict."
                )
            _refuse_swelling(file, path)
            content = torch.load(file, map_location="cpu", weights_only=True)
            changed = _changed_part(file)
    except FileNotFoundError as error:
        raise CheckpointError(f"'{path}' does not exist; correct the path or put the file there.") from error
    except OSError as error:
        raise CheckpointError(
            f"'{path}' cannot be read: {error.strerror or error}. Check the path and its permissions."
        ) from error
    except CheckpointError:
        raise
    except Exception as error:  # the restricted unpickler meets damaged data with errors of any kind
        raise CheckpointError(_why_refused(path, str(error))) from error
    if changed is not None:
        raise CheckpointError(
            f"'{path}' was changed after it was written: the checksum of its part '{changed}' differs. Copy or make it again."
        )
    return content


def unusual_form(tensor: torch.Tensor) -> str | None:
    """Return what a tensor is that is no dense array of real numbers, in the plural; None for one that is."""
    if tensor.is_meta:
        return "tensors without values (of the device 'meta')"
    if tensor.is_quantized:
        return "quantized tensors of torch"
    if tensor.layout != torch.strided or tensor.is_nested:
        return "sparse or nested tensors"
    if tensor.numel() > max(tensor.untyped_storage().nbytes() // tensor.element_size(), _SMALL):
        return "few values that are repeated without end"
    return "complex numbers" if tensor.is_complex() else None


def _changed_part(file: IO[bytes]) -> str | None:
    """Return the name of a part whose checksum is not that of its bytes, which torch does not look at; None where all are whole."""
    if not zipfile.is_zipfile(file):  # the format before torch 1.6 has no checksums
        return None
    with zipfile.ZipFile(file) as archive:
        return archive.testzip()


def _refuse_swelling(file: IO[bytes], path: Path) -> None:
    """Refuse an archive that holds far more than its length, which torch never writes; its place is the start again."""
    try:
        with zipfile.ZipFile(file) as archive:
            held = sum(part.file_size for part in archive.infolist())
    except Exception:  # as in `_is_program`
        held = 0
    length = file.seek(0, io.SEEK_END)
    file.seek(0)
    if held > max(_LARGEST_GAIN * length, _SMALL):
        raise CheckpointError(
            f"'{path}' is a compressed archive of {length:,} bytes that swells to {held:,}. Save it again with torch.save."
        )


def _is_program(file: IO[bytes]) -> bool:
    """Whether a file is a TorchScript archive, which torch 2.4 would load as one; its place is the start again."""
    try:
        with zipfile.ZipFile(file) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except Exception:  # damaged archives meet it with errors of any kind; the reader tells
        return False
    finally:
        file.seek(0)


def _numpy_numbers_allowed() -> contextlib.AbstractContextManager[None]:
    """Allow numbers of numpy, such as the best PSNR beside the weights: data of fixed size, which run nothing when read."""
    if hasattr(torch.serialization, "safe_globals"):
        return torch.serialization.safe_globals(_of_numbers())
    torch.serialization.add_safe_globals([*_of_numbers(), _codecs.encode])  # torch 2.4 has no context for it, nor bytes
    return contextlib.nullcontext()


@functools.cache
def _of_numbers() -> list[Any]:
    """Return what numbers, texts and times of numpy are made of when they are read."""
    kinds = [type(np.dtype(code)) for code in np.typecodes["AllInteger"] + "?efdgFDGUSMm"]
    return [np.dtype, *kinds, *(_scalar_called(f"numpy.{core}.multiarray") for core in ("core", "_core"))]  # numpy 1, 2


def _scalar_called(module: str) -> Callable[..., np.generic]:
    """Return what numpy pickles its scalars with, under the name that it has in files of any version."""

    def scalar(*arguments: Any) -> np.generic:
        return _numpy_scalar(*arguments)

    scalar.__module__, scalar.__qualname__ = module, "scalar"
    return scalar


def _why_refused(path: Path, error: str) -> str:
    """Return a sentence for what the restricted unpickler or the reader of archives said."""
    start = b""
    with contextlib.suppress(OSError), path.open("rb") as file:
        start = file.read(64)
    for signature, kind in _OTHER_FILES.items():
        if start.lstrip().startswith(signature):
            return f"'{path}' {kind}"
    found = re.search(r"GLOBAL ([\w.]+)", error)
    if found or ("Unsupported" in error and start.startswith(_OF_TORCH)):
        named = f", such as {found[1]}" if found else ""
        return (
            f"'{path}' was refused: it holds objects that would run code when they are read{named}. "
            "Ask for a file with tensors only, such as {'params': state dict} or .safetensors."
        )
    return f"'{path}' cannot be read: it is damaged, cut off or no file of PyTorch; make, download or copy it again."


def rng_state() -> dict[str, Any]:
    """Return the state of all global random number generators as plain values."""
    state = np.random.get_state(legacy=True)
    assert isinstance(state, tuple)  # what legacy=True asks for
    name, keys, position, has_gauss, cached = state
    version, internal, gauss_next = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [name, torch.from_numpy(keys.astype(np.int64)), int(position), int(has_gauss), float(cached)],
        "python": [version, list(internal), gauss_next],
    }


def set_rng_state(state: dict[str, Any]) -> None:
    """Restore what `rng_state` returned."""
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    version, internal, gauss_next = state["python"]
    random.setstate((version, tuple(internal), gauss_next))
