"""Folders as careless people have them go through every command: no traceback, no hanging, and what is good comes out."""

import json

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from basicsr.data import build_dataset
from basicsr.deploy.folders import upscale_files
from basicsr.deploy.upscaling import enlarger
from basicsr.export import main as export
from basicsr.test import main as evaluate
from basicsr.train import main as train
from basicsr.upscale import main as upscale
from basicsr.utils.errors import DataError
from basicsr.utils.image import read_image, write_image
from tests import hostile, tiny

GOOD, BAD = hostile.good_pictures(), hostile.bad_pictures()
TRAIN = tiny.ROOT / "options/train/demo_MinMax.yml"


class Repeat(nn.Module):
    """Repeats each pixel."""

    scale, size_multiple = 2, 1

    def forward(self, x):
        return x.repeat_interleave(2, -1).repeat_interleave(2, -2)


@pytest.fixture(scope="module")
def prepare_data():
    import prepare_data  # noqa: PLC0415 -- a script

    return prepare_data


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return hostile.write_files(tmp_path_factory.mktemp("good") / "in", GOOD)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    folder = hostile.write_files(tmp_path_factory.mktemp("mixed") / "in", GOOD | BAD)
    return folder, hostile.write_traps(folder)


def names_in(folder):
    return {file.name for file in folder.iterdir()}


def test_enlarging_ends_with_every_good_picture(mixed, tmp_path, caplog):
    folder, traps = mixed
    before = names_in(folder)
    outcome = upscale_files(folder, tmp_path, enlarger(Repeat(), torch.device("cpu"), None, 0), 2)
    assert (outcome.enlarged, outcome.failed) == (len(GOOD), len(BAD) + len(traps))
    results = {file: cv2.imread(str(file), cv2.IMREAD_UNCHANGED) for file in tmp_path.iterdir()}
    assert len(results) == len(GOOD) and all(min(result.shape[:2]) >= 62 for result in results.values())
    np.testing.assert_array_equal(
        results[tmp_path / "colour_x2.png"][..., ::-1], hostile.COLOUR.repeat(2, 0).repeat(2, 1)
    )
    told = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    for name in (*BAD, *traps):
        assert sum(f"/{name}'" in message for message in told) == 1
    assert names_in(folder) == before


def test_preparing_ends_with_every_good_picture(mixed, tmp_path, prepare_data, capsys):
    folder, traps = mixed
    arguments = ["--hr", str(folder), "--out", str(tmp_path), "--scales", "2", "4", "--workers", "1"]
    assert prepare_data.main(arguments) == 1
    assert f"Problems found: {len(BAD) + len(traps)}." in capsys.readouterr().out
    made = names_in(tmp_path / "HR")
    assert len(made) == len(GOOD)
    for scale in (2, 4):
        assert {file.stem.removesuffix(f"x{scale}") for file in (tmp_path / f"LR_bicubic/X{scale}").iterdir()} == {
            name.rpartition(".")[0] for name in made
        }
    assert prepare_data.main(["--check", str(tmp_path), "--workers", "1"]) == 1  # some pictures are the same
    assert "is not Matlab's" not in (told := capsys.readouterr().out) and "has no LR" not in told


@pytest.mark.parametrize("name", sorted([*BAD, "circle.png", "nowhere.png", "pipe.png"]))
def test_a_data_set_names_the_file_that_is_bad(name, mixed, tmp_path):
    (tmp_path / name).symlink_to(mixed[0] / name)
    write_image(tmp_path / "whole.png", hostile.COLOUR)
    for options in ({"type": "PairedImageDataset", "dataroot_gt": str(tmp_path)}, {"type": "SingleImageDataset", "dataroot_lq": str(tmp_path)}):  # fmt: skip
        with pytest.raises(DataError) as told:
            build_dataset({**options, "name": "a"}, 2, "val", "datasets:val")
        assert f"/{name}'" in str(told.value)


def overrides(folder, images, architecture, *more):
    changes = [f"datasets:{key}:dataroot_gt={images}" for key in ("train", "val")]
    changes += ["datasets:train:num_images=null", "datasets:val:num_images=null", "datasets:train:lq_size=8"]
    changes += ["calibration:crop_size=8", "calibration:num_images=4", "train:total_iter=0", *more]
    return tiny.train_overrides(folder, *changes, scale=2, architecture=architecture, optimizers=())


def run(command, options, folder, *arguments):
    return command(["-opt", str(options), "--root", str(folder), "--force_yml", *arguments])


def evaluation(folder, images, architecture, *more):
    changes = [f"datasets:test_1:dataroot_gt={images}", "datasets:test_1:dataroot_lq=null", "name=tested", *more]
    return tiny.overrides(folder, *changes, scale=2, architecture=architecture)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["EDSR", "RDN", "SwinIR"])
def test_runs_read_every_good_picture(architecture, good, tmp_path, capfd):
    (tmp_path / "my nets 网").mkdir()
    root = tmp_path / "my nets 网"
    assert run(train, TRAIN, root, *overrides(root, good, architecture)) == 0, capfd.readouterr().err
    network = f"path:pretrain_network_Q={root}/experiments/tiny/models/net_Q_latest.pth"
    arguments = evaluation(root, good, architecture, network, "recipe=MinMax", "val:save_img=true")
    assert run(evaluate, tiny.TEST, root, *arguments) == 0, capfd.readouterr().err
    assert run(export, tiny.TEST, root, *arguments) == 0, capfd.readouterr().err
    capfd.readouterr()
    assert run(evaluate, tiny.TEST, root, *arguments, "name=other", "quantization:activation_quantizer:type=LSQ") == 2
    assert "with type Affine, not type LSQ" in capfd.readouterr().err
    results = json.loads((root / "results/tested/metrics.json").read_text(encoding="utf-8"))
    images = results["datasets"]["demo"]["images"]
    assert len(images) == len(GOOD) and all(image["psnr"] > 0 for image in images.values())
    assert len(list((root / "results/tested/visualization").rglob("*.png"))) == len(GOOD)
    packed = root / "results/tested/tested.safetensors"
    assert upscale(["-i", str(good), "-o", str(root / "out"), "--model", str(packed), "--tile", "16", "--device", "cpu"]) == 0  # fmt: skip
    assert len(names_in(root / "out")) == len(GOOD)
    assert read_image(root / "out/odd_x2.png").shape == (66, 62, 3)


@pytest.mark.slow
def test_runs_refuse_folders_with_bad_pictures_at_the_start(mixed, tmp_path, capfd):
    folder, _ = mixed
    assert run(train, TRAIN, tmp_path, *overrides(tmp_path, folder, "EDSR")) == 2
    assert run(evaluate, tiny.TEST, tmp_path, *evaluation(tmp_path, folder, "EDSR", "quantization=null")) == 2
    told = capfd.readouterr().err
    assert "Traceback" not in told and told.count(" ERROR: ") == 2
    assert f"of the {len(GOOD) + len(BAD) + 3} looked at" in told
    assert not (tmp_path / "experiments").exists()
