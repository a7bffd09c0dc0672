"""Learned points: units, states that cannot be used, a network that trains with them, files and graphs."""

import pytest
import torch

from basicsr.archs import build_network
from basicsr.deploy.integer import integer_network
from basicsr.deploy.packed_file import load_packed, save_packed
from basicsr.quant.calibration import StaticPoints
from basicsr.quant.insertion.insert import insert_quantizers, named_quantizers
from basicsr.quant.quantizers.learned_points_quantizer import LearnedPointsQuantizer
from basicsr.quant.spec import QuantizationError, QuantSpec

EDSR = {"type": "EDSR", "num_feat": 6, "num_block": 1, "upscale": 2, "img_range": 1.0}
POINTS = [-1.0, 0.0, 0.5, 4.0]


def quantizer_of(*points):
    quantizer = LearnedPointsQuantizer(QuantSpec(2))
    quantizer.load_calibration(StaticPoints(torch.tensor(points)))
    return quantizer


def test_codes_and_values():
    quantizer = quantizer_of(*POINTS)
    x = torch.tensor([-3.0, 0.2, 0.3, 9.0])
    assert quantizer.codes(x).tolist() == [0, 1, 2, 3]
    assert quantizer(x).tolist() == POINTS


def test_codes_count_in_ascending_order_also_where_training_drove_points_past_each_other():
    quantizer = quantizer_of(*POINTS)
    quantizer.points.data = torch.tensor([0.5, -1.0, 4.0, 0.0])
    assert quantizer.codes(torch.tensor([-3.0, 0.2, 0.3, 9.0])).tolist() == [0, 1, 2, 3]
    assert quantizer(torch.tensor([-3.0, 9.0])).tolist() == [-1.0, 4.0]


def test_the_unit_of_a_point_is_the_step_beside_it():
    quantizer = quantizer_of(*POINTS)
    assert quantizer.parameter_units()["points"].tolist() == [1.0, 0.75, 2.0, 3.5]
    quantizer.points.data = torch.tensor([4.0, -1.0, 0.5, 0.0])
    assert quantizer.parameter_units()["points"].tolist() == [3.5, 1.0, 2.0, 0.75]


@pytest.mark.parametrize("points", [[0.0, 1.0, 2.0], [0.0, 2.0, 1.0, 3.0], [0.0, 1.0, 2.0, float("inf")]])
def test_points_that_cannot_be_used_are_refused(points):
    with pytest.raises(QuantizationError, match="needs 4 finite numbers in ascending order"):
        quantizer_of(*points)


def test_packed_files_hold_it_and_integers_refuse_it(tmp_path):
    torch.manual_seed(0)
    network = build_network(EDSR).eval()
    quantization_map = insert_quantizers(network, "body", 4, 4, activation_quantizer={"type": "LearnedPoints"})
    for name, quantizer in named_quantizers(network):
        if name.endswith("weight_quantizer"):
            quantizer.set_bounds(-0.2, 0.2)
        else:
            quantizer.load_calibration(StaticPoints(torch.linspace(-1, 1, 16).pow(3)))
    save_packed(network, EDSR, quantization_map, tmp_path / "packed.safetensors", scale=2)
    packed, _ = load_packed(tmp_path / "packed.safetensors")
    image = torch.rand(1, 3, 9, 8)
    with torch.no_grad():
        assert torch.equal(packed(image), network(image))
    with pytest.raises(QuantizationError, match="is a LearnedPointsQuantizer, which has no fixed uniform grid"):
        integer_network(network)
