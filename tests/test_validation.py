"""What a user of BasicSR looks for after a validation: its pictures, its tags in TensorBoard, the network in the log."""

import json

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from basicsr import test as test_command
from basicsr import train as train_command
from basicsr.utils.image import read_image
from tests import tiny

pytestmark = [pytest.mark.slow, pytest.mark.reports]

EDSR = tiny.ROOT / "options/train/demo_train_EDSR.yml"
VAL = f"datasets:val={{type: PairedImageDataset, name: demo_val, dataroot_gt: {tiny.ROOT / 'datasets/demo/val/HR'}, num_images: 2}}"


def train(folder, *more, opt=EDSR, architecture="EDSR", optimizers=("optim_g",)):
    absent = ["datasets:test_1:dataroot_gt=absent"] if opt == EDSR else []
    changes = tiny.train_overrides(folder, *absent, *more, architecture=architecture, optimizers=optimizers)
    return train_command.main(["-opt", str(opt), "--root", str(folder), "--force_yml", *changes])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    metrics = "val:metrics={psnr: {type: calculate_psnr}, psnr_rgb: {type: calculate_psnr, test_y_channel: false}}"
    assert train(folder, VAL, metrics, "val:save_img=true", "logger:use_tb_logger=true") == 0
    return folder


def tree(folder):
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*.png"))


def test_each_validation_writes_its_pictures(finished):
    folder = finished / "experiments/tiny/visualization"
    names = sorted(file.stem for file in (folder / "demo_val").glob("*.png"))
    assert len(names) == 2
    assert tree(folder) == sorted(
        [f"{name}/{name}_{i}.png" for name in names for i in (2, 4, 6)] + [f"demo_val/{name}.png" for name in names]
    )
    last, final = (read_image(folder / file) for file in (f"{names[0]}/{names[0]}_6.png", f"demo_val/{names[0]}.png"))
    assert (last == final).all() and (last != read_image(folder / f"{names[0]}/{names[0]}_2.png")).any()


def test_tensorboard_has_the_tags_of_basicsr(finished):
    (file,) = (finished / "tb_logger/tiny").iterdir()
    events = EventAccumulator(str(file))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {
        "metrics/demo_val/psnr", "metrics/demo_val/psnr_rgb", "losses/l_pix", "lr",
    }  # fmt: skip
    lines = [json.loads(line) for line in (finished / "experiments/tiny/metrics.jsonl").read_text().splitlines()]
    for metric in ("psnr", "psnr_rgb"):
        shown = [(event.step, round(event.value, 3)) for event in events.Scalars(f"metrics/demo_val/{metric}")]
        assert shown == [(line["iter"], pytest.approx(line[metric], abs=1e-3)) for line in lines[:-1]]


def test_the_network_is_in_the_log_with_its_parameters(finished):
    (log,) = (finished / "experiments/tiny").glob("train_*.log")
    text = log.read_text()
    state = torch.load(finished / "experiments/tiny/models/net_g_6.pth", weights_only=True)["params"]
    assert f"Network EDSR: {sum(value.numel() for value in state.values()):,} parameters." in text
    assert "(conv_first): Conv2d(3, 8, kernel_size=(3, 3)" in text


def test_a_calibrated_network_is_iteration_0_and_several_sets_have_folders(tmp_path):
    other = VAL.replace("datasets:val=", "datasets:val_2=").replace("demo_val", "other")
    changes = ["datasets:val:num_images=1", other.replace("num_images: 2", "num_images: 1"), "train:total_iter=2"]
    assert train(tmp_path, *changes, "val:save_img=true", opt=tiny.TRAIN, optimizers=("optim_bound",)) == 0
    folder = tmp_path / "experiments/tiny/visualization"
    (name,) = (file.stem for file in (folder / "other").glob("*.png"))
    assert {file for file in tree(folder) if not file.startswith("demo/")} == {
        f"{dataset}/{file}" for dataset in ("demo_val", "other") for file in (f"{name}.png", f"{name}/{name}_0.png", f"{name}/{name}_2.png")
    }  # fmt: skip


def test_a_suffix_names_the_pictures_of_a_test_and_the_report_finds_them(finished):
    network = f"path:pretrain_network_g={finished}/experiments/tiny/models/net_g_latest.pth"
    changes = ["name=suffixed", network, VAL.replace("datasets:val", "datasets:test_1"), "val:save_img=true"]
    arguments = tiny.overrides(finished, *changes, "val:suffix=new", architecture="EDSR")
    opt = tiny.ROOT / "options/test/demo_FP.yml"
    assert test_command.main(["-opt", str(opt), "--root", str(finished), "--force_yml", *arguments]) == 0
    folder = finished / "results/suffixed"
    files = tree(folder / "visualization")
    assert len(files) == 2 and all(file.startswith("demo_val/") and file.endswith("_new.png") for file in files)
    assert "data:image/png" in (folder / "report.html").read_text()
