"""Locks between processes, and a run that two processes want."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading

import pytest

from basicsr import test as test_command
from basicsr.export import main as export_main
from basicsr.utils import locks, provenance
from basicsr.utils.errors import CheckpointError
from basicsr.utils.experiment import Experiment
from basicsr.utils.locks import claimed, is_taken, lock_of_run, take_lock
from basicsr.utils.options import load_options
from tests import tiny

HOLD = """
import sys, time
from pathlib import Path
from basicsr.utils.locks import take_lock
lock = take_lock(Path(sys.argv[1]))
print(lock is not None, flush=True)
time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process, which holds the lock of `file`."""
    file = tmp_path / "folder" / "lock"
    process = subprocess.Popen([sys.executable, "-c", HOLD, file], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "True\n"
    yield file, process
    process.kill()
    process.communicate()


def test_a_lock_that_another_process_holds_is_not_to_be_had(holder):
    file, _ = holder
    assert take_lock(file) is None and is_taken(file)


def test_a_killed_process_holds_nothing(holder):
    file, process = holder
    process.send_signal(signal.SIGKILL)
    process.wait()
    lock = take_lock(file)
    assert lock is not None
    lock.release()


def test_a_released_lock_is_free_and_asking_takes_nothing(tmp_path):
    file = tmp_path / "lock"
    assert not is_taken(file) and not file.exists()
    lock = take_lock(file)
    assert is_taken(file) and take_lock(file) is None
    lock.release()
    assert not is_taken(file)


def test_a_lock_that_is_given_up_in_time_is_waited_for(tmp_path):
    first = take_lock(tmp_path / "lock")
    threading.Timer(0.3, first.release).start()
    second = take_lock(tmp_path / "lock", 20)
    assert second is not None
    second.release()


def test_a_lock_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="file' cannot be set up: .*Check the permissions"):
        take_lock(tmp_path / "file" / "lock")


def test_a_run_of_another_process_is_refused_and_left_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "LOCK_SECONDS", 0.2)
    options = load_options(str(tiny.TRAIN), tiny.train_overrides(tmp_path))
    with Experiment(options, tmp_path, False, "net_Q") as first:
        first.record("calibrated", 0, "demo", {"psnr": 29.0}, 1.5)
        before = sorted(tmp_path.rglob("*"))
        for resume in (False, True):
            with pytest.raises(CheckpointError, match=f"Another process works on the run '{options.name}'"):
                Experiment(options, tmp_path, resume, "net_Q")
        assert sorted(tmp_path.rglob("*")) == before
        assert is_taken(lock_of_run(first.folder))
    assert not is_taken(lock_of_run(first.folder))


def test_a_run_that_fails_to_begin_gives_its_lock_up(tmp_path, monkeypatch):
    options = load_options(str(tiny.TRAIN), tiny.train_overrides(tmp_path))

    def full(*_, **__):
        raise OSError("no space")

    monkeypatch.setattr(provenance, "provenance", full)
    with pytest.raises(CheckpointError, match="cannot be set up: no space"):
        Experiment(options, tmp_path, False, "net_Q")
    assert not is_taken(lock_of_run(tmp_path / "experiments" / options.name))


@pytest.mark.slow
def test_a_second_start_of_the_same_run_is_refused_with_a_sentence(tmp_path):
    slow = (
        "from basicsr.models.ptq_model import PTQModel\nimport time\nPTQModel.calibrate = lambda *_: time.sleep(600)\n"
    )
    first = tiny.run_train(tmp_path, prelude=slow)
    try:
        tiny.wait_for(tmp_path / "experiments" / "tiny" / "quantization_map.json", first)
        second = tiny.run_train(tmp_path)
        output, _ = second.communicate(timeout=tiny.PATIENCE)
        assert second.returncode == 2 and "Traceback" not in output
        assert "Another process works on the run 'tiny'" in output
        assert [folder.name for folder in (tmp_path / "experiments").glob("[!.]*")] == ["tiny"]
    finally:
        first.kill()
        first.communicate()


@pytest.mark.parametrize("main", [test_command.main, export_main])
def test_a_second_evaluation_into_one_folder_is_refused_and_leaves_it_as_it_is(tmp_path, monkeypatch, capfd, main):
    monkeypatch.setattr(locks, "LOCK_SECONDS", 0.2)
    network = tmp_path / "net_Q.pth"
    network.touch()
    overrides = tiny.overrides(tmp_path, "name=tiny", f"path:pretrain_network_Q={network}")
    arguments = ["-opt", str(tiny.TEST), "--root", str(tmp_path), "--force_yml", *overrides]
    with claimed(tmp_path / "results/tiny"):
        before = sorted(tmp_path.rglob("*"))
        assert main(arguments) == 2
        assert "Another process works on the run 'tiny' in" in capfd.readouterr().err
        assert sorted(tmp_path.rglob("*")) == before
    assert main([*arguments, "datasets:test_1:dataroot_gt=absent"]) == 2  # for another reason, and its lock is given up
    assert "Another process" not in capfd.readouterr().err
    assert not is_taken(lock_of_run(tmp_path / "results/tiny"))


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL])
def test_where_nothing_can_be_locked_a_run_goes_on_and_says_so(tmp_path, monkeypatch, caplog, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    for _ in range(2):
        with claimed(tmp_path / "experiments/tiny"):
            assert not is_taken(lock_of_run(tmp_path / "experiments/tiny"))
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 1 and os.strerror(number) in messages[0] and "no second process" in messages[0]
