"""Files that were damaged: cut at every tenth of their length, or with one bit flipped."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from basicsr.deploy.runtime_names import RuntimeName
from faults.campaign import FAULT, SAME, TAKEN, TOLD, Campaign, Trial, problem_of, tried
from faults.jobs import (
    GRAPH_JOBS,
    JOBS,
    Inputs,
    Job,
    calibrating,
    make_lmdb,
    testing,
    testing_by_own_file,
    write_options,
)
from faults.results import difference

_CUTS = 10


@dataclass(frozen=True)
class Target:
    """A file and the command that reads it.

    Attributes:
        name: what it is called in tables.
        job: the command; it reads `place/inputs` and writes to `place/root`.
        file: the file, as seen from `place`.
        prepare: makes what the command finds there; given the campaign and `place`.
        told: exit codes that go with a sentence.
        summed: whether the file has a checksum, so that no other value of it may be taken.
        derived: whether the command goes on without it, so that the file is not compared.
    """

    name: str
    job: Job
    file: str
    prepare: Callable[[Campaign, Path], None] = lambda _campaign, _place: None
    summed: bool = True
    derived: bool = False


def damaged(campaign: Campaign, target: Target) -> Iterator[Trial]:
    """Cut the file at every tenth of its length, then flip single bits of it; after each, put it back."""
    original = _placed(campaign, target)
    whole = (original / target.file).read_bytes()
    expected = _expected(campaign, target, original)
    for index in range(_CUTS):
        yield _trial(campaign, target, "file cut", whole[: len(whole) * index // _CUTS], expected)
    for _ in range(campaign.number(target.job)):
        flipped = bytearray(whole)
        place = campaign.random.randrange(8 * len(flipped))
        flipped[place // 8] ^= 1 << place % 8
        yield _trial(campaign, target, "bit flipped", bytes(flipped), expected)


def _placed(campaign: Campaign, target: Target) -> Path:
    place = campaign.place()
    shutil.copytree(campaign.inputs.folder, place / "inputs")
    target.prepare(campaign, place)
    return place


def _expected(campaign: Campaign, target: Target, place: Path) -> dict[str, str]:
    """Return what the command leaves with the file as it was."""
    ended = target.job.run(_inputs(campaign, target, place), place / "root", True, place / "log").wait()
    if ended.code != 0:
        raise RuntimeError(f"'{target.name}' fails with a whole file:\n{ended.output}")
    return _results(target, place)


def _inputs(campaign: Campaign, target: Target, place: Path) -> Inputs:
    """Return the copy of the inputs that has the file, or those of the training that is continued."""
    return Inputs(place / "inputs") if target.file.startswith("inputs") else campaign.inputs


def _results(target: Target, place: Path) -> dict[str, str]:
    found = target.job.results(place / "root")
    if target.derived:
        found.pop(Path(target.file).relative_to("root").as_posix(), None)
    return found


def _trial(campaign: Campaign, target: Target, kind: str, content: bytes, expected: dict[str, str]) -> Trial:
    place = _placed(campaign, target)
    file = place / target.file
    whole = file.read_bytes()
    file.write_bytes(content)
    inputs = _inputs(campaign, target, place)
    ended = target.job.run(inputs, place / "root", True, place / "log0").wait()
    problem, outcome = problem_of(ended, target.job.told), TOLD
    if problem is None and ended.code == 0:
        outcome, problem = _judged(target, difference(expected, _results(target, place)))
    elif problem is None:
        file.write_bytes(whole)
        ended = target.job.run(inputs, place / "root", True, place / "log").wait()
        problem = problem_of(ended, told=()) or difference(expected, _results(target, place))
    return tried(place, kind, target.name, problem, outcome)


def _judged(target: Target, other: str | None) -> tuple[str, str | None]:
    """Return the outcome of a command that ended well with a damaged file, and what is wrong with that."""
    if other is None:
        return SAME, None
    return (FAULT, f"the damage was not noticed, {other}") if target.summed else (TAKEN, None)


def _of_training(file: str, summed: bool = True, derived: bool = False) -> Target:
    """Return a file of a training that ended after 4 of 6 iterations and is continued."""
    job = JOBS["train, PTQ"]

    def prepare(campaign: Campaign, place: Path) -> None:
        shutil.copytree(campaign.reference(job).folder, place / "root")
        for name in ("models/net_Q_6.pth", "training_states/6.state"):
            (place / "root/experiments/fault" / name).unlink()

    return Target(f"{Path(file).name}, continued", job, f"root/experiments/fault/{file}", prepare, summed, derived)


def _with_lmdb(_campaign: Campaign, place: Path) -> None:
    make_lmdb(place / "inputs/pictures", place / "inputs/pictures.lmdb")


def _with_options(_campaign: Campaign, place: Path) -> None:
    write_options(Inputs(place / "inputs"))


_ALL = (
    _of_training("training_states/4.state"),
    _of_training("models/net_Q_4.pth"),
    _of_training("models/net_Q_latest.pth"),
    _of_training("metrics.jsonl"),
    _of_training("losses.jsonl", derived=True),
    _of_training("calibration_set.json", derived=True),
    _of_training("options.yml"),
    Target("weights (.pth)", JOBS["test"], "inputs/fp.pth"),
    Target("quantized network (.pth)", JOBS["test"], "inputs/net_Q.pth"),
    Target("packed network (.safetensors)", JOBS["upscale"], "inputs/packed.safetensors"),
    *(Target(f"ONNX graph, {name}", GRAPH_JOBS[f"upscale, {name}"], "inputs/graph.onnx") for name in get_args(RuntimeName)),
    Target("calibration tensor (.pth)", calibrating("cache.pth"), "inputs/cache.pth"),
    Target("calibration list (.json)", calibrating("crops.json"), "inputs/crops.json", summed=False),
    Target("picture (.png)", JOBS["test"], "inputs/pictures/0.png"),
    Target("LMDB (data.mdb)", testing("pictures.lmdb"), "inputs/pictures.lmdb/data.mdb", _with_lmdb, summed=False),
    Target("LMDB (meta_info.txt)", testing("pictures.lmdb"), "inputs/pictures.lmdb/meta_info.txt", _with_lmdb, summed=False),
    Target("options (.yml)", testing_by_own_file(), "inputs/options.yml", _with_options, summed=False),
)  # fmt: skip
TARGETS = {target.name: target for target in _ALL}
