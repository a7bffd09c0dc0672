"""From a training on the command line to a packed file and enlarged pictures."""

import json

import cv2
import pytest
import torch

from basicsr import train, upscale
from basicsr.deploy.packed_file import load_packed
from basicsr.deploy.runtimes import has_bfloat16
from basicsr.export import main as export_main
from tests import tiny

pytestmark = pytest.mark.slow

DEMO = tiny.ROOT / "datasets/demo"
TEST_SET = [f"datasets:test_1:dataroot_gt={DEMO / 'test/HR'}", "datasets:test_1:num_images=1", "val:save_img=false"]
METHODS = {
    "2DQuant": ["train:total_iter=2"],
    "per channel": ["train:total_iter=0", "quantization:weight_granularity=per_channel"],
    "DFSQ": [
        "train:total_iter=0",
        "quantization:activation_quantizer={type: Subset}",
        "quantization:activation_granularity=per_channel",
        "calibration:activations={type: DFSQ, word_sets: 3}",
        "calibration:by_output=[]",
    ],
    "LSQ": [
        "train:total_iter=0",
        "train:relative_lr=false",  # which is of bounds
        "quantization:weight_quantizer={type: LSQ}",
        "quantization:activation_quantizer={type: LSQ}",
        "calibration:by_output=[]",
        "calibration:weights={type: MeanMagnitude}",
        "calibration:activations={type: MeanMagnitude}",
    ],
}


def pack(folder, quantization, *arguments):
    options = tiny.overrides(folder, *quantization, "name=packed", *TEST_SET)
    network = folder / "experiments/tiny/models/net_Q_latest.pth"
    options += [f"path:pretrain_network_Q={network}"]
    return export_main(["-opt", str(tiny.TEST), "--root", str(folder), *arguments, "--force_yml", *options])


@pytest.mark.parametrize("method", METHODS)
def test_a_trained_network_is_packed_checked_and_used(method, tmp_path):
    changes = tiny.train_overrides(tmp_path, *METHODS[method], "val:val_freq=9")
    assert train.main(["-opt", str(tiny.TRAIN), "--root", str(tmp_path), "--force_yml", *changes]) == 0
    quantization = [change for change in METHODS[method] if change.startswith("quantization")]
    assert pack(tmp_path, quantization) == 0
    file = tmp_path / "results/packed/packed.safetensors"
    report = json.loads(file.with_name("export.json").read_text())
    assert report["bytes"] == file.stat().st_size
    # a point for each channel takes more than the few weights of this network
    assert method == "DFSQ" or report["bytes"] < report["bytes_full_precision"]
    result = report["datasets"]["demo"]
    assert result["packed"]["psnr"] == pytest.approx(result["trained"]["psnr"], abs=0.01)
    assert result["packed"]["fidelity"] is None or result["packed"]["fidelity"] > 90
    source = sorted((DEMO / "test/HR").iterdir())[0]
    picture = cv2.imread(str(source))[:24, :40]
    cv2.imwrite(str(tmp_path / "a.png"), picture)
    assert upscale.main(["-i", str(tmp_path / "a.png"), "-o", str(tmp_path / "out"), "--model", str(file)]) == 0
    assert cv2.imread(str(tmp_path / "out/a_x4.png")).shape == (96, 160, 3)


def test_half_precision_is_smaller_and_nearly_the_same(tmp_path):
    changes = tiny.train_overrides(tmp_path, "train:total_iter=0")
    assert train.main(["-opt", str(tiny.TRAIN), "--root", str(tmp_path), "--force_yml", *changes]) == 0
    reports = []
    for arguments in ([], ["--half"]):
        assert pack(tmp_path, [], *arguments) == 0
        reports.append(json.loads((tmp_path / "results/packed/export.json").read_text()))
    assert reports[1]["bytes"] < 0.8 * reports[0]["bytes"] and reports[1]["half"]
    assert reports[1]["datasets"]["demo"]["packed"]["fidelity"] > 35
    network, _ = load_packed(tmp_path / "results/packed/packed.safetensors")
    assert all(parameter.dtype == torch.float32 for parameter in network.parameters())


def test_full_precision_networks_are_not_packed(tmp_path, capfd):
    options = tiny.overrides(tmp_path, "quantization=null", *TEST_SET)
    assert export_main(["-opt", str(tiny.TEST), "--root", str(tmp_path), "--force_yml", *options]) == 2
    assert "only quantized networks are packed" in capfd.readouterr().err


def test_graphs_are_written_run_and_reported(tmp_path):
    for package in ("onnx", "onnxscript", "openvino", "onnxruntime"):
        pytest.importorskip(package)
    options = tiny.train_overrides(tmp_path, "train:total_iter=0", architecture="EDSR")
    train_options = tiny.ROOT / "options/train/demo_DOBI.yml"
    assert train.main(["-opt", str(train_options), "--root", str(tmp_path), "--force_yml", *options]) == 0
    network = tmp_path / "experiments/tiny/models/net_Q_latest.pth"
    test_options = tiny.overrides(
        tmp_path, "name=packed", *TEST_SET, "datasets:test_1:num_images=1", f"path:pretrain_network_Q={network}",
        "datasets:test_1:type=PairedImageDataset", "datasets:test_1:name=demo", architecture="EDSR",
    )  # fmt: skip
    command = ["-opt", str(tiny.ROOT / "options/test/test_2DQuant.yml"), "--root", str(tmp_path), "--onnx"]
    assert export_main([*command, "--force_yml", *test_options, "datasets:test_1:dataroot_lq=null"]) == 0
    folder = tmp_path / "results/packed"
    report = json.loads((folder / "export.json").read_text())
    for key, name in (
        ("quantized", "packed.onnx"),
        ("quantized_onnxruntime", "packed_onnxruntime.onnx"),
        ("full_precision", "packed_fp.onnx"),
    ):
        assert report["onnx"]["bytes"][key] == (folder / name).stat().st_size
    assert 0 <= report["onnx"]["weights_moved"] < 0.5 and report["onnx"]["points_moved"] == 0
    means = report["datasets"]["demo"]
    bfloat16 = ["openvino BF16"] if has_bfloat16() else []
    assert list(report["onnx"]["runtimes"]) == ["openvino", *bfloat16, "onnxruntime"]
    for name in ("packed", "8-bit integers in PyTorch", *report["onnx"]["runtimes"]):
        assert means[name]["psnr"] == pytest.approx(means["trained"]["psnr"], abs=0.05)
    for name in ("openvino", *bfloat16):
        assert report["onnx"]["runtimes"][name]["integer_nodes"] == 2 * tiny.NETWORKS["EDSR"]["num_block"]
    assert all(0 <= entry["largest_difference"] < 1 for entry in report["onnx"]["runtimes"].values())
    timed = {"PyTorch FP32", "openvino FP32", "onnxruntime FP32", "onnxruntime quantized", "openvino quantized"}
    timed |= {name for label in bfloat16 for name in (label, f"{label} quantized")}
    assert report["onnx"]["milliseconds"].keys() == timed
