"""Means over the images of a dataset, some of which have no value."""

import math

from basicsr.evaluation.dataset_result import DatasetResult
from basicsr.evaluation.results import measured
from basicsr.metrics.base import MetricTraits

TRAITS = {
    "psnr": MetricTraits("PSNR", "dB", 3, higher_is_better=True, compares="hr"),
    "ssim": MetricTraits("SSIM", "", 4, higher_is_better=True, compares="hr"),
}


def result(*images):
    return DatasetResult(
        "few", {str(i): dict(zip(TRAITS, values, strict=True)) for i, values in enumerate(images)}, 1.0, TRAITS
    )


def test_means_over_all_images():
    found = result((30.0, 0.8), (32.0, 0.9))
    assert found.means["psnr"] == 31.0 and math.isclose(found.means["ssim"], 0.85) and found.counted == {}
    assert found.describe() == "few: psnr 31.0000 dB, ssim 0.8500"
    assert "counted" not in measured([found])["datasets"]["few"]


def test_images_without_a_value_are_left_out_of_the_mean_and_counted():
    found = result((30.0, None), (32.0, 0.9), (34.0, None))
    assert found.means == {"psnr": 32.0, "ssim": 0.9} and found.counted == {"ssim": 1}
    assert found.describe() == "few: psnr 32.0000 dB, ssim 0.9000 (1 of 3 images)"
    written = measured([found])
    assert written["datasets"]["few"]["counted"] == {"ssim": 1}
    assert written["datasets"]["few"]["images"]["0"] == {"psnr": 30.0, "ssim": None}
    assert written["metrics"]["ssim"]["higher_is_better"] is True


def test_where_no_image_has_a_value_there_is_no_mean():
    found = result((math.inf, None))
    assert found.means == {"psnr": math.inf, "ssim": None} and found.counted == {"ssim": 0}
    assert measured([found])["datasets"]["few"]["psnr"] is None
