"""Attention transfer against its formula written out, for maps and tokens."""

import pytest
import torch

from basicsr.utils.errors import OptionsError
from basicsr.utils.registry import LOSS_REGISTRY


def build(**options):
    return LOSS_REGISTRY.build({"type": "AttentionTransferLoss", **options}, where="loss")


@pytest.fixture
def maps():
    generator = torch.Generator().manual_seed(2)
    teacher = {f"body.{i}": torch.randn(2, 4, 5, 6, generator=generator) for i in range(3)}
    student = {k: (v + 0.2 * torch.randn(v.shape, generator=generator)).requires_grad_() for k, v in teacher.items()}
    return student, teacher


def expected(student, teacher, distance):
    total = 0
    for name, target in teacher.items():
        for sample in range(len(target)):
            q = [sum(channel**2 for channel in x[sample]) / 4 for x in (student[name], target)]
            difference = q[0] / (q[0] ** 2).sum().sqrt() - q[1] / (q[1] ** 2).sum().sqrt()
            squares = (difference**2).sum()
            total = total + (squares.sqrt() if distance == "norm" else squares / 30) / len(target) / len(teacher)
    return total


@pytest.mark.parametrize("distance", ["mean_square", "norm"])
def test_it_is_the_formula(maps, distance):
    torch.testing.assert_close(
        build(loss_weight=5.0, distance=distance)(*maps), 5 * expected(maps[0], maps[1], distance)
    )
    torch.testing.assert_close(build()(*maps), expected(maps[0], maps[1], "mean_square"))


@pytest.mark.parametrize("distance", ["mean_square", "norm"])
def test_tokens_are_maps_with_channels_last(maps, distance):
    loss = build(distance=distance)
    tokens = [{k: v.flatten(2).transpose(1, 2) for k, v in features.items()} for features in maps]  # N, H*W, C
    torch.testing.assert_close(loss(*tokens), loss(*maps))


@pytest.mark.parametrize("distance", ["mean_square", "norm"])
def test_scale_and_channels_do_not_matter_and_gradients_are_finite(maps, distance):
    student, teacher = maps
    loss = build(distance=distance)
    assert loss({k: 3 * v.flip(1) for k, v in teacher.items()}, teacher) < 1e-6
    loss(student, teacher).backward()
    assert all(s.grad.abs().sum() > 0 for s in student.values())
    zeros = {k: torch.zeros_like(v, requires_grad=True) for k, v in teacher.items()}
    loss(zeros, {k: torch.zeros_like(v) for k, v in teacher.items()}).backward()
    assert all((z.grad == 0).all() for z in zeros.values())


def test_other_shapes_are_refused():
    feature = {"head": torch.randn(2, 3)}
    with pytest.raises(OptionsError, match=r"'head' gives a tensor of the shape \(2, 3\)"):
        build()(feature, feature)
