"""Bicubic enlargement is measured as the field does it."""

import json

import numpy as np
import pytest

from tests import tiny


def measure(load_script, folder, *test_set):
    overrides = [f"datasets:test_1:{text}" for text in test_set]
    main = load_script("bicubic").main
    arguments = ["-opt", str(tiny.ROOT / "options/test/demo_FP.yml"), "--root", str(folder)]
    assert main([*arguments, "--force_yml", "name=bicubic", *overrides]) == 0
    return json.loads((folder / "results/bicubic/metrics.json").read_text())


def test_set5(load_script, tmp_path, shared, reference):
    folder = shared / "data/benchmark/Set5"
    metrics = measure(load_script, tmp_path, "name=Set5", f"dataroot_gt={folder}/HR")
    known = np.load(reference / "metrics.npz")
    images = metrics["datasets"]["Set5"]["images"]
    assert list(images) == ["baby", "bird", "butterfly", "head", "woman"]
    for name, value in (("psnr", "set5_bicubic_psnr_y"), ("ssim", "set5_bicubic_ssim_y")):
        np.testing.assert_allclose([image[name] for image in images.values()], known[value][2], atol=2e-4)


def test_its_file_is_like_that_of_a_network(load_script, tmp_path):
    metrics = measure(load_script, tmp_path, f"dataroot_gt={tiny.ROOT}/datasets/demo/val/HR", "num_images=1")
    assert (metrics["method"], metrics["scale"], metrics["w_bits"], metrics["network"]) == ("Bicubic", 4, 32, None)
    (image,) = metrics["datasets"]["demo"]["images"].values()
    assert metrics["datasets"]["demo"]["psnr"] == image["psnr"] == pytest.approx(17.758, abs=0.01)


def test_without_pictures_there_is_an_explanation(load_script, tmp_path, capsys):
    main = load_script("bicubic").main
    arguments = ["-opt", str(tiny.ROOT / "options/test/demo_FP.yml"), "--root", str(tmp_path)]
    assert main([*arguments, "--force_yml", "datasets:test_1:dataroot_gt=absent"]) == 2
    assert "None of the test sets is on disk" in capsys.readouterr().err
