"""What a file says of its network: every option of every registered architecture is seen in the tensors, stated, or without effect."""

import json
import logging
import typing

import pytest
import torch
from safetensors.torch import save_file

from basicsr.archs import build_network
from basicsr.deploy.upscaling import load_model
from basicsr.quant.insertion.insert import insert_quantizers
from basicsr.utils.checkpoint import load_torch
from basicsr.utils.errors import CheckpointError, OptionsError
from basicsr.utils.registry import ARCH_REGISTRY
from basicsr.utils.signature import options_of, without_effect
from basicsr.utils.stated_network import ENTRY, built_from, stated_in
from basicsr.utils.weights import load_fitting_weights, load_network_weights, load_weights_file
from tests import tiny
from tests.archs.test_every_arch import small_options


def other_values(value, annotation):
    """Return values that differ from the default of an option."""
    choices = [choice for choice in typing.get_args(annotation) if isinstance(choice, str | int)]
    if choices:
        return [choice for choice in choices if choice != value]
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value // 2, value + 1, 2 * value]
    if isinstance(value, float):
        return [value / 2, value + 0.1, 255.0 * value]
    if isinstance(value, tuple | list):
        return [[*value, value[-1]], [entry * 2 for entry in value], [entry / 2 for entry in value]]
    return []


def variants():
    for name in ARCH_REGISTRY.names():
        hints = typing.get_type_hints(ARCH_REGISTRY.get(name).__init__)
        small = small_options(name)
        complete = built_from(build_network(small))
        for option in options_of(ARCH_REGISTRY.get(name)):
            for value in other_values(complete[option], hints.get(option)):
                yield name, option, json.loads(json.dumps(value))


def save(path, network, suffix):
    state = {key: value.contiguous() for key, value in network.state_dict().items()}
    if suffix == ".pth":
        torch.save({"params": state, ENTRY: built_from(network)}, path)
    else:
        save_file(state, path, metadata={ENTRY: json.dumps(built_from(network))})
    return path


@pytest.mark.parametrize(("name", "option", "value"), list(variants()))
def test_no_option_can_be_given_wrongly_without_a_word(tmp_path, name, option, value):
    small = small_options(name)
    torch.manual_seed(0)
    network = build_network(small).eval()
    suffix = (".pth", ".safetensors")[len(option) % 2]
    file = save(tmp_path / f"net{suffix}", network, suffix)
    try:
        other = build_network({**small, option: value}).eval()
    except (OptionsError, ValueError):
        return  # the other options do not go with it
    try:
        load_network_weights(other, load_weights_file(file), file)
    except CheckpointError as error:
        if "Give network_g:" in str(error):
            assert f"network_g:{option}=" in str(error) and str(file) in str(error)
        return
    x = torch.rand(1, small.get("num_in_ch", 3), 16, 16)
    with torch.no_grad():
        assert torch.equal(network(x), other(x)), f"{option} of {name} changes the output and no tensor"


def test_the_marks_are_few():
    assert {name: without_effect(ARCH_REGISTRY.get(name)) for name in ARCH_REGISTRY.names()} == {
        "EDSR": set(), "MSRResNet": set(), "RCAN": set(), "RDN": set(), "SwinIR": {"img_size", "drop_path_rate"},
    }  # fmt: skip


EDSR = {"type": "EDSR", "num_feat": 8, "num_block": 2}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_an_option_that_no_tensor_shows_is_compared_and_named(tmp_path, suffix):
    file = save(tmp_path / f"net{suffix}", build_network({**EDSR, "img_range": 255.0, "res_scale": 0.5}), suffix)
    wrong = build_network({**EDSR, "img_range": 1.0, "res_scale": 1.0})
    with pytest.raises(CheckpointError) as error:
        load_network_weights(wrong, load_weights_file(file), file)
    assert "network_g:img_range=255.0, not 1.0" in str(error.value) and str(file) in str(error.value)
    assert str(error.value).endswith("Give network_g:res_scale=0.5 network_g:img_range=255.0")
    right = build_network({**EDSR, "img_range": 255, "res_scale": 0.5})
    load_network_weights(right, load_weights_file(file), file)


def warnings_of(caplog, options, file):
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        load_network_weights(build_network(options), load_weights_file(file), file)
    return [record.getMessage() for record in caplog.records]


