"""What a user can get wrong, and what a machine can, through whole runs: one sentence, exit code 2, nothing lost."""

import errno
import os
import pickle
import signal

import cv2
import numpy as np
import pytest
import torch

from basicsr import pipeline
from basicsr import test as test_command
from basicsr import train as train_command
from basicsr.data import paired_image_dataset
from basicsr.evaluation.evaluator import Evaluator
from basicsr.models.ptq_model import PTQModel
from basicsr.utils import dist
from basicsr.utils.image import write_image
from basicsr.utils.registry import ALL_REGISTRIES
from tests import tiny

pytestmark = pytest.mark.slow

DEMO = tiny.ROOT / "datasets/demo"


def train(folder, *more, opt=tiny.TRAIN, flags=()):
    overrides = tiny.train_overrides(folder, "train:total_iter=4", *more)
    return train_command.main(["-opt", str(opt), "--root", str(folder), *flags, "--force_yml", *overrides])


def evaluate(folder, *more):
    changes = [f"datasets:test_1:dataroot_gt={DEMO / 'test/HR'}", "datasets:test_1:num_images=1", "quantization=null"]
    arguments = ["-opt", str(tiny.TEST), "--root", str(folder), "--force_yml"]
    return test_command.main([*arguments, *tiny.overrides(folder, *changes, *more)])


def assert_refused(code, capfd, *words):
    error = capfd.readouterr().err
    assert code == 2, error
    assert "Traceback" not in error
    for word in words:
        assert word in error
    return error


def states(folder):
    return {file.name for file in (folder / "experiments/tiny/training_states").iterdir()}


def pictures(folder, number=4, side=64):
    random = np.random.default_rng(0)
    for index in range(number):
        coarse = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        write_image(folder / f"p{index}.png", cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC))
    return folder


def test_grey_16_bit_and_alpha_images_go_through_a_whole_run(tmp_path, capfd):
    folder = pictures(tmp_path / "HR", 2)
    picture = cv2.imread(str(folder / "p0.png"))
    cv2.imwrite(str(folder / "grey.png"), picture[..., 0])
    cv2.imwrite(str(folder / "deep.png"), picture.astype(np.uint16) * 257)
    for index in range(3):
        cv2.imwrite(str(folder / f"alpha{index}.png"), np.dstack([picture, picture[..., :1]]))
    changes = [f"datasets:train:dataroot_gt={folder}", "datasets:train:num_images=null", "train:num_workers=2"]
    changes += [f"datasets:val:dataroot_gt={folder}", "datasets:val:num_images=null", "calibration:num_images=7"]
    assert train(tmp_path, *changes) == 0
    assert capfd.readouterr().err.count("alpha channel") in (
        1,
        2,
    )  # of six readings: the process says it, and one that loads


def lr_folder(tmp_path, change):
    folder = pictures(tmp_path / "LR", side=16)
    for file in list(folder.iterdir()):
        file.rename(folder / f"{file.stem}x4.png")
    change(folder)
    return [f"datasets:train:dataroot_gt={pictures(tmp_path / 'HR')}", f"datasets:train:dataroot_lq={folder}"]


MISMATCHES = {
    "number": (lambda folder: (folder / "p1x4.png").unlink(), ["4 HR images", "3 LR images", "HR without LR: p1"]),
    "name": (lambda folder: (folder / "p1x4.png").rename(folder / "q1x4.png"), ["p1", "LR without HR: q1x4"]),
    "size": (
        lambda folder: write_image(folder / "p1x4.png", np.zeros((16, 15, 3), np.uint8)),
        ["p1x4.png' has 15x16 pixels", "needs 16x16"],
    ),
    "empty": (lambda folder: [file.unlink() for file in folder.iterdir()], ["LR' holds no image"]),
}


@pytest.mark.parametrize("kind", MISMATCHES)
def test_lr_and_hr_that_do_not_match(tmp_path, capfd, kind):
    change, words = MISMATCHES[kind]
    code = train(tmp_path, *lr_folder(tmp_path, change), "calibration:num_images=8", "calibration:crop_size=8")
    assert_refused(code, capfd, *words)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_image_that_breaks_in_the_middle_of_training_loses_nothing(tmp_path, capfd, monkeypatch, num_workers):
    monkeypatch.setattr(paired_image_dataset, "check_pairs", lambda *_: None)  # at the start it was whole
    folder = pictures(tmp_path / "HR", 9)
    changes = [f"datasets:train:dataroot_gt={folder}", "datasets:train:num_images=null", "train:batch_size=1"]
    changes += [f"train:num_workers={num_workers}", f"calibration:dataroot_gt={DEMO / 'val/HR'}", "train:total_iter=9"]
    changes += ["logger:save_checkpoint_freq=1000", "val:val_freq=1000", "manual_seed=1"]
    broken = folder / "p5.png"
    whole = broken.read_bytes()
    broken.write_bytes(b"")
    assert_refused(train(tmp_path, *changes), capfd, "p5.png' is empty (0 bytes)", "continue with --auto_resume")
    (state,) = states(tmp_path)
    assert 1 <= int(state.split(".")[0]) <= 8
    broken.write_bytes(whole)
    assert train(tmp_path, *changes, flags=["--auto_resume"]) == 0
    assert f"Continuing 'tiny' after iteration {state.split('.')[0]}" in capfd.readouterr().err
    assert "9.state" in states(tmp_path)


