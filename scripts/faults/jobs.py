"""The work that faults are put into: every command that writes, on networks and pictures so small that it takes seconds."""

import dataclasses
import functools
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import lmdb
import numpy as np
import torch
import yaml
from torch.distributed import run

from basicsr.archs import build_network
from basicsr.data.calibration import make_calibration_set, save_calibration_set
from basicsr.export import main as export
from basicsr.sweep.command import main as sweep
from basicsr.test import main as test
from basicsr.train import main as train
from basicsr.upscale import main as upscale
from basicsr.utils.options import load_options
from faults.processes import Command, Work
from faults.results import contents
from faults.small_runs import SMALL_NETWORKS, small_network, small_training
from prepare_data import main as prepare_data

REPOSITORY = Path(__file__).resolve().parents[2]
SCALE, SIDE, PICTURES = 2, 64, 4
NETWORK = SMALL_NETWORKS["EDSR"]
"""Of the EDSR that is trained."""
OVERRIDES: list[str] = []
"""Further options of every command that has an options file, such as another number of threads; the last of the same counts."""
TRAINING_OVERRIDES: list[str] = []
"""Further ones of those that train, such as larger crops."""


@dataclass(frozen=True)
class Inputs:
    """What the jobs read; made once.

    Attributes:
        folder: holds all of it.
    """

    folder: Path

    @property
    def pictures(self) -> Path:
        """Folder of HR pictures."""
        return self.folder / "pictures"

    @property
    def weights(self) -> Path:
        """Full-precision weights."""
        return self.folder / "fp.pth"

    @property
    def quantized(self) -> Path:
        """A network that MinMax has calibrated."""
        return self.folder / "net_Q.pth"

    @property
    def packed(self) -> Path:
        """The same as a packed file."""
        return self.folder / "packed.safetensors"

    @property
    def graph(self) -> Path:
        """The same as an ONNX graph."""
        return self.folder / "graph.onnx"


@dataclass(frozen=True)
class Job:
    """A command and what it leaves.

    Attributes:
        name: what it is called in tables.
        start: returns the work, given the inputs, the folder that it writes to, and whether it has been begun before.
        told: exit codes that go with a sentence.
        processes: number of its own loading processes.
        share: of the trials that a campaign makes; less where one takes long.
    """

    name: str
    start: Callable[[Inputs, Path, bool], Work]
    told: tuple[int, ...] = (2,)
    processes: int = 0
    share: float = 1.0

    def run(self, inputs: Inputs, root: Path, again: bool, log: Path, **how: object) -> Command:
        """Start the job in a process of its own; `how` are further arguments of `Command`."""
        return Command(self.start(inputs, root, again), log, **how)  # type: ignore[arg-type]

    def doing(self, work: Work) -> "Job":
        """Return the job with other work in its place."""
        return dataclasses.replace(self, start=lambda *_: work)

    def results(self, root: Path) -> dict[str, str]:
        """Return the digests of what it has left."""
        return contents(root)


def make_inputs(folder: Path, graph: bool = False) -> Inputs:
    """Make pictures, weights, a quantized network, a packed one, and a graph where it is asked for, which takes ten seconds."""
    inputs = Inputs(folder)
    inputs.pictures.mkdir(parents=True)
    for index in range(PICTURES):
        coarse = np.random.default_rng(index).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        picture = cv2.resize(coarse, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(inputs.pictures / f"{index}.png"), picture)
    torch.manual_seed(1)
    network = build_network({"type": "EDSR", "upscale": SCALE, **NETWORK})
    torch.save({"params": network.state_dict()}, inputs.weights)
    torch.save({"lq": torch.rand(2, 3, 16, 16)}, folder / "cache.pth")
    crops = make_calibration_set(str(inputs.pictures), None, scale=SCALE, crop_size=16, num_images=2)
    save_calibration_set(folder / "crops.json", crops)
    files = {"fault.safetensors": inputs.packed, **({"fault.onnx": inputs.graph} if graph else {})}
    for job, made in (
        (CALIBRATE, {"experiments/fault/models/net_Q_latest.pth": inputs.quantized}),
        (EXPORT_GRAPHS if graph else JOBS["export"], {f"results/fault/{file}": name for file, name in files.items()}),
    ):
        ended = job.run(inputs, folder / job.name, False, folder / f"{job.name}.log").wait()
        if ended.code != 0:
            raise RuntimeError(f"The inputs of the campaign cannot be made:\n{ended.output}")
        for file, name in made.items():
            (folder / job.name / file).rename(name)
    return inputs


