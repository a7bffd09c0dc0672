"""The mismatch of activations against norms worked out by hand."""

import pytest
import torch

from basicsr.quant.ops.functional import fake_quantize
from basicsr.utils.registry import LOSS_REGISTRY


def build(**options):
    return LOSS_REGISTRY.build({"type": "MismatchLoss", **options}, where="loss")


@pytest.fixture
def pair():
    """Values at the distances -1, -1/3 + 0.3 and 2 from the grid -1, -1/3, 1/3, 1."""
    x = torch.tensor([[-2.0, 0.3, 3.0]], requires_grad=True)
    return x, fake_quantize(x, torch.tensor(-1.0), torch.tensor(1.0), 2)


DISTANCES = torch.tensor([[-1.0, 0.3 - 1 / 3, 2.0]])


def test_sum_and_mean(pair):
    pairs = {"a": pair, "b": (torch.zeros(4), torch.full((4,), 2.0))}
    norm = DISTANCES.norm()
    torch.testing.assert_close(build(loss_weight=0.5)(pairs), 0.5 * (norm + 4))
    torch.testing.assert_close(build(loss_weight=1.0, reduction="mean")(pairs), norm / 3**0.5 + 2)
    assert {k: float(v.detach()) for k, v in build().of_layers(pairs).items()}["b"] == 4.0


def test_only_what_is_out_of_range_is_pulled_in_unless_detached(pair):
    x, _ = pair
    build(loss_weight=1.0)({"a": pair}).backward()
    torch.testing.assert_close(x.grad, DISTANCES / DISTANCES.norm() * torch.tensor([[1.0, 0.0, 1.0]]))
    x.grad = None
    quantized = fake_quantize(x, torch.tensor(-1.0), torch.tensor(1.0), 2)
    build(loss_weight=1.0, detach_quantized=True)({"a": (x, quantized)}).backward()
    torch.testing.assert_close(x.grad, DISTANCES / DISTANCES.norm())


def test_activations_on_the_grid_have_no_gradient_and_no_nan():
    x = torch.tensor([-1.0, 1.0], requires_grad=True)
    build(detach_quantized=True)({"a": (x, x.detach())}).backward()
    assert x.grad.tolist() == [0.0, 0.0]


def test_the_mean_distance_of_all_activations(pair):
    """Inside of the bounds it has no gradient, outside the sign of the distance over the number of elements."""
    x, _ = pair
    loss = LOSS_REGISTRY.build({"type": "QuantizationErrorLoss", "loss_weight": 0.3}, where="loss")
    value = loss({"a": pair, "b": (torch.zeros(4), torch.full((4,), 2.0))})
    assert float(value.detach()) == pytest.approx(0.3 * ((1 + 1 / 3 - 0.3 + 2) / 3 + 2))
    value.backward()
    torch.testing.assert_close(x.grad, 0.3 / 3 * torch.tensor([[-1.0, 0.0, 1.0]]))
