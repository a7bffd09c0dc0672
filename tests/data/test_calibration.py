import json

import numpy as np
import pytest
import torch

from basicsr.data import calibration
from basicsr.data.calibration import load_calibration_set, make_calibration_set, save_calibration_set
from basicsr.utils.errors import DataError
from basicsr.utils.image import image_to_tensor, read_image, write_image
from basicsr.utils.resize import crop_to_multiple, downscale_image


@pytest.fixture
def folder(make_images):
    return make_images("HR", (40, 44), (36, 50), (41, 41))


@pytest.fixture
def stored(folder, tmp_path):
    """A calibration set of 8 crops of 9x9 at scale 4, and its file."""
    made = make_calibration_set(str(folder), None, scale=4, num_images=8, crop_size=9, seed=1)
    save_calibration_set(tmp_path / "set.json", made)
    return made, tmp_path / "set.json"


def _edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_set_holds_different_crops_of_every_image(stored):
    items = stored[0].items
    assert len(items) == 8
    assert {item.image for item in items} == {"a0", "a1", "a2"}
    assert len({item.model_copy(update={"sha256": ""}) for item in items}) == 8


def test_the_seed_gives_the_set(folder, stored):
    again = make_calibration_set(str(folder), None, scale=4, num_images=8, crop_size=9, seed=1)
    other = make_calibration_set(str(folder), None, scale=4, num_images=8, crop_size=9, seed=2)
    assert again == stored[0]
    assert other != stored[0]


def test_loaded_crops_are_those_of_the_list(folder, stored):
    calibration_set, path = stored
    tensor = load_calibration_set(path, scale=4)
    assert tensor.shape == (8, 3, 9, 9)
    assert tensor.dtype == torch.float32
    for crop, item in zip(tensor, calibration_set.items, strict=True):
        lq = downscale_image(crop_to_multiple(read_image(folder / f"{item.image}.png"), 4), 4)
        expected = lq[item.y : item.y + 9, item.x : item.x + 9]
        expected = expected[:, ::-1] if item.hflip else expected
        expected = expected.transpose(1, 0, 2) if item.rot90 else expected
        torch.testing.assert_close(crop, image_to_tensor(expected), rtol=0, atol=0)


def test_the_folders_can_be_given(folder, stored, tmp_path):
    expected = load_calibration_set(stored[1], scale=4)
    moved = folder.rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"HR' does not exist"):
        load_calibration_set(stored[1], scale=4)
    assert torch.equal(load_calibration_set(stored[1], scale=4, dataroot_gt=str(moved)), expected)


def test_lr_files_give_the_same_crops(folder, stored, tmp_path):
    for file in folder.iterdir():
        lq = downscale_image(crop_to_multiple(read_image(file), 4), 4)
        write_image(tmp_path / "LR" / f"{file.stem}x4.png", lq)
    from_files = load_calibration_set(stored[1], scale=4, dataroot_lq=str(tmp_path / "LR"))
    assert torch.equal(from_files, load_calibration_set(stored[1], scale=4))


def test_changed_images_are_noticed(folder, stored):
    write_image(folder / "a1.png", np.zeros((36, 50, 3), np.uint8))
    with pytest.raises(DataError, match=r"image 'a1' .* checksum of the crop differs"):
        load_calibration_set(stored[1], scale=4)
    write_image(folder / "a1.png", np.zeros((12, 12, 3), np.uint8))
    with pytest.raises(DataError, match=r"does not lie within the LR image of 'a1', which has 3x3 pixels"):
        load_calibration_set(stored[1], scale=4)


def test_missing_images_are_named(folder, stored):
    (folder / "a2.png").unlink()
    with pytest.raises(DataError, match=r"lacks images of the calibration set '.*set\.json': a2\. Restore"):
        load_calibration_set(stored[1], scale=4)


def test_a_set_of_another_scale_is_refused(stored):
    with pytest.raises(DataError, match="is for scale factor 4, not 2"):
        load_calibration_set(stored[1], scale=2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 2}, "format_version"),
        ({"crop_sizes": 3}, "Unknown option 'crop_sizes'. Did you mean 'crop_size'"),
        ({"items": []}, "items"),
        ({"items": [{"image": "a0", "x": -1, "y": 0, "hflip": False, "rot90": False}]}, "items:0:x"),
        ({"scale": "4"}, "scale"),
    ],
)
def test_files_of_another_form_are_refused(stored, changes, message):
    _edit(stored[1], **changes)
    with pytest.raises(DataError, match=message):
        load_calibration_set(stored[1], scale=4)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"[]"])
def test_what_is_no_calibration_set_is_refused(tmp_path, content):
    (tmp_path / "set.json").write_bytes(content)
    with pytest.raises(DataError, match=r"set\.json' is not a calibration set"):
        load_calibration_set(tmp_path / "set.json", scale=4)


