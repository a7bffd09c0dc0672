"""Losses against their formulas written out."""

import pytest
import torch
import torch.nn.functional as F

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
