"""Pictures of all kinds are enlarged, none is lost, none is overwritten."""

import re
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
import yaml
from torch import nn

from basicsr import upscale
from basicsr.deploy import upscaling
from basicsr.deploy.onnx_export import save_onnx
from basicsr.deploy.packed_file import save_packed
from basicsr.deploy.upscaling import (
    bleed,
    enlarge_picture,
    enlarger,
    load_for_runtime,
    load_model,
)
from basicsr.quant.spec import QuantizationError
from basicsr.utils.errors import CheckpointError, DataError, OptionsError
from basicsr.utils.image import Picture, image_to_tensor, read_picture, write_image, write_picture
from basicsr.utils.weights import load_weights_file
from tests import tiny
from tests.deploy.networks import IMAGE, SWINIR, calibrated

pytestmark = pytest.mark.slow


def picture(kind, size=(13, 21)):
    """Return the pixels of a smooth picture as OpenCV takes them."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    colour = np.stack([rows * 9, columns * 7, rows * 3 + columns * 5], axis=2)
    alpha = (rows + columns) % 2 * 200 + 50
    if kind == "grey":
        return colour[..., 0].astype(np.uint8)
    if kind == "alpha":
        return np.dstack([colour, alpha]).astype(np.uint8)
    if kind == "16 bits":
        return (colour * 257 + 19).astype(np.uint16)
    return colour.astype(np.uint8)


class Repeat(nn.Module):
    """Repeats each pixel: a network whose result is known."""

    scale, size_multiple = 2, 1

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return x.repeat_interleave(2, -1).repeat_interleave(2, -2) * self.gain


@pytest.mark.parametrize("kind", ["colour", "grey", "alpha", "16 bits"])
def test_what_a_picture_is_stays(tmp_path, kind):
    pixels = picture(kind)
    cv2.imwrite(str(tmp_path / "a.png"), pixels)
    read = read_picture(tmp_path / "a.png")
    enlarged = enlarge_picture(read, enlarger(Repeat(), torch.device("cpu"), None, 0), 2)
    write_picture(tmp_path / "b.png", enlarged)
    result = cv2.imread(str(tmp_path / "b.png"), cv2.IMREAD_UNCHANGED)
    assert result.dtype == pixels.dtype and result.ndim == pixels.ndim
    assert result.shape[2:] == pixels.shape[2:] and result.shape[:2] == (26, 42)
    colours = pixels if kind != "alpha" else pixels[..., :3]
    expected = colours.repeat(2, 0).repeat(2, 1)
    assert np.array_equal(result[..., :3] if kind == "alpha" else result, expected)
    if kind == "alpha":
        assert abs(float(result[..., 3].mean()) - float(pixels[..., 3].mean())) < 2


def test_what_is_transparent_leaves_no_fringe(tmp_path):
    """A white disc on transparent black stays white, with a network that mixes neighbours as real ones do."""

    class Bilinear(nn.Module):
        scale, size_multiple = 4, 1

        def forward(self, x):
            return nn.functional.interpolate(x, scale_factor=4, mode="bilinear")

    rows, columns = np.mgrid[:48, :48] - 23.5
    alpha = (np.clip(16 - np.hypot(rows, columns), 0, 1) * 255).round().astype(np.uint8)
    rgb = np.where(alpha[..., None] > 0, 255, 0).astype(np.uint8).repeat(3, 2)
    enlarged = enlarge_picture(Picture(rgb, alpha, grey=False), enlarger(Bilinear(), torch.device("cpu"), None, 0), 4)
    assert enlarged.alpha.max() == 255 and (enlarged.alpha == 0).any()
    assert enlarged.rgb[enlarged.alpha > 0].min() == 255


def test_hidden_pixels_take_the_nearest_visible_colour():
    rgb = np.zeros((3, 7, 3), np.uint16)
    rgb[1, 1], rgb[1, 5] = (60000, 1, 2), (3, 4, 50000)
    alpha = np.zeros((3, 7), np.uint16)
    alpha[1, 1], alpha[1, 5] = 1, 65535
    result = bleed(rgb, alpha)
    assert result.dtype == np.uint16
    assert (result[:, :3] == rgb[1, 1]).all() and (result[:, 4:] == rgb[1, 5]).all()
    for same in (np.zeros_like(alpha), np.ones_like(alpha)):
        assert bleed(rgb, same) is rgb


def test_an_alpha_channel_is_not_put_where_it_cannot_be(tmp_path):
    rgb = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(DataError, match="alpha channel, which its format cannot hold"):
        write_picture(tmp_path / "a.jpg", Picture(rgb, rgb[..., 0], grey=False))


def test_tiles_leave_no_trace_where_they_see_enough():
    torch.manual_seed(0)

    class Blur(nn.Module):
        scale, size_multiple = 2, 1

        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 12, 7, padding=3)

        def forward(self, x):
            return nn.functional.pixel_shuffle(self.conv(x), 2)

    network, lr = Blur(), torch.rand(3, 70, 93)
    whole = enlarger(network, torch.device("cpu"), None, 0)(lr)
    tiled = enlarger(network, torch.device("cpu"), 32, 16)(lr)
    torch.testing.assert_close(tiled, whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["EDSR_x4", "SwinIR-light_x4"])
def test_tiles_of_the_shipped_networks_leave_no_seams(name):
    network = load_model(tiny.ROOT / f"experiments/pretrained_models/{name}.safetensors")
    hr = read_picture(sorted((tiny.ROOT / "datasets/demo/test/HR").iterdir())[0]).rgb
    lr = image_to_tensor(hr[:72, :64])
    whole = enlarger(network, torch.device("cpu"), None, 0)(lr)
    tiled = enlarger(network, torch.device("cpu"), 56, 48)(lr)
    torch.testing.assert_close(tiled, whole, atol=1e-4, rtol=0)


def test_a_model_is_found_from_its_file_alone(packed, tmp_path):
    network = load_model(packed)
    with torch.no_grad():
        assert torch.equal(network(IMAGE), calibrated()[0](IMAGE))
    weights = tiny.save_network(tmp_path / "fp.pth", scale=3)
    full_precision = load_model(weights)
    assert full_precision.scale == 3 and not full_precision.training
    own = tmp_path / "own.yml"
    own.write_text(yaml.safe_dump({"scale": 3, "network_g": {"type": "SwinIR", **tiny.NETWORK}}))
    assert load_model(weights, own).scale == 3  # the network is all that is asked for
    with pytest.raises(CheckpointError, match="embed_dim"):  # the options of a file come before what shapes tell
        load_model(weights, tiny.ROOT / "options/test/test_FP.yml", ["scale=3"])
    torch.save({"params": {"a": torch.zeros(2)}}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="no architecture that is known here"):
        load_model(tmp_path / "other.pth")


@pytest.mark.parametrize("name", ["EDSR_x4", "RDN-small_x4", "SwinIR-light_x4"])
def test_one_missing_tensor_is_named(name, tmp_path):
    state_dict = load_weights_file(tiny.ROOT / f"experiments/pretrained_models/{name}.safetensors")
    first_and_last = [*list(state_dict)[:3], *list(state_dict)[-3:]]
    for missing in (*first_and_last, *list(state_dict)[4::23]):
        torch.save({key: value for key, value in state_dict.items() if key != missing}, tmp_path / "file.pth")
        with pytest.raises(CheckpointError, match=re.escape(missing)):
            load_model(tmp_path / "file.pth")


def test_the_command_line_takes_the_key_of_the_weights(tmp_path, capfd):
    weights = torch.load(tiny.save_network(tmp_path / "edsr.pth", 2, "EDSR"), weights_only=True)["params"]
    zeros = {key: torch.zeros_like(value) for key, value in weights.items()}
    torch.save({"first": zeros, "second": weights}, tmp_path / "two.pth")
    write_image(tmp_path / "a.png", np.full((8, 8, 3), 90, np.uint8))
    command = ["-i", str(tmp_path / "a.png"), "--device", "cpu"]
    assert upscale.main([*command, "-o", str(tmp_path / "no"), "--model", str(tmp_path / "two.pth")]) == 2
    assert "Its entries: 'first', 'second'; name the one" in capfd.readouterr().err
    with_key = ["--model", str(tmp_path / "two.pth"), "--param_key", "second"]
    assert upscale.main([*command, "-o", str(tmp_path / "two"), *with_key]) == 0
    assert upscale.main([*command, "-o", str(tmp_path / "one"), "--model", str(tmp_path / "edsr.pth")]) == 0
    assert (tmp_path / "one/a_x2.png").read_bytes() == (tmp_path / "two/a_x2.png").read_bytes()


def test_the_command_line_reports_what_is_wrong(packed, tmp_path):
    command = [sys.executable, "basicsr/upscale.py", "-i", str(tmp_path / "absent.png"), "-o", str(tmp_path)]
    result = subprocess.run([*command, "--model", str(packed)], cwd=tiny.ROOT, capture_output=True, text=True)
    assert result.returncode == 2 and "does not exist. Give a picture or a folder of pictures." in result.stderr
    result = subprocess.run([*command, "--model", "absent.pth"], cwd=tiny.ROOT, capture_output=True, text=True)
    assert result.returncode == 2 and "The file of weights 'absent.pth' does not exist" in result.stderr


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_a_runtime_enlarges_as_torch_does(runtime, tmp_path):
    for package in ("onnx", "onnxscript", runtime):
        pytest.importorskip(package)
    weights = tiny.save_network(tmp_path / "edsr.pth", 2, "EDSR")
    graph = tmp_path / "edsr.onnx"
    save_onnx(load_model(weights), graph)
    cv2.imwrite(str(tmp_path / "a.png"), picture("colour", (30, 50)))
    results = {}
    for name, model, which in (("torch", weights, "torch"), ("graph", graph, runtime), ("traced", weights, runtime)):
        arguments = ["-i", str(tmp_path / "a.png"), "-o", str(tmp_path / name), "--model", str(model), "--tile", "32"]
        assert upscale.main([*arguments, "--tile_overlap", "16", "--runtime", which, "--device", "cpu"]) == 0
        results[name] = cv2.imread(str(tmp_path / name / "a_x2.png")).astype(int)
    assert results["torch"].shape == (60, 100, 3)
    for name in ("graph", "traced"):
        assert np.abs(results[name] - results["torch"]).max() <= 1


@pytest.mark.parametrize(("native", "gains"), [(True, True), (True, False), (False, False)])
def test_bfloat16_beside_integers(native, gains, tmp_path, monkeypatch, capfd):
    for package in ("onnx", "onnxscript", "openvino"):
        pytest.importorskip(package)
    if native and not upscaling.has_bfloat16():
        pytest.skip("this processor computes no bfloat16")
    monkeypatch.setattr(upscaling, "has_bfloat16", lambda: native)
    monkeypatch.setattr(upscaling, "gains_from_bfloat16", lambda: gains)
    save_onnx(
        calibrated("body", 4, options={"type": "EDSR", "upscale": 2, **tiny.NETWORKS["EDSR"]})[0], tmp_path / "net.onnx"
    )
    cv2.imwrite(str(tmp_path / "a.png"), picture("colour", (30, 50)))
    enlarged = []
    for precision in ("f32", "bf16"):
        arguments = [
            "-i",
            str(tmp_path / "a.png"),
            "-o",
            str(tmp_path / precision),
            "--model",
            str(tmp_path / "net.onnx"),
        ]
        assert upscale.main([*arguments, "--runtime", "openvino", "--precision", precision]) == 0
        enlarged.append(cv2.imread(str(tmp_path / precision / "a_x2.png")).astype(int))
    told = capfd.readouterr().err
    assert ("computes no bfloat16" in told) is not native
    assert ("bfloat16 take longer" in told) is (native and not gains)
    difference = np.abs(enlarged[0] - enlarged[1])
    assert difference.mean() < 2 and (difference.max() > 0 or not native)


def test_bfloat16_is_for_openvino(tmp_path):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    model = tmp_path / "net.onnx"
    save_onnx(load_model(tiny.save_network(tmp_path / "edsr.pth", 2, "EDSR")), model)
    with pytest.raises(OptionsError, match="'bf16' is for OpenVINO only; onnxruntime computes in f32"):
        load_for_runtime(model, "onnxruntime", precision="bf16")


def test_onnxruntime_takes_either_graph_of_a_quantized_network(tmp_path):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    options = {"type": "EDSR", "upscale": 2, **tiny.NETWORKS["EDSR"]}
    files = [tmp_path / "net.onnx", tmp_path / "net_onnxruntime.onnx"]
    save_onnx(calibrated("body", 4, options=options)[0], files[0], for_onnxruntime=files[1])
    networks = [load_for_runtime(file, "onnxruntime", threads=1) for file in files]
    x = torch.rand(1, 3, 9, 7)
    assert all(network.quantized for network in networks)
    assert torch.equal(networks[0](x), networks[1](x))


def test_a_network_in_a_wrapper_of_any_name_is_found(tmp_path):
    file = tiny.save_network(tmp_path / "edsr.pth", 2, "EDSR")
    expected = load_model(file).state_dict()
    state_dict = {f"my.sr_model.{key}": value for key, value in expected.items()}
    torch.save({"state_dict": {**state_dict, "loss.weight": torch.ones(3)}}, tmp_path / "wrapped.ckpt")
    found = load_model(tmp_path / "wrapped.ckpt").state_dict()
    assert list(found) == list(expected) and all(torch.equal(found[key], expected[key]) for key in found)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-i", "absent.png"], "The picture 'absent.png' does not exist. Give a picture"),
        (["-i", "empty"], "The folder 'empty' holds no image."),
        (["-i", "a.png", "-o", "a.png"], "The output folder 'a.png' is not a folder"),
        (["-i", "a.png", "--device", "tpu"], "--device is 'tpu', but must be 'auto', 'cpu'"),
        (["-i", "a.png", "--device", "mps"], "--device is 'mps', but torch finds no such device"),
        (["-i", "a.png", "--precision", "bf16"], "bf16 needs --runtime openvino"),
        (["-i", "a.png", "--runtime", "onnxruntime", "--precision", "bf16"], "bf16 needs --runtime openvino"),
    ],
)
def test_nothing_is_loaded_in_vain(arguments, message, tmp_path, monkeypatch, capfd):
    """A network may have to be traced for minutes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    (tmp_path / "empty").mkdir()
    write_image(tmp_path / "a.png", np.full((8, 8, 3), 90, np.uint8))
    (tmp_path / "network.pth").write_text("This is not even looked at.")
    assert upscale.main(["-o", "out", "--model", "network.pth", *arguments]) == 2
    assert message in (told := capfd.readouterr().err) and "network.pth" not in told


