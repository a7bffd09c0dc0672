"""Two processes compute what one computes."""

import json
import os
import subprocess
import sys

import pytest
import torch

from basicsr import train as train_command
from tests import tiny

pytestmark = pytest.mark.slow


SHORT = ["train:total_iter=4", "train:batch_size=4", "datasets:val:num_images=2"]


def run(folder, processes, *more, opt=tiny.TRAIN, **network):
    """Train in this process, or in as many as torchrun starts."""
    changes = tiny.train_overrides(folder, *SHORT, *more, **network)
    arguments = ["-opt", str(opt), "--root", str(folder), "--force_yml", *changes]
    if processes == 1:
        assert train_command.main(arguments) == 0
        return folder / "experiments/tiny"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    done = subprocess.run(
        [*launcher, str(tiny.ROOT / "basicsr/train.py"), "--launcher", "pytorch", *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=tiny.PATIENCE,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return folder / "experiments/tiny"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return [run(tmp_path_factory.mktemp(f"processes{n}"), n) for n in (1, 2)]


def test_calibrated_bounds_are_the_same(runs):
    reports = [json.loads((experiment / "calibration.json").read_text()) for experiment in runs]
    assert reports[0] == reports[1]


def test_distillation_differs_by_rounding_only(runs):
    for iteration in (2, 4):
        one, two = (torch.load(e / f"models/net_Q_{iteration}.pth", weights_only=True)["params"] for e in runs)
        assert set(one) == set(two)
        for key, value in one.items():
            torch.testing.assert_close(
                two[key], value, rtol=1e-3, atol=2e-5, msg=lambda text, key=key: f"{key}: {text}"
            )


def test_every_image_is_evaluated_once(runs):
    first, second = (
        [json.loads(line) for line in (experiment / "metrics.jsonl").read_text().splitlines()] for experiment in runs
    )
    assert [(line["stage"], line["iter"]) for line in first] == [(line["stage"], line["iter"]) for line in second]
    for a, b in zip(first, second, strict=True):
        assert a["psnr"] == pytest.approx(b["psnr"], abs=1e-2)
        assert a["ssim"] == pytest.approx(b["ssim"], abs=1e-3)


def test_full_precision_training_differs_by_rounding_only(tmp_path):
    networks = []
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        folder.mkdir()
        experiment = run(
            folder, processes, "datasets:test_1:dataroot_gt=absent", "train:total_iter=2", "train:piece_minutes=5",
            opt=tiny.ROOT / "options/train/demo_train_EDSR.yml", architecture="EDSR", optimizers=("optim_g",),
        )  # fmt: skip
        networks.append(torch.load(experiment / "models/net_g_2.pth", weights_only=True))
    for entry in ("params", "params_ema"):
        for key, value in networks[0][entry].items():
            torch.testing.assert_close(networks[1][entry][key], value, rtol=1e-3, atol=2e-5)


def test_the_launcher_needs_torchrun(tmp_path):
    command = [sys.executable, str(tiny.ROOT / "basicsr/train.py"), "-opt", str(tiny.TRAIN), "--launcher", "pytorch"]
    environment = {key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE")}
    done = subprocess.run(
        command, cwd=tiny.ROOT, env=environment, capture_output=True, text=True, timeout=tiny.PATIENCE
    )
    assert done.returncode == 2
    assert "torchrun" in done.stderr and "Traceback" not in done.stderr


EDSR = {"architecture": "EDSR", "optimizers": ("optim_g",)}


def start_task(folder, task, tasks):
    """Start what srun would start as a task, with the variables that it sets; the master's port is that of the job."""
    job = {
        "SLURM_PROCID": task,
        "SLURM_LOCALID": task,
        "SLURM_NTASKS": tasks,
        "SLURM_NODELIST": "localhost",
        "SLURM_JOB_ID": os.getpid(),
    }
    own = {
        key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "MASTER_", "RANK", "WORLD_"))
    }
    changes = tiny.train_overrides(folder, *SHORT, "datasets:test_1:dataroot_gt=absent", "train:total_iter=2", **EDSR)
    opt = tiny.ROOT / "options/train/demo_train_EDSR.yml"
    command = [sys.executable, str(tiny.ROOT / "basicsr/train.py"), "-opt", str(opt), "--root", str(folder)]
    return subprocess.Popen(
        [*command, "--launcher", "slurm", "--force_yml", *changes],
        cwd=folder, env={**own, "OMP_NUM_THREADS": "1", **{k: str(v) for k, v in job.items()}},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def test_tasks_of_slurm_are_the_processes(tmp_path):
    networks = []
    for tasks in (1, 2):
        folder = tmp_path / str(tasks)
        folder.mkdir()
        tiny.save_network(folder / "fp_x4.pth", architecture="EDSR")
        started = [start_task(folder, task, tasks) for task in range(tasks)]
        printed = [task.communicate(timeout=tiny.PATIENCE)[0] for task in started]
        assert [task.returncode for task in started] == [0] * tasks, printed
        assert "iteration 2/2" in printed[0] and all("INFO" not in text for text in printed[1:])
        networks.append(torch.load(folder / "experiments/tiny/models/net_g_2.pth", weights_only=True)["params"])
    for key, value in networks[0].items():
        torch.testing.assert_close(networks[1][key], value, rtol=1e-3, atol=2e-5)
