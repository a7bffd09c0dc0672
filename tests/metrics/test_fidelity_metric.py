"""PSNR between outputs of networks."""

import math

import numpy as np
import pytest
import torch

from basicsr.metrics.fidelity_metric import calculate_fidelity
from basicsr.metrics.psnr_ssim_metric import calculate_psnr
from basicsr.utils.errors import DataError


def test_identical_outputs():
    sr = torch.rand(3, 12, 14)
    assert calculate_fidelity(sr, sr.clone(), crop_border=2) == math.inf


def test_a_grey_difference_by_hand():
    sr = torch.full((3, 12, 14), 0.5)
    expected = 20 * math.log10(255 / (219 * 1e-4))
    assert calculate_fidelity(sr, sr + 1e-4, crop_border=0) == pytest.approx(expected, abs=0.01)


def test_agrees_with_psnr_where_nothing_is_rounded():
    first, second = (np.random.default_rng(i).integers(0, 256, (20, 25, 3), dtype=np.uint8) for i in (0, 1))
    value = calculate_fidelity(first / 255, second / 255, crop_border=4)
    assert value == pytest.approx(calculate_psnr(first, second, crop_border=4), abs=1e-5)


def test_tensors_and_arrays_agree_and_values_are_clipped():
    first, second = torch.rand(3, 9, 11) * 1.4 - 0.2, torch.rand(3, 9, 11)
    arrays = [sr.clamp(0, 1).permute(1, 2, 0).numpy() for sr in (first, second)]
    assert calculate_fidelity(first, second, crop_border=1) == pytest.approx(calculate_fidelity(*arrays, crop_border=1))


def test_shapes_that_differ():
    with pytest.raises(DataError, match="cannot be compared"):
        calculate_fidelity(torch.rand(3, 9, 9), torch.rand(3, 9, 10), crop_border=0)