UNUSUAL = {
    ("EDSR", "img_range"): (1.0, "255.0"),
    ("EDSR", "res_scale"): (0.1, "1.0"),
    ("EDSR", "rgb_mean"): ([0.5, 0.5, 0.5], "[0.4488,0.4371,0.404]"),
    ("RCAN", "img_range"): (1.0, "255.0"),
    ("RCAN", "res_scale"): (0.1, "1.0"),
    ("RCAN", "rgb_mean"): ([0.5, 0.5, 0.5], "[0.4488,0.4371,0.404]"),
    ("RDN", "img_range"): (1.0, "255.0"),
    ("SwinIR", "img_range"): (255.0, "1.0"),
}


@pytest.mark.parametrize(("name", "option"), UNUSUAL)
def test_a_public_file_leaves_it_open_and_what_is_unusual_is_told(tmp_path, caplog, name, option):
    small = small_options(name)
    network = build_network(small)
    usual = {**small, **dict(network.usual_options)}
    file = tmp_path / "public.pth"
    torch.save(network.state_dict(), file)
    assert warnings_of(caplog, usual, file) == []
    value, wanted = UNUSUAL[name, option]
    (message,) = warnings_of(caplog, {**usual, option: value}, file)
    assert f"network_g:{option}={wanted}" in message and str(file) in message


def test_a_large_edsr_usually_scales_its_residuals(tmp_path, caplog):
    large = {"type": "EDSR", "num_feat": 256, "num_block": 1, "upscale": 2}
    torch.save(build_network(large).state_dict(), tmp_path / "large.pth")
    assert "but 0.1 is usual" in warnings_of(caplog, large, tmp_path / "large.pth")[0]
    assert warnings_of(caplog, {**large, "res_scale": 0.1}, tmp_path / "large.pth") == []


@pytest.mark.parametrize("name", ["EDSR", "RCAN", "RDN", "SwinIR"])
def test_what_is_usual_is_known_of_a_network_whose_every_layer_is_quantized(name):
    network = build_network({"type": name, **tiny.NETWORKS[name]})
    usual = network.usual_options
    insert_quantizers(network, "full", 4, 4)
    assert usual and network.usual_options == usual


def test_some_weights_of_another_network_are_a_warning(tmp_path, caplog):
    file = save(tmp_path / "x2.pth", build_network({**EDSR, "upscale": 2, "img_range": 1.0}), ".pth")
    with caplog.at_level(logging.WARNING):
        load_fitting_weights(build_network({**EDSR, "upscale": 4}), load_weights_file(file), file)
    assert "img_range 1.0, and start one with 255.0" in caplog.text


def test_weights_without_options_are_upscaled_as_they_state(tmp_path):
    network = build_network({**EDSR, "img_range": 3.0, "res_scale": 0.25, "rgb_mean": [0.1, 0.2, 0.3]}).eval()
    x = torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        for suffix in (".pth", ".safetensors"):
            file = save(tmp_path / f"net{suffix}", network, suffix)
            assert torch.equal(load_model(file)(x), network(x))


def test_a_card_beside_the_weights_states_the_network():
    file = tiny.ROOT / "experiments/pretrained_models/RDN-small_x2.safetensors"
    weights = load_weights_file(file)
    assert weights.network["img_range"] == 1.0
    with pytest.raises(CheckpointError, match="network_g:img_range=1.0, not 255.0"):
        load_network_weights(build_network({**weights.network, "img_range": 255.0}), weights, file)
    assert built_from(load_model(file))["img_range"] == 1.0


@pytest.mark.parametrize(
    "entry", [None, 3, "{", "[1]", {"type": 3}, {"params": 1}, {"type": "EDSR", "x": torch.ones(1)}]
)
def test_an_entry_of_another_kind_states_nothing(entry):
    assert stated_in(entry) is None


def test_what_a_file_states_is_data_only(tmp_path):
    """A file of others may say anything; it reaches the schema of the architecture, or nothing."""
    network = build_network(EDSR)
    torch.save(
        {"params": network.state_dict(), ENTRY: {"type": "EDSR", "img_range": "__import__('os')", "more": 1}},
        tmp_path / "a.pth",
    )
    with pytest.raises(CheckpointError):
        load_network_weights(network, load_weights_file(tmp_path / "a.pth"), "a.pth")
    with pytest.raises(CheckpointError, match="img_range"):
        load_model(tmp_path / "a.pth")
    assert set(load_torch(tmp_path / "a.pth")) == {"params", ENTRY}
