"""Put faults into running commands and count what comes of it: `python scripts/fault_campaign.py --trials 10`.

For each fault a command must either end with the bits of one that was not disturbed, or tell in a sentence what is wrong, without a
traceback; once the fault is mended, the same command ends with those bits. All happens on tiny networks in a folder of its own.
The exit status is 1 if a promise was broken.
"""

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: processes are forked
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from basicsr.deploy.runtime_names import RuntimeName
from basicsr.utils.arguments import command_parser, integer_from
from faults import damage, interruptions, storage
from faults.campaign import FAULT, LEFT_OUT, SAME, TAKEN, TOLD, Campaign, Kind, Trial
from faults.jobs import GRAPH_JOBS, JOBS, TORCHRUN, make_inputs
from faults.processes import import_everything

KINDS: dict[str, Kind] = {
    "kill": interruptions.killed,
    "stop": interruptions.stopped,
    "stop_rank": interruptions.stopped_rank,
    "twice": interruptions.twice,
    "worker": interruptions.without_worker,
    "rank": interruptions.without_rank,
    "clock": interruptions.clock_set_back,
    "full": storage.full_disk,
    "short": storage.short_files,
    "read_only": storage.read_only,
    "damage": damage.damaged,
}
TARGETS: dict[str, Mapping[str, Any]] = dict.fromkeys(KINDS, JOBS)
TARGETS |= {
    "kill": JOBS | GRAPH_JOBS,
    "damage": damage.TARGETS,
    **dict.fromkeys(("rank", "stop_rank"), {TORCHRUN.name: TORCHRUN}),
}
"""What each fault is put into, by name."""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    import_everything()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="fault_campaign_", dir=_memory()))
    chosen = {name for kind in options.kinds for name in TARGETS[kind] if name in options.targets}
    graph = any(runtime in name for name in chosen for runtime in get_args(RuntimeName))
    campaign = Campaign(
        folder, make_inputs(folder / "inputs", graph), random.Random(options.seed), 0, options.stop_seconds
    )
    trials = []
    started = time.monotonic()
    more = dict(options.more)
    numbers = {kind: more.get(kind, options.trials) for kind in options.kinds}
    for trial in _trials(campaign, numbers, options.targets):
        trials.append(trial)
        if trial.outcome in (FAULT, LEFT_OUT):
            print(f"{trial.kind}, {trial.target}: {trial.outcome}: {trial.details}", file=sys.stderr, flush=True)
        if options.minutes and time.monotonic() - started > 60 * options.minutes:
            break
    print(table(trials))
    print(f"\n{len(trials)} trials in {(time.monotonic() - started) / 60:.1f} minutes, seed {options.seed}.")
    broken = any(trial.outcome == FAULT for trial in trials)
    if not (broken or options.folder):
        shutil.rmtree(folder)
    return int(broken)


def _trials(campaign: Campaign, numbers: Mapping[str, int], targets: Sequence[str]) -> Iterator[Trial]:
    """Try each kind of fault as often as the numbers say; what waits is gone on with when all targets of its kind have begun."""
    for kind, number in numbers.items():
        campaign.trials = number
        begun = [KINDS[kind](campaign, target) for name, target in TARGETS[kind].items() if name in targets]
        while begun:
            waiting = []
            for trials in begun:
                for trial in trials:
                    if trial is None:
                        waiting.append(trials)
                        break
                    yield trial
            begun = waiting


def _memory() -> str | None:
    """Return a folder in memory, where there is one: what waits for a disk would take most of the time."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def table(trials: Sequence[Trial]) -> str:
    """Return a table in Markdown: how often each kind of fault was put into what, and what came of it."""
    rows: dict[tuple[str, str], list[str]] = {}
    for trial in trials:
        rows.setdefault((trial.kind, trial.target), []).append(trial.outcome)
    lines = ["| fault | put into | tried | same bits | told | taken | broken |", "|---|---|---|---|---|---|---|"]
    for (kind, target), outcomes in rows.items():
        counts = [outcomes.count(outcome) for outcome in (SAME, TOLD, TAKEN, FAULT)]
        lines.append(f"| {kind} | {target} | {sum(counts)} | {' | '.join(map(str, counts))} |")
    return "\n".join(lines)


def _number_of_kind(text: str) -> tuple[str, int]:
    kind, _, number = text.partition("=")
    if kind not in KINDS:
        raise argparse.ArgumentTypeError(f"'{kind}' is none of {', '.join(KINDS)}")
    return kind, integer_from(1)(number)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="faults, by default all")
    names = list(dict.fromkeys(name for targets in TARGETS.values() for name in targets))
    parser.add_argument(
        "--targets",
        nargs="+",
        choices=names,
        default=names,
        metavar="NAME",
        help=f"commands and files: {', '.join(names)}",
    )
    parser.add_argument("--trials", type=integer_from(1), default=10, help="of each kind for each job, by default 10")
    parser.add_argument(
        "--more",
        nargs="+",
        type=_number_of_kind,
        default=[],
        metavar="KIND=N",
        help="another number of trials for a fault, such as kill=11",
    )
    parser.add_argument("--minutes", type=integer_from(1), help="end after this time with what was tried")
    parser.add_argument(
        "--stop-seconds",
        type=integer_from(0),
        default=0,
        metavar="N",
        help="how long a process is stopped; all that are stopped wait side by side. By default for a moment",
    )
    parser.add_argument("--seed", type=integer_from(0), default=0, help="chooses moments and places")
    parser.add_argument("--folder", type=Path, help="for everything that is written; by default a temporary one")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
