"""Whole runs of quantization-aware training: they resume to the same bits, and stop with a sentence when they diverge."""

import os
import shutil
import subprocess
import sys

import pytest
import torch

from basicsr import train as train_command
from basicsr.losses.pixel_loss import L1Loss
from tests import tiny

pytestmark = pytest.mark.slow

OPTIONS = tiny.ROOT / "options/train/demo_ODM.yml"


def train(folder, *more, flags=()):
    arguments = tiny.train_overrides(folder, "train:total_iter=4", *more, architecture="EDSR", optimizers=["optim_g"])
    return train_command.main(["-opt", str(OPTIONS), "--root", str(folder), *flags, "--force_yml", *arguments])


def saved(folder, label):
    experiment = folder / "experiments/tiny"
    network = torch.load(experiment / f"models/net_Q_{label}.pth", weights_only=True)["params"]
    return network, torch.load(experiment / f"training_states/{label}.state", weights_only=True)


def assert_same(a, b):
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert set(a) == set(b)
        for key in set(a) - {"seconds"}:
            assert_same(a[key], b[key])
    elif isinstance(a, list):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    else:
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def test_a_resumed_run_has_the_bits_and_the_records_of_an_undisturbed_one(tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    changes = ["train:diagnostics_freq=2"]
    assert train(whole, *changes) == 0
    shutil.copytree(whole, cut)
    experiment = cut / "experiments/tiny"
    for file in ("training_states/4.state", "models/net_Q_4.pth", "visualization/diagnostics.png"):
        (experiment / file).unlink()
    weights = f"path:pretrain_network_FP={whole / 'fp_x4.pth'}"
    assert train(cut, *changes, weights, flags=["--auto_resume"]) == 0
    for one, other in zip(saved(whole, 4), saved(cut, 4), strict=True):
        assert_same(one, other)
    assert saved(cut, 4)[1]["diagnostics"]["records"]["iterations"] == [1, 2, 4]
    assert (experiment / "visualization/diagnostics.png").exists()


def test_a_loss_of_nan_stops_the_run_and_keeps_the_last_checkpoint(tmp_path, capfd, monkeypatch):
    forward, calls = L1Loss.forward, []

    def failing(self, output, target):
        calls.append(1)
        return forward(self, output, target) * (float("nan") if len(calls) == 4 else 1.0)

    monkeypatch.setattr(L1Loss, "forward", failing)
    assert train(tmp_path, "train:diagnostics_freq=1") == 2
    error = capfd.readouterr().err
    assert (tmp_path / "experiments/tiny/visualization/diagnostics.png").exists()
    assert "Iteration 4 failed; the checkpoint of iteration 2 is kept. The loss 'l_pix' is nan." in error
    assert "the loss itself is out of range" in error and "Traceback" not in error
    monkeypatch.undo()
    assert train(tmp_path, "train:diagnostics_freq=1", flags=["--auto_resume"]) == 0


def test_a_learning_rate_that_is_far_too_large(tmp_path, capfd):
    assert train(tmp_path, "train:optim_g:lr=1e30", "val:val_freq=100", "logger:save_checkpoint_freq=100") == 2
    error = capfd.readouterr().err
    assert "failed; no checkpoint has been saved. The loss '" in error
    assert "The first tensor that " in error and "Lower the learning rate" in error and "Traceback" not in error


def test_two_processes_train_as_one(tmp_path):
    networks = []
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        folder.mkdir()
        # steps in proportion to the gradient, whose rounding would decide the sign of a step otherwise
        changes = ["train:optim_g={type: Adam, lr: 1e-2, eps: 1.0}", "train:total_iter=2", "val:val_freq=100"]
        arguments = tiny.train_overrides(folder, *changes, architecture="EDSR", optimizers=[])
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        command += [str(tiny.ROOT / "basicsr/train.py"), "-opt", str(OPTIONS), "--root", str(folder)]
        done = subprocess.run(
            [*command, "--launcher", "pytorch", "--force_yml", *arguments],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=tiny.PATIENCE,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        networks.append(saved(folder, 2)[0])
    # the norms of the mismatch are those of the parts, so that they differ a little
    for key, value in networks[0].items():
        torch.testing.assert_close(
            networks[1][key], value, rtol=1e-3, atol=2e-5, msg=lambda text, key=key: f"{key}: {text}"
        )


def test_options_of_another_model_are_named(tmp_path, capfd):
    assert train(tmp_path, "train:optim_bound={type: Adam, lr: 1e-3}") == 2
    assert "Unknown option 'train:optim_bound'. Did you mean 'optim_g'?" in capfd.readouterr().err
