"""The array job, without a cluster: submitit's local executor, and programs that stand in for those of Slurm."""

import dataclasses
import sys

import cloudpickle
import pytest
import submitit

from basicsr.sweep import cluster
from basicsr.sweep.cluster import SweepTask, submit
from basicsr.sweep.grid import SlurmOptions, load_grid
from basicsr.sweep.plan import plan
from basicsr.utils.errors import OptionsError
from tests import tiny_grid

SHELL = ["/bin/sh", "-c"]


@pytest.fixture
def runs(tmp_path):
    (run, *_) = plan(load_grid(tiny_grid.write(tmp_path)), tmp_path)
    return [dataclasses.replace(run, name=name) for name in ("first", "second")]


@pytest.mark.slow
def test_failed_tasks_are_told_from_others(runs, tmp_path):
    reports = []
    script = f'[ "$1" = first ] && touch {tmp_path}/done'  # $0 is --only, $1 the name of the run
    summary = submit(runs, [*SHELL, script], SlurmOptions(gpus=0), tmp_path / "jobs", "local", "x", reports.append)
    assert (summary.finished, summary.failed) == (["first"], ["second"]) and (tmp_path / "done").exists()
    assert "second failed, see" in reports[-1]


@pytest.mark.slow
def test_a_task_that_runs_out_of_time_saves_and_is_queued_again(tmp_path):
    # the command itself sends the warning that the cluster would send to the process that started it
    script = (
        "[ -e begun ] && { touch continued; exit; }; trap 'touch saved; exit 143' TERM; touch begun; kill -USR2 $PPID; "
        "while :; do sleep 0.05; done"
    )
    cloudpickle.register_pickle_by_value(cluster)
    executor = submitit.LocalExecutor(tmp_path / "jobs")
    executor.update_parameters(timeout_min=5)
    executor.submit(SweepTask([*SHELL, script], str(tmp_path))).result()
    assert (tmp_path / "saved").exists() and (tmp_path / "continued").exists()


def test_a_warning_that_slurm_sends_to_all_processes_does_not_end_the_command(tmp_path):
    SweepTask([*SHELL, "kill -USR2 $$; touch survived"], str(tmp_path))()
    assert (tmp_path / "survived").exists()


def test_the_array_job_asks_for_what_the_grid_says(runs, tmp_path, monkeypatch):
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, line in {
        "srun": "exit 0",
        "sbatch": f"cp $1 {tmp_path}/submitted.sh; echo Submitted batch job 77",
    }.items():
        (programs / name).write_text(f"#!/bin/sh\n{line}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    options = SlurmOptions(
        partition="gpu", minutes=90, gpus=2, cpus=6, memory_gb=24, max_parallel=1, setup=["module load cuda"],
        additional={"account": "sr"},
    )  # fmt: skip
    reports = []
    summary = submit(runs, [sys.executable], options, tmp_path / "jobs", "slurm", "demo", reports.append)
    assert summary == cluster.Summary() and "array job 77" in reports[0]
    script = (tmp_path / "submitted.sh").read_text()
    wanted = (
        "--array=0-1%1", "--partition=gpu", "--time=90", "--gpus-per-node=2", "--cpus-per-task=6", "--mem=24GB",
        "--account=sr", "--job-name=demo", "module load cuda",
    )  # fmt: skip
    for text in wanted:
        assert text in script


def test_without_slurm_the_launcher_is_refused(runs, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OptionsError, match="The launcher 'slurm' cannot be used"):
        submit(runs, ["x"], SlurmOptions(), tmp_path / "jobs", "slurm", "demo", print)


def test_without_submitit_the_package_is_named(runs, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(OptionsError, match="pip install submitit"):
        submit(runs, ["x"], SlurmOptions(), tmp_path / "jobs", "slurm", "demo", print)
