"""Layers of a dense block share the grid of their inputs."""

import copy

import pytest
import torch

from basicsr.archs import build_network
from basicsr.archs.base import joined_inputs_of
from basicsr.quant.insertion.insert import insert_quantizers, learned_by_quantizers
from basicsr.quant.insertion.sharing import check_shared, share_inputs, sharing_quantizers
from basicsr.quant.spec import QuantizationError
from basicsr.training.calibration.network_calibration import calibrate_network
from basicsr.utils.options import CalibrationOptions
from tests import tiny

RDN = {"type": "RDN", "upscale": 2, **tiny.NETWORKS["RDN"]}
CROPS = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(5))


def rdn(**insertion):
    torch.manual_seed(0)
    network = build_network(RDN).eval()
    insert_quantizers(network, "body", 4, 4, **insertion)
    return network


def shared_rdn(**insertion):
    network = rdn(**insertion)
    share_inputs(network, joined_inputs_of(network))
    return network


def bounds(network, name):
    quantizer = network.get_submodule(name).act_quantizer
    return quantizer.lower_bound.item(), quantizer.upper_bound.item()


def test_all_layers_of_a_block_have_the_bounds_of_its_last():
    alone, shared = rdn(), shared_rdn()
    for network in (alone, shared):
        calibrate_network(network, CROPS, CalibrationOptions())
    for *others, last in joined_inputs_of(shared):
        assert {bounds(shared, name) for name in others} == {bounds(shared, last)} == {bounds(alone, last)}
    assert len({bounds(shared, names[-1]) for names in joined_inputs_of(shared)}) == len(joined_inputs_of(shared))


def test_bounds_are_learned_once_from_all_that_share_them():
    network = shared_rdn()
    calibrate_network(network, CROPS, CalibrationOptions())
    learned = list(learned_by_quantizers(network).values())
    assert len(learned) == len({id(parameter) for parameter in learned})
    first, *_, last = (network.get_submodule(name).act_quantizer for name in joined_inputs_of(network)[0])
    network(CROPS).sum().backward()
    assert first.upper_bound.grad is last.upper_bound.grad is not None
    twin = copy.deepcopy(network)
    assert sharing_quantizers(twin) == sharing_quantizers(network) != {}


def test_a_network_made_without_it_is_refused():
    alone, shared = rdn(), shared_rdn()
    for network in (alone, shared):
        calibrate_network(network, CROPS, CalibrationOptions())
    check_shared(shared, shared.state_dict())
    with pytest.raises(QuantizationError, match="shared_inputs"):
        check_shared(shared, alone.state_dict())


def test_what_cannot_be_shared_is_refused():
    edsr = build_network({"type": "EDSR", "upscale": 2, **tiny.NETWORKS["EDSR"]})
    insert_quantizers(edsr, "body", 4, 4)
    with pytest.raises(QuantizationError, match="EDSR has no such layers"):
        share_inputs(edsr, joined_inputs_of(edsr))
    for insertion in (
        {"overrides": [{"match": "*.LFF", "a_bits": 8}]},
        {"activation_granularity": "per_channel"},
    ):
        with pytest.raises(QuantizationError, match="cannot share one grid"):
            shared_rdn(**insertion)
