"""The recipe of this project on a network that no command knows, against DOBI, 2DQuant and BRECQ: the same crops, the same number of steps.

The network is the plugin in tests/plugins, trained in full precision by `python basicsr/train.py -opt tests/plugins/train_FP.yml`.
"""

import math

import pytest
import torch

import basicsr
from basicsr.networks.build import trainable_network
from basicsr.utils.image import image_to_tensor, read_image
from basicsr.utils.options import load_options
from basicsr.utils.resize import crop_to_multiple, downscale_image
from tests import tiny

FOLDER = tiny.ROOT / "tests/plugins"
WEIGHTS = FOLDER / "AttentionSR_x4.safetensors"
DATA = tiny.ROOT / "datasets/demo"
STEPS, BATCH, SIDE = 60, 2, 16
"""Of all that train."""
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def network():
    options = load_options(FOLDER / "train_FP.yml", [f"plugins=[{FOLDER}]", f"path:pretrain_network_g={WEIGHTS}"])
    return trainable_network(options).float().eval().requires_grad_(False)


@pytest.fixture(scope="module")
def crops():
    return basicsr.draw_crops(DATA / "train/HR", 4, number=12, size=32)


@pytest.fixture(scope="module")
def pictures():
    return [
        image_to_tensor(downscale_image(crop_to_multiple(read_image(file), 4), 4))[None]
        for file in sorted((DATA / "val/HR").iterdir())[:3]
    ]


@torch.no_grad()
def fidelity(quantized, network, pictures):
    """Return the mean over pictures of -10 log10 of the mean squared difference of the outputs, in dB."""
    values = [-10 * math.log10((quantized.network(x) - network(x)).square().mean()) for x in pictures]
    return sum(values) / len(values)


@pytest.mark.parametrize("bits", [4, 3, 2])
def test_the_recipe_is_nearest_to_full_precision(network, crops, pictures, bits):
    small = crops[:, :, :SIDE, :SIDE]

    def reached(method, coverage="full", options=None):
        result = basicsr.quantize(network, crops, bits=bits, method=method, coverage=coverage, options=options)
        if method not in ("DOBI", "DOBI_fitted"):
            result = basicsr.distill(result, small, iterations=STEPS, batch_size=BATCH, options=options)
        return fidelity(result, network, pictures)

    found = {method: reached(method) for method in ("DOBI", "2DQuant", "BRECQ", "DOBI_fitted", "QAD_fitted")}
    assert max(found["DOBI"], found["2DQuant"], found["BRECQ"]) + 0.5 < found["QAD_fitted"], found
    assert found["DOBI"] + 1 < found["DOBI_fitted"], found
