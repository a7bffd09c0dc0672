"""A run that is killed at any moment and continued ends with the bits of one that was not."""

import json
import signal

import pytest
import torch

from tests import tiny

pytestmark = pytest.mark.slow

KILL = """
import os, signal
count, replace = 0, os.replace
def killing_replace(*names):
    global count
    count += 1
    if count == {at}:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(*names)
os.replace = killing_replace
"""


def finish(process, expected=0):
    output, _ = process.communicate(timeout=tiny.PATIENCE)
    assert process.returncode == expected, output
    return output


def final_files(folder):
    experiment = folder / "experiments" / "tiny"
    networks = {
        file.name: torch.load(file, weights_only=True)["params"] for file in sorted(experiment.glob("models/*.pth"))
    }
    state = torch.load(experiment / "training_states/6.state", weights_only=True)
    lines = [json.loads(line) for line in (experiment / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line.pop("seconds")
    losses = [json.loads(line) for line in (experiment / "losses.jsonl").read_text().splitlines()]
    return networks, state, lines, losses


def assert_same(a, b, where=""):
    assert type(a) is type(b), where
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert set(a) == set(b), where
        for key in a:
            if key != "seconds":
                assert_same(a[key], b[key], f"{where}/{key}")
    elif isinstance(a, list):
        assert len(a) == len(b), where
        for index, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}[{index}]")
    else:
        assert a == b, where


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    finish(tiny.run_train_anew(folder))  # with other hashes than those that are killed and continued
    return final_files(folder)


# writes of a run: 1 options, 2 fp, 3 map, 4 calibration report, 5 calibrated, calibration set, then per two iterations: metrics, [best], network, latest, state
@pytest.mark.parametrize("at", [1, 5, 7, 9, 11, 14])
def test_killed_while_writing_and_continued(tmp_path, undisturbed, at):
    finish(tiny.run_train(tmp_path, prelude=KILL.format(at=at)), expected=-signal.SIGKILL)
    output = finish(tiny.run_train(tmp_path, resume=True))
    assert ("Continuing 'tiny'" in output) == (at >= 12)
    for got, want in zip(final_files(tmp_path), undisturbed, strict=True):
        assert_same(got, want)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_save_a_checkpoint_and_set_the_exit_code(tmp_path, undisturbed, number, code):
    process = tiny.run_train(tmp_path, "train:total_iter=6", "logger:save_checkpoint_freq=1000", prelude=tiny.SLOW)
    tiny.wait_for(tmp_path / "started", process)
    process.send_signal(number)
    output = finish(process, expected=code)
    assert "continue with --auto_resume" in output
    states = list((tmp_path / "experiments/tiny/training_states").glob("*.state"))
    assert len(states) == 1
    finish(tiny.run_train(tmp_path, resume=True))
    networks, state, _, losses = final_files(tmp_path)
    assert losses == undisturbed[3]
    assert_same(networks["net_Q_6.pth"], undisturbed[0]["net_Q_6.pth"])
    assert_same(state["optimizer"], undisturbed[1]["optimizer"])


def test_a_signal_before_training_stops_at_once(tmp_path):
    process = tiny.run_train(tmp_path)
    tiny.wait_for(tmp_path / "experiments/tiny/options.yml", process)
    process.send_signal(signal.SIGTERM)
    finish(process, expected=143)


def test_an_existing_run_is_archived_not_overwritten(tmp_path):
    finish(tiny.run_train(tmp_path, "train:total_iter=0"))
    finish(tiny.run_train(tmp_path, "train:total_iter=0"))
    names = sorted(folder.name for folder in (tmp_path / "experiments").glob("[!.]*"))
    assert len(names) == 2 and names[0] == "tiny" and names[1].startswith("tiny_archived_")
