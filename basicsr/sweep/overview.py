"""docs/results/README.md: the tables of all sweeps whose records lie there, what they say, and how to make them again."""

import itertools
import shlex
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from basicsr.sweep.comparisons import order, variants
from basicsr.sweep.grid import Grid, read_grid
from basicsr.sweep.plan import BICUBIC, FULL_PRECISION, REPOSITORY
from basicsr.sweep.published import PublishedResults
from basicsr.sweep.records import read_record
from basicsr.sweep.rows import BY_GRADIENT, BY_OUTPUT, Row, rows_of
from basicsr.sweep.tables import WIDTH, explanation, network_table, networks_of
from basicsr.utils.errors import OptionsError
from basicsr.utils.markdown import markdown_table

GRIDS = Path("options/sweep")
FOR_EDITORS = "# yaml-language-server:"
FOLDER = Path("docs/results")
SEARCHES = ("symmetric", "auto", f"auto{BY_OUTPUT}", f"auto{BY_GRADIENT}", "one_sided", "joint")
SELECTIONS = ("kmeans", "exact")
INTRODUCTION = (
    "Written by `python scripts/make_tables.py` from the records in `*/runs/`, one for each run. A record holds the "
    "options, the command and the values of every image. Each section is one sweep: the same networks, data and protocol for "
    "all methods in it. Sections do not compare with each other where their recipes differ."
)
DOBI = (
    "Activations only, without training; weights have one search in all of them. The squared error is the geometric mean over "
    "the activation quantizers, in percent of that of the first line. In parentheses is the difference from that line."
)
DFSQ = (
    "As above. The squared error is that of the normalised activations, which both selections minimise. k-means is that of the "
    "paper, with three restarts."
)
ORDER = (
    "In the paper of 2DQuant the order is MinMax < DOBI < 2DQuant. The tables say whether each is better than the one before "
    "it. DOBI is the one with the search that 2DQuant starts from. The correlation is that of what quantization changes with "
    "the error of FP. At 0 the order in PSNR is that in fidelity; below 0 quantization undoes a part of that error "
    "([why](causes.md#where-psnr-and-fidelity-disagree))."
)
PICTURES = (
    "Crops of test images, and the PSNR of the whole image under each. `python scripts/make_pictures.py` draws them, with the "
    "runs of `options/sweep/benchmarks.yml` in experiments/; at x2 with `--size 48 --crops Set14/comic:98,108`."
)


@dataclass(frozen=True)
class Sweep:
    """A sweep whose records are in the folder of results.

    Attributes:
        name: name of its grid.
        grid_file: the grid, relative to the repository.
        output: folder of its tables, relative to the folder of results.
        rows: see rows.py, in the order of the grid.
        number: number of its runs.
    """

    name: str
    grid_file: Path
    output: str
    rows: list[Row]
    number: int


def read_sweeps(root: Path = REPOSITORY) -> list[Sweep]:
    """Return the sweeps that have records under docs/results, by the name of their folder.

    Raises:
        OptionsError: no grid in options/sweep/ says that it writes to a folder with records.
        CheckpointError: a record is damaged.
    """
    grids = {grid.output_folder: (file, grid) for file, grid in _grids(root)}
    published = PublishedResults.load()
    sweeps = []
    for folder in sorted({file.parent.parent for file in (root / FOLDER).glob("*/runs/*.json")}):
        output = folder.relative_to(root)
        if output not in grids:
            raise OptionsError(
                f"The records in '{output}/runs' belong to no grid in {GRIDS}. Put the grid there, with `output: {output}`."
            )
        file, grid = grids[output]
        files = sorted((folder / "runs").glob("*.json"))
        records = _in_order(grid, [record for file in files if (record := read_record(file)) is not None])
        if records:
            sweeps.append(Sweep(grid.name, file, output.name, rows_of(records, published), len(records)))
    return sweeps


def _grids(root: Path) -> Iterator[tuple[Path, Grid]]:
    for file in sorted((root / GRIDS).glob("*.yml")):
        yield file.relative_to(root), read_grid(file)


