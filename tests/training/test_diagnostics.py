"""What diagnostics record, and the figures."""

import cv2
import pytest
import torch

from basicsr.quant.insertion.insert import insert_quantizers, named_quantizers
from basicsr.quant.observe.capture import tap_activations
from basicsr.training.diagnostics import Diagnostics, activation_histograms
from tests.quant.helpers import set_min_max_bounds
from tests.quant.networks import TinyEdsr


@pytest.fixture
def x():
    return torch.rand(5, 3, 6, 6)


@pytest.fixture
def network(x):
    network = TinyEdsr().eval()
    insert_quantizers(network, "body", 3, 3)
    set_min_max_bounds(network, x)
    for _, quantizer in named_quantizers(network, "activation"):
        quantizer.set_bounds(quantizer.lower_bound * 0.5, quantizer.upper_bound * 0.5)
    return network


def record(diagnostics, network, x, iteration):
    with tap_activations(network) as pairs:
        network(x)
    diagnostics.look_at(pairs)
    diagnostics.record(iteration, [torch.tensor([1.0, 1.0])], [torch.tensor([1.0, -1.0])], ["a"])
    return pairs


def test_a_record(network, x):
    diagnostics = Diagnostics(network, 10)
    assert [i for i in range(1, 31) if diagnostics.is_due(i)] == [1, 10, 20, 30]
    diagnostics.before_training(network, x)
    pairs = record(diagnostics, network, x, 1)
    values = diagnostics.scalars()
    assert values["gradients/cosine"] == 0.0 and values["gradients/conflict"] == 0.5
    name = "body.1.conv2.act_quantizer"
    given, returned = pairs[name]
    assert values[f"mismatch/{name}"] == pytest.approx(float((given - returned).detach().norm()))
    assert values[f"learned/{name}.upper_bound"] == float(network.get_parameter(f"{name}.upper_bound").detach())
    assert len(values) == 2 + 6 + 2 * 12


def test_histograms_count_every_element(network, x):
    histograms = activation_histograms(network, x)
    assert len(histograms) == 6
    first = histograms["body.0.conv1.act_quantizer"]
    assert sum(first["counts"]) == 5 * 6 * 6 * 6
    assert first["range"][0] < first["bounds"][0] < first["bounds"][1] < first["range"][1]


def test_activations_that_overflow_are_at_the_end_of_the_histogram(network, x, tmp_path):
    diagnostics = Diagnostics(network, 2)
    diagnostics.before_training(network, x)
    record(diagnostics, network, x, 1)
    network.body[0].conv1.register_forward_hook(lambda _m, _i, output: output * float("inf"))
    histogram = activation_histograms(network, x)["body.0.conv2.act_quantizer"]
    assert histogram["range"][1] == pytest.approx(1e30) and histogram["counts"][-1] > 0
    diagnostics.draw(network, tmp_path)


def test_figures_are_pictures_and_records_survive_a_resume(network, x, tmp_path):
    diagnostics = Diagnostics(network, 2)
    diagnostics.before_training(network, x)
    for iteration in (1, 2, 4):
        record(diagnostics, network, x, iteration)
    fresh = Diagnostics(network, 2)
    fresh.load_state_dict(diagnostics.state_dict())
    assert fresh.scalars() == diagnostics.scalars()
    fresh.draw(network, tmp_path)
    for name in ("diagnostics.png", "activations.png"):
        assert cv2.imread(str(tmp_path / name)).std() > 1
