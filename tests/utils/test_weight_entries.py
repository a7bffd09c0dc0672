"""Weights are found where people put them, and what has none is named as what it is."""

import logging

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.parallel import DataParallel
from torch.optim.swa_utils import AveragedModel

from basicsr.utils.errors import CheckpointError
from basicsr.utils.weight_entries import largest_part, likely_missing, weights_in, without_wrappers

WEIGHTS = {"conv.weight": torch.rand(2, 3), "conv.bias": torch.rand(2)}
OTHER = {key: value + 1 for key, value in WEIGHTS.items()}
OPTIMISER = {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 1e-4, "params": [0]}]}


def equal(first, second):
    return list(first) == list(second) and all(torch.equal(first[k], second[k]) for k in first)


def prefixed(prefix, weights=WEIGHTS):
    return {f"{prefix}{key}": value for key, value in weights.items()}


@pytest.mark.parametrize(
    "content",
    [
        WEIGHTS,
        {**WEIGHTS, "epoch": 3, "psnr": np.float64(30.5), "name": "x", "none": None},
        *(
            {key: WEIGHTS, "optimizer": OPTIMISER, "epoch": 3}
            for key in ("params", "params_ema", "state_dict", "model")
        ),
        *(
            {key: WEIGHTS, "optimizer": OPTIMISER}
            for key in ("model_state_dict", "generator", "net_g", "weights", "mine")
        ),
        {"params": OTHER, "params_ema": WEIGHTS},
        {"params": WEIGHTS, "params_ema": {}},
        {"params": WEIGHTS, "params_ema": None},
        {"params": WEIGHTS, "state_dict": OTHER},
        {"model": {"state_dict": WEIGHTS}, "epoch": 3},
        {"state_dict": prefixed("_orig_mod.")},
        {"params": prefixed("module._orig_mod.")},
        {"params": prefixed("_orig_mod.module.")},
        *({"model": prefixed(prefix)} for prefix in ("_fsdp_wrapped_module.", "_forward_module.module.")),
        prefixed("module.module."),
        {"state_dict": {**prefixed("generator."), **prefixed("discriminator.", OTHER)}},
        {"state_dict": prefixed("model.")},
        {"state_dict": prefixed("net_g.module.")},
        {"checkpoint": {"epoch": 3, "state_dict": WEIGHTS}, "epoch": 3},
        *({key: WEIGHTS, "model": OTHER} for key in ("ema", "model_ema", "state_dict_ema")),
        {
            **prefixed("ema_model."),
            **prefixed("online_model.", OTHER),
            "initted": torch.tensor(True),
            "step": torch.tensor(3),
        },
    ],
    ids=lambda content: ",".join(content)[:60],
)
def test_weights_are_found(content):
    assert equal(weights_in(content, "x.pth"), WEIGHTS)


@pytest.mark.parametrize("wrap", [DataParallel, AveragedModel, torch.compile, lambda n: torch.compile(DataParallel(n))])
def test_wrappers_of_torch_leave_no_trace(wrap):
    network = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Conv2d(1, 2, 1))
    assert equal(without_wrappers(wrap(network).state_dict()), network.state_dict())


def test_a_part_that_was_compiled_leaves_no_trace():
    network = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Conv2d(1, 2, 1))
    plain = dict(network.state_dict())
    network[1] = torch.compile(network[1])
    assert "1._orig_mod.weight" in network.state_dict() and equal(without_wrappers(network.state_dict()), plain)


@pytest.mark.parametrize(
    "names",
    [
        ("model.0.weight", "model.1.bias"),
        ("generator.a", "encoder.b"),
        ("network.a", "conv.weight"),
        ("net.a", "tail.b"),
    ],
)
def test_names_of_a_network_itself_stay(names):
    tensors = {name: torch.ones(1) for name in names}
    assert equal(without_wrappers(tensors), tensors)


def test_an_entry_can_be_named():
    content = {"a": {"b": WEIGHTS, "c": OTHER}, "d.e": OTHER}
    assert equal(weights_in(content, "x.pth", "a.b"), WEIGHTS)
    assert equal(weights_in(content, "x.pth", "d.e"), OTHER)
    with pytest.raises(CheckpointError, match=r"has no entry 'a\.x' \(param_key\)\. Its entries: 'a', 'd\.e'\."):
        weights_in(content, "x.pth", "a.x")
    assert equal(weights_in({"state_dict": prefixed("x.y.") | prefixed("z.")}, "x.pth", "state_dict.x.y"), WEIGHTS)
    with pytest.raises(CheckpointError, match="holds no tensors in its entry 'a'"):
        weights_in(content, "x.pth", "a")


def test_an_empty_entry_is_passed_over_with_a_word(caplog):
    with caplog.at_level(logging.WARNING):
        weights_in({"params_ema": {}, "params": WEIGHTS}, "x.pth")
    assert "The entry 'params_ema' of 'x.pth' holds no tensors and is passed over." in caplog.text


@pytest.mark.parametrize(
    "content",
    [OPTIMISER, {"iter": 5, "optimizers": [OPTIMISER], "schedulers": []}, {"optimizer": OPTIMISER, "epoch": 1}],
)
def test_the_state_of_an_optimiser_is_named_as_such(content):
    with pytest.raises(
        CheckpointError, match="state of an optimiser or of a training run and holds no tensors of a net"
    ):
        weights_in(content, "x.pth")


def test_a_file_with_nothing_in_it():
    with pytest.raises(CheckpointError, match=r"'x\.pth' holds nothing\. Get it again"):
        weights_in({}, "x.pth")


def test_the_largest_part():
    assert largest_part({**prefixed("a.b."), "loss.weight": torch.ones(1)})[0] == "a."
    assert equal(largest_part(prefixed("a.b."))[1], prefixed("b."))
    assert largest_part({**prefixed("a."), **prefixed("b.")}) is None and largest_part({}) is None
    assert largest_part({"weight": torch.ones(1)}) is None


def test_several_candidates_are_asked_about():
    with pytest.raises(CheckpointError, match=r"Its entries: 'x', 'y'; name the one .* --param_key"):
        weights_in({"x": WEIGHTS, "y": OTHER}, "file.pth")


def test_what_is_likely_missing():
    blocks = {f"body.{i}.conv.{kind}": torch.ones(1) for i in range(4) for kind in ("weight", "bias")}
    assert likely_missing(blocks) == []
    for name in blocks:
        assert likely_missing({key: value for key, value in blocks.items() if key != name}) == [name]
    deeper = {f"layers.{i}.{j}.{k}": torch.ones(1) for i, n in enumerate((12, 12, 2)) for j in range(n) for k in "ab"}
    assert likely_missing(deeper) == []  # that many are a network of groups of different depths
