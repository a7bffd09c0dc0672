"""What a user of BasicSR or 2DQuant brings runs as it lies: options file, folders, weights, calibration set."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from basicsr import test as test_command
from basicsr import train as train_command
from basicsr.archs import build_network
from basicsr.evaluation.inference import upscale
from basicsr.export import main as export_command
from basicsr.metrics.psnr_ssim_metric import calculate_psnr
from basicsr.utils.resize import downscale_image
from tests import tiny
from tests import upstream_files as upstream
from tests.lmdb_folders import make_lmdb

pytestmark = pytest.mark.slow

QUICK = ["num_gpu=0", "num_threads=1"]
OF_TRAINING = ["logger:use_tb_logger=false", "logger:wandb=null", "datasets:train:num_worker_per_gpu=0"]
SWINIR = [f"network_Q:{key}={value}" for key, value in tiny.NETWORK.items()]
OF_2DQUANT = "experiments/pretrained_models/SwinIR/002_lightweightSR_DIV2K_s64w8_SwinIR-S_x4.pth"


def put_pictures(hr, lr, scale, name, count, side):
    """Write pairs of pictures as BasicSR and 2DQuant have them."""
    random = np.random.default_rng(side)
    hr.mkdir(parents=True)
    lr.mkdir(parents=True)
    for number in range(count):
        coarse = random.integers(0, 256, (side // 8, side // 8, 3), np.uint8)
        picture = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(hr / f"{number}.png"), picture)
        cv2.imwrite(str(lr / f"{name.replace('{}', str(number))}.png"), downscale_image(picture, scale))


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The folder where the commands run, with the data that the options files name."""
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "datasets"
    put_pictures(data / "DF2K/HR", data / "DF2K/LR_bicubic/X4", 4, "{}x4", 3, 96)
    put_pictures(data / "benchmark/Set5/HR", data / "benchmark/Set5/LR_bicubic/X4", 4, "{}x4", 1, 72)
    put_pictures(data / "DIV2K/DIV2K_train_HR_sub", data / "DIV2K/DIV2K_train_LR_bicubic/X4_sub", 4, "{}", 3, 96)
    put_pictures(data / "Set5/GTmod12", data / "Set5/LRbicx4", 4, "{}", 1, 72)
    (tmp_path / OF_2DQUANT).parent.mkdir(parents=True)
    (tmp_path / "keydata").mkdir()
    return tmp_path


def command(main, text, *overrides, flags=()):
    file = upstream.write(Path("theirs.yml"), text)
    more = OF_TRAINING if main is train_command.main else ["val:histograms=false"]
    return main(["-opt", str(file), *flags, "--force_yml", *QUICK, *more, *overrides])


def save_weights(file, entry, prefix=""):
    """Save a tiny SwinIR as BasicSR does: under an entry, from DataParallel, with the buffers of attention masks."""
    network = build_network({"type": "SwinIR", "upscale": 4, **tiny.NETWORK}).eval()
    state = {f"{prefix}{key}": value for key, value in network.state_dict().items()}
    masks = [f"{prefix}layers.{group}.residual_group.blocks.1.attn_mask" for group in range(2)]
    torch.save({entry: {**state, **dict.fromkeys(masks, torch.zeros(64, 64, 64))}}, file)
    return network


SMALL = {
    "EDSR": {"num_feat": 4, "num_block": 1},
    "SwinIR": {**tiny.NETWORK, "upsampler": "pixelshuffledirect"},
    "RDN": tiny.NETWORKS["RDN"],
}


def small(architecture):
    return [f"network_g:{key}={value}" for key, value in SMALL[architecture].items()]


@pytest.mark.parametrize("architecture", SMALL)
def test_a_training_from_databases_and_a_test(place, architecture):
    changes = [*small(architecture), "train:total_iter=2", "val:val_freq=2", "path:pretrain_network_g=null"]
    changes += ["datasets:train:batch_size_per_gpu=2", "datasets:train:gt_size=48"]
    text = upstream.basicsr_training(architecture).replace("type: disk", "type: lmdb", 1)
    for name in ("datasets/DIV2K/DIV2K_train_HR_sub", "datasets/DIV2K/DIV2K_train_LR_bicubic/X4_sub"):
        make_lmdb(place / name, place / f"{name}.lmdb")
        shutil.rmtree(place / name)
        text = text.replace(name, f"{name}.lmdb")
    assert command(train_command.main, text, *changes) == 0
    experiment = place / f"experiments/{architecture}_x4"
    lines = [json.loads(line) for line in (experiment / "metrics.jsonl").read_text().splitlines()]
    assert [(line["stage"], line["iter"], line["dataset"]) for line in lines] == [
        ("train", 2, "Set5"),
        ("final", 2, "Set5"),
    ]
    log = next(experiment.glob("train_*.log")).read_text()
    assert "'datasets:train:batch_size_per_gpu=2' is 'train:batch_size=2' here" in log
    weights = experiment / "models/net_g_latest.pth"
    averaged = architecture == "SwinIR"  # BasicSR keeps no average where the file does not ask for it
    assert ("params_ema" in torch.load(weights, weights_only=True)) == averaged
    test = upstream.basicsr_test(architecture, weights=str(weights))
    if averaged:
        test = test.replace("  strict", "  param_key_g: params_ema\n  strict")
    assert command(test_command.main, test, *small(architecture)) == 0
    measured = json.loads((place / f"results/{architecture}_x4/metrics.json").read_text())["datasets"]
    assert list(measured) == ["Set5"] and measured["Set5"]["psnr"] == lines[-1]["psnr"]


