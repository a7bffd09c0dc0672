"""The YAML file of a sweep: its schema, and what it may say."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pydantic

from basicsr.utils.errors import OptionsError
from basicsr.utils.options import FolderName, Positive, read_with_bases
from basicsr.utils.signature import validate_model
from basicsr.utils.yaml_loader import parse_yaml

Overrides = dict[str, Any]
ALL_ARCHITECTURES = "*"
PLACEHOLDERS = ("arch", "method", "scale", "bit", "seed")
_AXES = {"name", "method", "scale", "bit", "manual_seed", "quantization:w_bits", "quantization:a_bits"}


class _Section(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", validate_default=True, protected_namespaces=())


def _with_overrides(axis: Any) -> Any:
    """Turn the list of an axis into a mapping of its entries to no overrides; keys become text, as in JSON."""
    if not isinstance(axis, list):
        return axis
    if len({str(entry) for entry in axis}) != len(axis):
        raise ValueError("an entry is given twice")
    return {str(entry): {} for entry in axis}


def _for_all(options: Any) -> Any:
    return {ALL_ARCHITECTURES: options} if isinstance(options, str) else options


def _bits_of(text: str) -> tuple[int, int]:
    """Return bits of weights and activations, of `4`, `w4a8` or `w4a32`, 32 for full precision."""
    found = re.fullmatch(r"([2-8])|w([2-8]|32)a([2-8]|32)(?<!w32a32)", text)
    if found is None:
        raise ValueError(
            f"'{text}' must be a number of bits from 2 to 8, or one for weights and activations as in w4a8 and w4a32"
        )
    both, weights, activations = found.groups()
    return int(both or weights), int(both or activations)


def _known_bits(axis: dict[str, Overrides]) -> dict[str, Overrides]:
    for text in axis:
        _bits_of(text)
    return axis


def _known_scales(axis: dict[str, Overrides]) -> dict[str, Overrides]:
    for text in axis:
        if text not in ("2", "3", "4"):
            raise ValueError(f"'{text}' must be a scale factor: 2, 3 or 4")
    return axis


Axis = Annotated[dict[str, Overrides], pydantic.BeforeValidator(_with_overrides), pydantic.Field(min_length=1)]


class MethodOptions(_Section):
    """A method: what it is called in the tables, and the options file that trains it."""

    label: Annotated[str, pydantic.Field(min_length=1, max_length=40, pattern=r"^[^|{}\n]*$")]
    options: Annotated[dict[str, str], pydantic.BeforeValidator(_for_all), pydantic.Field(min_length=1)]
    """An options file for training, or one for each architecture; a method is left out where it has none."""
    overrides: Overrides = {}
    overrides_of: dict[str, Overrides] = {}
    """Further overrides for single architectures."""
    published: str | None = None
    """The method's name among the published results; by default its label."""

    def options_for(self, arch: str) -> str | None:
        """Return the options file for an architecture, None where there is none."""
        return self.options.get(arch, self.options.get(ALL_ARCHITECTURES))


class SlurmOptions(_Section):
    """What `--launcher slurm` asks for, for each run."""

    partition: str | None = None
    minutes: Positive = 240
    gpus: Annotated[int, pydantic.Field(ge=0)] = 1
    cpus: Positive = 4
    memory_gb: Positive = 16
    max_parallel: Positive = 256
    """Runs at the same time."""
    setup: list[str] = []
    """Lines of shell before a run, such as `module load cuda`."""
    additional: dict[str, str | int] = {}
    """Further parameters of sbatch, such as `account`."""


class Grid(_Section):
    """A sweep: every method on every architecture at every scale and number of bits, with every seed.

    An axis is a list, or a mapping from each entry to overrides for the runs with that entry. Later overrides win:
    `overrides`, then those of architecture, scale, bits, method, and of the method for an architecture.
    """

    name: FolderName
    output: str | None = None
    """Folder of tables and records; by default results/sweeps/<name>."""
    jobs: Positive = 1
    """Runs at the same time; `--jobs` replaces it."""
    architectures: Axis
    scales: Annotated[Axis, pydantic.AfterValidator(_known_scales)]
    bits: Annotated[Axis, pydantic.AfterValidator(_known_bits)]
    seeds: list[Annotated[int, pydantic.Field(ge=0, lt=2**63)]] = []
    """By default each options file's own seed."""
    overrides: Overrides = {}
    share: Annotated[float, pydantic.Field(gt=0, le=1)] = 1.0
    """Share of `train:total_iter` that every method is trained for, where the whole of it is out of reach."""
    evaluation: str | Overrides
    """What is measured on, laid over the options in basicsr/test.py alone: a file with `datasets:`, or the mapping itself."""
    methods: Annotated[list[MethodOptions], pydantic.Field(min_length=1)]
    slurm: SlurmOptions = SlurmOptions()

    @property
    def output_folder(self) -> Path:
        """Folder of tables and records, relative to the root."""
        return Path(self.output or f"results/sweeps/{self.name}")

    @property
    def evaluation_overrides(self) -> Overrides:
        """What is measured on, of a grid of `load_grid`, which has read the file that may be named."""
        assert not isinstance(self.evaluation, str)
        return self.evaluation

    def bit_widths(self) -> dict[str, tuple[int, int]]:
        """Return bits of weights and activations for each entry of the axis."""
        return {text: _bits_of(text) for text in self.bits}


