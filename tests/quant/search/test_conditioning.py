"""Singular values brought together, in cases that can be worked out by hand."""

import torch

from basicsr.quant.search.conditioning import condition_number, conditioned_weight


def test_one_step_by_hand():
    # the gradient is 0 where the descent begins; singular values 3 and 1 have the mean 2, and strength 1 halves their distance to it
    found = conditioned_weight(torch.diag(torch.tensor([3.0, 1.0])), torch.eye(2).double(), 1.0, 1)
    torch.testing.assert_close(found, torch.diag(torch.tensor([2.5, 1.5]).double()))


def test_two_steps_by_hand():
    # the second step leads from 2.5 and 1.5 to 3 - (1 - 0.5) * 0 = 3 where inputs are large, and by a quarter back to 1 where they are not:
    # 3 and 1.375 have the mean 2.1875
    found = conditioned_weight(
        torch.diag(torch.tensor([3.0, 1.0])), torch.diag(torch.tensor([8.0, 2.0])).double(), 1.0, 2
    )
    torch.testing.assert_close(found, torch.diag(torch.tensor([(3 + 2.1875) / 2, (1.375 + 2.1875) / 2]).double()))


def test_a_direction_that_inputs_do_not_have_gives_way():
    # nothing keeps the second value where it is, so that it goes to the first, at no cost
    found = conditioned_weight(
        torch.diag(torch.tensor([3.0, 1.0])), torch.diag(torch.tensor([5.0, 0.0])).double(), 0.2, 400
    )
    torch.testing.assert_close(found, 3 * torch.eye(2).double())


def test_outputs_stay_and_the_condition_number_falls():
    torch.manual_seed(0)
    inputs = torch.randn(500, 6).double() * torch.tensor([10.0, 8.0, 6.0, 0.1, 0.1, 0.1])
    weight = torch.randn(4, 6)
    second = inputs.T @ inputs / len(inputs)
    found = conditioned_weight(weight, second, 0.002, 200)
    assert condition_number(found) < 0.9 * condition_number(weight)
    changed, output = ((inputs @ w.T).square().mean() for w in (found - weight, weight.double()))
    assert changed < 1e-4 * output


def test_the_condition_number_of_a_diagonal():
    assert condition_number(torch.diag(torch.tensor([2.0, 8.0, 4.0]))) == 4
    assert condition_number(torch.diag(torch.tensor([2.0, 0.0]))) == float("inf")