def _overrides(inputs: Inputs) -> list[str]:
    return [*small_network("edsr_baseline", SCALE, NETWORK, inputs.weights), "name=fault", *OVERRIDES]


def _training(inputs: Inputs, *more: str) -> list[str]:
    return [*_overrides(inputs), *small_training(inputs.pictures, inputs.pictures), *TRAINING_OVERRIDES, *more]


def _train(file: str, *more: str, inputs: Inputs, root: Path, again: bool) -> int:
    arguments = ["-opt", str(REPOSITORY / "options/train" / file), "--root", str(root)]
    flags = ["--auto_resume"] if again else []
    return train([*arguments, *flags, "--force_yml", *_training(inputs, *more)])


def training(name: str, file: str, *more: str, processes: int = 0) -> Job:
    """Return the job of a training by an options file."""
    work = functools.partial(_train, file, *more, f"train:num_workers={processes}")
    return Job(
        name,
        lambda inputs, root, again: functools.partial(work, inputs=inputs, root=root, again=again),
        processes=processes,
    )


def _in_two_processes(inputs: Inputs, root: Path, again: bool) -> int:
    """Train by torchrun, whose two processes write what they say into `ranks` beside the folder."""
    script = [str(REPOSITORY / "basicsr/train.py"), "-opt", str(REPOSITORY / "options/train/demo_QAT.yml")]
    script += ["--root", str(root), "--launcher", "pytorch", *(["--auto_resume"] if again else [])]
    torchrun = ["--standalone", "--nproc_per_node=2", "--redirects=3", f"--log-dir={root.parent / 'ranks'}"]
    run.main([*torchrun, *script, "--force_yml", *_training(inputs)])
    return 0


def calibrating(file: str) -> Job:
    """Return the job of a calibration on a set that lies among the inputs."""
    return Job(
        f"calibrate on {file}",
        lambda inputs, root, _again: functools.partial(
            _train,
            "demo_MinMax.yml",
            "train:total_iter=0",
            f"calibration:data={inputs.folder / file}",
            inputs=inputs,
            root=root,
            again=False,
        ),
    )


def testing(pictures: str) -> Job:
    """Return the job of a test on a folder among the inputs."""
    return Job(
        f"test on {pictures}", lambda inputs, root, _again: lambda: _on_test_options(test, inputs, root, pictures)
    )


def testing_by_own_file() -> Job:
    """Return the job of a test by an options file that lies among the inputs and says everything."""
    return Job(
        "test by options.yml",
        lambda inputs, root, _again: lambda: test(["-opt", str(inputs.folder / "options.yml"), "--root", str(root)]),
    )


def write_options(inputs: Inputs) -> None:
    """Write what `testing_by_own_file` reads."""
    options = load_options(REPOSITORY / "options/test/demo.yml", _testing(inputs, "pictures"))
    text = yaml.safe_dump(options.model_dump(mode="json", exclude_unset=True), sort_keys=False)
    (inputs.folder / "options.yml").write_text(text, encoding="utf-8")


def make_lmdb(pictures: Path, folder: Path) -> None:
    """Put the pictures of a folder into an LMDB folder, as BasicSR does."""
    lines = []
    with lmdb.open(str(folder), map_size=1 << 24) as environment, environment.begin(write=True) as transaction:
        for file in sorted(pictures.glob("*.png")):
            transaction.put(file.stem.encode(), file.read_bytes())
            lines.append(f"{file.name} ({SIDE},{SIDE},3) 1\n")
    (folder / "meta_info.txt").write_text("".join(lines), encoding="utf-8")


def _testing(inputs: Inputs, pictures: str) -> list[str]:
    sets = [f"datasets:test_1:dataroot_gt={inputs.folder / pictures}", "datasets:test_1:num_images=1"]
    return ["recipe=MinMax", *_overrides(inputs), *sets, f"path:pretrain_network_Q={inputs.quantized}"]


