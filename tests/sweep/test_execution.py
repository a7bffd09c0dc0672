"""Processes: how many at a time, what a failure and a signal do. The processes here are lines of shell."""

import dataclasses
import os
import signal
from pathlib import Path

import pytest

from basicsr.sweep import execution, goals
from basicsr.sweep.execution import ActiveRun, Pool, last_lines, slot_environment
from basicsr.sweep.goals import Measured
from basicsr.sweep.grid import load_grid
from basicsr.sweep.plan import Step, plan
from basicsr.sweep.records import Places
from basicsr.utils.locks import is_taken, lock_of_run, take_lock
from basicsr.utils.signals import Interrupted
from tests import tiny_grid

pytestmark = pytest.mark.slow


class Shell(Step):
    """A step that runs its first override as shell."""

    def command(self, root, auto_resume=False):
        return ["/bin/sh", "-c", self.overrides[0]]


@pytest.fixture(autouse=True)
def _no_records(monkeypatch):
    monkeypatch.setattr(goals, "state_of", lambda *_: ("unfinished", []))
    monkeypatch.setattr(goals, "write_record", lambda *_: {"metrics": {"datasets": {"demo": {"psnr": 30.0}}}})


@pytest.fixture
def places(tmp_path):
    return Places(tmp_path, tmp_path / "output", tmp_path / "logs")


@pytest.fixture
def shell_runs(tmp_path):
    (run, *_) = plan(load_grid(tiny_grid.write(tmp_path)), tmp_path)
    return lambda *lines: [
        dataclasses.replace(run, name=f"run{i}", evaluate=Shell("", "", (line,))) for i, line in enumerate(lines)
    ]


def test_as_many_at_a_time_as_there_are_jobs(places, shell_runs, tmp_path):
    # each of the first two ends only when the other has begun; all count how many are there
    meet = "echo + >> count; touch {me}; while [ ! -e {other} ]; do sleep 0.05; done; echo - >> count"
    lines = [meet.format(me=a, other=b) for a, b in ("ab", "ba", "ca", "da", "ea")]
    summary = Pool(Measured(), places, 2, lambda _: None).work(
        shell_runs(*(f"cd {tmp_path}; {line}" for line in lines))
    )
    assert sorted(summary.finished) == [f"run{i}" for i in range(5)] and not summary.failed
    present, most = 0, 0
    for sign in (tmp_path / "count").read_text().split():
        present += 1 if sign == "+" else -1
        most = max(most, present)
    assert most == 2


def test_a_failure_is_reported_and_the_others_go_on(places, shell_runs):
    reports = []
    runs = shell_runs("echo early; echo 'no such picture'; exit 2", "exit 0", "kill -9 $$")
    summary = Pool(Measured(), places, 1, reports.append).work(runs)
    assert summary.finished == ["run1"] and summary.failed == ["run0", "run2"]
    text = "\n".join(reports)
    assert "run0 failed with exit status 2" in text and "    no such picture" in text
    assert "run2 was ended by SIGKILL" in text and "run1 finished in" in text and "demo 30.000 dB" in text


def test_a_signal_lets_processes_save_and_stops_the_sweep(places, shell_runs, tmp_path):
    save = f"trap 'touch {tmp_path}/saved; exit 143' TERM; kill -TERM $PPID; while :; do sleep 0.05; done"
    with pytest.raises(Interrupted) as interrupt:
        Pool(Measured(), places, 1, lambda _: None).work(shell_runs(save, f"touch {tmp_path}/second"))
    assert interrupt.value.exit_code == 128 + signal.SIGTERM
    assert (tmp_path / "saved").exists() and not (tmp_path / "second").exists()


def test_a_second_signal_kills(places, shell_runs, tmp_path):
    stubborn = f"trap '' TERM; echo $$ > {tmp_path}/pid; kill -TERM $PPID; sleep 0.3; kill -TERM $PPID; sleep 600"
    with pytest.raises(Interrupted):
        Pool(Measured(), places, 1, lambda _: None).work(shell_runs(stubborn))
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_run_that_another_process_works_on_is_left_out(places, shell_runs):
    (run,) = shell_runs("exit 0")
    reports = []
    other = ActiveRun(run, Measured(), places, 0, 1)
    try:
        summary = Pool(Measured(), places, 1, reports.append).work([run])
    finally:
        other.close()
    assert summary.elsewhere == ["run0"] and "another process is working on it" in reports[0]
    assert Pool(Measured(), places, 1, reports.append).work([run]).finished == ["run0"]


def test_a_run_whose_training_outlived_its_sweep_is_left_out(places, shell_runs):
    (run,) = shell_runs("exit 0")
    training = take_lock(lock_of_run(places.experiment(run)))
    try:
        summary = Pool(Measured(), places, 1, lambda _: None).work([run])
    finally:
        training.release()
    assert summary.elsewhere == ["run0"] and not is_taken(places.lock(run))
    assert Pool(Measured(), places, 1, lambda _: None).work([run]).finished == ["run0"]


@pytest.mark.parametrize(
    ("jobs", "given", "threads"), [(1, None, "8"), (2, None, "4"), (16, None, "1"), (2, "1", "1"), (4, "6", "2")]
)
def test_jobs_share_the_cores(monkeypatch, jobs, given, threads):
    monkeypatch.setattr(execution, "cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if given:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    environment = slot_environment(0, jobs)
    assert environment["OMP_NUM_THREADS"] == environment["MKL_NUM_THREADS"] == threads


def test_jobs_share_the_gpus(monkeypatch):
    monkeypatch.setattr(execution.torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert [slot_environment(slot, 4)["CUDA_VISIBLE_DEVICES"] for slot in range(4)] == ["3", "5", "3", "5"]
    assert slot_environment(0, 1)["CUDA_VISIBLE_DEVICES"] == "3,5"


def test_last_lines_without_overwritten_progress(tmp_path):
    log = tmp_path / "log"
    log.write_text("\n".join(["old"] * 9 + ["10%\r50%\r100%", "the end", ""]))
    assert last_lines(log).splitlines()[-2:] == ["    100%", "    the end"]
    assert len(last_lines(log).splitlines()) == execution.LAST_LINES


def test_a_full_disk_ends_a_run_and_not_the_sweep(places, shell_runs, tmp_path):
    if not Path("/dev/full").exists():
        pytest.skip("the system has no device that is always full")
    runs = shell_runs("true", "true")
    places.log(runs[0]).parent.mkdir(parents=True, exist_ok=True)
    places.log(runs[0]).symlink_to("/dev/full")
    reports = []
    summary = Pool(Measured(), places, 1, reports.append).work(runs)
    assert summary.failed == ["run0"] and summary.finished == ["run1"]
    assert "No space left on device" in "\n".join(reports)
