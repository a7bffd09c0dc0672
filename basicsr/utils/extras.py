"""Packages that only some runs need: what for, how they are installed, and what does without them."""

import importlib
from collections.abc import Iterable
from dataclasses import dataclass
from types import ModuleType

from basicsr.utils.errors import OptionsError
from basicsr.utils.logger import warn_once


@dataclass(frozen=True)
class Extra:
    """A package that a part of the program imports when it needs it.

    Attributes:
        purpose: what it is needed for.
        install: what to give to `pip install`.
        without: how to do without it, a full sentence.
    """

    purpose: str
    install: str
    without: str


_PAGE = "Reports and plots are left out without it; numbers and tables are all there."
_ONNX = Extra(
    "ONNX graphs", "-e '.[deploy]'", "Without it leave out --onnx, and enlarge pictures with --runtime torch."
)
_RUNTIME = Extra("running ONNX graphs", "-e '.[deploy]'", "Without it enlarge pictures with --runtime torch.")
_SUBMISSION = Extra(
    "the launchers 'slurm' and 'local'", "submitit", "Without it the sweep runs with --launcher processes."
)
EXTRAS = {
    "tensorboard": Extra(
        "curves in TensorBoard", "tensorboard",
        "Set logger:use_tb_logger=false to do without; metrics.jsonl and the log hold the same.",
    ),
    "wandb": Extra("'logger:wandb'", "-e '.[wandb]'", "Take logger:wandb away to do without."),
    "matplotlib": Extra("figures", "matplotlib", _PAGE),
    "jinja2": Extra("reports", "jinja2", _PAGE),
    "onnx": _ONNX,
    "onnxscript": _ONNX,
    "onnx_ir": _ONNX,
    "onnxruntime": _RUNTIME,
    "openvino": _RUNTIME,
    "submitit": _SUBMISSION,
    "cloudpickle": _SUBMISSION,
    "scipy": Extra("choosing bits", "-e '.[bits]'", "Without it give bits to layers by hand, with quantization:overrides."),
    "lmdb": Extra("folders that end in .lmdb", "-e '.[lmdb]'", "Give folders of images to do without."),
}  # fmt: skip
"""Every package that is imported only where it is needed, by the name of its import."""


def require(package: str) -> ModuleType:
    """Return a module of an optional package.

    Args:
        package: name of the module, whose first part is in `EXTRAS`.

    Raises:
        OptionsError: the package is not installed, or cannot be imported; says what it is for, and what does without it.
    """
    name = package.partition(".")[0]
    try:
        return importlib.import_module(package)
    except Exception as error:  # a package that was built for other versions fails in ways of its own
        extra = EXTRAS[name]
        absent = isinstance(error, ImportError) and (error.name or name).partition(".")[0] == name
        reason = "is not installed" if absent else f"cannot be imported ({type(error).__name__}: {error})"
        raise OptionsError(
            f"The package '{name}' is needed for {extra.purpose} and {reason}: `pip install {extra.install}` installs it. {extra.without}"
        ) from error


def usable(packages: Iterable[str]) -> bool:
    """Return whether packages that a side product of a run needs can be imported; a warning tells of the first that cannot, once."""
    for package in packages:
        try:
            require(package)
        except OptionsError as error:
            warn_once(str(error))
            return False
    return True
