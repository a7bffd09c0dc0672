"""Cards: what the repository says of a network that it carries, in a JSON file beside the weights."""

from pathlib import Path
from typing import Any

import pydantic

from basicsr.utils.errors import CheckpointError
from basicsr.utils.files import sha256_of


class Card(pydantic.BaseModel):
    """What there is to know of a file of full-precision weights.

    Attributes:
        file: name of the file, in the folder of the card.
        parameters: number of weights.
        dtype: type that they are stored in.
        options: options file of the test that gave the results, from the root of the repository.
        overrides: what it was given as --force_yml.
        network: type and options of the network.
        training: data, recipe, iterations, time and hardware, in words.
        sha256: of the file.
        results: for each test set, PSNR (dB) and SSIM of the stored weights.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    file: str
    parameters: int
    dtype: str
    options: str
    overrides: list[str] = []
    network: dict[str, Any] | None = None
    training: str
    sha256: str
    results: dict[str, dict[str, float]] = {}


def read_card(path: Path) -> Card:
    """Read a card.

    Raises:
        CheckpointError: it is not to be read, or not a card.
    """
    try:
        return Card.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise CheckpointError(f"The card '{path}' cannot be read: {reason}. Restore it from the repository.") from error


def check_card(weights: Path) -> Card | None:
    """Return the card beside a file of weights, if there is one; refuse weights beside which lies the card of another file.

    Raises:
        CheckpointError: the card is damaged, or speaks of another file.
    """
    path = weights.with_suffix(".json")
    if weights.suffix.lower() != ".safetensors" or not path.is_file():
        return None
    card, found = read_card(path), sha256_of(weights)
    if (card.file, card.sha256) != (weights.name, found):
        raise CheckpointError(
            f"The weights '{weights}' are not those of the card '{path}': their sha256 begins with {found[:8]}, the card tells of "
            f"'{card.file}' with {card.sha256[:8]}. Restore both from the repository, or write the card anew with scripts/pack_pretrained.py."
        )
    return card
