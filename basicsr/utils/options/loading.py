"""Options of a run, from a file and overrides to checked values."""

from pathlib import Path

from basicsr.utils.errors import OptionsError
from basicsr.utils.options.checking import check_components
from basicsr.utils.options.merging import apply_override, fill_placeholders, read_with_bases
from basicsr.utils.options.schema import Options
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
    raw = read_with_bases(Path(path))
    for override in overrides or []:
        raw = apply_override(raw, override)
    options = validate_model(Options, fill_placeholders(raw), "")
    for folder in options.plugins:
        _add_plugins(Path(folder))
    check_components(options)
    return options


def _add_plugins(folder: Path) -> None:
    if not folder.is_dir():
        raise OptionsError(f"Option 'plugins' names the folder '{folder}', which does not exist.")
    for registry in ALL_REGISTRIES:
        registry.add_folder(folder.resolve())
