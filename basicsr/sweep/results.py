"""What a sweep is made for: results.csv, tables.md and a plot for each dataset, of the records that are on disk."""

import collections
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from basicsr.reporting.attempt import attempt
from basicsr.reporting.entries import Entry, entry_of_results
from basicsr.sweep.plan import Run
from basicsr.sweep.plot import draw
from basicsr.sweep.published import PublishedResults
from basicsr.sweep.records import Places, changes, read_record
from basicsr.sweep.rows import rows_of, write_csv
from basicsr.sweep.tables import markdown
from basicsr.sweep.time_plot import draw_time
from basicsr.utils.errors import CheckpointError, explained
from basicsr.utils.extras import usable
from basicsr.utils.files import atomic_path


def write_tables(title: str, runs: Sequence[Run], places: Places, report: Callable[[str], None]) -> None:
    """Write CSV, Markdown and plots of the records of some runs, in the order of the runs; nothing where there are none.

    Args:
        title: heading of the Markdown.
        runs: all runs of the sweep.
        places: the folders of the sweep.
        report: takes lines for the user.

    Raises:
        CheckpointError: a record is damaged, or a file cannot be written.
    """
    records, missing = [], []
    for run in runs:
        record = read_record(places.record(run))
        if record is None:
            missing.append(run)
            continue
        differences = changes(record, run)
        if differences:
            report(f"Warning: {run.name} in the tables was made with another recipe: {'; '.join(differences)}.")
        records.append(record)
    if not records:
        report(f"No run is finished: there is nothing in '{places.output / 'runs'}' to make tables of.")
        return
    rows = rows_of(records, PublishedResults.load())
    plotted = list(dict.fromkeys(row["dataset"] for row in rows if row["coverage"]))
    with explained(CheckpointError, f"The tables in '{places.output}' could not be written"):
        write_csv(rows, places.output / "results.csv")
        with atomic_path(places.output / "tables.md") as temporary:
            temporary.write_text(markdown(title, rows, _names(missing, runs)), encoding="utf-8")
        for dataset in plotted if usable(["matplotlib"]) else []:
            draw(rows, dataset, places.output / f"{dataset}.svg")
            draw_time(rows, dataset, places.output / f"{dataset}_time.svg")
    drawn = [f"{dataset}{suffix}.svg" for dataset in plotted for suffix in ("", "_time")]
    plots = [name for name in drawn if (places.output / name).is_file()]
    files = ", ".join(["results.csv", "tables.md", *plots])
    report(f"{len(records)} of {len(runs)} runs are in {places.output}: {files}")
    finished = [run for run in runs if places.record(run).is_file()]
    attempt(places.output / "report.html", title, lambda: _entries(finished, records, places))


def _entries(runs: Sequence[Run], records: Sequence[Mapping[str, Any]], places: Places) -> list[Entry]:
    """Return the entries of a report, with the label of the architecture as name of the network.

    Numbers and options are those of the records; pictures, activations and trainings those of the folders, where they are there.
    """
    entries = []
    for run, record in zip(runs, records, strict=True):
        entry = entry_of_results(places.results(run).parent, record["metrics"])
        entries.append(replace(entry, network=record["arch"] or entry.network, options=record["options"]))
    return entries


def _names(missing: Sequence[Run], runs: Sequence[Run]) -> list[str]:
    """Return the names of runs that are not finished; those of a network, or of a method on one, together where none of them is."""
    of_network, all_of_network = (
        collections.Counter((run.arch, run.scale) for run in group) for group in (missing, runs)
    )
    of_method, all_of_method = (
        collections.Counter((run.arch, run.scale, run.method) for run in group) for group in (missing, runs)
    )
    names, methods_of = [], collections.defaultdict[str, list[str]](list)
    for run in missing:
        network, method = (run.arch, run.scale), (run.arch, run.scale, run.method)
        if of_network[network] == all_of_network[network] > 1:
            names.append(f"{run.arch} x{run.scale} ({of_network[network]} runs)")
        elif of_method[method] == all_of_method[method] > 1:
            methods_of[f"{run.arch} x{run.scale}"].append(run.method)
        else:
            names.append(run.name)
    whole = [f"{network} ({' / '.join(dict.fromkeys(methods))})" for network, methods in methods_of.items()]
    return list(dict.fromkeys([*names, *whole]))
