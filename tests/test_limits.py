"""Files of absurd sizes, folders of very many files, and names that hardly a system takes: bounded memory, and a sentence or the result."""

import os
import time
import zipfile

import numpy as np
import pytest
import torch
import yaml

from basicsr.archs import build_network
from basicsr.deploy.folders import output_files, upscale_files
from basicsr.deploy.packed_file import load_packed
from basicsr.deploy.packed_format import Description, parse_description, read_packed, write_packed
from basicsr.deploy.upscaling import enlarger, load_model
from basicsr.networks.build import network_from
from basicsr.upscale import main as upscale
from basicsr.utils import memory, resize
from basicsr.utils.checkpoint import load_torch
from basicsr.utils.errors import CheckpointError, DataError, OptionsError
from basicsr.utils.image import read_image, write_image
from basicsr.utils.image_folders import image_files
from basicsr.utils.network_size import SMALL, TooLargeError, within
from basicsr.utils.options import load_options
from tests import hostile, tiny
from tests.deploy.networks import EDSR, SWINIR, calibrated
from tests.memory import at_most
from tests.test_hostile_files import Repeat

MANY = 20_000
ENDLESS = 10**9
LIES = [
    ("EDSR", {"num_block": ENDLESS}),
    ("EDSR", {"num_feat": ENDLESS}),
    ("EDSR", {"num_feat": 10**30}),
    ("EDSR", {"num_feat": 10**5}),
    ("MSRResNet", {"num_block": ENDLESS}),
    ("RDN", {"num_block": ENDLESS}),
    ("RDN", {"num_layer": ENDLESS}),
    ("SwinIR", {"depths": [ENDLESS], "num_heads": [2]}),
    ("SwinIR", {"depths": [1000] * 9, "num_heads": [2] * 9}),
    ("SwinIR", {"window_size": 10**4, "img_size": 10**5}),
    ("SwinIR", {"mlp_ratio": 1e12}),
    ("SwinIR", {"upscale": 2**10_000, "upsampler": "pixelshuffle"}),
]


@pytest.fixture
def little_memory():
    """Make sure that a test takes less than 2 GiB more than there was before it."""
    with at_most(2):
        yield


@pytest.fixture
def options_of(tmp_path):
    def options(architecture, change):
        network = {"type": architecture, **tiny.NETWORKS[architecture], **change}
        file = tmp_path / "run.yml"
        start = {"name": "a", "model_type": "PTQModel", "scale": network.get("upscale", 4), "bit": 4}
        pictures = {"name": "demo", "type": "PairedImageDataset", "dataroot_gt": "HR"}
        whole = {**start, "network_g": network, "datasets": {"val": pictures}}
        file.write_text(yaml.safe_dump(whole), encoding="utf-8")
        return file

    return options


@pytest.mark.parametrize(("architecture", "lie"), LIES, ids=str)
def test_options_of_endless_networks_do_not_belong_to_a_file(architecture, lie, little_memory):
    with pytest.raises(OptionsError, match="does not belong to the file|less than or equal to|at most|fewer than"):
        build_network({"type": architecture, **tiny.NETWORKS[architecture], **lie}, bound=SMALL.around(10**5, 100))


@pytest.mark.parametrize("lie", [{"num_feat": ENDLESS}, {"num_feat": 10**5}], ids=str)
def test_weights_are_not_read_into_a_network_that_cannot_be_theirs(lie, options_of, tmp_path, little_memory):
    weights = tiny.save_network(tmp_path / "fp.pth", architecture="EDSR")
    with pytest.raises(OptionsError, match="Section 'network_g' does not belong to the file of weights"):
        load_model(weights, options_of("EDSR", lie))
    with pytest.raises(OptionsError, match="Section 'network_g' does not belong to the file of weights"):
        network_from(load_options(options_of("EDSR", lie)), str(weights), None)


def test_options_that_nearly_fit_are_still_compared_one_by_one(options_of, tmp_path):
    weights = tiny.save_network(tmp_path / "fp.pth", architecture="EDSR")
    with pytest.raises(CheckpointError, match="num_block 2, the options ask for num_block 16"):
        load_model(weights, options_of("EDSR", {"num_block": 16}))


