"""The table of docs/training.md: what the full-precision networks of the repository measure, from their cards."""

from collections.abc import Mapping
from pathlib import Path

from basicsr.utils.cards import Card, read_card
from basicsr.utils.errors import OptionsError
from basicsr.utils.markdown import markdown_table, with_tables

FILE = Path("docs/training.md")
CARDS = Path("experiments/pretrained_models")
DATASETS = ("Set5", "Set14")


def read_cards(root: Path) -> dict[str, Card]:
    """Return the cards of a repository by the names of their networks, such as `EDSR_x4`.

    Raises:
        CheckpointError: a card is damaged.
    """
    return {file.stem: read_card(file) for file in sorted((root / CARDS).glob("*.json"))}


def with_card_table(text: str, cards: Mapping[str, Card]) -> str:
    """Return a page in Markdown with its table made anew, which stands between `<!-- from cards -->` and `<!-- end -->`.

    Raises:
        OptionsError: there are no cards.
    """
    if not cards:
        raise OptionsError(f"The table of '{FILE}' is made from cards in '{CARDS}', and there are none. Restore them.")
    lines = [["network", "parameters", *DATASETS]]
    for name, card in cards.items():
        network, _, scale = name.rpartition("_")
        psnr = [f"{card.results[test]['psnr']:.2f}" if test in card.results else "" for test in DATASETS]
        lines.append([f"{network} {scale}", f"{card.parameters:,}", *psnr])
    return with_tables(text, lambda _source: markdown_table(lines))
