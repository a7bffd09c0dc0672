"""Options and options files of earlier versions: what they are called now."""

import functools
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from basicsr.utils.files import real_path
from basicsr.utils.logger import get_logger
from basicsr.utils.yaml_loader import guessed, read_yaml

FOLDER = Path(__file__).resolve().parents[3] / "options"
REPLACED = FOLDER / "replaced.yml"
_RENAMED = "PairedImageDataset"  # data sets of plugins may have a gt_size of their own


def with_new_names(content: Mapping[str, Any], scale: Any, tell: bool = True) -> dict[str, Any]:
    """Return options with those of earlier versions under their new names.

    `gt_size` of a data set, HR pixels, is `lq_size`, LR pixels.

    Args:
        content: options as they are given, in parts too.
        scale: the scale factor of the run.
        tell: say in the log what is called otherwise now, once for each value.
    """
    datasets = content.get("datasets")
    if not isinstance(datasets, dict) or scale not in (2, 3, 4):
        return dict(content)
    renamed = {key: _with_lq_size(value, scale, f"datasets:{key}", tell) for key, value in datasets.items()}
    return {**content, "datasets": renamed}


def _with_lq_size(dataset: Any, scale: int, where: str, tell: bool) -> Any:
    if not isinstance(dataset, dict) or "gt_size" not in dataset or dataset.get("type", _RENAMED) != _RENAMED:
        return dataset
    size = guessed(dataset["gt_size"])
    others = {key: value for key, value in dataset.items() if key != "gt_size"}
    if size is None:
        return others
    if type(size) is not int or size < 1:
        return dataset  # no size at all, which the schema says
    lq_size = (
        size / scale if size % scale else size // scale
    )  # a fraction is refused unless a later file or override replaces it
    if tell:
        _tell(f"Option '{where}:gt_size={size}' is '{where}:lq_size={lq_size:g}' now, the side of the LR crops.")
    return {"lq_size": lq_size, **others}


@functools.cache
def _tell(sentence: str) -> None:
    get_logger().warning("%s", sentence)


def replacement_of(file: Path) -> str | None:
    """Return what to give instead of an options file of an earlier version, as a sentence; None for any other file.

    Arguments of a command are on a line of their own, without a full stop, so that they can be copied.
    """
    if not REPLACED.is_file():
        return None
    command = read_yaml(REPLACED).get("/".join(real_path(file).parts[-2:]))
    if command is None:
        return None
    name, *overrides = shlex.split(command)
    folder = name.partition("/")[0]
    if folder not in ("train", "test"):
        return f"Name 'options/{name}' in its place."
    arguments = ["-opt", f"options/{name}", *(["--force_yml", *overrides] if overrides else [])]
    return f"Give in its place:\n    {shlex.join(arguments)}"
