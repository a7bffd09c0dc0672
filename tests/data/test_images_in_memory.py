"""Batches that are cut in memory are those that workers load."""

import logging

import numpy as np
import pytest
import torch

from basicsr.data import build_dataset, hold_in_memory, training_batches
from basicsr.data.images_in_memory import ImagesInMemory
from basicsr.utils.errors import DataError
from basicsr.utils.image import write_image
from basicsr.utils.options import TrainOptions

CPU = torch.device("cpu")
SIZES = ((40, 50), (64, 32), (33, 77))


def dataset(folder, scale, **more):
    options = {
        "type": "PairedImageDataset",
        "name": "Noise",
        "dataroot_gt": str(folder),
        "lq_size": 24 // scale,
        **more,
    }
    return build_dataset(options, scale, "train", "datasets:train")


def options(**more):
    return TrainOptions(**{"total_iter": 1, "batch_size": 7, "num_workers": 0, "data_in_memory": True, **more})


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("turns", [{}, {"use_hflip": False}, {"use_rot": False}])
def test_batches_have_the_bits_of_those_of_workers(make_images, scale, turns):
    images = dataset(make_images("HR", *SIZES), scale, **turns)
    held = hold_in_memory(images, options(), CPU)
    assert isinstance(held, ImagesInMemory) and len(held) == 3
    pairs = zip(training_batches(held, options(), 5, 3), training_batches(images, options(), 5, 3), strict=False)
    for _ in range(6):
        in_memory, loaded = next(pairs)
        assert set(in_memory) == set(loaded) == {"lq", "gt"}
        for key, value in loaded.items():
            assert in_memory[key].is_contiguous() and torch.equal(in_memory[key], value)


def test_processes_share_a_batch(make_images, monkeypatch):
    from basicsr.utils import dist

    held = hold_in_memory(dataset(make_images("HR", *SIZES), 4), options(), CPU)
    whole = next(training_batches(held, options(batch_size=6), 0, 0))["gt"]
    monkeypatch.setattr(dist, "world_size", lambda: 2)
    parts = []
    for rank in range(2):
        monkeypatch.setattr(dist, "rank", lambda rank=rank: rank)
        parts.append(next(training_batches(held, options(batch_size=6), 0, 0))["gt"])
    assert torch.equal(torch.cat(parts), whole)


def test_a_crop_larger_than_an_image_is_refused_at_once(make_images):
    with pytest.raises(DataError, match=r"a1\.png' has 12x40 pixels .* too few for lq_size 6 at x4"):
        hold_in_memory(dataset(make_images("HR", (40, 40), (40, 12)), 4), options(), CPU)


def test_images_that_take_too_much_memory(make_images, caplog, monkeypatch):
    images = dataset(make_images("HR", *[(600, 600)] * 3), 4)
    with pytest.raises(DataError, match=r"take 4 MiB decoded, but 1 MiB .*data_in_memory to false or auto"):
        hold_in_memory(images, options(data_memory_mb=1), CPU)
    monkeypatch.setattr(logging.getLogger("basicsr"), "propagate", True)
    assert hold_in_memory(images, options(data_memory_mb=1, data_in_memory="auto"), CPU) is images
    assert "loaded by 0 worker processes instead" in caplog.text


def test_images_of_16_bits_are_left_to_workers(tmp_path):
    write_image(tmp_path / "deep.png", np.zeros((32, 32, 3), np.uint16))
    images = dataset(tmp_path, 4)
    assert hold_in_memory(images, options(data_in_memory="auto"), CPU) is images
    with pytest.raises(DataError, match=r"deep\.png' .* 16 bits"):
        hold_in_memory(images, options(), CPU)


def test_nothing_is_held_unless_asked_for(make_images):
    images = dataset(make_images("HR", (40, 40)), 4)
    assert hold_in_memory(images, options(data_in_memory=False), CPU) is images


@pytest.mark.gpu
def test_batches_on_a_gpu_have_the_same_bits(make_images):
    images = dataset(make_images("HR", *SIZES), 4)
    on_gpu, loaded = (
        next(training_batches(hold_in_memory(images, options(), device), options(), 1, 0))
        for device in (torch.device("cuda"), CPU)
    )
    for key, value in loaded.items():
        assert on_gpu[key].is_cuda and torch.equal(on_gpu[key].cpu(), value)
