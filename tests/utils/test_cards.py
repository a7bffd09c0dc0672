"""Weights with a card beside them are taken only if the card speaks of them."""

import pytest
from safetensors.torch import save_file

from basicsr.utils.cards import Card, check_card, read_card
from basicsr.utils.errors import CheckpointError
from basicsr.utils.files import sha256_of, write_json
from basicsr.utils.weights import load_weights_file
from tests import tiny


@pytest.fixture
def weights(tmp_path):
    file = tmp_path / "EDSR_x4.safetensors"
    state = load_weights_file(tiny.save_network(tmp_path / "fp.pth", architecture="EDSR"))
    save_file(state, file)
    card = Card(
        file=file.name, parameters=sum(v.numel() for v in state.values()), dtype="float32", training="none",
        options="options/test/test_FP.yml", sha256=sha256_of(file),
    )  # fmt: skip
    write_json(file.with_suffix(".json"), card.model_dump())
    return file


def test_weights_and_card_that_belong_together(weights):
    check_card(weights)
    assert read_card(weights.with_suffix(".json")).parameters == sum(
        v.numel() for v in load_weights_file(weights).values()
    )


def test_other_weights(weights):
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    with pytest.raises(CheckpointError, match="are not those of the card .* Restore both from the repository"):
        load_weights_file(weights)


def test_a_damaged_card(weights):
    weights.with_suffix(".json").write_text('{"file": "EDSR_x4.safetensors"}')
    with pytest.raises(CheckpointError, match="The card .* cannot be read: .* validation errors"):
        load_weights_file(weights)


def test_weights_without_a_card(weights):
    weights.with_suffix(".json").unlink()
    assert load_weights_file(weights)
