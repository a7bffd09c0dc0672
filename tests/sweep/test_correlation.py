"""The correlation of two errors, from PSNR and fidelity alone, against that of the pictures themselves."""

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from basicsr.sweep.correlation import error_correlation


def decibels(difference):
    error = np.mean(difference**2)
    return -10 * math.log10(error) if error else math.inf


@example(0, -1.0, 1.0)  # all of the error is undone
@given(st.integers(0, 2**32 - 1), st.floats(-1, 1), st.floats(0.001, 10))
def test_it_is_that_of_the_errors(seed, share, size):
    noise = np.random.default_rng(seed).standard_normal((2, 400))
    error, change = noise[0], size * (share * noise[0] + (1 - abs(share)) * noise[1])
    found = error_correlation(
        {"a": {"psnr": decibels(error + change), "fidelity": decibels(change)}}, {"a": {"psnr": decibels(error)}}
    )
    expected = np.mean(error * change) / math.sqrt(np.mean(error**2) * np.mean(change**2))
    assert found == pytest.approx(expected, abs=1e-6)


def test_images_are_averaged_and_those_that_say_nothing_left_out():
    full = {"a": {"psnr": 30.0}, "b": {"psnr": 30.0}, "c": {"psnr": 30.0}}
    opposite, none = decibels(np.array(0.5 * 10**-1.5)), 30 - 10 * math.log10(2)
    images = {
        "a": {"psnr": opposite, "fidelity": opposite},  # half of the error is undone
        "b": {"psnr": none, "fidelity": 30.0},
        "c": {"psnr": 30.0, "fidelity": math.inf},
        "d": {"psnr": 30.0, "fidelity": 40.0},
    }
    assert error_correlation(images, full) == pytest.approx(-0.5)
    assert error_correlation({name: images[name] for name in "cd"}, full) is None
    assert error_correlation({"a": {"psnr": 29.0}}, full) is None
    assert error_correlation({"a": {"psnr": 29.0, "fidelity": None}}, full) is None
    assert error_correlation({"a": {"psnr": None, "fidelity": 30.0}}, full) == pytest.approx(-1)
