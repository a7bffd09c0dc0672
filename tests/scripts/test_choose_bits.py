import pytest
import yaml

from basicsr.networks.build import full_precision_network
from basicsr.networks.quantized import quantized_copy
from basicsr.quant.insertion.insert import named_quantizers, quantized_weights
from basicsr.utils.options import load_options
from tests import tiny


def arguments(tmp_path, *more, average="3.5"):
    overrides = [*tiny.train_overrides(tmp_path, "calibration:num_images=2"), *more]
    file = tmp_path / "bits" / "mixed.yml"
    line = ["-opt", str(tiny.TRAIN), "--average_bits", average, "--output", str(file), "--force_yml", *overrides]
    return line, file, overrides


def test_the_file_that_it_writes_gives_each_quantizer_its_bits(load_script, tmp_path, capsys):
    line, file, overrides = arguments(tmp_path, "quantization:coverage=full")
    assert load_script("choose_bits").main(line) == 0
    printed = capsys.readouterr().out
    assert "Weights: 3." in printed and "Activations: 3." in printed and f"Written to '{file}'." in printed
    options = load_options(file, overrides)
    network, _ = quantized_copy(full_precision_network(options), options, share_weights=False)
    weights = quantized_weights(network)
    bits = {name: quantizer.spec.bits for name, quantizer in named_quantizers(network)}
    chosen = yaml.safe_load(file.read_text())["quantization"]["overrides"]
    for one in chosen:
        assert bits[one["match"]] == one["w_bits" if one["match"] in weights else "a_bits"]
    assert {bits[name] for name in bits if name not in {one["match"] for one in chosen}} == {8}, "both ends keep theirs"
    assert len({bits[one["match"]] for one in chosen}) > 1


def test_eight_bits_on_average_are_as_good_as_eight_for_all(load_script, tmp_path, capsys):
    line, file, _ = arguments(tmp_path, average="8")
    assert load_script("choose_bits").main(line) == 0
    chosen = yaml.safe_load(file.read_text())["quantization"]["overrides"]
    assert max(one.get("w_bits", one.get("a_bits")) for one in chosen) == 8
    assert capsys.readouterr().out.count("100% of that with 8 bits for all") == 2


def test_bits_that_were_given_before_stay(load_script, tmp_path):
    line, file, overrides = arguments(tmp_path)
    name = next(iter(_quantizers(overrides)))
    line += [f"quantization:overrides=[{{match: {name}, w_bits: 8, a_bits: 8}}]"]
    assert load_script("choose_bits").main(line) == 0
    chosen = yaml.safe_load(file.read_text())["quantization"]["overrides"]
    assert chosen[0] == {"match": name, "w_bits": 8, "a_bits": 8}
    assert not [one for one in chosen[1:] if one["match"] == name]


def _quantizers(overrides):
    options = load_options(tiny.TRAIN, overrides)
    network, _ = quantized_copy(full_precision_network(options), options, share_weights=False)
    return [name for name, _ in named_quantizers(network)]


@pytest.mark.parametrize(
    ("average", "more", "message"),
    [
        ("1.5", [], "average_bits is 1.5, but must be a number from 2 to 8"),
        ("20", [], "average_bits is 20.0, but must be"),
        ("nan", [], "average_bits is nan, but must be"),
        ("4", ["quantization:overrides=[{match: '*', w_bits: 8, a_bits: 8}]"], "there is nothing to choose"),
        ("4", ["quantization:coverage=fool"], "fool"),
    ],
)
def test_what_cannot_be_is_one_sentence(load_script, tmp_path, capsys, average, more, message):
    line, file, _ = arguments(tmp_path, *more, average=average)
    assert load_script("choose_bits").main(line) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1
    assert not file.exists()
