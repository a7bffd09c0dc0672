import itertools
import multiprocessing
import os
import signal
import time
from collections import Counter

import numpy as np
import pytest
import torch

from basicsr.data.paired_image_dataset import PairedImageDataset
from basicsr.data.sampler import TrainingSampler, build_train_loader
from basicsr.utils.errors import DataError, OptionsError


def _batches(sampler, number):
    return list(itertools.islice(sampler, number))


@pytest.mark.parametrize("batch_size", [1, 4, 7, 10, 33])
def test_every_image_comes_once_per_epoch(batch_size):
    sampler = TrainingSampler(10, batch_size=batch_size, seed=3)
    indices = [index for batch in _batches(sampler, 70) for index, _ in batch]
    epochs = [indices[start : start + 10] for start in range(0, len(indices) - 9, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == len(epochs)


def test_every_sample_has_a_seed_of_its_own():
    seeds = Counter(seed for batch in _batches(TrainingSampler(3, batch_size=5, seed=0), 40) for _, seed in batch)
    assert set(seeds.values()) == {1}


@pytest.mark.parametrize("start", [0, 1, 9, 1000])
def test_batches_are_the_same_wherever_a_run_starts(start):
    whole = TrainingSampler(7, batch_size=4, seed=5)
    resumed = TrainingSampler(7, batch_size=4, seed=5, start_iteration=start)
    assert _batches(resumed, 6) == [whole.batch(iteration) for iteration in range(start, start + 6)]


def test_other_seeds_give_other_batches():
    assert TrainingSampler(50, batch_size=8, seed=0).batch(3) != TrainingSampler(50, batch_size=8, seed=1).batch(3)


@pytest.mark.parametrize("world_size", [2, 3, 6])
def test_processes_share_the_batch_of_one(world_size):
    alone = TrainingSampler(10, batch_size=12, seed=0)
    ranks = [TrainingSampler(10, batch_size=12, seed=0, rank=r, world_size=world_size) for r in range(world_size)]
    for iteration in (0, 5):
        assert sum((rank.batch(iteration) for rank in ranks), []) == alone.batch(iteration)


@pytest.mark.parametrize(("batch_size", "world_size"), [(3, 2), (1, 4), (0, 1), (-2, 1)])
def test_a_batch_that_cannot_be_split_is_refused(batch_size, world_size):
    with pytest.raises(
        OptionsError, match=f"batch size {batch_size} .* {world_size} processes; use a positive multiple"
    ):
        TrainingSampler(10, batch_size=batch_size, seed=0, world_size=world_size)


@pytest.fixture
def dataset(make_images):
    hr = make_images("HR", *[(24, 32)] * 5)
    return PairedImageDataset(2, "train", name="Noise", dataroot_gt=str(hr), lq_size=8)


def _take(loader, number):
    batches = list(itertools.islice(loader, number))
    loader.close()
    return batches


def _assert_equal(batches, others):
    assert len(batches) == len(others)
    for batch, other in zip(batches, others, strict=True):
        assert torch.equal(batch["lq"], other["lq"])
        assert torch.equal(batch["gt"], other["gt"])


def test_batches_have_the_same_bits_with_any_number_of_workers_and_after_resuming(dataset):
    expected = _take(build_train_loader(dataset, batch_size=4, num_workers=0, seed=1), 6)
    assert expected[0]["lq"].shape == (4, 3, 8, 8)
    assert expected[0]["gt"].shape == (4, 3, 16, 16)
    _assert_equal(_take(build_train_loader(dataset, batch_size=4, num_workers=2, seed=1), 6), expected)
    resumed = build_train_loader(dataset, batch_size=4, num_workers=1, seed=1, start_iteration=4)
    _assert_equal(_take(resumed, 2), expected[4:])


def test_ranks_together_give_the_batch_of_one_process(dataset):
    (expected,) = _take(build_train_loader(dataset, batch_size=4, num_workers=0, seed=1, start_iteration=3), 1)
    options = {"batch_size": 4, "num_workers": 0, "seed": 1, "start_iteration": 3, "world_size": 2}
    parts = [_take(build_train_loader(dataset, rank=rank, **options), 1)[0] for rank in range(2)]
    assert torch.equal(torch.cat([part["gt"] for part in parts]), expected["gt"])


@pytest.mark.parametrize("num_workers", [0, 1])
def test_global_random_numbers_are_left_alone(dataset, num_workers):
    np.random.seed(0)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    _take(build_train_loader(dataset, batch_size=2, num_workers=num_workers, seed=1), 2)
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_before)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_unreadable_image_is_one_clear_error(dataset, tmp_path, num_workers):
    (tmp_path / "HR" / "a3.png").write_bytes(b"")
    loader = build_train_loader(dataset, batch_size=5, num_workers=num_workers, seed=1)
    with pytest.raises(DataError) as caught:
        next(loader)
    assert (
        str(caught.value) == f"The image '{tmp_path / 'HR' / 'a3.png'}' is empty (0 bytes). Copy or download it again."
    )
    assert not multiprocessing.active_children()


def test_workers_outlive_signals_and_end_with_the_loader(dataset):
    loader = build_train_loader(dataset, batch_size=2, num_workers=2, seed=1)
    list(itertools.islice(loader, 2))  # a batch of each worker: both have started and set up their signals
    workers = multiprocessing.active_children()
    assert len(workers) == 2
    for worker in workers:
        os.kill(worker.pid, signal.SIGINT)
        os.kill(worker.pid, signal.SIGTERM)
    time.sleep(0.2)
    assert all(worker.is_alive() for worker in workers)
    _assert_equal(
        [list(itertools.islice(loader, 3))[2]],
        [_take(build_train_loader(dataset, batch_size=2, num_workers=0, seed=1), 5)[4]],
    )
    loader.close()
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_a_loading_process_that_dies_is_told_where_the_next_batch_is_asked_for(dataset, monkeypatch):
    monkeypatch.setattr(torch.utils.data._utils, "MP_STATUS_CHECK_INTERVAL", 0.1)
    before = signal.getsignal(signal.SIGCHLD)
    others = set(multiprocessing.active_children())
    batches = build_train_loader(dataset, batch_size=2, num_workers=1, seed=1)
    next(batches)
    (worker,) = set(multiprocessing.active_children()) - others
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()  # torch would raise here, in the middle of anything
    assert signal.getsignal(signal.SIGCHLD) in (before, signal.SIG_DFL)
    with pytest.raises(DataError, match="loads images could not go on: DataLoader worker.*--auto_resume"):
        for _ in range(100):
            next(batches)


def test_too_little_shared_memory_is_told_and_a_fault_of_a_data_set_stays_one(dataset, monkeypatch):
    def fails(reason):
        def sample(*_key):
            raise RuntimeError(reason)

        monkeypatch.setattr(dataset, "sample", sample)
        return lambda: next(build_train_loader(dataset, batch_size=2, num_workers=0, seed=1))

    with pytest.raises(DataError, match=r"No space left on device \(28\)\. Most often .*/dev/shm"):
        fails(
            "Caught by torch:\nunable to resize file </torch_24_18> to the right size: No space left on device (28)"
        )()
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        fails("mat1 and mat2 shapes cannot be multiplied")()
