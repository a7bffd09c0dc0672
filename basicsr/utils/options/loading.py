"""Options of a run, from a file and overrides to checked values."""

from pathlib import Path
from typing import Any

from basicsr.utils.errors import OptionsError
from basicsr.utils.options.checking import check_components
from basicsr.utils.options.merging import AXES, fill_placeholders, read_layers
from basicsr.utils.options.schema import Options
from basicsr.utils.options.written import read_as, read_options
from basicsr.utils.registry import ALL_REGISTRIES
from basicsr.utils.signature import validate_model


def load_options(path: str | Path, overrides: list[str] | None = None) -> Options:
    """Read, merge, override and check the options of a run; nothing else is touched.

    Args:
        path: the YAML file.
        overrides: `section:key=value` texts, applied in order.

    Returns:
        The options with all defaults filled in, those of the components too.

    Raises:
        OptionsError: with the path of the key, the value and the nearest known name.
    """
    raw = read_layers(Path(path), overrides or [])
    _add_plugins(raw)
    options = validate_model(Options, fill_placeholders(read_options(raw)), "")
    check_components(options)
    return options


def _add_plugins(raw: dict[str, Any]) -> None:
    """Make the components of the folders under `plugins` known, by which options are read; the schema refuses other values."""
    filled = fill_placeholders(
        {**{key: raw.get(key) for key in (*AXES, "placeholders")}, "plugins": raw.get("plugins")}
    )
    folders = read_as(filled["plugins"], list[str])
    for folder in folders if isinstance(folders, list) else []:
        if isinstance(folder, str):
            _add_folder(Path(folder))


def _add_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise OptionsError(f"Option 'plugins' names the folder '{folder}', which does not exist.")
    for registry in ALL_REGISTRIES:
        registry.add_folder(folder.resolve())
