"""Which layer's quantization costs most."""

import json

import pytest
import torch
from torch import nn

from basicsr.quant.insertion.coverage import CoverageRule
from basicsr.quant.insertion.insert import insert_quantizers, named_quantizers
from basicsr.training.sensitivity import describe_sensitivity, measure_sensitivity, report_sensitivity


@pytest.fixture
def network():
    """Three layers, the second of 2 bits and the third of 8."""
    torch.manual_seed(0)
    result = nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(3)))
    overrides = [{"match": "1", "w_bits": 2, "a_bits": 2}, {"match": "2", "w_bits": 8, "a_bits": 8}]
    insert_quantizers(result, [CoverageRule("*", "QConv2d")], 4, 4, overrides=overrides)
    for _, quantizer in named_quantizers(result):
        quantizer.set_bounds(-1.0, 1.0)
    return result.requires_grad_(False).eval()


def test_the_error_of_a_layer_is_that_of_the_network_with_this_layer_alone_quantized(network):
    crops = torch.rand(2, 3, 9, 7)
    rows = {row.name: row for row in measure_sensitivity(network, crops)}
    for name, row in rows.items():
        for path, quantizer in named_quantizers(network):
            quantizer.bypass = not path.startswith(f"{name}.")
        output = network(crops)
        for _, quantizer in named_quantizers(network):
            quantizer.bypass = True
        error = (output - network(crops)).square().mean()
        assert row.mean_squared_error == pytest.approx(float(error), rel=1e-5)
        assert row.fidelity == pytest.approx(-10 * float(error.log10()), abs=1e-3)
    assert rows["1"].bits == {"weight_quantizer": 2, "act_quantizer": 2}


def test_the_worst_comes_first_and_the_network_is_left_as_it_was(network):
    crops = torch.rand(2, 3, 9, 7)
    before = network(crops)
    assert [row.name for row in measure_sensitivity(network, crops)] == ["1", "0", "2"]
    assert torch.equal(network(crops), before) and not any(q.bypass for _, q in named_quantizers(network))


def test_the_sentence_names_shares_and_the_option(network):
    text = describe_sensitivity(measure_sensitivity(network, torch.rand(2, 3, 9, 7)), number=1)
    assert text.startswith("Of the output's error that 3 layers make") and "from '1' " in text
    assert text.endswith("% . More bits for a layer: quantization:overrides.".replace("% .", "%."))


def test_a_layer_without_an_error_has_no_fidelity_and_the_rows_are_json(network):
    for path, quantizer in named_quantizers(network):
        if path.startswith("0."):
            quantizer.bypass = True
    with torch.no_grad():
        for layer in network:
            layer.weight.zero_()
            layer.bias.zero_()
            layer.weight_quantizer.set_bounds(0.0, 1.0)
    rows = report_sensitivity(network, torch.zeros(1, 3, 8, 8))
    assert all(row["fidelity"] is None and row["mean_squared_error"] == 0 for row in rows)
    assert json.loads(json.dumps(rows)) == rows
    assert describe_sensitivity([]) == "No layer's quantization changes the output."