def _in_order(grid: Grid, records: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the records of methods, networks and bits that the grid has, in its order."""
    scales, architectures = list(map(int, grid.scales)), [None, *grid.architectures]
    bits = [(32, 32), *grid.bit_widths().values()]
    methods = [BICUBIC, FULL_PRECISION, *(method.label for method in grid.methods)]

    def place(record: Mapping[str, Any]) -> tuple[int, ...]:
        metrics = record["metrics"]
        known: tuple[tuple[list[Any], Any], ...] = (
            (scales, metrics["scale"]),
            (architectures, record["arch"]),
            (bits, (metrics["w_bits"], metrics["a_bits"])),
            (methods, record["method"]),
        )
        return tuple(axis.index(value) if value in axis else -1 for axis, value in known)

    return sorted((record for record in records if -1 not in place(record)), key=lambda r: (place(r), r["seed"]))


def overview(sweeps: Sequence[Sweep], root: Path = REPOSITORY) -> str:
    """Return the text of docs/results/README.md.

    Args:
        sweeps: see `read_sweeps`.
        root: the repository; pictures and other documents under docs/results are linked where they are there.
    """
    rows = [row for sweep in sweeps for row in sweep.rows]
    text = ["# Results\n", _filled(INTRODUCTION), explanation(rows), _contents(sweeps)]
    for sweep in sweeps:
        text += _sweep(sweep, root)
    text += _comparison("Searches of DOBI", DOBI, {s.name: variants(s.rows, "DOBI", SEARCHES) for s in sweeps})
    text += _comparison("Points of DFSQ", DFSQ, {s.name: variants(s.rows, "DFSQ", SELECTIONS) for s in sweeps})
    text += _comparison("Order of MinMax, DOBI and 2DQuant", ORDER, {s.name: order(s.rows) for s in sweeps})
    text += _pictures(root / FOLDER)
    text += ["## Further documents\n", _documents(root / FOLDER)]
    return "\n".join(text)


def _filled(paragraph: str) -> str:
    return textwrap.fill(paragraph, WIDTH, break_long_words=False, break_on_hyphens=False) + "\n"


def _contents(sweeps: Sequence[Sweep]) -> str:
    lines = [["sweep", "networks", "test sets", "runs", "grid", "files"]]
    for sweep in sweeps:
        networks = ", ".join(f"{arch} x{scale}" for arch, scale in networks_of(sweep.rows))
        datasets = ", ".join(dict.fromkeys(row["dataset"] for row in sweep.rows))
        grid = f"`{sweep.grid_file}`"
        files = (
            f"[tables]({sweep.output}/tables.md), [CSV]({sweep.output}/results.csv), records in `{sweep.output}/runs`"
        )
        lines.append([f"[{sweep.name}](#{sweep.name})", networks, datasets, str(sweep.number), grid, files])
    return markdown_table(lines) + "\n"


def _sweep(sweep: Sweep, root: Path) -> list[str]:
    """Return the section of a sweep: its command, what the head of its grid says, its tables and plots."""
    command = f"    python scripts/sweep.py -grid {shlex.quote(str(sweep.grid_file))} --jobs 2\n"
    text = [f"## {sweep.name}\n", command, _head(root / sweep.grid_file)]
    for arch, scale in networks_of(sweep.rows):
        text += [f"### {arch} x{scale}, {sweep.name}\n", network_table(sweep.rows, arch, scale, with_seconds=False)]
    datasets = dict.fromkeys(row["dataset"] for row in sweep.rows)
    kinds = (("PSNR and fidelity against bits", ""), ("Fidelity against minutes", "_time"))
    plots = [(title, f"{sweep.output}/{name}{suffix}.svg") for title, suffix in kinds for name in datasets]
    return text + [f"![{title}]({plot})\n" for title, plot in plots if (root / FOLDER / plot).is_file()]


def _head(grid_file: Path) -> str:
    """Return the comment at the head of a grid as it stands there, but for the line that names the schema for editors."""
    lines = itertools.takewhile(lambda line: line.startswith("#"), grid_file.read_text(encoding="utf-8").splitlines())
    return "".join(f"    {line}\n" for line in lines if not line.startswith(FOR_EDITORS))


def _comparison(title: str, paragraph: str, parts: Mapping[str, str | None]) -> list[str]:
    found = {name: part for name, part in parts.items() if part is not None}
    if not found:
        return []
    text = [f"## {title}\n", _filled(paragraph)]
    for name, part in found.items():
        text += [f"### {title}: {name}\n", part]
    return text


def _pictures(folder: Path) -> list[str]:
    files = sorted(folder.glob("*.png"))
    images = [f"![{file.stem}: HR, bicubic, full precision and the methods]({file.name})\n" for file in files]
    return ["## Crops\n", _filled(PICTURES), *images] if images else []


def _documents(folder: Path) -> str:
    """Return a list of the other documents in the folder of results, each by its heading."""
    lines = []
    for file in sorted(folder.glob("*.md")):
        if file.name != "README.md":
            heading = file.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
            lines.append(f"- [{heading}]({file.name})")
    return "\n".join([*lines, "- [Published results](published_results.json) that stand in parentheses above"]) + "\n"
