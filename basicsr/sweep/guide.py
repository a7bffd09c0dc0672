"""The tables of docs/which-method.md: what each method loses at each number of bits, and what it costs, from the records of sweeps."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean

from basicsr.sweep.plan import BICUBIC, FULL_PRECISION
from basicsr.sweep.rows import Row
from basicsr.utils import markdown
from basicsr.utils.errors import OptionsError

FILE = Path("docs/which-method.md")
DATASET = "Set5"
_SOURCE = re.compile(r"([^\s:]+(?: and [^\s:]+)*): (\S+) x(\d)")


def with_tables(text: str, rows: Mapping[str, Sequence[Row]]) -> str:
    """Return a text with its tables made anew: each stands between `<!-- from SWEEP: NETWORK xSCALE -->` and `<!-- end -->`.

    A table of several sweeps names them as `SWEEP and SWEEP`; where two have a method, the records of the first one count.

    Args:
        text: a page in Markdown.
        rows: see rows.py, by the name of their sweep.

    Raises:
        OptionsError: a place asks for a sweep or a network that has no records, or for something else.
    """

    def made(source: str) -> str:
        found = _SOURCE.fullmatch(source)
        if found is None:
            raise OptionsError(
                f"A table of the guide is to be made from '{source}'. Write 'SWEEP: NETWORK xSCALE' there."
            )
        names, arch, scale = found.groups()
        of_network: list[Row] = []
        for sweep in names.split(" and "):
            own = [row for row in rows.get(sweep, ()) if _is_of(row, arch, int(scale))]
            if not own:
                raise OptionsError(
                    f"A table of the guide is to be made from records of '{sweep}' for {arch} x{scale} on {DATASET}, "
                    "and there are none. Run that sweep, or take the table out."
                )
            known = {row["method"] for row in of_network}
            of_network += [row for row in own if row["method"] not in known]
        return guide_table(of_network)

    return markdown.with_tables(text, made)


def _is_of(row: Row, arch: str, scale: int) -> bool:
    return (row["arch"], row["scale"], row["dataset"]) == (arch, scale, DATASET)


def guide_table(rows: Sequence[Row]) -> str:
    """Return what full precision has, and a line for each method: loss at each number of bits, time and size at the most bits.

    A column names the processors that the times are of, where some record says so.

    Args:
        rows: those of one network on one data set, in the order of methods and bits.
    """
    methods = dict.fromkeys(row["method"] for row in rows if row["method"] not in (FULL_PRECISION, BICUBIC))
    bits = sorted({row["w_bits"] for row in rows if row["method"] in methods}, reverse=True)
    head = ["method", "ranges", f"loss at {bits[0]} bits (dB)", *(f"{b} bits" for b in bits[1:])]
    lines = [[*head, "time (s)", "size (KB)", "processor"]]
    for method in methods:
        own = [row for row in rows if row["method"] == method]
        losses = [_mean(_losses(row for row in own if row["w_bits"] == b), "+.2f") for b in bits]
        first = [row for row in own if row["w_bits"] == bits[0]]
        seconds = [(row["calibration_seconds"] or 0) + (row["training_seconds"] or 0) for row in first]
        size = _mean([row["bytes"] / 1000 for row in first if row["bytes"]], ",.0f")
        lines.append([method, own[0]["activation_ranges"], *losses, _mean(seconds, ".0f"), size, _processor(first)])
    if not any(line[-1] for line in lines[1:]):
        lines = [line[:-1] for line in lines]
    full = next((row for row in rows if row["method"] == FULL_PRECISION), None)
    return (f"{_sentence(full)}\n\n" if full else "") + markdown.markdown_table(lines)


def _sentence(full: Row) -> str:
    return f"Full precision has {full['psnr']:.2f} dB and {full['bytes'] / 1000:,.0f} KB."


def _losses(rows: Iterable[Row]) -> list[float]:
    """Return the changes of PSNR, but for rows without the record of their full-precision network."""
    return [row["psnr_change"] for row in rows if row["psnr_change"] is not None]


def _mean(values: Sequence[float], form: str) -> str:
    return f"{fmean(values):{form}}" if values else ""


def _processor(rows: Sequence[Row]) -> str:
    """Return the names of the processors that made rows, without their instructions; empty where records do not say."""
    names = [row["processor"].partition(",")[0] for row in rows if row["processor"]]
    return ", ".join(dict.fromkeys(name.replace("(R)", "") for name in names))
