"""From a grid to runs: names, commands, and the options that each command will read."""

import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from basicsr.sweep.grid import Grid, MethodOptions, fill, flatten_overrides
from basicsr.utils.errors import OptionsError, suggestion
from basicsr.utils.options import ARROW, Options, first_of_chain, load_options

REPOSITORY = Path(__file__).resolve().parents[2]
FULL_PRECISION, BICUBIC = "FP", "Bicubic"
PROTOCOL = {"crop_border", "test_y_channel", "pad", "self_ensemble", "tile", "tile_overlap"}
"""Options of the section `val` that change what is measured."""
Kind = Literal["quantized", "full_precision", "bicubic"]


@dataclass(frozen=True)
class Step:
    """One process of a run.

    Attributes:
        script: path of the program in the repository.
        options_file: what it is given as `-opt`.
        overrides: what it is given as `--force_yml`.
    """

    script: str
    options_file: str
    overrides: tuple[str, ...]

    def command(self, root: Path, auto_resume: bool = False) -> list[str]:
        """Return the command line; the script is named as seen from the working directory where it lies below it."""
        script = REPOSITORY / self.script
        here = Path.cwd()
        command = [sys.executable, str(script.relative_to(here) if script.is_relative_to(here) else script)]
        command += ["-opt", self.options_file]
        command += ["--root", str(root)] if root != Path(".") else []
        command += ["--auto_resume"] if auto_resume else []
        return [*command, "--force_yml", *self.overrides]


@dataclass(frozen=True)
class Run:
    """One row of the tables: a method on an architecture at a scale, with bits and a seed; or a line to compare with.

    Attributes:
        name: name of its record, and what `--only` selects by.
        folder: name of its folders in experiments/ and results/.
        kind: whether a quantized network, the full-precision one, or bicubic enlargement is measured.
        arch: label of the architecture; None for bicubic enlargement.
        method: label of the method.
        published: what the method is called among the published results.
        scale: scale factor.
        share: share of the iterations of its recipe that it is trained for.
        train: the step that makes the quantized network, if there is one to make.
        evaluate: the step that measures.
        start: the quantized network that training starts from (`path:pretrain_network_Q`); None where there is none, and in a chain,
            which makes its own.
        options: the options of `evaluate`; those of `train` differ in what is measured on.
    """

    name: str
    folder: str
    kind: Kind
    arch: str | None
    method: str
    published: str | None
    scale: int
    share: float
    train: Step | None
    evaluate: Step
    start: str | None
    options: Options


def plan(grid: Grid, root: Path) -> list[Run]:
    """Return the runs of a grid, those to compare with first; all options files are read and checked.

    Args:
        grid: the grid.
        root: folder that holds experiments/.

    Raises:
        OptionsError: an options file is missing or not valid with its overrides, two runs have the same name, or the
            methods of an architecture start from different full-precision networks or are measured in different ways.
    """
    runs: list[Run] = []
    seeds: Sequence[int | None] = grid.seeds or [None]
    for scale in grid.scales:
        quantized = [
            _quantized_run(grid, root, arch, method, scale, bits, seed)
            for arch in grid.architectures
            for bits in grid.bits
            for method in grid.methods
            if method.options_for(arch)
            for seed in seeds
        ]
        references = {run.arch: run for run in reversed(quantized)}
        for run in quantized:
            _check_comparable(references[run.arch], run)
        runs.append(_bicubic_run(grid, quantized[0]))
        runs += [_full_precision_run(grid, references[arch]) for arch in grid.architectures]
        runs += quantized
    _check_names(runs)
    return runs


def select(runs: list[Run], glob: str | None) -> list[Run]:
    """Return the runs whose name matches a glob, all without one.

    Raises:
        OptionsError: none matches.
    """
    if glob is None:
        return list(runs)
    chosen = [run for run in runs if fnmatchcase(run.name, glob)]
    if not chosen:
        raise OptionsError(f"No run matches --only '{glob}'. {suggestion(glob, [run.name for run in runs])}")
    return chosen