def _on_test_options(
    main: Callable[[list[str] | None], int], inputs: Inputs, root: Path, pictures: str = "pictures", *flags: str
) -> int:
    arguments = ["-opt", str(REPOSITORY / "options/test/demo.yml"), "--root", str(root), *flags]
    return main([*arguments, "--force_yml", *_testing(inputs, pictures)])


def _sweep(inputs: Inputs, root: Path) -> int:
    shared = dict(line.split("=", 1) for line in _training(inputs) if not line.startswith(("name=", "scale=")))
    overrides: dict[str, object] = {}
    for key, text in shared.items():
        place = overrides
        *sections, last = key.split(":")
        for section in sections:
            place = place.setdefault(section, {})  # type: ignore[assignment]
        place[last] = _value(text)
    test_set = {"name": "demo", "type": "PairedImageDataset", "dataroot_gt": str(inputs.pictures), "num_images": 1}
    grid = {
        "name": "fault",
        "output": str(root / "sweep"),
        "architectures": ["EDSR-baseline"],
        "scales": [SCALE],
        "bits": [4],
        "overrides": overrides,
        "evaluation": {"datasets": {"test_1": test_set}},
        "methods": [{"label": "2DQuant", "options": str(REPOSITORY / "options/train/demo_2DQuant.yml")}],
    }
    file = inputs.folder / f"grid_{os.getpid()}.yml"
    file.write_text(json.dumps(grid), encoding="utf-8")  # JSON is YAML
    return sweep(["-grid", str(file), "--root", str(root)])


def _value(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _prepare(inputs: Inputs, root: Path, *more: str, workers: int = 1) -> int:
    arguments = ["--hr", str(inputs.pictures), "--out", str(root / "prepared"), "--workers", str(workers)]
    return prepare_data([*arguments, "--scales", "2", "4", *more])


def _upscale(inputs: Inputs, root: Path, runtime: str = "torch") -> int:
    """Enlarge pictures by the packed network, or by the graph where another runtime is to run it."""
    model = inputs.packed if runtime == "torch" else inputs.graph
    files = ["--input", str(inputs.pictures), "--output", str(root / "large")]
    return upscale(["--model", str(model), "--runtime", runtime, *files, "--skip_existing"])


CALIBRATE = training("calibrate", "demo_MinMax.yml", "train:total_iter=0")
_SQUARES = ("--subimages", "--crop_size", "32", "--step", "16")
_ALL = (
    training("train, PTQ", "demo_2DQuant.yml", "quantization:coverage=body"),
    training("train, QAT", "demo_QAT.yml"),
    training("train, reconstruction", "demo_BRECQ.yml"),
    training("train, full precision", "demo_train_EDSR.yml", "train:data_in_memory=false", processes=2),
    Job("sweep", lambda inputs, root, _again: lambda: _sweep(inputs, root), told=(1, 2), share=0.3),
    Job("test", lambda inputs, root, _again: lambda: _on_test_options(test, inputs, root)),
    Job("export", lambda inputs, root, _again: lambda: _on_test_options(export, inputs, root)),
    Job("prepare_data", lambda inputs, root, _again: lambda: _prepare(inputs, root), told=(1,)),
    Job("prepare_data --subimages", lambda inputs, root, _again: lambda: _prepare(inputs, root, *_SQUARES), told=(1,)),
    Job("upscale", lambda inputs, root, _again: lambda: _upscale(inputs, root), told=(2, 3)),
)
JOBS = {job.name: job for job in _ALL}
EXPORT_GRAPHS = Job(
    "export, ONNX graphs",
    lambda inputs, root, _again: lambda: _on_test_options(export, inputs, root, "pictures", "--onnx"),
    share=0.1,
)
_ON_GRAPHS = (
    EXPORT_GRAPHS,
    Job("upscale, onnxruntime", lambda inputs, root, _again: lambda: _upscale(inputs, root, "onnxruntime"), (2, 3), share=0.5),
    Job("upscale, openvino", lambda inputs, root, _again: lambda: _upscale(inputs, root, "openvino"), (2, 3), share=0.5),
)  # fmt: skip
GRAPH_JOBS = {job.name: job for job in _ON_GRAPHS}
"""What writes and reads ONNX graphs."""
TORCHRUN = Job("train by torchrun", lambda *given: functools.partial(_in_two_processes, *given), share=0.1)
TRAININGS = tuple(name for name in JOBS if name.startswith("train"))
