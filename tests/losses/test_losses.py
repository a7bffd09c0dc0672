"""Losses against their formulas written out."""

import pytest
import torch
import torch.nn.functional as F

from basicsr.utils.errors import OptionsError
from basicsr.utils.registry import LOSS_REGISTRY


@pytest.fixture
def features():
    generator = torch.Generator().manual_seed(1)
    teacher = {f"layers.{i}": torch.randn(3, 8, 5, generator=generator) for i in range(2)}
    student = {k: (v + 0.1 * torch.randn(v.shape, generator=generator)).requires_grad_() for k, v in teacher.items()}
    return student, teacher


def build(name, **options):
    return LOSS_REGISTRY.build({"type": name, **options}, where="loss")


def test_normalized_feature_loss_is_the_distance_of_unit_vectors(features):
    student, teacher = features
    expected = sum(
        sum((s[n] / s[n].norm() - t[n] / t[n].norm()).norm() for n in range(3)) / 3
        for s, t in zip(student.values(), teacher.values(), strict=True)
    )
    torch.testing.assert_close(build("NormalizedFeatureLoss", loss_weight=2.0)(student, teacher), 2 * expected)
    torch.testing.assert_close(build("NormalizedFeatureLoss", per_element=True)(student, teacher), expected / 40)


def test_feature_loss_is_zero_for_scaled_features_and_for_zeros():
    teacher = {"a": torch.randn(2, 6)}
    assert build("NormalizedFeatureLoss")({"a": 3 * teacher["a"]}, teacher) < 1e-6
    assert build("NormalizedFeatureLoss")({"a": torch.zeros(2, 6)}, {"a": torch.zeros(2, 6)}) == 0


def test_sensitivity_feature_loss_by_hand():
    """Standard deviations 1 and 3 are 1/2 and 3/2 of their mean: weights e^0.5 and e^1.5, divided by their sum."""
    teacher = {"a": torch.tensor([[-(0.5**0.5), 0.5**0.5]]), "b": torch.tensor([[-3 * 0.5**0.5, 3 * 0.5**0.5]])}
    student = {"a": torch.tensor([[0.0, 2.0]]), "b": torch.tensor([[4.0, -4.0]])}
    of_a, of_b = (2 - 2**0.5) ** 0.5, 2.0  # vectors of length 1 at 45 and at 180 degrees
    share = 1 / (1 + torch.tensor(1.0).exp())
    expected = 2 * (share * of_a + (1 - share) * of_b)
    torch.testing.assert_close(build("SensitivityFeatureLoss", loss_weight=2.0)(student, teacher), expected)
    larger = {name: 255 * feature for name, feature in teacher.items()}
    torch.testing.assert_close(build("SensitivityFeatureLoss", loss_weight=2.0)(student, larger), expected)
    zeros = {"a": torch.zeros(1, 2), "b": torch.zeros(1, 2)}
    assert build("SensitivityFeatureLoss")(zeros, zeros) == 0


def test_feature_loss_reaches_the_student(features):
    student, teacher = features
    build("NormalizedFeatureLoss")(student, teacher).backward()
    assert all(s.grad.abs().sum() > 0 for s in student.values())


def test_released_losses_equal_the_released_broadcast(features):
    student, teacher = features
    expected = torch.zeros(())
    for name, t in teacher.items():
        s = student[name]
        norm_s = s.norm(dim=(1, 2)).detach()[:, None, None, None]
        norm_t = t.norm(dim=(1, 2))[:, None, None, None]
        pairs_s, pairs_t = s / norm_s, t / norm_t  # N, N, L, C
        expected = expected + 5 * F.mse_loss(pairs_s, pairs_t) / pairs_s.numel()
    loss = build("Released2DQuantFeatureLoss")(student, teacher)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=0)
    grads = torch.autograd.grad(loss, list(student.values()), retain_graph=True)
    expected_grads = torch.autograd.grad(expected, list(student.values()))
    for got, want in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-9)


def test_released_pixel_loss_divides_by_the_elements_of_a_sample():
    a, b = torch.rand(2, 3, 4, 5), torch.rand(2, 3, 4, 5)
    torch.testing.assert_close(build("Released2DQuantPixelLoss")(a, b), F.l1_loss(a, b) / 60)


@pytest.mark.parametrize("name", ["L1Loss", "MSELoss"])
def test_pixel_losses(name):
    a, b = torch.rand(2, 3, 4, 5), torch.rand(2, 3, 4, 5)
    reference = {"L1Loss": F.l1_loss, "MSELoss": F.mse_loss}[name]
    torch.testing.assert_close(build(name, loss_weight=0.5)(a, b), 0.5 * reference(a, b))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"type": "L1Loss"}, 0.75),  # differences -0.5, 0, 0.5, 2
        ({"type": "L1Loss", "reduction": "sum", "loss_weight": 2.0}, 6.0),
        ({"type": "MSELoss"}, 1.125),
        ({"type": "MSELoss", "reduction": "sum", "loss_weight": 0.1}, 0.45),
        ({"type": "CharbonnierLoss"}, 0.75 + 0.25e-6),
        ({"type": "CharbonnierLoss", "eps": 2.25, "loss_weight": 0.5}, (2 * 2.5**0.5 + 1.5 + 2.5) / 8),
        ({"type": "CharbonnierLoss", "eps": 2.25, "reduction": "sum"}, 2 * 2.5**0.5 + 4),
    ],
)
def test_pixel_losses_by_hand(options, expected):
    output = torch.tensor([0.5, 1.0, 1.5, 3.0], dtype=torch.float64).view(1, 1, 2, 2).requires_grad_()
    loss = LOSS_REGISTRY.build(options, where="loss")(output, torch.ones(1, 1, 2, 2, dtype=torch.float64))
    assert loss.item() == pytest.approx(expected, abs=1e-9) and loss.shape == ()
    loss.backward()
    assert output.grad[0, 0, 0, 0] < 0 == output.grad[0, 0, 0, 1] < output.grad[0, 0, 1, 1]


@pytest.mark.parametrize("name", ["PerceptualLoss", "GANLoss"])
def test_losses_that_are_out_of_scope_are_named_with_the_reason(name):
    with pytest.raises(OptionsError, match=f"'{name}', which does not exist.*out of scope.*CharbonnierLoss"):
        build(name)


def test_a_reduction_that_trains_nothing_is_refused():
    with pytest.raises(OptionsError, match="loss:reduction.*'none'"):
        build("L1Loss", reduction="none")