def test_weights_of_data_parallel_with_masks_are_tested_on_rgb(place):
    network = save_weights(place / "net_g_500000.pth", "params_ema", "module.")
    theirs = upstream.basicsr_test("SwinIR", weights="net_g_500000.pth").replace(
        "  strict", "  param_key_g: params_ema\n  strict"
    )
    assert command(test_command.main, theirs, *small("SwinIR")) == 0
    measured = json.loads((place / "results/SwinIR_x4/metrics.json").read_text())["datasets"]["Set5"]
    pictures = [cv2.imread(f"datasets/Set5/{name}/0.png")[..., ::-1] for name in ("LRbicx4", "GTmod12")]
    lq = torch.from_numpy(pictures[0].copy()).permute(2, 0, 1)[None] / 255
    enlarged = upscale(network, lq, pad="reflect")[0].clamp(0, 1).permute(1, 2, 0).numpy()
    expected = calculate_psnr(np.uint8((enlarged * 255).round()), pictures[1], crop_border=4, test_y_channel=False)
    assert measured["psnr"] == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize(("entry", "prefix", "kind"), [("params", "", "disk"), ("params_ema", "module.", "lmdb")])
def test_2dquant_from_its_files_to_a_packed_network(place, capfd, entry, prefix, kind):
    save_weights(place / OF_2DQUANT, entry, prefix)
    cali_data = {
        "lq": torch.rand(2, 3, 16, 16),
        "gt": torch.rand(2, 3, 64, 64),
        "lq_path": ["a", "b"],
        "gt_path": ["a", "b"],
    }
    torch.save(cali_data, "keydata/cali_data_x4.pth")
    changes = [
        "train:total_iter=2",
        "datasets:train:batch_size_per_gpu=2",
        "datasets:train:gt_size=64",
        "val:val_freq=9",
    ]
    changes += [*SWINIR, "logger:save_checkpoint_freq=1", "bit=3"]
    training = upstream.training_2dquant(4).replace("type: disk", f"type: {kind}", 1)
    training, testing = (
        text.replace("pathFP:\n", f"pathFP:\n  param_key_FP: {entry}\n")
        for text in (training, upstream.testing_2dquant(4))
    )
    for folder in ("datasets/DF2K/HR", "datasets/DF2K/LR_bicubic/X4") if kind == "lmdb" else ():
        make_lmdb(place / folder, place / f"{folder}.lmdb")
        shutil.rmtree(place / folder)
        training = training.replace(f"{folder}\n", f"{folder}.lmdb\n")
    assert command(train_command.main, training, *changes) == 0
    experiment = place / "experiments/2DQuant_train_x4"
    log = next(experiment.glob("train_*.log")).read_text()
    assert (
        "Calibration set: 2 crops of 16 x 16 LR pixels, keydata/cali_data_x4.pth" in log and "Coverage '2dquant'" in log
    )
    calibrated = json.loads((experiment / "calibration_set.json").read_text())
    state = torch.load(experiment / "training_states/2.state", weights_only=True)
    assert state["calibration_set"] == calibrated and calibrated["source"] == "keydata/cali_data_x4.pth"
    weights = f"path:pretrain_network_Q={experiment}/models/net_Q_latest.pth"
    for main, name in ((test_command.main, "metrics.json"), (export_command, "test_2DQuant_x4.safetensors")):
        assert command(main, testing, *SWINIR, "bit=3", weights) == 0
        assert (place / "results/test_2DQuant_x4" / name).is_file()
    measured = json.loads((place / "results/test_2DQuant_x4/metrics.json").read_text())
    assert (measured["method"], measured["w_bits"], list(measured["datasets"])) == ("2DQuant as released", 3, ["Set5"])
    cali_data["lq"] += 0.01
    torch.save(cali_data, "keydata/cali_data_x4.pth")
    assert command(train_command.main, training, *changes, flags=["--auto_resume"]) == 2
    assert "2.state' was calibrated on another set: keydata/cali_data_x4.pth" in capfd.readouterr().err
    assert json.loads((experiment / "calibration_set.json").read_text()) == calibrated
