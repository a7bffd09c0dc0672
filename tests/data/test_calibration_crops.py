"""Which calibration set a run uses, what the log says of it, and what tells it from others."""

import json

import pytest
import torch

from basicsr.data.calibration_crops import calibration_crops, chosen_file
from basicsr.utils.errors import DataError, OptionsError
from basicsr.utils.options import CalibrationOptions, load_options
from tests import tiny

DEMO = tiny.ROOT / "datasets/demo/train/HR"


@pytest.fixture
def names(tmp_path, monkeypatch):
    """The places that the shipped file names, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "keydata").mkdir()
    data = load_options(tiny.ROOT / "options/train/train_2DQuant_x4.yml").calibration.data
    assert data == ["keydata/cali_data_x4.pth", "keydata/cali_data_x4.json", "keydata/demo_x4.json"]
    return data


def crops_of(data, **others):
    return calibration_crops(CalibrationOptions(data=data, **others), None, 4, 0)


def put_json(file, count):
    stored = json.loads((tiny.ROOT / "keydata/demo_x4.json").read_text())
    file.write_text(json.dumps({**stored, "dataroot_gt": str(DEMO), "items": stored["items"][:count]}))


def test_the_set_of_2dquant_comes_first_then_the_drawn_one_then_that_of_the_repository(tmp_path, names, caplog):
    caplog.set_level("INFO", "basicsr")
    put_json(tmp_path / names[2], 2)
    chosen = crops_of(names)
    assert (chosen.source, len(chosen.lq)) == (names[2], 2)
    assert f"'{names[0]}' is not there; '{names[2]}' is used in its place" in caplog.text
    assert f"Calibration set: 2 crops of 64 x 64 LR pixels, {names[2]} (SHA-256 " in caplog.text
    put_json(tmp_path / names[1], 3)
    assert (crops_of(names).source, len(crops_of(names).lq)) == (names[1], 3)
    lq = torch.rand(4, 3, 8, 8)
    torch.save({"lq": lq, "gt": torch.rand(4, 3, 32, 32), "lq_path": ["a.png"] * 4}, names[0])
    caplog.clear()
    assert torch.equal(crops_of(names).lq, lq)
    assert "4 crops of 8 x 8 LR pixels, keydata/cali_data_x4.pth" in caplog.text and "not there" not in caplog.text


def test_where_none_is_there_all_are_named(names):
    with pytest.raises(
        DataError, match=r"None of the calibration sets 'keydata/cali_data_x4.pth', .*calibration:data=null"
    ):
        chosen_file(CalibrationOptions(data=names))
    with pytest.raises(DataError, match=r"cali_data_x4.pth' does not exist"):
        crops_of(names[0])


def test_drawn_crops_are_told(caplog):
    with caplog.at_level("INFO", "basicsr"):
        drawn = crops_of(None, dataroot_gt=str(DEMO), num_images=2, crop_size=16)
    assert drawn.file is None and f"2 crops of 16 x 16 LR pixels, drawn from '{DEMO}' with seed 0" in caplog.text
    with pytest.raises(OptionsError, match="Calibration needs"):
        crops_of(None)


def test_the_identity_is_that_of_the_pixels_and_of_the_file(tmp_path):
    files = [tmp_path / name for name in ("a.pth", "b.pth", "c.pth")]
    lq = torch.rand(2, 3, 8, 8)
    for file, content in zip(files, ({"lq": lq}, list(lq), {"lq": lq + 1e-3}), strict=True):
        torch.save(content, file)
    first, same, other = (crops_of(str(file)).identity() for file in files)
    assert first["sha256"] == same["sha256"] != other["sha256"] and first["file_sha256"] != same["file_sha256"]
    assert (first["crops"], first["height"], first["width"], first["source"]) == (2, 8, 8, str(files[0]))
    turned = tmp_path / "turned.pth"
    torch.save(lq.reshape(2, 3, 4, 16), turned)
    assert crops_of(str(turned)).identity()["sha256"] != first["sha256"]


def test_options_that_choose_crops_are_told_where_a_file_holds_them(tmp_path, caplog):
    put_json(tmp_path / "set.json", 2)
    crops_of(str(tmp_path / "set.json"), num_images=2, crop_size=64)
    assert "has no effect" not in caplog.text
    assert len(crops_of(str(tmp_path / "set.json"), num_images=8).lq) == 2
    assert "calibration:num_images=8 has no effect" in caplog.text and "holds 2 crops of 64 LR pixels" in caplog.text
    crops_of(str(tmp_path / "set.json"), crop_size=32)
    assert "calibration:crop_size=32 has no effect" in caplog.text and "calibration:data=null" in caplog.text
