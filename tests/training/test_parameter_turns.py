"""Groups of parameters that learn in turns."""

import copy

import pytest
import torch
from torch import nn

from basicsr.archs import build_network
from basicsr.models.ptq_model import PTQModel
from basicsr.training.parameter_turns import ParameterTurns
from basicsr.utils.errors import OptionsError
from basicsr.utils.options import load_options
from tests import tiny

GROUPS = ["*weight_quantizer.*", "*_bound", "*.breakpoint"]


def parameters(*names):
    return {name: nn.Parameter(torch.zeros(())) for name in names}


def test_turns_have_the_same_length_and_go_round():
    turns = ParameterTurns(parameters("a", "b", "c"), ["a", "b", "*"], 6, 30)
    assert [turns.group_of(i) for i in range(30)] == [i // 5 % 3 for i in range(30)]
    assert turns.group_of(30) == turns.group_of(29) == 2  # after the last iteration
    uneven = ParameterTurns(parameters("a", "b"), ["a", "b"], 2, 5)
    assert [uneven.group_of(i) for i in range(5)] == [0, 0, 0, 1, 1]


def test_the_first_glob_that_fits_counts_and_one_group_takes_gradients():
    trained = parameters("w.upper_bound", "a.upper_bound", "a.breakpoint")
    turns = ParameterTurns(trained, ["w.*", "*_bound", "*"], 3, 3)
    for iteration in range(3):
        turns.begin(iteration)
        assert [p.requires_grad for p in trained.values()] == [iteration == i for i in range(3)]


@pytest.mark.parametrize(
    ("groups", "turns", "message"),
    [
        (["a", "d*", "*"], 3, r"names 'd\*', but no parameter is left"),
        (["*", "a"], 3, "names 'a', but no parameter is left"),
        (["a", "b"], 3, "has no glob that fits 'c', which is trained"),
        (["a", "b", "c"], 2, "'train:turns' is 2, but there are 3 groups"),
    ],
)
def test_groups_that_do_not_fit_are_refused(groups, turns, message):
    with pytest.raises(OptionsError, match=message):
        ParameterTurns(parameters("a", "b", "c"), groups, turns, 9)


@pytest.fixture
def make(tmp_path):
    torch.manual_seed(3)
    network = build_network({"type": "EDSR", **tiny.NETWORKS["EDSR"]}).eval()
    overrides = tiny.train_overrides(tmp_path, "recipe=OutlierAware", "train:total_iter=6", architecture="EDSR")
    options = load_options(tiny.TRAIN, overrides)
    assert options.train.model_extra["parameter_turns"] == GROUPS

    def build():
        arguments = {
            "optim_bound": {"type": "Adam", "lr": 0.06},
            "relative_lr": True,
            "parameter_turns": GROUPS,
            "turns": 3,
        }
        return PTQModel(copy.deepcopy(network), options, torch.device("cpu"), **arguments)

    return build


@pytest.mark.slow
def test_of_the_outlier_aware_recipe_one_group_moves_at_a_time_and_a_run_that_continues_has_the_same_bits(
    make, tmp_path
):
    crops = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    whole, second = make(), make()
    whole.calibrate(crops)
    for iteration in range(6):
        before = {name: p.detach().clone() for name, p in whole.network.named_parameters()}
        if iteration == 3:
            torch.save(whole.checkpoint(), tmp_path / "net.pth")
            second.load(tmp_path / "net.pth", copy.deepcopy(whole.training_state()))
        for model in (whole, second)[: 1 + (iteration >= 3)]:
            model.optimize_parameters({"lq": crops})
        moved = {name for name, p in whole.network.named_parameters() if not torch.equal(p, before[name])}
        turn = iteration // 2
        expected = ("weight_quantizer.upper_bound", "act_quantizer", "act_quantizer.breakpoint")[turn]
        assert moved and all(expected in name for name in moved)
        assert all(name.endswith("breakpoint") == (turn == 2) for name in moved)
    for key, value in whole.network.state_dict().items():
        assert torch.equal(second.network.state_dict()[key], value), key
