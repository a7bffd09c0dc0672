"""What a command has left, so that two folders can be compared to the bit, whatever their clocks and names of temporary files."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import PIL.Image
import safetensors.torch
import torch

from basicsr.deploy.graph_metadata import check_seal, read_metadata

_NO_RESULTS = {"seconds", "milliseconds", "commit", "command", "started", "file_sha256"}
"""Times, and of a file that was read its bytes: those of two files may differ and its values be the same, as with a bit between tensors."""
_LEFT_OUT = (
    ".log",
    ".lock",
    ".yml",
    ".html",
    ".csv",
    ".md",
    ".svg",
)  # what names the time of the run, and what is made of the rest


def _read_tensors(file: Path) -> Any:
    return torch.load(file, map_location="cpu", weights_only=True)


def _read_json(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def _read_graph(file: Path) -> None:
    graph = onnx.load_model(file)
    read_metadata(graph)
    check_seal(graph, file.read_bytes(), file)


def _read_picture(file: Path) -> None:
    with PIL.Image.open(file) as picture:
        picture.load()


_READERS: dict[str, Callable[[Path], Any]] = {
    ".pth": _read_tensors,
    ".state": _read_tensors,
    ".json": _read_json,
    ".safetensors": safetensors.torch.load_file,
    ".png": _read_picture,
    ".onnx": _read_graph,
}


def contents(folder: Path) -> dict[str, str]:
    """Return a digest of each file of results in a folder by its path there; archived runs and logs are left out."""
    here, beside = (str(place).encode() for place in (folder, folder.parent))  # which some files of results name
    found = {}
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder).as_posix()
        if file.is_file() and not file.name.endswith(_LEFT_OUT) and "_archived_" not in name:
            found[name] = hashlib.sha256(_normal(file).replace(here, b"").replace(beside, b"")).hexdigest()
    return found


def difference(expected: dict[str, str], found: dict[str, str]) -> str | None:
    """Return what tells two folders apart, None where they are the same."""
    missing, more = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    other = [name for name in sorted(expected.keys() & found.keys()) if expected[name] != found[name]]
    parts = [("missing", missing), ("left over", more), ("other bits", other)]
    return "; ".join(f"{what}: {', '.join(names[:3])}" for what, names in parts if names) or None


def half_written(folder: Path) -> str | None:
    """Return a file that cannot be read though it has its final name, and why; None where there is none.

    Lines are added to records at their end, so that half of a line is none; files of temporary names are nobody's.
    """
    for file in sorted(folder.rglob("*")):
        reader = _READERS.get(file.suffix)
        if reader is not None and file.is_file() and not file.name.startswith("."):
            try:
                reader(file)
            except Exception as error:  # readers meet damaged files with errors of any kind
                return f"half written: {file.relative_to(folder)}: {error}"
    return None


def _normal(file: Path) -> bytes:
    """Return what is compared of a file: values without times, and of pictures and packed files all bytes."""
    try:
        if file.suffix in (".pth", ".state"):
            return _bytes_of(_read_tensors(file))
        if file.suffix == ".json":
            return _bytes_of(_read_json(file))
        if file.suffix == ".jsonl":
            return _bytes_of([json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()])
    except Exception as error:  # a damaged file is not the one that was expected
        return f"damaged: {error}".encode()
    return file.read_bytes()


def _bytes_of(value: Any) -> bytes:
    if isinstance(value, torch.Tensor):
        return f"{value.dtype}{tuple(value.shape)}".encode() + value.contiguous().numpy().tobytes()
    if isinstance(value, dict):
        return b"".join(
            repr(key).encode() + _bytes_of(value[key]) for key in sorted(value, key=repr) if key not in _NO_RESULTS
        )
    if isinstance(value, list | tuple):
        return b"[" + b",".join(_bytes_of(one) for one in value) + b"]"
    return repr(value).encode()