def _quantized_run(
    grid: Grid, root: Path, arch: str, method: MethodOptions, scale: str, bits: str, seed: int | None
) -> Run:
    values: dict[str, Any] = {"arch": arch, "method": method.label, "scale": scale, "bit": bits}
    values |= {} if seed is None else {"seed": seed}
    of_method = (method.overrides, method.overrides_of.get(arch, {}))
    layers = (grid.overrides, grid.architectures[arch], grid.scales[scale], grid.bits[bits], *of_method)
    overrides = [fill(text, values) for layer in layers for text in flatten_overrides(layer)]
    template = method.options_for(arch)
    assert template is not None  # only architectures that the method has are planned
    options_file = fill(template, values)
    label = f"bit{bits}" if bits.isdigit() else bits
    name = f"{_slug(arch)}_{_slug(method.label)}_x{scale}_{label}" + ("" if seed is None else f"_seed{seed}")
    folder = f"{grid.name}_{name}"
    w_bits, a_bits = grid.bit_widths()[bits]
    axes = _axes(folder, method.label, scale, bits, (w_bits, a_bits), seed)
    full = _load(Step("basicsr/train.py", options_file, (*overrides, *axes)), name)
    _check_label(method.label, full)
    overrides += _shortened(full, grid.share)
    train = Step("basicsr/train.py", options_file, (*overrides, *axes))
    network = f"path:pretrain_network_Q={root / 'experiments' / folder / 'models' / 'net_Q_latest.pth'}"
    evaluation = [fill(text, values) for text in flatten_overrides(grid.evaluation_overrides)]
    evaluate = Step("basicsr/test.py", options_file, (*overrides, *evaluation, *axes, network))
    options = _load(evaluate, name)
    if options.train is None or options.quantization is None:
        raise OptionsError(
            f"'{options_file}' has no section '{'train' if options.train is None else 'quantization'}', so that it cannot be a "
            "method of a sweep. Name a file of options/train/ that quantizes."
        )
    if (options.w_bits, options.a_bits) != (w_bits, a_bits):
        raise OptionsError(
            f"'{options_file}' fixes the bits at {options.w_bits}/{options.a_bits} in 'quantization', so that the grid cannot "
            f"set {w_bits}/{a_bits}. Leave 'quantization:w_bits' and 'quantization:a_bits' out there, or write w4a8 for 4/8."
        )
    return Run(
        name=name,
        folder=folder,
        kind="quantized",
        arch=arch,
        method=method.label,
        published=method.published or method.label,
        scale=int(scale),
        share=grid.share,
        train=train,
        evaluate=evaluate,
        start=full.path.pretrain_network_Q,
        options=options,
    )


def _shortened(options: Options, share: float) -> list[str]:
    """Return the overrides that leave a training, and the one before it, a share of their iterations, at least one; none where
    a run has all or does not train."""
    runs = {"": options, "after:": first_of_chain(options)}
    return [
        f"{place}train:total_iter={max(1, round(share * run.train.total_iter))}"
        for place, run in runs.items()
        if share != 1 and run is not None and run.train is not None and run.train.total_iter
    ]


def _check_label(label: str, options: Options) -> None:
    """Raise an OptionsError for a method that starts from a quantized network but is called as if it stood alone."""
    first = first_of_chain(options)
    if ARROW in label or (first is None and options.path.pretrain_network_Q is None):
        return
    start = options.path.pretrain_network_Q if first is None else first.method_name
    raise OptionsError(
        f"The method '{label}' starts from another quantized network, '{start}', so that its row is not that of the method alone. "
        f"Name both in the label, as in '{'START' if first is None else start}{ARROW}{label}'."
    )


def _axes(folder: str, label: str, scale: str, bits: str, bit_widths: tuple[int, int], seed: int | None) -> list[str]:
    """Return the overrides that make an options file the run at one place of the grid."""
    axes: dict[str, Any] = {"name": folder, "method": label, "scale": int(scale)}
    if bits.isdigit():
        axes["bit"] = int(bits)
    else:
        axes |= zip(("quantization:w_bits", "quantization:a_bits"), bit_widths, strict=True)
    return flatten_overrides(axes if seed is None else {**axes, "manual_seed": seed})


