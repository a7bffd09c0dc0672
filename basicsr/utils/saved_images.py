"""Where the outputs of networks are saved, so that who writes them and who reads them agree."""

from collections.abc import Callable
from pathlib import Path

FileOf = Callable[[str], Path]
"""From the name of an image to its file."""


def result_files(folder: Path, dataset: str, suffix: str | None) -> FileOf:
    """Return the files of an evaluation: `<folder>/<dataset>/<image>.png`, or with `_<suffix>` behind the name."""
    return lambda name: folder / dataset / f"{name}{_ending(suffix)}"


def files_in(folder: str | Path) -> FileOf:
    """Return files of a folder that holds nothing but one data set: `<folder>/<image>.png`."""
    return lambda name: Path(folder) / f"{name}.png"


def validation_files(folder: Path, dataset: str | None, iteration: int) -> FileOf:
    """Return the files of a validation, `<folder>/<image>/<image>_<iteration>.png` as in BasicSR.

    Args:
        folder: of all pictures of a run.
        dataset: a folder between, where there are several validation sets, whose images may share names; None for none.
        iteration: of the training.
    """
    own = folder if dataset is None else folder / dataset
    return lambda name: own / name / f"{name}_{iteration}.png"


def saved_results(folder: Path, dataset: str, suffix: str | None) -> dict[str, Path]:
    """Return what `result_files` names and is there, by the name of the image."""
    ending = _ending(suffix)
    files = (folder / dataset).glob("*.png")
    return {file.name.removesuffix(ending): file for file in sorted(files) if file.name.endswith(ending)}


def _ending(suffix: str | None) -> str:
    return ".png" if suffix is None else f"_{suffix}.png"
