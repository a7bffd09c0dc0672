"""Bits of a run under an average: chosen, kept where the run goes on, and taken from its file where it is tested."""

import json

import pytest
import torch
import yaml

from basicsr.networks.build import full_precision_network, quantized_network
from basicsr.networks.quantized import quantized_copy, with_bits_of_file
from basicsr.quant.insertion.insert import named_quantizers, quantized_weights
from basicsr.training import chosen_bits
from basicsr.training.bit_choice import ExpectedErrors
from basicsr.training.chosen_bits import summary, with_chosen_bits
from basicsr.utils.errors import CheckpointError, OptionsError
from basicsr.utils.options import load_options
from tests import tiny

CROPS = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
AVERAGE = ["bit=3", "quantization:average_bits=3.5"]


def options_of(folder, *more):
    return load_options(tiny.TRAIN, tiny.train_overrides(folder, *AVERAGE, *more))


def chosen(folder, *more, before=None):
    options = options_of(folder, *more)
    return with_chosen_bits(full_precision_network(options), options, CROPS, before)


def bits_of(options):
    network, _ = quantized_copy(full_precision_network(options), options, share_weights=False)
    return network, {name: quantizer.spec.bits for name, quantizer in named_quantizers(network)}


def saved(folder, options, name="net_Q_2.pth"):
    """Save the quantized network of resolved options where a run would, with its training state."""
    network, bits = bits_of(options)
    (folder / "models").mkdir(parents=True, exist_ok=True)
    (folder / "training_states").mkdir(exist_ok=True)
    torch.save({"params": network.state_dict()}, folder / "models" / name)
    (folder / "training_states" / f"{name.split('_')[-1].split('.')[0]}.state").touch()
    return bits


def test_the_average_holds_for_weights_and_for_activations(tmp_path):
    resolved = chosen(tmp_path)
    network, bits = bits_of(resolved)
    weights = quantized_weights(network)
    sizes = {name: weight.numel() for name, weight in weights.items()}
    assert resolved.quantization.average_bits is None
    assert 3.3 < sum(bits[name] * size for name, size in sizes.items()) / sum(sizes.values()) <= 3.5
    assert len({bits[name] for name in weights}) > 1 and len({b for name, b in bits.items() if name not in weights}) > 1


def test_eight_bits_on_average_are_eight_where_they_make_a_difference(tmp_path):
    options = options_of(tmp_path, "bit=8", "quantization:average_bits=8")
    resolved = with_chosen_bits(full_precision_network(options), options, CROPS)
    bits = list(bits_of(resolved)[1].values())
    assert max(bits) == 8 and bits.count(8) > 0.9 * len(bits)


def test_two_bits_on_average_leave_nothing_to_choose(tmp_path, monkeypatch):
    monkeypatch.setattr(chosen_bits, "expected_errors", lambda *_: pytest.fail("nothing depends on errors"))
    options = options_of(tmp_path, "bit=2", "quantization:average_bits=2")
    resolved = with_chosen_bits(full_precision_network(options), options, CROPS)
    assert resolved.quantization.average_bits is None
    assert set(bits_of(resolved)[1].values()) == {2}


def test_bits_that_were_given_stay(tmp_path):
    name = next(iter(bits_of(chosen(tmp_path))[1]))
    given = f"quantization:overrides=[{{match: {name}, w_bits: 8, a_bits: 8}}]"
    resolved = chosen(tmp_path, given)
    assert bits_of(resolved)[1][name] == 8
    assert [one.match for one in resolved.quantization.overrides].count(name) == 1
    ends = bits_of(chosen(tmp_path, "quantization:coverage=full"))[1]
    assert ends["conv_first.weight_quantizer"] == 8, "the coverage gives it bits of its own"


def test_without_an_average_options_stay_as_they_are(tmp_path):
    options = load_options(tiny.TRAIN, tiny.train_overrides(tmp_path))
    assert with_chosen_bits(full_precision_network(options), options, CROPS) is options
    assert with_bits_of_file(options, "absent.pth") is options


