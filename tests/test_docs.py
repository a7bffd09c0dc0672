"""How the README and the pages of the site are written, and that what they name exists."""

import json
import re
import textwrap

import pytest

from basicsr.utils.files import sha256_of
from basicsr.utils.registry import CALIBRATOR_REGISTRY, GRADIENT_RULE_REGISTRY, MODEL_REGISTRY, QUANTIZER_REGISTRY
from tests import tiny

PAGES = [tiny.ROOT / "README.md", *sorted((tiny.ROOT / "docs").rglob("*.md"))]
LONGEST_SENTENCE = 35  # words
LONGEST_PARAGRAPH = 6  # lines
LINE_WIDTH = 120  # characters, with the markup
LONGEST_README = 150  # lines
LONGEST_LIST = 3  # things in a sentence; more are a table

NO_PROSE = re.compile(r"\s*(\||#|<|!\[|---)|    ")  # tables, headings, HTML, pictures, rulers, indented code
ITEM = re.compile(r"\s*([-*]|\d+\.) ")
THING = r"(?:[\w`'/.+-]+ ){0,3}[\w`'/.+-]+"
LONG_LIST = re.compile(rf"{THING}(?:, {THING}){{{LONGEST_LIST - 1},}},? (?:and|or) [\w`]")
# a path that the repository carries, with globs but without placeholders
NAMED_FILE = re.compile(
    r"(?<![\w/.-])((?:basicsr|docs|options|scripts|tests|keydata)/[\w./*+-]*(?:\.(?:py|yml|md|sh|json|csv|png)|/))(?![\w<{])"
)


def without_code(text):
    """Return a page without its fenced blocks."""
    return re.sub(r"^(```|~~~).*?^\1\s*$", "", text, flags=re.MULTILINE | re.DOTALL)


def paragraphs(text):
    """Return the paragraphs of prose in a page of Markdown, each on one line; the items of a list are paragraphs."""
    text = re.sub(r"<!--.*?-->", "", without_code(text), flags=re.DOTALL)
    found, open_one = [], False
    for line in text.splitlines():
        if not line.strip() or NO_PROSE.match(line):
            open_one = False
        elif open_one and not ITEM.match(line):
            found[-1] += " " + line.strip()
        else:
            found.append(ITEM.sub("", line, count=1).strip())
            open_one = True
    return found


def sentences(paragraph):
    """Return the sentences of a paragraph; code counts as one word, a link as its text."""
    plain = re.sub(r"``.+?``|`[^`]+`", "`code`", paragraph)
    plain = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", plain)
    return re.split(r"(?<=[.!?])[)*_\"]*\s+(?=[A-Z0-9`*\[(\"])", plain)


def words(sentence):
    return [word for word in sentence.split() if re.search(r"\w", word)]


def faults(text):
    """Return what breaks the rules of writing in a page, as sentences."""
    found = []
    for paragraph in paragraphs(text):
        lines = len(textwrap.wrap(paragraph, LINE_WIDTH))
        if lines > LONGEST_PARAGRAPH:
            found.append(f"A paragraph of {lines} lines: {paragraph[:100]}")
        for sentence in sentences(paragraph):
            if len(words(sentence)) > LONGEST_SENTENCE:
                found.append(f"A sentence of {len(words(sentence))} words: {sentence}")
            if match := LONG_LIST.search(sentence):
                found.append(f"A list of more than {LONGEST_LIST} things, which should be a table: {match.group()}")
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(tiny.ROOT)))
def test_pages_are_written_in_short_sentences_and_paragraphs(page):
    assert faults(page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(tiny.ROOT)))
def test_files_that_a_page_names_exist(page):
    text = without_code(page.read_text(encoding="utf-8"))
    missing = [name for name in NAMED_FILE.findall(text) if not list(tiny.ROOT.glob(name.rstrip("/")))]
    assert missing == []


def test_every_room_is_on_the_page_of_the_house():
    text = (tiny.ROOT / "docs/design/house.md").read_text(encoding="utf-8")
    rooms = [file.parent.relative_to(tiny.ROOT / "basicsr") for file in (tiny.ROOT / "basicsr").rglob("__init__.py")]
    named = [room for room in map(str, rooms) if "/" not in room and room != "."]
    layers = [f"{room.name}/" for room in rooms if room.parent.name == "quant"]
    assert len(named) > 10 and len(layers) > 5
    assert [name for name in [*named, *layers] if f"`{name}`" not in text] == []


