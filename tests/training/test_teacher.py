"""Which layers a feature loss compares, also of a network that does not say."""

import pytest
import torch
from torch import nn

from basicsr.models.pac_model import PacModel
from basicsr.models.ptq_model import PTQModel
from basicsr.models.qat_model import QATModel
from basicsr.training.teacher import choose_feature_layers, computes_in_bfloat16, gains_from_bfloat16
from basicsr.utils import hardware
from basicsr.utils.errors import OptionsError
from basicsr.utils.options import load_options
from tests import tiny


class Silent(nn.Sequential):
    """Enlarges 4 times and has no attribute that a command asks for."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 8, 3, 1, 1), nn.Conv2d(8, 48, 3, 1, 1), nn.PixelShuffle(4))


def test_the_options_come_before_what_the_network_names():
    network = Silent()
    network.feature_layers = ("0",)
    assert choose_feature_layers(network, None) == ["0"] and choose_feature_layers(network, ["1"]) == ["1"]


@pytest.mark.parametrize("model_class", [PTQModel, PacModel, QATModel])
def test_a_network_without_feature_layers_is_told_so(model_class, tmp_path):
    options = load_options(
        tiny.TRAIN, tiny.train_overrides(tmp_path, "quantization:coverage=full", "calibration:by_output=[]")
    )
    arguments = {"feature_loss": {"type": "NormalizedFeatureLoss"}}
    with pytest.raises(OptionsError, match=r"the network Silent does not say which: .*'feature_layers'.*Name modules"):
        model_class(Silent(), options, torch.device("cpu"), **arguments)
    model = model_class(Silent(), options, torch.device("cpu"), feature_layers=["0"], **arguments)
    assert model.teacher.feature_layers == ["0"]


def test_a_device_that_is_neither_cpu_nor_gpu_gains_nothing_from_bfloat16():
    assert not gains_from_bfloat16(torch.device("meta"))


@pytest.mark.parametrize("faster", [True, False])
def test_auto_on_a_cpu_asks_the_processor(faster, monkeypatch):
    monkeypatch.setattr(hardware, "gains_from_bfloat16", lambda: faster)
    assert computes_in_bfloat16("auto", torch.device("cpu")) is faster
    assert computes_in_bfloat16("bf16", torch.device("cpu")) and not computes_in_bfloat16("off", torch.device("cpu"))
