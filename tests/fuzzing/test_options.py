"""Options files made at random: what the schema allows is read or told why not, and what it does not allow is told in a sentence."""

import json

import pytest
import yaml
from hypothesis import strategies as st

from basicsr.utils.errors import OptionsError
from basicsr.utils.options import load_options
from tests import tiny
from tests.fuzzing.schema_strategies import Schema, mutated

pytestmark = pytest.mark.slow
SCHEMA = Schema(json.loads((tiny.ROOT / "options/schema.json").read_text(encoding="utf-8")))
SECTIONS = ("network_g", "quantization", "calibration", "train", "val", "logger", "path", "scale", "bit", "manual_seed")  # fmt: skip
PICTURES = {"name": "mine", "type": "PairedImageDataset", "dataroot_gt": "HR"}
START = {
    "name": "random",
    "model_type": "PTQModel",
    "scale": 4,
    "bit": 4,
    "network_g": {"type": "EDSR"},
    "datasets": {"val": PICTURES},
}
LONGEST = 3000


def trees():
    sections = {name: SCHEMA.section(name) for name in SECTIONS}
    sections["datasets"] = st.dictionaries(st.sampled_from(["train", "val", "test_1"]), SCHEMA.definition("dataset"))
    some = st.sets(st.sampled_from(sorted(sections)), max_size=3)
    chosen = some.flatmap(lambda names: st.fixed_dictionaries({name: sections[name] for name in sorted(names)}))
    return chosen.map(lambda tree: {**START, **tree})


@pytest.fixture
def load(tmp_path):
    """Load a tree as a file; return whether it was read, and make sure that a refusal is a sentence."""

    def loaded(tree):
        (tmp_path / "options.yml").write_text(yaml.safe_dump(tree, allow_unicode=True), encoding="utf-8")
        try:
            load_options(tmp_path / "options.yml", tell=False)
        except OptionsError as error:
            text = str(error)
            assert text[:1].isupper() or text[:1] in "'\"", text
            assert text.rstrip()[-1] in ".?!'\"" and 10 < len(text) < LONGEST, text
            return False
        return True

    return loaded


def test_what_the_schema_allows_is_read_or_told(fuzz, load):
    read = []
    fuzz(trees(), lambda tree: read.append(load(tree)))
    assert sum(read) > len(read) // 4  # the others break rules between options, which a schema does not hold


def test_what_nobody_means_is_told_in_a_sentence(fuzz, load):
    refused = []
    fuzz(mutated(trees()), lambda tree: refused.append(not load(tree)))
    assert sum(refused) > len(refused) // 3


def test_overrides_of_any_text(fuzz, tmp_path):
    file = tmp_path / "options.yml"
    file.write_text(yaml.safe_dump(START), encoding="utf-8")
    keys = st.sampled_from(
        [
            "bit",
            "train",
            "val:metrics",
            "network_g:num_feat",
            "quantization",
            "",
            ":",
            "a:b:c",
            "name",
            "train:optim_g:lr",
        ]
    )
    values = st.one_of(
        st.text(max_size=12),
        st.sampled_from(["{a: 1}", "[", "{", "1e400", "&a [*a]", "!!python/name:os.system ", "- 1", "'", "null"]),
    )

    def check(text):
        try:
            load_options(file, [text], tell=False)
        except OptionsError as error:
            assert 10 < len(str(error)) < LONGEST

    fuzz(st.builds("{}={}".format, keys, values) | st.text(max_size=10), check)


def test_bytes_that_are_hardly_yaml(fuzz, tmp_path):
    whole = yaml.safe_dump({**START, "train": {"total_iter": 3}}).encode()
    file = tmp_path / "options.yml"

    def check(change):
        start, length, content = change
        file.write_bytes(whole[:start] + content + whole[start + length :])
        try:
            load_options(file, tell=False)
        except OptionsError as error:
            assert 10 < len(str(error)) < LONGEST

    fuzz(st.tuples(st.integers(0, len(whole)), st.integers(0, 9), st.binary(max_size=6)), check)