def _full_precision_run(grid: Grid, reference: Run) -> Run:
    """Return the run that measures the network that the quantized ones start from."""
    assert reference.arch is not None  # bicubic enlargement alone has none
    name = f"{_slug(reference.arch)}_{FULL_PRECISION}_x{reference.scale}"
    step = _unquantized("basicsr/test.py", reference.evaluate, f"{grid.name}_{name}", FULL_PRECISION)
    return _run_to_compare_with(grid, reference, name, step, "full_precision", FULL_PRECISION)


def _bicubic_run(grid: Grid, reference: Run) -> Run:
    name = f"{BICUBIC}_x{reference.scale}"
    step = _unquantized("scripts/bicubic.py", reference.evaluate, f"{grid.name}_{name}", BICUBIC)
    return _run_to_compare_with(grid, reference, name, step, "bicubic", BICUBIC)


def _run_to_compare_with(grid: Grid, reference: Run, name: str, step: Step, kind: Kind, method: str) -> Run:
    """Return a run without training, on the network (of bicubic enlargement: without one) and at the scale of `reference`."""
    has_network = kind == "full_precision"
    return Run(
        name=name,
        folder=f"{grid.name}_{name}",
        kind=kind,
        arch=reference.arch if has_network else None,
        method=method,
        published=method if has_network else None,
        scale=reference.scale,
        share=1.0,
        train=None,
        evaluate=step,
        start=None,
        options=_load(step, name),
    )


def _unquantized(script: str, step: Step, folder: str, method: str) -> Step:
    """Return the step that measures the same data without quantization."""
    left_out = re.compile(
        r"(name|method|bit|manual_seed|model_type|quantization|calibration|train|path:pretrain_network_Q)[=:]"
    )
    kept = [text for text in step.overrides if not left_out.match(text)]
    return Step(
        script, step.options_file, (*kept, "quantization=null", "train=null", f"name={folder}", f"method={method}")
    )


def _load(step: Step, name: str) -> Options:
    try:
        return load_options(step.options_file, list(step.overrides))
    except OptionsError as error:
        raise OptionsError(f"The run '{name}' of '{step.options_file}': {error}") from error


def _check_comparable(reference: Run, run: Run) -> None:
    """Raise an OptionsError if two runs in one table start from different networks, or are measured in different ways."""
    first, second = _what_must_agree(reference.options), _what_must_agree(run.options)
    for key, value in first.items():
        if value != second[key]:
            raise OptionsError(
                f"'{reference.name}' and '{run.name}' would be in one table, but their '{key}' differ: {value!r} and "
                f"{second[key]!r}. Set it for all under 'evaluation' or 'overrides', or use two labels under 'architectures'."
            )


def _what_must_agree(options: Options) -> dict[str, Any]:
    return {
        "network_g": options.network_g,
        "path:pretrain_network_FP": options.path.pretrain_network_FP,
        "test sets": options.datasets_of("test"),
        **{f"val:{key}": value for key, value in options.val.model_dump(include={*PROTOCOL, "metrics"}).items()},
    }


def _check_names(runs: list[Run]) -> None:
    known: dict[str, Any] = {}
    for run in runs:
        other = known.setdefault(run.name, run)
        if other is not run:
            raise OptionsError(
                f"The methods '{other.method}' and '{run.method}' would both be run as '{run.name}'. Change one of the labels."
            )


def _slug(label: str) -> str:
    """Return a label as part of a file's name that no shell and no glob takes for something else."""
    return re.sub(r"[^\w.+-]+", "_", label).strip("_")


def describe(step: Step, root: Path, auto_resume: bool = False) -> str:
    """Return the command of a step as one would type it."""
    command = step.command(root, auto_resume)
    return shlex.join(["python", *command[1:]])