def fails(*_arguments, **_more):
    raise AssertionError("the work has begun")


@pytest.mark.parametrize(
    "override", ["val:tile=10", "val:tile=16 val:tile_overlap=16", "val:tile=16 val:tile_overlap=4"]
)
def test_tiles_that_do_not_fit_the_network_are_refused_before_any_work(tmp_path, capfd, monkeypatch, override):
    monkeypatch.setattr(Evaluator, "evaluate", fails)
    monkeypatch.setattr(PTQModel, "calibrate", fails)
    for command in (train, evaluate):
        assert_refused(command(tmp_path, *override.split()), capfd, "tile", "must be a", "multiple of 8")


def test_a_batch_that_processes_cannot_share_is_refused_before_any_work(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(pipeline, "build_evaluation_sets", fails)
    monkeypatch.setattr(dist, "world_size", lambda: 3)
    assert_refused(train(tmp_path), capfd, "batch size 2", "between 3 processes")


EARLY = {
    "training": ["datasets:train:dataroot_gt={hr}", "datasets:train:dataroot_lq={lr}"],
    "validation": ["datasets:val:dataroot_gt={hr}", "datasets:val:dataroot_lq={lr}", "datasets:val:num_images=null"],
    "test": ["datasets:test_1:dataroot_gt={hr}", "datasets:test_1:dataroot_lq={lr}", "datasets:test_1:type=PairedImageDataset",
             "datasets:test_1:name=mine"],
    "calibration": ["calibration:dataroot_gt={hr}", "calibration:dataroot_lq={lr}", "calibration:num_images=8"],
}  # fmt: skip


@pytest.mark.parametrize("place", EARLY)
def test_an_lr_folder_of_another_scale_is_refused_before_any_work(tmp_path, capfd, monkeypatch, place):
    monkeypatch.setattr(Evaluator, "evaluate", fails)
    monkeypatch.setattr(PTQModel, "calibrate", fails)
    folders = {"hr": pictures(tmp_path / "HR"), "lr": pictures(tmp_path / "LR", side=32)}
    changes = [change.format(**folders) for change in EARLY[place]]
    commands = {"training": [train], "validation": [train], "calibration": [train], "test": [train, evaluate]}[place]
    for command in commands:
        error = assert_refused(command(tmp_path, *changes), capfd, "has 32x32 pixels", "needs 16x16")
        assert "scale factor 2" in error and "LR/p" in error


class Attack:
    def __reduce__(self):
        return exec, ("raise SystemExit('code from a file was run')",)


def other_network(_weights):
    names = [f"body.{i}.{part}" for i in range(8) for part in ("conv1.weight", "conv2.weight", "conv1.bias")]
    return {"params": {name: torch.ones(3) for name in ["conv_first.weight", *names, "upsample.0.weight"]}}


def not_finite(weights):
    weights["layers.1.residual_group.blocks.0.attn.qkv.weight"][3, 4] = float("nan")
    return {"params": weights}


BAD_WEIGHTS = {
    "another network": (other_network, "another architecture"),
    "NaN": (not_finite, "hold values that are not finite"),
    "numbers as names": (lambda weights: dict(enumerate(weights.values())), "holds no tensors"),
    "code": (lambda weights: {"params": Attack()}, "would run code"),
}


@pytest.mark.parametrize("kind", BAD_WEIGHTS)
def test_weights_that_cannot_be_used(tmp_path, capfd, kind):
    change, message = BAD_WEIGHTS[kind]
    weights = torch.load(tiny.save_network(tmp_path / "fp.pth"), weights_only=True)["params"]
    torch.save(change(weights), tmp_path / "bad.pth")
    for command in (train, evaluate):
        assert_refused(command(tmp_path, f"path:pretrain_network_FP={tmp_path / 'bad.pth'}"), capfd, message)


def test_damaged_weights(tmp_path, capfd):
    whole = tiny.save_network(tmp_path / "fp.pth").read_bytes()
    bad = tmp_path / "bad.pth"
    for content in (b"", whole[: len(whole) // 2], pickle.dumps(Attack(), protocol=2)):
        bad.write_bytes(content)
        assert_refused(train(tmp_path, f"path:pretrain_network_FP={bad}"), capfd, "bad.pth")


def test_activations_that_are_not_finite_name_the_quantizer(tmp_path, capfd):
    weights = torch.load(tiny.save_network(tmp_path / "fp.pth"), weights_only=True)["params"]
    weights["layers.1.residual_group.blocks.0.norm1.weight"] *= 1e37  # finite; its products are not
    torch.save({"params": weights}, tmp_path / "bad.pth")
    changes = [f"path:pretrain_network_FP={tmp_path / 'bad.pth'}", "val:full_precision=false"]
    layer = "'layers.1.residual_group.blocks.0."
    assert_refused(train(tmp_path, *changes), capfd, f"The quantizer {layer}", "NaN", "cannot be calibrated")


def test_bounds_that_meet_after_calibration(tmp_path, capfd, monkeypatch):
    from basicsr.quant.calibrators.minmax_calibrator import MinMaxCalibrator

    finish = MinMaxCalibrator.finish

    def meeting(self):
        bounds = finish(self)
        bounds.upper_bound.copy_(bounds.lower_bound)
        return bounds

    monkeypatch.setattr(MinMaxCalibrator, "finish", meeting)
    code = train(tmp_path, "calibration:activations:type=MinMax", "calibration:weights:type=MinMax")
    assert_refused(code, capfd, "for the quantizer 'layers.0", "the lower one must be smaller")


BITS = ["bit=1", "bit=9", "bit=-4", "bit=true", "quantization:w_bits=1", "quantization:a_bits=9"]
BITS += [f"quantization:overrides=[{{match: '*', {side}_bits: {bits}}}]" for side in "wa" for bits in (1, 9)]


@pytest.mark.parametrize("override", BITS)
def test_bits_outside_of_2_to_8(tmp_path, capfd, override):
    assert_refused(train(tmp_path, override), capfd, "bit", "has the value")


def test_a_checkpoint_with_bits_outside_of_2_to_8(tmp_path, capfd):
    assert train(tmp_path, "train:total_iter=0") == 0
    file = tmp_path / "experiments/tiny/models/net_Q_latest.pth"
    content = torch.load(file, weights_only=True)
    for key in content["params"]:
        if key.endswith(".bits"):
            content["params"][key] = torch.tensor(9)
    torch.save(content, file)
    capfd.readouterr()
    code = evaluate(tmp_path, "quantization={coverage: 2dquant}", f"path:pretrain_network_Q={file}")
    assert_refused(code, capfd, "9 bits", "4 bits")


@pytest.mark.parametrize("what", [errno.ENOSPC, errno.EACCES])
@pytest.mark.parametrize("suffix", [".pth", ".state", ".jsonl"])
def test_a_checkpoint_that_cannot_be_saved_leaves_the_older_one(tmp_path, capfd, monkeypatch, what, suffix):
    assert train(tmp_path, "train:total_iter=4", "val:val_freq=4") == 0
    expected = torch.load(tmp_path / "experiments/tiny/models/net_Q_4.pth", weights_only=True)["params"]
    folder = tmp_path / "again"
    folder.mkdir()
    replace = os.replace

    def full(source, target):
        if str(target).endswith(suffix) and (folder / "experiments/tiny/training_states/2.state").exists():
            raise OSError(what, os.strerror(what), str(target))
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    capfd.readouterr()
    assert_refused(train(folder, "val:val_freq=4"), capfd, os.strerror(what), suffix)
    assert states(folder) == {"2.state"}
    assert not [file for file in folder.rglob(".tmp-*")]
    monkeypatch.setattr(os, "replace", replace)
    assert train(folder, "val:val_freq=4", flags=["--auto_resume"]) == 0
    resumed = torch.load(folder / "experiments/tiny/models/net_Q_4.pth", weights_only=True)["params"]
    assert all(torch.equal(resumed[key], value) for key, value in expected.items())


def test_results_that_cannot_be_written(tmp_path, capfd, monkeypatch):
    (tmp_path / "results").write_text("a file where a folder should be")
    assert_refused(evaluate(tmp_path), capfd, "cannot be set up")
    (tmp_path / "results").unlink()
    replace = os.replace
    for suffix in (".png", ".json"):

        def full(source, target, suffix=suffix):
            if str(target).endswith(suffix):
                raise OSError(errno.ENOSPC, "No space left on device")
            replace(source, target)

        monkeypatch.setattr(os, "replace", full)
        assert_refused(evaluate(tmp_path), capfd, "No space left on device", suffix)


@pytest.mark.parametrize("command", [train, evaluate])
def test_a_root_that_cannot_be_made(tmp_path, capfd, command):
    tiny.save_network(tmp_path / "fp_x4.pth")
    (tmp_path / "file").write_text("")
    overrides = [f"path:pretrain_network_FP={tmp_path / 'fp_x4.pth'}"]
    folder = tmp_path / "file"
    main, opt = (train_command.main, tiny.TRAIN) if command is train else (test_command.main, tiny.TEST)
    base = tiny.train_overrides(tmp_path) if command is train else ["quantization=null"]
    code = main(["-opt", str(opt), "--root", str(folder), "--force_yml", *base, *overrides, "device=cpu"])
    assert_refused(code, capfd, "cannot be set up", str(folder))


def test_a_disk_that_is_full_for_log_and_tensorboard_does_not_stop_a_run(tmp_path, capfd, monkeypatch):
    from torch.utils import tensorboard

    def full(self, *_arguments, **_more):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tensorboard.SummaryWriter, "add_scalar", full)
    from basicsr.utils import logger

    monkeypatch.setattr(logger._RunLog, "flush", full)
    assert train(tmp_path, "logger:use_tb_logger=true") == 0
    error = capfd.readouterr().err
    assert "Traceback" not in error
    assert error.count("TensorBoard's file") == 1 and error.count("cannot be written any more") == 1


BAD_FILES = {
    "folder": None,
    "empty": "",
    "comment": "# nothing\n",
    "list": "- 1\n",
    "tag": "a: !!python/object:os.x {}\n",
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_options_files_that_cannot_be_read(tmp_path, capfd, kind):
    file = tmp_path / "options.yml"
    file.mkdir() if BAD_FILES[kind] is None else file.write_text(BAD_FILES[kind])
    for main in (train_command.main, test_command.main):
        assert_refused(main(["-opt", str(file)]), capfd, "options.yml")


def test_the_launcher_without_torchrun(tmp_path, capfd, monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    assert_refused(train(tmp_path, flags=["--launcher", "pytorch"]), capfd, "torchrun --nproc_per_node")


def test_a_plugin_that_fails(tmp_path, capfd, monkeypatch):
    for registry in ALL_REGISTRIES:  # folders of plugins are remembered as long as the process lives
        monkeypatch.setattr(registry, "_folders", list(registry._folders))
    (tmp_path / "my_loss.py").write_text(
        "from basicsr.utils.registry import LOSS_REGISTRY\n\n\n@LOSS_REGISTRY.register()\nclass LossWithoutBase(NoSuchBase):\n    pass\n"
    )
    code = train(tmp_path, f"plugins=[{tmp_path}]", "train:pixel_loss={type: LossWithoutBase}")
    assert_refused(code, capfd, "my_loss.py', line 5 cannot be imported: NameError", "NoSuchBase")


def test_a_run_needs_no_validation_set(tmp_path):
    assert train(tmp_path, "datasets:val:name=other", "train:total_iter=1") == 0
    options = tmp_path / "bare.yml"
    text = f"base: {tiny.ROOT}/options/methods/2DQuant.yml\nname: bare\nquantization: {{coverage: 2dquant}}\nscale: 4\nbit: 4\nnetwork_g: {{type: SwinIR}}\n"
    options.write_text(
        text + f"datasets: {{train: {{name: d, type: PairedImageDataset, dataroot_gt: {DEMO}/train/HR}}}}\n"
    )
    changes = [change for change in tiny.train_overrides(tmp_path) if not change.startswith(("datasets:val", "name="))]
    arguments = ["-opt", str(options), "--root", str(tmp_path), "--force_yml", *changes, "train:total_iter=1"]
    assert train_command.main(arguments) == 0


def test_a_state_of_another_run_brings_its_own_network(tmp_path):
    assert train(tmp_path, "name=first") == 0
    assert train(tmp_path, "name=second", "train:optim_bound:lr=0.1") == 0
    state = tmp_path / "experiments/first/training_states/2.state"
    assert train(tmp_path, "name=second", f"path:resume_state={state}") == 0
    first, second = (
        torch.load(tmp_path / f"experiments/{name}/models/net_Q_4.pth", weights_only=True)["params"]
        for name in ("first", "second")
    )
    assert all(torch.equal(second[key], value) for key, value in first.items())


OWN_GROUP = "import os\nos.setpgid(0, 0)\n"


def test_ctrl_c_in_a_terminal_with_loading_processes(tmp_path):
    """A terminal sends the signal to all processes of the group, the workers that load images included."""
    process = tiny.run_train_anew(
        tmp_path, "train:num_workers=2", "train:total_iter=100", prelude=tiny.SLOW + OWN_GROUP
    )
    tiny.wait_for(tmp_path / "started", process)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=tiny.PATIENCE)
    assert process.returncode == 130, output
    assert "continue with --auto_resume" in output and "Traceback" not in output
    assert list((tmp_path / "experiments/tiny/training_states").glob("*.state"))
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