def test_a_missing_file_is_named(tmp_path):
    for name in ("set.json", "set.pth"):
        with pytest.raises(DataError, match=f"{name}' (cannot be read|does not exist)"):
            load_calibration_set(tmp_path / name, scale=4)


def test_crops_larger_than_an_image_are_refused(folder):
    with pytest.raises(DataError, match=r"has 1[0-2]x\d+ pixels, too few for calibration crops of 10"):
        make_calibration_set(str(folder), None, scale=4, num_images=8, crop_size=10, seed=1)


def test_more_crops_than_there_are_are_refused(make_images):
    hr = make_images("one", (32, 32))
    assert len(make_calibration_set(str(hr), None, scale=4, num_images=4, crop_size=8).items) == 4
    with pytest.raises(DataError, match="differs from the 4 chosen before"):
        make_calibration_set(str(hr), None, scale=4, num_images=5, crop_size=8)


def test_released_tensors_load(tmp_path):
    lq = torch.rand(4, 3, 8, 8)
    torch.save({"lq": lq, "gt": torch.rand(4, 3, 32, 32)}, tmp_path / "cali_data_x4.pth")
    assert torch.equal(load_calibration_set(tmp_path / "cali_data_x4.pth", scale=4), lq)


def test_tensors_alone_and_lists_of_crops_load(tmp_path):
    lq = torch.rand(3, 3, 8, 8)
    for content in (lq, list(lq), {"lq": list(lq)}, [crop[None] for crop in lq], {"lq": lq.double(), "lq_path": ["a"]}):
        torch.save(content, tmp_path / "set.pth")
        assert torch.equal(load_calibration_set(tmp_path / "set.pth", scale=4), lq)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"gt": torch.rand(1, 3, 4, 4)}, "has no entry 'lq' with LR crops, only 'gt'"),
        ({"lq": torch.rand(3, 4, 4)}, r"crops of the shape \(3, 4, 4\). They must be N, 3, h, w"),
        ({"lq": torch.rand(2, 4, 4, 3)}, "height x width x channels: turn them with permute"),
        ({"lq": torch.rand(2, 1, 4, 4)}, "They are grey"),
        (torch.rand(2, 4, 4), "They are grey"),
        ({"lq": torch.rand(0, 3, 4, 4)}, "is empty"),
        ([], "holds an empty list"),
        ([1], "holds a list of int where LR crops are looked for"),
        ({"lq": "text"}, "holds an object of type str"),
        ([torch.rand(3, 4, 4), torch.rand(3, 5, 4)], "crops of different sizes"),
        ({"lq": torch.rand(1, 3, 4, 4), "gt": torch.rand(1, 3, 8, 8)}, "is for scale factor 2, not 4"),
        ({"lq": torch.randint(2, 255, (1, 3, 4, 4), dtype=torch.uint8)}, "Divide pixels of 8 bits by 255"),
    ],
)
def test_tensors_of_another_form_are_refused_with_the_likely_reason(tmp_path, content, message):
    torch.save(content, tmp_path / "set.pth")
    with pytest.raises(DataError, match=message):
        load_calibration_set(tmp_path / "set.pth", scale=4)


@pytest.mark.parametrize("value", [255.0, float("nan"), -7.0])
def test_values_of_another_range_are_refused(tmp_path, value):
    torch.save({"lq": torch.full((1, 3, 4, 4), value)}, tmp_path / "set.pth")
    with pytest.raises(DataError, match="not within 0..1"):
        load_calibration_set(tmp_path / "set.pth", scale=4)


class _Malicious:
    def __reduce__(self):
        return exec, ("raise SystemExit('code from a file was run')",)


def test_pickles_that_run_code_and_damaged_files_are_refused(tmp_path):
    path = tmp_path / "set.pth"
    torch.save({"lq": _Malicious()}, path)
    with pytest.raises(DataError, match="damaged|would run code"):
        load_calibration_set(path, scale=4)
    torch.save({"lq": torch.rand(4, 3, 8, 8)}, path)
    for content in (path.read_bytes()[:500], b"", b"text"):
        path.write_bytes(content)
        with pytest.raises(DataError, match="damaged|would run code"):
            load_calibration_set(path, scale=4)


def test_a_set_that_cannot_be_written_is_an_error(stored, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be written"):
        save_calibration_set(tmp_path / "file" / "set.json", stored[0])


def test_an_image_is_read_once_however_many_crops_are_cut_from_it(make_images, monkeypatch):
    folder = make_images("many", (64, 64), (64, 72))
    reads = []
    load = calibration.load_pair
    monkeypatch.setattr(calibration, "load_pair", lambda pair, scale: reads.append(pair.name) or load(pair, scale))
    made = make_calibration_set(str(folder), None, scale=4, num_images=40, crop_size=8, seed=1)
    assert len(made.items) == 40 and sorted(reads) == ["a0", "a1"]
