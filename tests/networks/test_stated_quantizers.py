"""Files of quantized networks say what their quantizers are, and are refused for quantizers of other kinds."""

import json

import pytest

from basicsr.archs import build_network
from basicsr.networks.stated_quantizers import check_quantizers, stated_quantizers
from basicsr.quant.insertion.insert import insert_quantizers
from basicsr.utils.errors import CheckpointError
from tests.tiny import NETWORKS

FIRST = "body.0.conv1.act_quantizer"
AFFINE = {"type": "Affine"}


def quantized(activation=AFFINE, **options):
    network = build_network({"type": "EDSR", "upscale": 2, **NETWORKS["EDSR"]})
    insert_quantizers(network, "body", 4, 4, activation_quantizer=activation, **options)
    return network


def test_each_quantizer_is_stated_in_values_of_json():
    stated = stated_quantizers(quantized({"type": "Affine", "threshold_window": 0.5}, activation_symmetric=False))
    assert len(stated) == 8 and stated[FIRST] == {"type": "Affine", "symmetric": False}  # gradients leave no trace
    assert json.loads(json.dumps(stated)) == stated
    assert stated_quantizers(quantized({"type": "DAQ", "sigma_bits": None}))[FIRST] == {
        "type": "DAQ",
        "step": "optimal",
        "sigma_bits": None,
        "clamp": True,
        "symmetric": False,
    }


OTHERS = [
    ({"type": "LSQ"}, {}, "with type Affine, not type LSQ", "quantization:activation_quantizer:type=Affine"),
    (
        AFFINE,
        {"activation_symmetric": True},
        "with symmetric false, not symmetric true",
        "quantization:activation_symmetric=false",
    ),
]


@pytest.mark.parametrize(("activation", "options", "told", "remedy"), OTHERS)
def test_quantizers_of_another_kind_are_refused_with_the_option_to_give(activation, options, told, remedy):
    stated = stated_quantizers(quantized())
    with pytest.raises(CheckpointError) as error:
        check_quantizers(quantized(activation, **options), stated, "net_Q.pth")
    assert f"'net_Q.pth' has the quantizer '{FIRST}' {told}" in str(error.value) and remedy in str(error.value)


def test_an_option_that_changes_what_is_computed_is_told():
    stated = stated_quantizers(quantized({"type": "DAQ", "step": "released"}))
    with pytest.raises(
        CheckpointError, match=r"step released, not step optimal.*quantization:activation_quantizer:step=released"
    ):
        check_quantizers(quantized({"type": "DAQ"}), stated, "a.pth")


def test_what_is_the_same_or_not_stated_is_taken():
    network = quantized()
    for stated in (stated_quantizers(network), stated_quantizers(quantized({**AFFINE, "exact_zeros": True})), None, {}):
        check_quantizers(network, stated, "a.pth")
    check_quantizers(network, {FIRST: "Affine", "another.name": {"type": "LSQ"}}, "a.pth")
    check_quantizers(network, {FIRST: {"type": "Affine", "symmetric": False, "new": 1}}, "a.pth")
