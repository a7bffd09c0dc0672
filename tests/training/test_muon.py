"""Muon: steps of matrices are orthogonal and as large as Adam's; all other parameters take the steps of Adam."""

import pytest
import torch

from basicsr.training.muon import Muon, orthogonal


def _take_steps(optimizer, parameter, gradients):
    for gradient in gradients:
        parameter.grad = gradient.clone()
        optimizer.step()


@pytest.mark.parametrize("shape", [(8, 8), (8, 24), (24, 8), (1, 5)])
@pytest.mark.parametrize("size", [1e-12, 1.0, 1e6])
def test_singular_values_become_about_one_and_directions_stay(shape, size):
    left, _ = torch.linalg.qr(torch.randn(shape[0], min(shape), dtype=torch.float64))
    right, _ = torch.linalg.qr(torch.randn(shape[1], min(shape), dtype=torch.float64))
    values = torch.linspace(1, 0.05, min(shape), dtype=torch.float64)
    out = orthogonal(size * left * values @ right.T)
    inside = left.T @ out @ right  # diagonal, as the input's is
    found = inside.diagonal()
    assert found.min() > 0.65
    assert found.max() < 1.25
    torch.testing.assert_close(inside, found.diag(), atol=1e-9, rtol=0)
    torch.testing.assert_close(left @ inside @ right.T, out, atol=1e-9, rtol=0)


def test_one_number_by_hand():
    """A matrix of one element is 1 after the division by its norm; each iteration is a x + b x^3 + c x^5."""
    x = 1.0
    for _ in range(5):
        x = 3.4445 * x - 4.7750 * x**3 + 2.0315 * x**5
    assert orthogonal(torch.tensor([[7.0]], dtype=torch.float64)).item() == pytest.approx(x)


def test_zeros_stay_zeros():
    assert orthogonal(torch.zeros(3, 4)).abs().max() == 0


@pytest.mark.parametrize("shape", [(6, 4, 3, 3), (6, 30), (30, 6)])
def test_a_step_of_a_matrix_has_the_size_of_a_step_of_adam(shape):
    torch.manual_seed(0)
    parameter = torch.nn.Parameter(torch.zeros(shape))
    _take_steps(Muon([parameter], lr=0.1), parameter, [torch.randn(shape)])
    step = parameter.detach().flatten(1)
    # a matrix whose singular values are 1 has an RMS of 1 / sqrt(longer side); times 0.2 sqrt(longer side) and the rate
    assert step.square().mean().sqrt().item() == pytest.approx(0.02, rel=0.2)


def test_the_average_looks_one_step_ahead():
    """Gradients 1 and then -3 at momentum 0.5: averages 0.5 and -1.25, so that the steps go by the signs of 0.75 and -2.125."""
    parameter = torch.nn.Parameter(torch.zeros(2, 2, dtype=torch.float64))
    optimizer = Muon([parameter], lr=1.0, momentum=0.5)
    unit = 0.2 * 2**0.5 * orthogonal(torch.eye(2, dtype=torch.float64))
    _take_steps(optimizer, parameter, [torch.eye(2, dtype=torch.float64)])
    torch.testing.assert_close(parameter.detach(), -unit)
    _take_steps(optimizer, parameter, [-3 * torch.eye(2, dtype=torch.float64)])
    torch.testing.assert_close(parameter.detach(), torch.zeros_like(unit))
    torch.testing.assert_close(optimizer.state[parameter]["average"], -1.25 * torch.eye(2, dtype=torch.float64))


@pytest.mark.parametrize("shape", [(), (9,), (9, 1, 1, 1), (1, 9)])
def test_vectors_take_the_steps_of_adam(shape):
    torch.manual_seed(0)
    gradients = [torch.randn(shape) for _ in range(5)]
    own, of_torch = (torch.nn.Parameter(torch.ones(shape)) for _ in range(2))
    _take_steps(Muon([own], lr=0.01, betas=(0.8, 0.9)), own, gradients)
    _take_steps(torch.optim.Adam([of_torch], lr=0.01, betas=(0.8, 0.9)), of_torch, gradients)
    torch.testing.assert_close(own, of_torch)


def test_an_ill_conditioned_problem_is_solved_in_fewer_steps_than_by_adam():
    """|A (W - T)|^2 with a condition number of 10,000: steps along its rare directions are as long as along the frequent ones."""
    torch.manual_seed(0)
    target, factors = torch.randn(8, 16), torch.logspace(0, -2, 8)[:, None]
    losses = {}
    for kind in (Muon, torch.optim.Adam):
        weight = torch.nn.Parameter(torch.zeros(8, 16))
        rotation, _ = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(1)))
        optimizer = kind(
            [weight], lr=0.25 if kind is Muon else 0.05
        )  # five times Adam's, since its steps are 0.2 of those
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 200)
        for _ in range(200):
            optimizer.zero_grad()
            (factors * (rotation @ (weight - target))).square().sum().backward()
            optimizer.step()
            schedule.step()
        losses[kind] = (weight - target).square().mean().item()
    assert losses[Muon] < losses[torch.optim.Adam] / 2


def test_a_parameter_without_a_gradient_stays_and_a_closure_is_called():
    still, moving = torch.nn.Parameter(torch.ones(2, 2)), torch.nn.Parameter(torch.ones(2, 2))
    optimizer = Muon([still, moving], lr=0.1)

    def closure():
        loss = moving.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 4
    assert torch.equal(still, torch.ones(2, 2))
    assert not torch.equal(moving, torch.ones(2, 2))


@pytest.mark.parametrize("options", [{"lr": -1.0}, {"eps": -1.0}, {"momentum": 1.0}, {"betas": (0.9, -0.1)}])
def test_values_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match="Muon has"):
        Muon([torch.nn.Parameter(torch.ones(1))], **options)