def test_a_run_that_goes_on_keeps_its_bits(tmp_path, monkeypatch):
    bits = saved(tmp_path / "run", chosen(tmp_path))
    monkeypatch.setattr(chosen_bits, "_choose", lambda *_: pytest.fail("bits are chosen once"))
    assert bits_of(chosen(tmp_path, before=tmp_path / "run"))[1] == bits
    torch.save({"params": {}}, tmp_path / "run/models/net_Q_4.pth")  # a newer one that is of no use
    (tmp_path / "run/training_states/4.state").touch()
    assert bits_of(chosen(tmp_path, before=tmp_path / "run"))[1] == bits
    start = f"path:pretrain_network_Q={tmp_path / 'run/models/net_Q_2.pth'}"
    assert bits_of(chosen(tmp_path, start))[1] == bits


def test_a_network_is_tested_with_the_bits_of_its_file(tmp_path):
    bits = saved(tmp_path / "run", chosen(tmp_path))
    options = options_of(tmp_path, f"path:pretrain_network_Q={tmp_path / 'run/models/net_Q_2.pth'}")
    network, quantization_map = quantized_network(full_precision_network(options), options)
    assert {name: quantizer.spec.bits for name, quantizer in named_quantizers(network)} == bits
    assert {name: entry.spec.bits for name, entry in quantization_map.quantizers.items()} == bits
    torch.save({"params": {"a": torch.zeros(1)}}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"other\.pth' does not say how many bits its quantizers have"):
        with_bits_of_file(options, tmp_path / "other.pth")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["quantization:average_bits=1.5"], "average_bits' has the value 1.5"),
        (["quantization:average_bits=20"], "average_bits' has the value 20"),
        (
            ["bit=4"],
            r"'quantization:average_bits' is 3.5, but the run has 4 bits for weights and 4 for activations. Give bit=3",
        ),
        (["quantization:overrides=[{match: '*', w_bits: 8, a_bits: 8}]"], "finds nothing to choose"),
        (
            ["bit=2", "quantization:average_bits=2", "quantization:overrides=[{match: '*', w_bits: 8, a_bits: 8}]"],
            "finds nothing to choose",
        ),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, more, message):
    with pytest.raises(OptionsError, match=message):
        chosen(tmp_path, *more)


def test_weights_alone_may_be_quantized(tmp_path):
    resolved = chosen(tmp_path, "quantization:a_bits=32")
    network, bits = bits_of(resolved)
    assert set(bits) == set(quantized_weights(network)) and len(set(bits.values())) > 1


def test_the_summary_says_what_was_chosen():
    errors = {
        "a": ExpectedErrors("weight", 10, {2: 4.0, 3: 1.0, 4: 0.2}),
        "b": ExpectedErrors("weight", 30, {2: 1.0, 3: 0.3, 4: 0.1}),
    }
    assert summary(errors, {"a": 4, "b": 3}, 3) == (
        "Bits of the weights: 3.25 on average over 40 elements (1 with 3, 1 with 4). "
        "The expected error is 38% of that with 3 bits for all."
    )


@pytest.mark.slow
def test_a_run_that_goes_on_from_its_middle_ends_in_the_same_network(tmp_path):
    more = [*AVERAGE, "train:total_iter=4"]
    whole = tiny.run_train(tmp_path, *more)
    text, _ = whole.communicate(timeout=tiny.PATIENCE)
    assert whole.returncode == 0, text[-3000:]
    experiment = tmp_path / "experiments/tiny"
    found = json.loads((experiment / "quantization_map.json").read_text())["modules"]
    bits = {key: entry["spec"]["bits"] for module in found for key, entry in module["quantizers"].items()}
    assert len(set(bits.values())) > 1 and "Bits of the weights: 3." in text
    resolved = yaml.safe_load((experiment / "options.yml").read_text())["quantization"]
    assert resolved["average_bits"] == 3.5 and resolved["overrides"] == []
    final = torch.load(experiment / "models/net_Q_4.pth", weights_only=True)["params"]
    for name in ("models/net_Q_4.pth", "training_states/4.state"):
        (experiment / name).unlink()
    resumed = tiny.run_train(tmp_path, *more, resume=True)
    text, _ = resumed.communicate(timeout=tiny.PATIENCE)
    assert resumed.returncode == 0 and "after iteration 2" in text, text[-3000:]
    again = torch.load(experiment / "models/net_Q_4.pth", weights_only=True)["params"]
    assert all(torch.equal(value, again[key]) for key, value in final.items())
