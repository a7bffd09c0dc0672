"""The table of docs/training.md: the committed one follows from the committed cards, and a small one by hand."""

import pytest

from basicsr.sweep.card_table import CARDS, FILE, read_cards, with_card_table
from basicsr.utils.cards import Card
from basicsr.utils.errors import OptionsError
from tests import tiny

PLACE = "before\n<!-- from cards -->\nold\n<!-- end -->\nbehind\n"


def test_the_committed_page_follows_from_the_committed_cards():
    text = (tiny.ROOT / FILE).read_text(encoding="utf-8")
    cards = read_cards(tiny.ROOT)
    assert text == with_card_table(text, cards), f"run python scripts/make_tables.py and commit {FILE}"
    assert cards.keys() == {file.stem for file in (tiny.ROOT / CARDS).glob("*.safetensors")} and len(cards) >= 8
    assert all(f"| {name.replace('_', ' ')} |" in text for name in cards)


def test_a_line_for_each_card():
    results = {"Set5": {"psnr": 31.456, "ssim": 0.9}}
    card = Card(
        file="A.safetensors",
        parameters=1234567,
        dtype="float16",
        options="x.yml",
        training="",
        sha256="",
        results=results,
    )
    assert with_card_table(PLACE, {"RDN-small_x4": card}).splitlines() == [
        "before",
        "<!-- from cards -->",
        "",
        "| network | parameters | Set5 | Set14 |",
        "| --- | --- | --- | --- |",
        "| RDN-small x4 | 1,234,567 | 31.46 |  |",
        "",
        "<!-- end -->",
        "behind",
    ]


def test_without_cards_a_sentence_says_so():
    with pytest.raises(OptionsError, match="made from cards .* Restore them"):
        with_card_table(PLACE, {})
