"""Scalars of a run in Weights & Biases: what its package is told, and what becomes of the run where that fails."""

import json
import sys
import types

import pytest

from basicsr.utils.experiment import Experiment
from basicsr.utils.options import load_options
from tests import tiny

LOGGED = {"losses/l_pix": 0.5, "lr": 1e-3}


class FakeRun:
    def __init__(self, calls, run_id):
        self.id, self._calls = run_id, calls

    def log(self, values, step):
        self._calls.append(("log", values, step))

    def finish(self):
        self._calls.append(("finish",))


@pytest.fixture
def wandb(monkeypatch):
    """Stand in for the package with its public calls, as they are recorded."""
    module = types.ModuleType("wandb")
    module.Error = type("Error", (Exception,), {})
    module.calls = []

    def init(**arguments):
        module.calls.append(("init", arguments))
        return FakeRun(module.calls, arguments["id"] or "fresh123")

    module.init = init
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def experiment(folder, *more, resume=False):
    changes = tiny.train_overrides(folder, "logger:wandb={project: quantization}", *more)
    return Experiment(load_options(tiny.TRAIN, changes), folder, resume, "net_Q")


def test_a_run_is_told_with_its_options_and_scalars(wandb, tmp_path):
    with experiment(tmp_path) as own:
        own.scalars(LOGGED, 2)
        own.record("train", 2, "Set5", {"psnr": 30.5, "ssim": None}, 1.0)
        own.record("final", 2, "Set5", {"psnr": 30.5}, 1.0)
    (_, begin), *others = wandb.calls
    assert begin["config"]["train"]["total_iter"] == 6 and begin.pop("config")["name"] == "tiny"
    folder = str(tmp_path / "experiments/tiny")
    assert begin == {"project": "quantization", "name": "tiny", "id": None, "resume": None, "dir": folder}
    assert others == [("log", LOGGED, 2), ("log", {"metrics/Set5/psnr": 30.5}, 2), ("finish",)]
    content = json.loads((tmp_path / "experiments/tiny/wandb.json").read_text())
    assert content == {"project": "quantization", "id": "fresh123"}


def test_a_run_that_is_continued_is_the_same_run_there(wandb, tmp_path):
    with experiment(tmp_path) as own:
        own.save({"params": {}}, 2, {"best": {}, "seconds": 0.0})
    with experiment(tmp_path, resume=True):
        assert wandb.calls[-1][1]["id"] == "fresh123" and wandb.calls[-1][1]["resume"] == "allow"
    with experiment(tmp_path):
        assert wandb.calls[-1][1]["id"] is None
    with experiment(tmp_path, "logger:wandb:resume_id=old1"):
        assert wandb.calls[-1][1]["id"] == "old1" and wandb.calls[-1][1]["resume"] == "allow"


@pytest.mark.parametrize("given", ["logger:wandb=null", "logger:wandb:project=null"])
def test_without_a_project_there_is_no_run(wandb, tmp_path, given):
    with experiment(tmp_path, given) as own:
        own.scalars(LOGGED, 2)
    assert wandb.calls == [] and not (tmp_path / "experiments/tiny/wandb.json").exists()


def test_what_cannot_begin_says_what_to_do_and_stops_nothing(wandb, tmp_path, monkeypatch, capfd):
    def refuse(**_):
        raise wandb.Error("No API key configured.")

    monkeypatch.setattr(wandb, "init", refuse)
    with experiment(tmp_path) as own:
        own.scalars(LOGGED, 2)
    told = capfd.readouterr().err
    assert "cannot be used: No API key configured. Log in with `wandb login`, set WANDB_MODE=offline" in told
    monkeypatch.setitem(sys.modules, "wandb", None)
    experiment(tmp_path).close()
    told = capfd.readouterr().err
    assert "package 'wandb' is needed for 'logger:wandb'" in told and "`pip install -e '.[wandb]'` installs it" in told
    assert "The run goes on without." in told


def test_a_run_that_is_lost_on_the_way_costs_nothing(wandb, tmp_path, monkeypatch, capfd):
    def lost(*_, **__):
        raise wandb.Error("the connection is lost")

    with experiment(tmp_path) as own:
        monkeypatch.setattr(FakeRun, "log", lost)
        own.scalars(LOGGED, 2)
        own.scalars(LOGGED, 4)
    told = "The run of Weights & Biases in the project 'quantization' cannot be written (the connection is lost); it ends here."
    assert capfd.readouterr().err.count(told) == 1


@pytest.mark.slow
def test_the_package_itself_takes_a_run_without_a_connection(tmp_path, monkeypatch):
    package = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    with experiment(tmp_path) as own:
        own.scalars(LOGGED, 2)
        own.record("train", 2, "Set5", {"psnr": 30.5}, 1.0)
    package.teardown()  # its process has written all
    run_id = json.loads((tmp_path / "experiments/tiny/wandb.json").read_text())["id"]
    (file,) = (tmp_path / "experiments/tiny/wandb").glob(f"offline-run-*-{run_id}/run-{run_id}.wandb")
    content = file.read_bytes()
    assert all(text in content for text in (b"losses/l_pix", b"metrics/Set5/psnr", b"total_iter"))
