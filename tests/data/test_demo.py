"""The pictures and calibration sets that the repository carries."""

from pathlib import Path

import pytest

from basicsr.data.calibration import load_calibration_set
from basicsr.data.paired_image_dataset import PairedImageDataset
from basicsr.utils.image_folders import image_files

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "datasets" / "demo"


def test_every_picture_has_its_licence_and_none_is_in_two_sets():
    licences = (DEMO / "LICENSES.md").read_text(encoding="utf-8")
    folders = {name: image_files(DEMO / name / "HR") for name in ("train", "val", "test")}
    assert {name: len(files) for name, files in folders.items()} == {"train": 24, "val": 3, "test": 6}
    for name, files in folders.items():
        for file in files:
            assert f"| {name}/HR/{file.name} |" in licences
    photos = [{file.stem.split("_")[0] for file in files} for files in folders.values()]
    assert len(set.union(*photos)) == sum(map(len, photos))


def test_the_pictures_are_small():
    assert sum(file.stat().st_size for file in DEMO.rglob("*") if file.is_file()) < 6_000_000


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_the_test_pictures_need_no_cropping_and_their_lr_is_exact(scale):
    hr = str(DEMO / "test" / "HR")
    stored = PairedImageDataset(
        scale, "val", name="demo", dataroot_gt=hr, dataroot_lq=str(DEMO / "test" / "LR_bicubic" / f"X{scale}")
    )
    made = PairedImageDataset(scale, "val", name="demo", dataroot_gt=hr)
    for one, other in zip(stored, made, strict=True):
        assert one["lq"].equal(other["lq"])
        assert one["gt"].shape[1] % 12 == one["gt"].shape[2] % 12 == 0


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_the_calibration_sets_load(scale):
    crops = load_calibration_set(
        ROOT / "keydata" / f"demo_x{scale}.json", scale=scale, dataroot_gt=str(DEMO / "train" / "HR")
    )
    assert crops.shape == (32, 3, 64, 64)
