"""Options of a run, from a file and overrides to checked values."""

from pathlib import Path
from typing import Any

from basicsr.utils.errors import OptionsError
from basicsr.utils.files import real_path, why_no_folder
from basicsr.utils.options.chaining import file_of_first, label_of_chain, overrides_of_first
from basicsr.utils.options.checking import check_components
from basicsr.utils.options.merging import AXES, fill_placeholders, read_layers
from basicsr.utils.options.schema import Options
from basicsr.utils.options.upstream import Translation
from basicsr.utils.options.written import read_as, read_options
from basicsr.utils.registry import ALL_REGISTRIES
from basicsr.utils.signature import validate_model


def load_options(path: str | Path, overrides: list[str] | None = None, tell: bool = True) -> Options:
    """Read, merge, override and check the options of a run; nothing else is touched.

    Args:
        path: the YAML file.
        overrides: `section:key=value` texts, applied in order.
        tell: say in the log what is called otherwise in BasicSR or 2DQuant, if the file or an override is in their form.

    Returns:
        The options with all defaults filled in, those of the components too.

    Raises:
        OptionsError: with the path of the key, the value and the nearest known name.
    """
    return _checked(fill_placeholders(translated_options(path, overrides, tell)), overrides or [])


def load_network_options(path: str | Path, overrides: list[str] | None = None, tell: bool = True) -> Options:
    """Read options of which the network and the plugins are asked for: `name` and `datasets`, which a run needs, may be absent.

    Args:
        path, overrides, tell: see `load_options`.

    Raises:
        OptionsError: see `load_options`.
    """
    raw = fill_placeholders(translated_options(path, overrides, tell))
    return _checked({"name": "network", "datasets": {}, **raw}, overrides or [])


def _checked(raw: dict[str, Any], overrides: list[str]) -> Options:
    """Return the options with defaults, those of a run that comes first too; see `load_options`."""
    after = raw.pop("after", None)
    raw.pop("provenance", None)  # of the options.yml that a run leaves, which can be run again
    options = validate_model(Options, raw, "")
    check_components(options)
    if after is not None and (options.train is not None or options.quantization is not None):
        _add_first(options, after, overrides)
    return options


def first_of_chain(options: Options) -> Options | None:
    """Return the options of the run that comes before one, checked; None where none does."""
    if options.after is None:
        return None
    first = validate_model(Options, options.after, "after")
    check_components(first)
    return first


def _add_first(options: Options, after: Any, overrides: list[str]) -> None:
    """Put the resolved options of the run that comes first into `after`, and both methods into the label."""
    file = file_of_first(after)
    if file is None:
        options.after = after
        first = first_of_chain(options)
        assert first is not None
    else:
        try:
            first = load_options(file, overrides_of_first(options, after, overrides), tell=False)
        except OptionsError as error:
            raise OptionsError(f"The run that comes first, 'after:options={file}': {error}") from error
    for one in (first, options):
        if one.quantization is None:
            raise OptionsError(
                f"Section 'after' is for runs that quantize, but '{one.name}' has no section 'quantization'. Leave 'after' out."
            )
    options.method = label_of_chain(first, options)
    options.after = first.model_dump(mode="json")


def translated_options(path: str | Path, overrides: list[str] | None = None, tell: bool = True) -> dict[str, Any]:
    """Return the options of a run as they are given, those of BasicSR and 2DQuant under the names of this project, without defaults.

    Args:
        path, overrides, tell: see `load_options`.

    Raises:
        OptionsError: see `load_options`; values are not checked yet.
    """
    layers = read_layers(Path(path), overrides or [])
    given = layers.merged()
    _add_plugins(given)
    translation = Translation(layers.files, given)
    return read_options(translation.finish(layers.merged(translation.layer), tell))


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
    if (problem := why_no_folder(folder)) is not None:
        raise OptionsError(f"Option 'plugins' names the folder '{folder}', which {problem}.")
    for registry in ALL_REGISTRIES:
        registry.add_folder(real_path(folder))
