"""Recipes as published: their budgets on every network, and what sets them apart from this project's variants."""

import pytest
import torch

from basicsr.archs import build_network
from basicsr.archs.base import reconstruction_blocks_of
from basicsr.quant.spec import QuantSpec
from basicsr.utils.options import load_options
from basicsr.utils.registry import CALIBRATOR_REGISTRY
from tests import tiny

OPTIONS = tiny.ROOT / "options"
NETWORKS = sorted(file.stem for file in (OPTIONS / "networks").glob("*.yml"))


def load(method, file="train", network="swinir_light"):
    name = f"train/train_{method}.yml" if file == "train" else f"test/{file}.yml"
    return load_options(OPTIONS / name, [f"recipe={method}_as_published", f"network={network}", "bit=4"])


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(("method", "iterations"), [("QDrop", 20_000), ("BRECQ", 25_000)])
def test_each_block_gets_the_iterations_of_the_paper(method, iterations, network):
    options = load(method, network=network)
    with torch.device("meta"):
        blocks = reconstruction_blocks_of(build_network(options.network_g))
    assert options.train.total_iter == iterations * len(blocks)
    assert (options.train.batch_size, options.calibration.num_images) == (32, 1024)
    assert options.quantization.weight_granularity == "per_channel"


def test_qdrop_learns_both_parts_together_on_mixed_inputs():
    """Half of the elements are of the quantized network, the loss of roundings waits for a fifth of the iterations."""
    train = load("QDrop").train.model_extra
    assert train["order"] == "joint" and train["inputs"] == "mixed" and train["loss"] == "mse"
    assert (train["drop_probability"], train["warm_up"], tuple(train["beta"])) == (0.5, 0.2, (20.0, 2.0))
    assert train["optim_rounding"] == {"type": "Adam", "lr": 1e-3}


def test_pac_clips_each_batch_and_takes_the_mean():
    """2,048 values, one in each bin of the width w: the two last ones are dropped, so that w and 2,046 w are left."""
    calibration = load("DBDC_Pac").calibration
    assert calibration.num_images == 30 * calibration.batch_size
    calibrator = CALIBRATOR_REGISTRY.build(calibration.activations, QuantSpec(4), where="calibration:activations")
    values = torch.arange(2048.0)
    for factor in (1.0, 2.0):
        calibrator.update(factor * values)
    assert not calibrator.end_pass()
    bounds, width = calibrator.finish(), 2047 / 2048
    assert float(bounds.lower_bound) == pytest.approx(1.5 * width)
    assert float(bounds.upper_bound) == pytest.approx(1.5 * 2046 * width)


def test_pac_is_tested_with_self_ensemble_and_trained_as_long_as_published():
    options = load("DBDC_Pac", network="edsr_large")
    train = options.train
    assert (train.total_iter, train.model_extra["activation_share"], train.batch_size) == (500, 0.5, 2)
    assert train.model_extra["feature_loss"]["loss_weight"] == 5.0 and train.model_extra["feature_gradient"]
    assert options.val.self_ensemble and load("DBDC_Pac", "test").val.self_ensemble
    assert options.quantization.coverage == "full"


@pytest.mark.parametrize("method", ["QDrop", "DBDC_Pac", "BRECQ", "2DQuant"])
def test_they_are_kept_apart_from_the_variants(method):
    published = load(method)
    own = load_options(OPTIONS / f"train/train_{method}.yml", ["bit=4"])
    assert published.method_name == f"{own.method_name.split()[0]} as published" != own.method_name
    assert published.name != own.name