def test_every_benchmark_is_on_the_page_for_contributors():
    text = (tiny.ROOT / "docs/contributing.md").read_text(encoding="utf-8").split("## Benchmarks")[1]
    names = [file.stem.removesuffix("_benchmark") for file in tiny.ROOT.glob("scripts/benchmarks/*_benchmark.py")]
    assert len(names) > 10 and [name for name in names if f"| `{name}` |" not in text] == []


def test_records_are_of_the_networks_that_are_shipped():
    shipped = {
        str(f.relative_to(tiny.ROOT)): sha256_of(f)
        for f in tiny.ROOT.glob("experiments/pretrained_models/*.safetensors")
    }
    others = []
    for file in sorted(tiny.ROOT.glob("docs/results/*/runs/*.json")):
        weights = json.loads(file.read_text(encoding="utf-8")).get("full_precision") or {}
        if weights.get("file") in shipped and weights["sha256"] != shipped[weights["file"]]:
            others.append(str(file.relative_to(tiny.ROOT)))
    assert others == [], "these records are of a network that is not shipped any more: remove them, or run them again"


def test_the_readme_shows_the_records_too():
    text = (tiny.ROOT / "README.md").read_text(encoding="utf-8")
    guide = (tiny.ROOT / "docs/which-method.md").read_text(encoding="utf-8")
    section = guide.split("### EDSR-baseline x4")[1].split("\n#")[0]
    for method in ("DOBI one-sided", "DOBI fitted", "DOBI points", "DFSQ exact", "2DQuant revised", "QAD", "ODM"):
        (line,) = re.findall(rf"^\| {re.escape(method)} \| (.*) \|$", section, flags=re.MULTILINE)
        _, at_4_bits, _, at_2_bits, seconds, size = line.split(" | ")[:6]
        assert f"| {seconds} | {at_4_bits} | {at_2_bits} | {size} |" in text


def test_every_component_is_on_the_page_of_methods():
    text = (tiny.ROOT / "docs/methods.md").read_text(encoding="utf-8")
    for registry in (QUANTIZER_REGISTRY, CALIBRATOR_REGISTRY, MODEL_REGISTRY, GRADIENT_RULE_REGISTRY):
        missing = [name for name in registry.names() if not re.search(rf"(`|type: ){name}\b", text)]
        assert missing == []


NO_METHODS = ["Chains of methods", "Sums of skip connections"]
"""Sections of the page that are about several methods."""


def test_every_method_has_all_its_entries():
    text = (tiny.ROOT / "docs/methods.md").read_text(encoding="utf-8")
    sections = text.split("\n## ")[1:]
    for section in sections:
        rows = set(re.findall(r"^\| (\w+?)s? \|", section, flags=re.MULTILINE))
        title = section.splitlines()[0]
        assert rows >= {"paper", "idea", "recipe", "file", "test"}, title
        assert title == NO_METHODS[0] or re.search(r"^\| differs( from)? \|", section, re.MULTILINE), title


def test_every_recipe_and_its_method_are_on_the_page_of_methods():
    text = (tiny.ROOT / "docs/methods.md").read_text(encoding="utf-8")
    overview, *sections = text.split("\n## ")
    named = {name for section in sections for name in re.findall(r"options/methods/(\w+)\.yml", section)}
    recipes = {file.stem for file in (tiny.ROOT / "options/methods").glob("*.yml")}
    named |= set(re.findall(r"options/train/train_(\w+)\.yml", text))
    assert sorted(recipes - named) == []
    titles = [section.splitlines()[0] for section in sections]
    assert [title for title in titles if f"| [{title}](#" not in overview] == NO_METHODS


def test_the_readme_is_short():
    assert len((tiny.ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= LONGEST_README


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("one " * 35 + "two.", "A sentence of 36 words"),
        ("- " + "one " * 36, "A sentence of 36 words"),
        ("It ends. " * 100, "A paragraph of 8 lines"),
        ("Take red, green, blue and white.", "A list of more than 3 things"),
        ("Take red, green, light blue, or `white`.", "A list of more than 3 things"),
    ],
)
def test_a_fault_is_found(text, fault):
    (found,) = faults(text)
    assert found.startswith(fault)


@pytest.mark.parametrize(
    "text",
    [
        "One " * 34 + "two. " + "One " * 34 + "two.",  # a full stop ends a sentence
        "Take red, green and blue.",
        "| " + "one " * 50 + "|",
        "```bash\n" + "one " * 50 + "\n```",
        "    " + "one " * 50,
        "[" + "one " * 30 + "](page.md) and `" + "one " * 30 + "`.",
        "- one\n- two\n\n" + "\n".join(["- " + "one " * 20] * 9),  # each item counts by itself
    ],
)
def test_what_is_allowed(text):
    assert faults(text) == []
