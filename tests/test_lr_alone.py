"""A test set of LR pictures alone goes through test.py: enlarged, saved, not measured, and every place says so."""

import json

import numpy as np
import pytest

from basicsr import report as report_command
from basicsr import test as test_command
from basicsr import train as train_command
from basicsr.utils.image import read_image, write_image
from tests import tiny

pytestmark = [pytest.mark.slow, pytest.mark.reports]

NETWORK = {"architecture": "EDSR"}


@pytest.fixture
def lr(tmp_path):
    random = np.random.default_rng(0)
    for name, size in (("a", (24, 24)), ("b", (24, 30))):
        coarse = random.integers(0, 256, (size[0] // 6, size[1] // 6, 3), dtype=np.uint8)
        write_image(tmp_path / "LR" / f"{name}.png", coarse.repeat(6, 0).repeat(6, 1))
    return f"datasets:test_1={{type: SingleImageDataset, name: phone, dataroot_lq: {tmp_path / 'LR'}}}"


def evaluate(folder, name, *more):
    changes = tiny.overrides(folder, f"name={name}", "val:save_img=false", *more, **NETWORK)
    opt = tiny.ROOT / "options/test/demo.yml"
    return test_command.main(["-opt", str(opt), "--root", str(folder), "--force_yml", *changes])


def test_full_precision_has_no_metrics_at_all(tmp_path, lr, capfd):
    assert evaluate(tmp_path, "fp", lr, "method=FP", "quantization=null", "val:full_precision=false") == 0
    assert "phone: 2 images enlarged, without HR to compare with" in capfd.readouterr().err
    folder = tmp_path / "results/fp"
    result = json.loads((folder / "metrics.json").read_text())
    assert result["datasets"]["phone"] == {"images": {"a": {}, "b": {}}}
    assert read_image(folder / "visualization/phone/b.png").shape == (96, 120, 3)
    page = (folder / "report.html").read_text()
    assert "phone has LR pictures alone" in page and "2 pictures, enlarged without HR" in page and '"bicubic"' in page
    assert report_command.main([str(folder), "-o", str(tmp_path / "report/report.html")]) == 0
    table = capfd.readouterr().out
    assert "| FP | 32/32 | phone |" in table and "phone has LR pictures alone" in table and "PSNR" not in table


def test_a_quantized_network_is_compared_with_full_precision_only_beside_a_set_with_hr(tmp_path, lr, capfd):
    train = tiny.train_overrides(tmp_path, "train:total_iter=0", lr, **NETWORK)
    assert train_command.main(["-opt", str(tiny.TRAIN), "--root", str(tmp_path), "--force_yml", *train]) == 0
    assert (tmp_path / "experiments/tiny/visualization/phone/a.png").exists()
    hr = tiny.ROOT / "datasets/demo/val/HR"
    network = f"path:pretrain_network_Q={tmp_path}/experiments/tiny/models/net_Q_latest.pth"
    other = f"datasets:test_2={{type: PairedImageDataset, name: demo, dataroot_gt: {hr}, num_images: 1}}"
    capfd.readouterr()
    assert evaluate(tmp_path, "quantized", lr, other, network) == 0
    assert "phone: 2 images enlarged, without HR to compare with, fidelity" in capfd.readouterr().err
    result = json.loads((tmp_path / "results/quantized/metrics.json").read_text())["datasets"]
    assert set(result["phone"]) == {"fidelity", "images"} and {"psnr", "ssim", "fidelity"} < set(result["demo"])
    folder = tmp_path / "results/quantized/visualization"
    assert sorted(file.name for file in folder.rglob("*.png")) == ["a.png", "b.png"]


def test_a_validation_set_needs_hr(tmp_path, lr, capfd):
    changes = tiny.train_overrides(tmp_path, "datasets:val=null", lr.replace("test_1", "val"), **NETWORK)
    assert train_command.main(["-opt", str(tiny.TRAIN), "--root", str(tmp_path), "--force_yml", *changes]) == 2
    error = capfd.readouterr().err
    assert "The validation set 'phone' has LR images alone" in error and "Traceback" not in error