def test_a_graph_needs_a_runtime(tmp_path, capfd):
    write_image(tmp_path / "a.png", np.full((8, 8, 3), 90, np.uint8))
    arguments = ["-i", str(tmp_path), "-o", str(tmp_path / "out"), "--model", str(tmp_path / "net.onnx")]
    assert upscale.main(arguments) == 2
    assert "--runtime openvino or onnxruntime" in capfd.readouterr().err


def test_a_network_without_a_form_for_runtimes_is_refused(tmp_path):
    for package in ("onnx", "onnxscript"):
        pytest.importorskip(package)
    network, quantization_map = calibrated()
    path = tmp_path / "net.safetensors"
    save_packed(network, SWINIR, quantization_map, path)

    def no_grid(*_arguments, **_options):
        raise QuantizationError("The quantizer 'x' has no fixed uniform grid.")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(upscaling, "to_onnx", no_grid)
        with pytest.raises(CheckpointError, match="has no form for onnxruntime: .*--runtime torch"):
            load_for_runtime(path, "onnxruntime")


def test_a_small_tile_needs_no_other_argument(tmp_path, packed):
    write_image(tmp_path / "a.png", np.full((40, 50, 3), 90, np.uint8))
    arguments = ["-i", str(tmp_path / "a.png"), "--model", str(packed), "--tile", "32", "--device", "cpu"]
    assert upscale.main([*arguments, "-o", str(tmp_path / "default")]) == 0
    assert upscale.main([*arguments, "-o", str(tmp_path / "given"), "--tile_overlap", "16"]) == 0
    (default,), (given,) = ((tmp_path / name).iterdir() for name in ("default", "given"))
    assert default.read_bytes() == given.read_bytes()


def test_a_device_that_is_not_there_is_refused(tmp_path, packed, capfd):
    write_image(tmp_path / "a.png", np.full((8, 8, 3), 90, np.uint8))
    arguments = ["-i", str(tmp_path / "a.png"), "-o", str(tmp_path / "out"), "--model", str(packed), "--device"]
    assert upscale.main([*arguments, "cuda:99"]) == 2
    assert upscale.main([*arguments, "tpu"]) == 2
    message = capfd.readouterr().err
    assert "--device is 'cuda:99', but torch finds no CUDA device" in message and "Traceback" not in message
    assert "--device is 'tpu', but must be 'auto', 'cpu'" in message
