import logging

import numpy as np
import pytest
import torch

from basicsr.data import build_dataset, calibration_crops
from basicsr.data.paired_image_dataset import PairedImageDataset
from basicsr.data.sampler import build_train_loader
from basicsr.utils.errors import DataError, OptionsError
from basicsr.utils.image import image_to_tensor, read_image, write_image
from basicsr.utils.options import CalibrationOptions
from basicsr.utils.resize import downscale_image
from tests.lmdb_folders import make_lmdb


def _options(folder, **more):
    return {"type": "PairedImageDataset", "name": "Noise", "dataroot_gt": str(folder), **more}


def test_whole_pairs_come_in_the_order_of_names(make_images):
    hr = make_images("HR", (16, 20), (13, 22))
    dataset = build_dataset(_options(hr), 4, "val", "datasets:val")
    assert len(dataset) == 2
    assert [dataset[index]["name"] for index in range(2)] == ["a0", "a1"]
    cropped = read_image(hr / "a1.png")[:12, :20]
    torch.testing.assert_close(dataset[1]["gt"], image_to_tensor(cropped), rtol=0, atol=0)
    torch.testing.assert_close(dataset[1]["lq"], image_to_tensor(downscale_image(cropped, 4)), rtol=0, atol=0)


def test_iteration_ends_after_the_last_pair(make_images):
    dataset = build_dataset(_options(make_images("HR", (8, 8), (8, 8), (8, 8)), num_images=2), 2, "val", "datasets:val")
    assert [pair["name"] for pair in dataset] == ["a0", "a1"]


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_samples_depend_on_the_seed_alone(make_images, scale):
    hr = make_images("HR", (40, 50))
    first, second = (
        build_dataset(_options(hr, lq_size=24 // scale), scale, "train", "datasets:train") for _ in range(2)
    )
    first.sample(0, (1, 2))
    one, other = first.sample(0, (3, 4)), second.sample(0, (3, 4))
    assert one["lq"].shape == (3, 24 // scale, 24 // scale)
    assert one["gt"].shape == (3, 24, 24)
    assert torch.equal(one["lq"], other["lq"])
    assert torch.equal(one["gt"], other["gt"])
    assert not torch.equal(one["gt"], first.sample(0, (3, 5))["gt"])


def test_samples_are_aligned(make_images):
    hr = make_images("HR", (40, 48))
    dataset = build_dataset(_options(hr, lq_size=8), 2, "train", "datasets:train")
    whole = dataset[0]
    orientations = [(h, v, r) for h in (0, 1) for v in (0, 1) for r in (0, 1)]
    for number in range(10):
        sample = dataset.sample(0, (0, number))
        places = []
        for h, v, r in orientations:
            dims = [2] * h + [1] * v
            lq, gt = whole["lq"].flip(dims), whole["gt"].flip(dims)
            if r:
                lq, gt = lq.transpose(1, 2), gt.transpose(1, 2)
            windows = lq.unfold(1, 8, 1).unfold(2, 8, 1)  # 3,tops,lefts,8,8
            found = (windows == sample["lq"][:, None, None]).all(dim=(0)).flatten(2).all(dim=2).nonzero()
            places += [gt[:, 2 * t : 2 * t + 16, 2 * x : 2 * x + 16] for t, x in found.tolist()]
        assert len(places) == 1
        assert torch.equal(places[0], sample["gt"])


def test_decoded_images_are_kept_within_the_budget(make_images):
    hr = make_images("HR", (16, 16))
    kept = build_dataset(_options(hr), 4, "val", "datasets:val")
    anew = build_dataset(_options(hr, cache_budget_mb=0), 4, "val", "datasets:val")
    assert torch.equal(kept[0]["gt"], anew[0]["gt"])
    (hr / "a0.png").unlink()
    assert kept[0]["gt"].shape == (3, 16, 16)
    with pytest.raises(DataError, match="does not exist"):
        anew[0]


def test_16_bits_keep_their_precision(tmp_path):
    image = np.arange(8 * 8 * 3).reshape(8, 8, 3).astype(np.uint16) * 300
    write_image(tmp_path / "a.png", image)
    dataset = build_dataset(_options(tmp_path), 2, "val", "datasets:val")
    torch.testing.assert_close(dataset[0]["gt"], torch.from_numpy(image / 65535).permute(2, 0, 1).float())


def test_the_log_says_once_that_lr_is_made(make_images, caplog):
    hr = make_images("HR", (8, 8), (8, 8))
    with caplog.at_level(logging.INFO):
        dataset = build_dataset(_options(hr), 2, "val", "datasets:val")
        list(dataset)
    assert [record.message for record in caplog.records] == [
        f"Data set Noise: 2 images of '{hr}', LR made by bicubic reduction."
    ]


def test_training_needs_a_size(make_images):
    hr = make_images("HR", (16, 16))
    with pytest.raises(OptionsError, match="'Noise' needs the option lq_size"):
        build_dataset(_options(hr), 3, "train", "datasets:train")


def test_unknown_and_wrong_options_are_named(make_images):
    hr = make_images("HR", (16, 16))
    with pytest.raises(OptionsError, match="Unknown option 'datasets:train:lqsize'. Did you mean 'lq_size'"):
        build_dataset(_options(hr, lqsize=16), 2, "train", "datasets:train")
    with pytest.raises(
        OptionsError, match="datasets:train:cache_budget_mb' has the value -1: .* greater than or equal to 0"
    ):
        build_dataset(_options(hr, lq_size=8, cache_budget_mb=-1), 2, "train", "datasets:train")
    with pytest.raises(OptionsError, match="Did you mean 'PairedImageDataset'"):
        build_dataset({**_options(hr), "type": "PairedImagesDataset"}, 2, "val", "datasets:val")


def test_an_image_smaller_than_the_crop_is_named(make_images):
    hr = make_images("HR", (16, 40))
    with pytest.raises(DataError, match=r"a0\.png' has 40x16 pixels .* lq_size 10 at x2"):
        PairedImageDataset(2, "train", name="Noise", dataroot_gt=str(hr), lq_size=10)
    assert len(PairedImageDataset(2, "val", name="Noise", dataroot_gt=str(hr), lq_size=10)) == 1


def test_databases_give_the_pairs_of_the_folders_that_they_were_made_of(make_images, tmp_path):
    hr, lr = make_images("HR", (40, 48), (40, 52)), make_images("LR", (10, 12), (10, 13))
    databases = make_lmdb(hr, tmp_path / "HR_sub.lmdb"), make_lmdb(lr, tmp_path / "X4_sub.lmdb")
    for with_lq in (True, False):
        own, other = (
            build_dataset(
                _options(gt, dataroot_lq=str(lq) if with_lq else None, lq_size=8), 4, "train", "datasets:train"
            )
            for gt, lq in ((hr, lr), databases)
        )
        assert len(own) == len(other) == 2
        for index in range(2):
            assert own[index]["name"] == other[index]["name"]
            for one, two in ((own[index], other[index]), (own.sample(index, (3, 4)), other.sample(index, (3, 4)))):
                assert torch.equal(one["lq"], two["lq"]) and torch.equal(one["gt"], two["gt"])


def test_workers_read_databases(make_images, tmp_path):
    hr = make_images("HR", (40, 48), (40, 52))
    sets = [
        build_dataset(_options(folder, lq_size=8), 4, "train", "datasets:train")
        for folder in (hr, make_lmdb(hr, tmp_path / "HR.lmdb"))
    ]
    own, other = (build_train_loader(d, batch_size=4, num_workers=n, seed=1) for d, n in zip(sets, (0, 2), strict=True))
    for _ in range(2):
        one, two = next(own), next(other)
        assert torch.equal(one["lq"], two["lq"]) and torch.equal(one["gt"], two["gt"])


def test_calibration_crops_come_from_the_listed_images_of_a_database(make_images, tmp_path):
    hr = make_images("HR", *[(40, 48)] * 3)
    database, listed = make_lmdb(hr, tmp_path / "HR.lmdb"), tmp_path / "list.txt"
    listed.write_text("a1.png (40,48,3)\n")
    crops = calibration_crops(
        CalibrationOptions(num_images=4, crop_size=8), _options(database, meta_info_file=str(listed)), 4, 0
    )
    (hr / "a0.png").unlink()
    (hr / "a2.png").unlink()
    own = calibration_crops(CalibrationOptions(num_images=4, crop_size=8), _options(hr), 4, 0)
    assert torch.equal(crops.lq, own.lq)
