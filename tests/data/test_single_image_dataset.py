"""LR images alone."""

import pytest
import torch

from basicsr.data import build_dataset, build_evaluation_sets
from basicsr.utils.errors import DataError, OptionsError
from basicsr.utils.image import image_to_tensor, read_image
from tests.lmdb_folders import make_lmdb


def options(folder, **more):
    return {"type": "SingleImageDataset", "name": "mine", "dataroot_lq": str(folder), **more}


def test_images_come_in_the_order_of_names_without_hr(make_images, tmp_path):
    folder = make_images("LR", (7, 9), (8, 5), (4, 4))
    for place in (folder, make_lmdb(folder, tmp_path / "LR.lmdb")):
        dataset = build_dataset(options(place, num_images=2), 4, "val", "datasets:test_1")
        assert not dataset.has_gt and len(dataset) == 2
        assert [item["name"] for item in dataset] == ["a0", "a1"] and all(set(i) == {"name", "lq"} for i in dataset)
        torch.testing.assert_close(dataset[1]["lq"], image_to_tensor(read_image(folder / "a1.png")), rtol=0, atol=0)
    (tmp_path / "list.txt").write_text("a2.png (4,4,3)\n")
    listed = build_dataset(options(folder, meta_info_file=str(tmp_path / "list.txt")), 4, "val", "datasets:test_1")
    assert [item["name"] for item in listed] == ["a2"]


def test_a_broken_image_is_told_before_the_first_is_enlarged(make_images):
    folder = make_images("LR", (7, 9), (8, 5))
    (folder / "a1.png").write_bytes((folder / "a1.png").read_bytes()[:50])
    with pytest.raises(DataError, match="a1.png' is"):
        build_dataset(options(folder), 4, "val", "datasets:test_1")


def test_they_train_nothing(make_images):
    folder = make_images("LR", (7, 9))
    with pytest.raises(OptionsError, match="'mine' is a SingleImageDataset.*PairedImageDataset with a dataroot_gt"):
        build_dataset(options(folder), 4, "train", "datasets:train")
    with pytest.raises(OptionsError, match="'mine' is a SingleImageDataset"):
        build_dataset(options(folder), 4, "val", "datasets:val").sample(0, (1,))


def test_pairs_without_a_folder_of_hr_images_say_what_to_do(make_images):
    with pytest.raises(OptionsError, match="'mine' has no dataroot_gt.*type: SingleImageDataset"):
        build_dataset({**options(make_images("LR", (7, 9))), "type": "PairedImageDataset"}, 4, "val", "datasets:test_1")


def test_a_folder_that_is_not_there_is_passed_over_in_tests_only(tmp_path, make_images):
    sets = {"test_1": options(tmp_path / "gone"), "test_2": options(make_images("LR", (7, 9)), name="other")}
    assert [dataset.name for dataset in build_evaluation_sets(sets, 4)] == ["other"]
    with pytest.raises(DataError, match="gone' does not exist"):
        build_evaluation_sets({"val": options(tmp_path / "gone")}, 4)