@pytest.mark.parametrize(("architecture", "lie"), LIES, ids=str)
def test_a_packed_file_that_describes_an_endless_network(architecture, lie, packed_edsr, tmp_path, little_memory):
    tensors = read_packed(packed_edsr)
    said = parse_description(tensors.pop("description"))
    network = {"type": architecture, **tiny.NETWORKS[architecture], **lie}
    write_packed(tmp_path / "a.safetensors", said.model_copy(update={"network": network}), tensors)
    with pytest.raises(CheckpointError, match="cannot be rebuilt: "):
        load_packed(tmp_path / "a.safetensors")


@pytest.fixture(scope="module")
def packed_edsr(tmp_path_factory):
    from basicsr.deploy.packed_file import save_packed

    network, quantization_map = calibrated("body", options=EDSR)
    path = tmp_path_factory.mktemp("packed") / "a.safetensors"
    save_packed(network, EDSR, quantization_map, path)
    return path


def test_quantizers_count_as_well():
    with pytest.raises(TooLargeError, match="far larger than the file"), within(SMALL):
        torch.nn.Conv2d(3, 10**7, 3)
    with within(SMALL):  # and nothing is left of the bound afterwards
        torch.nn.Conv2d(3, 8, 3)
    torch.nn.Linear(2000, 2000)


def test_a_description_without_end(packed_edsr, tmp_path, little_memory):
    tensors = read_packed(packed_edsr)
    said = parse_description(tensors.pop("description"))
    write_packed(tmp_path / "a.safetensors", Description(**{**dict(said), "method": " " * (1 << 25)}), tensors)
    assert (tmp_path / "a.safetensors").stat().st_size < 1 << 17
    with pytest.raises(CheckpointError, match="its description is longer"):
        load_packed(tmp_path / "a.safetensors")