def read_grid(path: Path) -> Grid:
    """Read the file of a sweep and check it by its schema alone: what its axes and methods are called, where its results are.

    Raises:
        OptionsError: the file is missing or no YAML; a key is unknown, missing or of a wrong type.
    """
    return validate_model(Grid, read_with_bases(path), "")


def load_grid(path: Path) -> Grid:
    """Read and check the file of a sweep.

    Raises:
        OptionsError: the file is missing or no YAML; a key is unknown, missing or of a wrong type; a placeholder is
            unknown; an override belongs to an axis; a method names an architecture that the grid has not.
    """
    grid = read_grid(path)
    if isinstance(grid.evaluation, str):
        grid.evaluation = read_with_bases(Path(grid.evaluation))
    _check_methods(grid)
    _check_placeholders(grid.model_dump())
    for where, overrides in _all_overrides(grid):
        _check_axes(where, overrides)
    if not any(key.startswith("datasets") for key in grid.evaluation):
        raise OptionsError("Option 'evaluation' names no 'datasets', so that there is nothing to measure on.")
    return grid


def _check_methods(grid: Grid) -> None:
    labels = [method.label for method in grid.methods]
    for method in grid.methods:
        if labels.count(method.label) > 1:
            raise OptionsError(f"Two methods are called '{method.label}'. Give every method a label of its own.")
        for arch in (*method.options, *method.overrides_of):
            if arch != ALL_ARCHITECTURES and arch not in grid.architectures:
                raise OptionsError(
                    f"The method '{method.label}' has options for the architecture '{arch}', which is not among "
                    f"'architectures': {', '.join(grid.architectures)}."
                )
    for arch in grid.architectures:
        if not any(method.options_for(arch) for method in grid.methods):
            raise OptionsError(f"No method has options for the architecture '{arch}'.")


def _check_placeholders(value: Any, where: str = "") -> None:
    """Raise an OptionsError for `{...}` in a text that nothing fills in."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            _check_placeholders(item, f"{where}:{key}".lstrip(":"))
    elif isinstance(value, str):
        for name in re.findall(r"{(\w+)}", value):
            if name not in PLACEHOLDERS:
                known = ", ".join(f"{{{known}}}" for known in PLACEHOLDERS)
                raise OptionsError(f"Unknown placeholder '{{{name}}}' in '{where}': '{value}'. Known: {known}.")


def _all_overrides(grid: Grid) -> Iterator[tuple[str, Overrides]]:
    yield "overrides", grid.overrides
    yield "evaluation", grid.evaluation_overrides
    for axis in ("architectures", "scales", "bits"):
        for entry, overrides in getattr(grid, axis).items():
            yield f"{axis}:{entry}", overrides
    for method in grid.methods:
        yield f"the overrides of '{method.label}'", method.overrides
        for arch, overrides in method.overrides_of.items():
            yield f"the overrides of '{method.label}' for '{arch}'", overrides


def _check_axes(where: str, overrides: Overrides) -> None:
    for text in flatten_overrides(overrides):
        key = text.partition("=")[0]
        if key in _AXES:
            raise OptionsError(f"'{key}' in {where} is set by the axes of the grid. Leave it out there.")


def flatten_overrides(overrides: Overrides, prefix: str = "") -> list[str]:
    """Return overrides as `section:key=value` texts for `--force_yml`; a mapping with a `type` stays in one piece."""
    texts = []
    for key, value in overrides.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict) and value and "type" not in value:
            texts += flatten_overrides(value, f"{path}:")
        else:
            texts.append(f"{path}={_as_yaml(value)}")
    return texts


def _as_yaml(value: Any) -> str:
    """Return a value as YAML in one line, texts without quotation marks where they can do without."""
    if isinstance(value, str):
        try:
            plain = parse_yaml(value, "an override") == value
        except OptionsError:
            plain = False
        if plain:
            return value
    return json.dumps(value, ensure_ascii=False)


def fill(text: str, values: dict[str, Any]) -> str:
    """Replace the placeholders that `values` has; the others are left to the options file."""
    for name, value in values.items():
        text = text.replace(f"{{{name}}}", str(value))
    return text
