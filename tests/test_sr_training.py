"""Training of full-precision networks from the command line: what it leaves, how it continues, what is refused."""

import json
import signal
from types import SimpleNamespace

import pytest
import torch

from basicsr import test as test_command
from basicsr import train as train_command
from basicsr.models.sr_model import SRModel
from basicsr.utils.signals import Interrupted
from tests import tiny

pytestmark = pytest.mark.slow

OPT = tiny.ROOT / "options/train/demo_train_EDSR.yml"
NETWORK = {"architecture": "EDSR", "optimizers": ("optim_g",)}


def train(folder, *more, flags=(), opt=OPT, **network):
    folder.mkdir(exist_ok=True)
    changes = tiny.train_overrides(folder, "datasets:test_1:dataroot_gt=absent", *more, **{**NETWORK, **network})
    return train_command.main(["-opt", str(opt), "--root", str(folder), *flags, "--force_yml", *changes])


def load(folder, label):
    return torch.load(folder / f"experiments/tiny/models/net_g_{label}.pth", weights_only=True)


def lines(folder):
    return [json.loads(line) for line in (folder / "experiments/tiny/metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    assert train(folder) == 0
    return folder


def assert_same_networks(folder, other, labels=("6", "latest", "best")):
    for label in labels:
        one, two = load(folder, label), load(other, label)
        assert set(one) == set(two) == {"params", "params_ema", "network_g"}
        for entry in ("params", "params_ema"):
            assert all(torch.equal(two[entry][key], value) for key, value in one[entry].items())


def test_a_run_leaves_networks_states_and_metrics_and_no_calibration(finished):
    experiment = finished / "experiments/tiny"
    assert {file.name for file in (experiment / "models").iterdir()} == {
        *(f"net_g_{label}.pth" for label in (2, 4, 6, "latest", "best"))
    }
    assert {file.name for file in (experiment / "training_states").iterdir()} == {"2.state", "4.state", "6.state"}
    assert not list(experiment.glob("*.json"))
    assert [(line["stage"], line["iter"]) for line in lines(finished)] == [
        ("train", 2), ("train", 4), ("train", 6), ("final", 6),
    ]  # fmt: skip
    assert all("fidelity" not in line for line in lines(finished))


def test_the_average_is_what_is_measured(finished):
    content = load(finished, 6)
    assert any(not torch.equal(content["params_ema"][key], value) for key, value in content["params"].items())
    measured = {}
    for entry in ("params", "params_ema", None):
        changes = ["name=measured", f"path:pretrain_network_g={finished}/experiments/tiny/models/net_g_6.pth"]
        changes += [f"datasets:test_1:dataroot_gt={tiny.ROOT / 'datasets/demo/val/HR'}", "datasets:test_1:num_images=1"]
        changes += [f"path:param_key_g={entry}"] if entry else []
        arguments = tiny.overrides(finished, *changes, architecture="EDSR")
        opt = tiny.ROOT / "options/test/demo_FP.yml"
        assert test_command.main(["-opt", str(opt), "--root", str(finished), "--force_yml", *arguments]) == 0
        result = json.loads((finished / "results/measured/metrics.json").read_text())
        measured[entry] = result["datasets"]["demo"]["psnr"]
        assert (result["method"], result["w_bits"]) == ("FP", 32) and result["weights"].endswith("net_g_6.pth")
    assert measured[None] == measured["params_ema"] != measured["params"]
    assert measured["params_ema"] == pytest.approx(lines(finished)[-1]["psnr"], abs=1e-3)


def test_images_in_memory_or_from_workers_give_the_same_bits(finished, tmp_path):
    assert train(tmp_path, "train:data_in_memory=false", "train:num_workers=1") == 0
    assert_same_networks(finished, tmp_path)


@pytest.mark.parametrize("at", [3, 4])
def test_a_run_that_was_stopped_continues_to_the_same_bits(finished, tmp_path, monkeypatch, at):
    step = SRModel.optimize_parameters

    def killed(self, batch):
        if self.scheduler.last_epoch == at:
            raise Interrupted(signal.SIGKILL)
        return step(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(SRModel, "optimize_parameters", killed)
        assert train(tmp_path) == 128 + signal.SIGKILL
    assert train(tmp_path, flags=["--auto_resume"]) == 0
    assert_same_networks(finished, tmp_path)
    for one, two in zip(lines(finished), lines(tmp_path), strict=True):
        assert {**one, "seconds": 0} == {**two, "seconds": 0}


@pytest.mark.parametrize(
    "recipe",
    [
        [
            "train:optim_g={type: SGD, lr: 1e-2, momentum: 0.9, nesterov: true}",
            "train:scheduler={type: CosineAnnealingRestartLR, periods: [3, 3], restart_weights: [1, 0.5], eta_min: 1e-5}",
            "train:pixel_loss={type: CharbonnierLoss}",
        ],
        [
            "train:optim_g={type: RMSprop, lr: 1e-4, momentum: 0.9}",
            "train:scheduler={type: MultiStepRestartLR, milestones: [2, 5], restarts: [4], restart_weights: [0.5]}",
            "train:pixel_loss={type: MSELoss, reduction: sum}",
        ],
    ],
    ids=["SGD", "RMSprop"],
)
def test_other_optimisers_and_schedules_continue_to_the_same_bits(tmp_path, recipe):
    folders = [tmp_path / name for name in ("whole", "pieces")]
    changes = [*recipe, "train:total_iter=6", "val:val_freq=6", "logger:save_checkpoint_freq=3"]
    assert train(folders[0], *changes) == 0
    assert train(folders[1], *changes, "train:piece_minutes=1e-5") == 0
    assert train(folders[1], *changes, flags=["--auto_resume"]) == 0
    assert_same_networks(*folders)


def test_pieces_that_are_over_continue_to_the_same_bits(finished, tmp_path, capfd):
    piece = ["train:piece_minutes=1e-5", "logger:save_checkpoint_freq=100"]
    assert train(tmp_path, *piece) == 0
    assert "Stopped at iteration 1, its time is over; continue with --auto_resume." in capfd.readouterr().err
    assert not (tmp_path / "experiments/tiny/metrics.jsonl").exists()
    for _ in range(5):
        assert train(tmp_path, *piece, flags=["--auto_resume"]) == 0
    assert [line["stage"] for line in lines(tmp_path)] == ["train", "train", "train", "final"]
    assert_same_networks(finished, tmp_path)


def test_a_schedule_over_time_ends_training_and_keeps_the_time_of_all_pieces(tmp_path, capfd):
    timed = ["train:total_iter=1000", "train:scheduler={type: CosineOverTime, minutes: 0.05}", "val:val_freq=1000"]
    assert train(tmp_path, *timed, "train:piece_minutes=0.02") == 0
    assert "its time is over" in capfd.readouterr().err
    assert train(tmp_path, *timed, "train:piece_minutes=10", flags=["--auto_resume"]) == 0
    final = lines(tmp_path)[-1]
    assert final["stage"] == "final" and 1 < final["iter"] < 1000 and final["seconds"] >= 3
    state = torch.load(tmp_path / f"experiments/tiny/training_states/{final['iter']}.state", weights_only=True)
    assert state["scheduler"]["seconds"] >= 3
    assert state["optimizer"]["param_groups"][0]["lr"] == 0


def test_minutes_for_which_a_process_was_stopped_count_once_in_a_schedule_over_time(tmp_path, monkeypatch):
    """A step takes a second here, and the process is stopped for 180 in the third one; 240 are given."""
    now, step = 0.0, SRModel.optimize_parameters

    def timed_step(self, batch):
        nonlocal now
        now += 181 if self.scheduler.last_epoch == 2 else 1
        return step(self, batch)

    monkeypatch.setattr("basicsr.training.loop.time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(SRModel, "optimize_parameters", timed_step)
    timed = ["train:total_iter=1000", "train:scheduler={type: CosineOverTime, minutes: 4}", "val:val_freq=1000"]
    assert train(tmp_path, *timed, "train:piece_minutes=3.2") == 0
    assert not (tmp_path / "experiments/tiny/metrics.jsonl").exists()
    now += 5000  # between two pieces no time is spent
    assert train(tmp_path, *timed, flags=["--auto_resume"]) == 0
    last = lines(tmp_path)[-1]  # a step knows the time at which it began, so that one more is made
    assert (last["iter"], last["seconds"]) == (61, 241)


@pytest.mark.parametrize("scale", [3, 4])
def test_a_body_of_another_scale_is_a_start(tmp_path, capfd, scale):
    weights = tiny.save_network(tmp_path / "x2.pth", scale=2)
    opt = tiny.ROOT / "options/train/train_FP.yml"
    start = [f"path:pretrain_network_g={weights}", "train:total_iter=1", "train:optim_g:lr=1e-9"]
    assert train(tmp_path, *start, opt=opt, architecture="SwinIR", scale=scale) == 2
    assert "the file holds a network with upscale 2" in capfd.readouterr().err
    assert train(tmp_path, *start, "path:strict_load_g=false", opt=opt, architecture="SwinIR", scale=scale) == 0
    log = capfd.readouterr().err
    assert "Left as initialised: upsample.0.weight, upsample.0.bias" in log
    assert "Not used of the file: upsample.0.weight, upsample.0.bias" in log
    trained, given = load(tmp_path, "latest")["params"], torch.load(weights, weights_only=True)["params"]
    torch.testing.assert_close(trained["conv_after_body.weight"], given["conv_after_body.weight"], rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("checked", "message"),
    [
        ("auto", "Iteration 4 failed; the checkpoint of iteration 2 is kept. The loss 'l_pix' is nan. The first tensor that "
         "is not finite is the parameter 'conv_last.bias'. Lower the learning rate"),
        ("false", "The loss 'l_pix' is nan at iteration 4; the checkpoint of iteration 2 is kept. Lower the learning rate"),
    ],
)  # fmt: skip
def test_a_loss_that_is_not_finite_keeps_the_last_good_checkpoint(tmp_path, capfd, monkeypatch, checked, message):
    step = SRModel.optimize_parameters

    def diverging(self, batch):
        if self.scheduler.last_epoch == 3:
            self.network.conv_last.bias.data.fill_(float("nan"))
        return step(self, batch)

    monkeypatch.setattr(SRModel, "optimize_parameters", diverging)
    assert train(tmp_path, f"train:check_losses={checked}") == 2
    error = capfd.readouterr().err
    assert message in error and ("train:check_losses=true" in error) == (checked == "false")
    content = load(tmp_path, "latest")
    assert all(torch.isfinite(v).all() for entry in ("params", "params_ema") for v in content[entry].values())


def test_a_batch_larger_than_the_data_set(tmp_path):
    assert train(tmp_path, "train:batch_size=6", "train:total_iter=1", "datasets:train:num_images=2") == 0


REFUSED = {
    "crops larger than the images": (["datasets:train:lq_size=128"], "lq_size 128"),
    "images larger than memory": (["train:data_memory_mb=1", "datasets:train:num_images=20"], "data_in_memory"),
    "quantization": (["quantization={coverage: body}", "bit=4"], "trains in full precision"),
    "no such start": (
        ["path:pretrain_network_g=absent.pth"],
        "'absent.pth' of option 'path:pretrain_network_g' does not exist",
    ),
    "no such entry": (["path:pretrain_network_g={folder}/fp_x4.pth", "path:param_key_g=params_best"], "params_best"),
    "another loss": (["train:pixel_loss={type: L3Loss}"], "L3Loss"),
    "unknown option": (["train:ema=0.9"], "Did you mean 'ema_decay'"),
    "decay": (["train:ema_decay=1.0"], "ema_decay"),
    "compiler": (["train:compile=fast"], "compile"),
    "piece": (["train:piece_minutes=0"], "piece_minutes"),
    "no data": (["datasets={val: {name: v, type: PairedImageDataset, dataroot_gt: absent}}"], "absent"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_user_gets_wrong_is_said_before_any_work(tmp_path, capfd, name):
    changes, message = REFUSED[name]
    assert train(tmp_path, *(change.replace("{folder}", str(tmp_path)) for change in changes)) == 2
    error = capfd.readouterr().err
    assert message in error and "Traceback" not in error
    assert not (tmp_path / "experiments").exists()


def test_weights_of_a_training_are_not_those_of_a_quantized_run(tmp_path, capfd):
    changes = tiny.train_overrides(tmp_path, f"path:pretrain_network_g={tmp_path}/fp_x4.pth")
    assert train_command.main(["-opt", str(tiny.TRAIN), "--root", str(tmp_path), "--force_yml", *changes]) == 2
    assert "path:pretrain_network_FP" in capfd.readouterr().err


def test_another_recipe_is_not_continued_but_other_speed_options_are(tmp_path, capfd):
    assert train(tmp_path, "train:total_iter=2") == 0
    for change in ("train:ema_decay=0.9", "train:optim_g:lr=0.5", "datasets:train:lq_size=24"):
        assert train(tmp_path, "train:total_iter=2", change, flags=["--auto_resume"]) == 2
        assert "made with another recipe" in capfd.readouterr().err
    fast = ["train:data_in_memory=false", "train:piece_minutes=9", "train:cuda_graphs=true", "train:check_losses=false"]
    assert train(tmp_path, "train:total_iter=2", *fast, flags=["--auto_resume"]) == 0
