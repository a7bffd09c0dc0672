"""The reference of options and the schema for editors are those of the code, and the schema knows the shipped files."""

import jsonschema
import pydantic
import pytest
import referencing

from basicsr.sweep.grid import Grid
from basicsr.utils.options import Options, RuleOptions
from basicsr.utils.yaml_loader import guessed, read_yaml
from tests import tiny

WRITTEN_WITH = (2, 12)
pytestmark = pytest.mark.skipif(
    tuple(map(int, pydantic.VERSION.split(".")[:2])) < WRITTEN_WITH,
    reason="the files are written with a newer pydantic, which describes the same types in other words",
)

FILES = sorted(file for file in (tiny.ROOT / "options").glob("*/*.yml") if file.parent.name != "sweep")
SWEEPS = sorted((tiny.ROOT / "options/sweep").glob("*.yml"))
LINE = "# yaml-language-server: $schema=../{}.json\n"


@pytest.fixture
def script(load_script):
    return load_script("make_option_reference")


@pytest.fixture
def schemas(load_script):
    return load_script("option_schema")


@pytest.fixture
def accepts(schemas):
    schema = schemas.schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema).is_valid


@pytest.fixture
def sweep_accepts(schemas):
    """Whether the schema of sweeps, which refers to that of options as a file beside it, accepts a grid."""
    known = referencing.Registry().with_resource("schema.json", referencing.Resource.from_contents(schemas.schema()))
    schema = schemas.sweep_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema, registry=known).is_valid


def test_all_files_are_what_the_code_says(script, monkeypatch, tmp_path):
    names = ("DOCUMENT", "SCHEMA", "SWEEP_SCHEMA", "TRANSLATION")
    shipped = {name: getattr(script, name).read_text(encoding="utf-8") for name in names}
    for name in shipped:
        monkeypatch.setattr(script, name, tmp_path / name)
    head = shipped["TRANSLATION"].partition("## Every option")[0]
    (tmp_path / "TRANSLATION").write_text(f"{head}## Every option\n\nnothing yet\n", encoding="utf-8")
    script.main()
    for name, text in shipped.items():
        assert (tmp_path / name).read_text(encoding="utf-8") == text, "call python scripts/make_option_reference.py"


def test_the_shipped_files_are_accepted_and_name_the_schema(accepts):
    for file in FILES:
        assert accepts(guessed(read_yaml(file))), file
        assert file.read_text(encoding="utf-8").startswith(LINE.format("schema")), file


def test_the_shipped_sweeps_are_accepted_and_name_their_schema(sweep_accepts):
    for file in SWEEPS:
        assert sweep_accepts(guessed(read_yaml(file))), file
        assert file.read_text(encoding="utf-8").startswith(LINE.format("sweep_schema")), file


@pytest.mark.parametrize(
    ("change", "accepted"),
    [
        ({}, True),
        ({"bits": {"w4a8": {"train": {"total_iter": 3}}}}, True),
        ({"bit": [4]}, False),
        ({"scales": 4}, False),
        ({"overrides": {"trian": {}}}, False),
        ({"evaluation": {"datasets": {"test_1": {"nmae": "x"}}}}, False),
        ({"architectures": {"EDSR": {"network_g": {"num_feats": 3}}}}, False),
        ({"methods": [{"label": "DOBI"}]}, False),
        ({"methods": [{"label": "DOBI", "options": {"EDSR": "x.yml"}, "overrides": {"calibration": 3}}]}, False),
        ({"slurm": {"minute": 3}}, False),
    ],
    ids=str,
)
def test_typos_in_a_sweep_are_refused(sweep_accepts, change, accepted):
    assert sweep_accepts({**guessed(read_yaml(SWEEPS[0])), **change}) == accepted


@pytest.mark.parametrize(
    "typo",
    [
        {"trian": {}},
        {"bit": 9},
        {"scale": "4"},
        {"path": {"pretrain": "x"}},
        {"train": {"total_iters": 3}},
        {"train": {"pixel_loss": {"type": "L1Losss"}}},
        {"train": {"optim_g": {"type": "Adam", "learning_rate": 1e-3}}},
        {"network_g": {"num_feats": 3}},
        {"network_g": {"type": "EDSR", "depths": [6]}},
        {"datasets": {"train": {"lqsize": 3}}},
        {"calibration": {"activations": {"type": "DOBI", "search": "fast"}}},
        {"where": {"network=edsr*": {"bits": 3}}},
        {"val": {"metrics": {"psnr": {"type": "calculate_psnrr"}}}},
        {"val": {"metrics": {"psnr": {"type": "calculate_psnr", "border": 3}}}},
        {"quantization": {"coverage": "bodi"}},
        {"quantization": {"coverage": [{"modules": "*.conv1", "type": "QConv"}]}},
        {"quantization": {"coverage": [{"modules": "*.conv1"}]}},
        {"quantization": {"overrides": [{"match": "*", "bits": 3}]}},
    ],
    ids=str,
)
def test_typos_are_refused(accepts, typo):
    assert not accepts(typo)


def test_parts_and_removed_entries_are_accepted(accepts):
    assert accepts({"datasets": {"test_3": None}, "train": {"mismatch_loss": None}, "quantization": None})
    assert accepts({"val": {"metrics": {"plain": {"type": "calculate_psnr", "test_y_channel": False}, "ssim": None}}})
    assert accepts({"quantization": {"coverage": [{"modules": "*.conv1", "type": "QConv2d", "w_bits": 3}]}})
    assert accepts({"train": {"optim_g": {"lr": 1e-3}}, "where": {"scale=4": {"network_g": {"num_feat": 3}}}})


def test_options_are_told_with_type_default_range_and_meaning(script):
    text = script.document()
    assert "| `bit` | whole number >= 2, <= 8 or null | `null` | Short form for w_bits and a_bits together. |" in text
    line = next(
        line
        for line in text.splitlines()
        if line.startswith('| `optim_g` | mapping | `{"type": "Adam", "lr": 0.0001}`')
    )
    assert "optimiser" in line
    assert all(
        f"| `{name}` |" in text for name in (*Options.model_fields, *RuleOptions.model_fields, *Grid.model_fields)
    )
    assert (
        "| `crop_border` | whole number | that of `val` |" in text and "| `upscale` | whole number | `scale` |" in text
    )


def test_arguments_of_docstrings_are_read_with_their_continuations(script):
    def component(a, b, c):
        """Do something.

        Args:
            a, b: first line: with a colon,
                and a second line.
            c: the last.

        Returns:
            d: nothing.
        """

    assert script.argument_docs(component) == {
        "a": "first line: with a colon, and a second line.",
        "b": "first line: with a colon, and a second line.",
        "c": "the last.",
    }


def test_lines_of_the_translation(load_script):
    text = load_script("option_translation").with_tables("# Page\n")
    for line in (
        "| `cali_data` | `calibration:data` |",
        "| `network_d` | stops the run | Perceptual and GAN losses are out of scope",
        "| `datasets:*:io_backend:type` | stops the run, unless `disk`, `lmdb` |",
        "| `model_type`: `SwinIRModel` | `model_type`: `SRModel` |",
        "| `train:pixel_opt` with `TDQuantModel` | `train:pixel_loss` |",
        "| `dist_params` | left out |",
        "| `val:val_freq` | the same |",
        "| `calibration:weights` | `{search: symmetric, type: DOBI}` | `TDQuantModel` |",
        "| `train:dcn_lr_mul`, `fix_iter`, `flow_lr_mul`, `tsa_iter` | stops the run | Video is out of scope",
    ):
        assert f"\n{line}" in text, line
