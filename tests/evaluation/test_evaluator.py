"""An evaluation takes whatever metrics are configured, and an image that one of them has no value for."""

import copy
import logging
import math

import pytest
import torch

from basicsr.archs import build_network
from basicsr.evaluation.evaluator import Evaluator
from basicsr.metrics.psnr_ssim_metric import calculate_psnr
from basicsr.utils.image import tensor_to_image
from basicsr.utils.options import ValOptions
from tests import tiny


class Pictures(list):
    name = "pictures"


@pytest.fixture
def networks():
    torch.manual_seed(3)
    full_precision = build_network({"type": "EDSR", "upscale": 2, **tiny.NETWORKS["EDSR"]}).eval()
    other = copy.deepcopy(full_precision)
    with torch.no_grad():
        other.conv_first.weight.mul_(1.1)
    return full_precision, other


def pictures(*sides):
    generator = torch.Generator().manual_seed(4)
    return Pictures(
        {
            "name": f"p{side}",
            "lq": torch.rand(3, side, side, generator=generator),
            "gt": torch.rand(3, 2 * side, 2 * side, generator=generator),
        }
        for side in sides
    )


METRICS = {
    "psnr": {"type": "calculate_psnr"},
    "psnr_rgb": {"type": "calculate_psnr", "test_y_channel": False, "crop_border": 0},
    "to_fp": {"type": "calculate_fidelity"},
}


def test_psnr_on_y_and_on_rgb_in_one_run(networks):
    full_precision, other = networks
    data = pictures(16)
    result = Evaluator(ValOptions(metrics=METRICS), 2, full_precision).evaluate(other, data)
    with torch.no_grad():
        output = tensor_to_image(other(data[0]["lq"][None])[0])
    truth = tensor_to_image(data[0]["gt"])
    assert result.images["p16"] == {
        "psnr": calculate_psnr(output, truth, crop_border=2, test_y_channel=True),
        "psnr_rgb": calculate_psnr(output, truth, crop_border=0, test_y_channel=False),
        "to_fp": pytest.approx(result.means["to_fp"]),
    }
    assert result.traits["to_fp"].compares == "full_precision"


def test_without_a_full_precision_network_its_metrics_are_left_out(networks):
    evaluator = Evaluator(ValOptions(metrics=METRICS), 2, None)
    assert list(evaluator.metrics) == ["psnr", "psnr_rgb"]
    assert list(evaluator.evaluate(networks[1], pictures(16)).means) == ["psnr", "psnr_rgb"]


def test_where_nothing_compares_with_it_the_full_precision_network_does_not_run(networks):
    full_precision, other = networks
    full_precision.register_forward_pre_hook(lambda *_: pytest.fail("it ran"))
    Evaluator(ValOptions(metrics={"psnr": {"type": "calculate_psnr"}}), 2, full_precision).evaluate(other, pictures(16))


def test_a_network_that_is_its_own_reference_runs_once_for_each_picture(networks):
    full_precision, _ = networks
    seen = []
    full_precision.register_forward_hook(lambda _, inputs, output: seen.append(inputs[0].shape[-1]))
    evaluator = Evaluator(ValOptions(), 2, full_precision)
    assert evaluator.evaluate(full_precision, pictures(16, 20, 24)).means["fidelity"] == math.inf
    assert seen == [16, 20, 24]


def test_an_image_too_small_for_ssim_leaves_the_others(networks, caplog):
    evaluator = Evaluator(ValOptions(), 2, None)
    with caplog.at_level(logging.WARNING):
        result = evaluator.evaluate(networks[1], pictures(6, 7, 16))  # 8 and 10 pixels are left of the first two
    assert result.images["p6"]["ssim"] is None is result.images["p7"]["ssim"]
    assert result.images["p6"]["psnr"] is not None and result.means["ssim"] == result.images["p16"]["ssim"]
    assert result.counted == {"ssim": 1}
    warnings = [record.getMessage() for record in caplog.records if "no value" in record.getMessage()]
    assert len(warnings) == 1 and "'ssim' has no value on 2 of 3 images" in warnings[0] and "11 x 11" in warnings[0]