def test_weights_that_swell(tmp_path, little_memory):
    torch.save({"params": {"a": torch.zeros(10**7)}}, tmp_path / "whole.pth")
    with (
        zipfile.ZipFile(tmp_path / "whole.pth") as whole,
        zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for part in whole.infolist():
            bomb.writestr(part.filename, whole.read(part))
    with pytest.raises(CheckpointError, match=r"compressed archive of 39,\d+ bytes that swells to 40,000,\d+"):
        load_torch(tmp_path / "bomb.pth")
    torch.save({"params": {"a": torch.zeros(()).expand(10**6, 10**6)}}, tmp_path / "expanded.pth")
    with pytest.raises(CheckpointError, match="few values that are repeated"):
        load_model(tmp_path / "expanded.pth")


def test_options_that_repeat_each_other_without_end(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i + 1}: &a{i + 1} [{', '.join([f'*a{i}'] * 9)}]" for i in range(30)]
    (tmp_path / "bomb.yml").write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(OptionsError, match="stands for more than 1,000,000 values"):
        load_options(tmp_path / "bomb.yml")


@pytest.fixture
def one_gibibyte(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_HARMLESS", 1 << 20)
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:    1048576 kB\n", encoding="ascii")
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")


def test_a_large_picture_is_refused_before_it_is_decoded(one_gibibyte, tmp_path, little_memory):
    (tmp_path / "a.png").write_bytes(hostile.png_of(30_000, 30_000, 8, 2))
    with pytest.raises(
        DataError,
        match=r"to read the image '.*a.png' of 30000x30000 pixels: that takes 5.0 GiB, and 1.0 GiB are available",
    ):
        read_image(tmp_path / "a.png")  # fmt: skip
    outcome = upscale_files(tmp_path / "a.png", tmp_path / "out", enlarger(Repeat(), torch.device("cpu"), None, 0), 2)
    assert (outcome.enlarged, outcome.failed) == (0, 1)


def test_an_enlargement_that_the_memory_cannot_hold(one_gibibyte, tmp_path, caplog):
    write_image(tmp_path / "a.png", np.zeros((200, 300, 3), np.uint8))
    enlarge = enlarger(Repeat(), torch.device("cpu"), None, 0)
    assert upscale_files(tmp_path / "a.png", tmp_path / "out", enlarge, 2).enlarged == 1
    assert upscale_files(tmp_path / "a.png", tmp_path / "out", enlarge, 64).failed == 1
    assert "The memory does not suffice to enlarge" in caplog.text and "19200x12800 pixels" in caplog.text


def test_the_limit_of_a_container_counts(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    for name, content in (("max", "1000"), ("current", "700"), ("stat", "anon 5\ninactive_file 150\n")):
        (tmp_path / f"memory.{name}").write_text(content, encoding="ascii")
    assert memory.available_memory() == 450
    (tmp_path / "memory.max").write_text("max\n", encoding="ascii")
    assert memory.available_memory() != 450
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "none")
    assert memory.available_memory() is None
    memory.require_memory(10**18, "to do anything", "Do less.")


def test_large_pictures_are_resized_by_strips_to_the_same_bits(monkeypatch):
    picture = np.random.default_rng(0).integers(0, 2**16, (61, 53, 3), dtype=np.uint16)
    whole = [resize.downscale_image(picture, 3), resize.upscale_image(picture, 2)]
    monkeypatch.setattr(resize, "_VALUES_AT_ONCE", 500)
    for expected, found in zip(whole, (resize.downscale_image(picture, 3), resize.upscale_image(picture, 2)), strict=True):  # fmt: skip
        np.testing.assert_array_equal(expected, found)


@pytest.mark.slow
def test_a_folder_of_very_many_files(tmp_path):
    folder = tmp_path / "many"
    folder.mkdir()
    for index in range(MANY):
        os.mknod(folder / f"{index:06}.{'png' if index % 3 else 'jpg'}")
    started = time.process_time()
    files = image_files(folder)
    outputs = output_files(files, tmp_path / "out", 2)
    assert len(files) == len(set(outputs.values())) == MANY
    assert time.process_time() - started < 15


LONGEST = 255


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (9, 1)])
def test_the_smallest_pictures(shape, tmp_path, packed):
    write_image(tmp_path / "in/a.png", hostile.COLOUR[: shape[0], : shape[1]])
    assert upscale(["--model", str(packed), "-i", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--device", "cpu"]) == 0  # fmt: skip
    assert read_image(tmp_path / "out/a_x2.png").shape == (2 * shape[0], 2 * shape[1], 3)


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    from basicsr.deploy.packed_file import save_packed

    network, quantization_map = calibrated()
    path = tmp_path_factory.mktemp("packed") / "a.safetensors"
    save_packed(network, SWINIR, quantization_map, path)
    return path


def test_names_as_long_as_they_can_be(tmp_path, packed, capfd):
    for name in ("x" * (LONGEST - 4) + ".png", "y" * (LONGEST - 7) + ".png", "ü" * 124 + ".png"):
        (tmp_path / "in").mkdir(exist_ok=True)
        write_image(tmp_path / "a.png", hostile.COLOUR)
        (tmp_path / "a.png").rename(tmp_path / "in" / name)
    assert upscale(["--model", str(packed), "-i", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--device", "cpu"]) == 3  # fmt: skip
    assert len(list((tmp_path / "out").iterdir())) == 2  # what fits with its `_x2`
    told = capfd.readouterr().err
    assert told.count("has more than 255 bytes. Give its input a shorter name.") == 1 and "Traceback" not in told


def test_links_in_a_circle_are_told(tmp_path, packed, capfd):
    circle = tmp_path / "circle"
    circle.symlink_to("circle")
    write_image(tmp_path / "in/a.png", hostile.COLOUR)
    for model, source, target in ((circle, "in", "out"), (packed, "circle", "out"), (packed, "in", "circle")):
        code = upscale(["--model", str(model), "-i", str(tmp_path / source), "-o", str(tmp_path / target), "--device", "cpu"])  # fmt: skip
        told = capfd.readouterr().err
        assert code in (2, 3) and "Too many levels of symbolic links" in told and "Traceback" not in told


def test_an_override_of_a_path_with_a_line_break(tmp_path):
    options = load_options(tiny.TRAIN, [f"path:pretrain_network_FP={tmp_path}/my nets\n网/a  b.pth"], tell=False)
    assert options.path.pretrain_network_FP == f"{tmp_path}/my nets\n网/a  b.pth"
