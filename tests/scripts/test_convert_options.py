"""A converted options file means what the one of BasicSR or 2DQuant means, and has our names only."""

import pytest
import yaml

from basicsr.utils.options import load_options
from basicsr.utils.options.upstream.table import ROWS
from tests import upstream_files as upstream

TEXTS = {
    "EDSR": upstream.basicsr_training("EDSR"),
    "SwinIR": upstream.basicsr_test("SwinIR", 2),
    "2DQuant": upstream.training_2dquant(3),
    "2DQuant test": upstream.testing_2dquant(4),
}


@pytest.fixture
def script(load_script):
    return load_script("convert_options")


@pytest.mark.parametrize("name", TEXTS)
def test_the_new_file_means_the_same(script, tmp_path, capsys, name):
    old = upstream.write(tmp_path / "old.yml", TEXTS[name])
    assert script.main([str(old)]) == 0
    written = capsys.readouterr()
    new = upstream.write(tmp_path / "new.yml", written.out)
    assert load_options(new) == load_options(old)
    assert set(yaml.safe_load(written.out)).isdisjoint(
        row.old for row in ROWS if row.old != row.new and not row.models and not row.equals
    )
    assert written.out.startswith("# Made from 'old.yml'") and "num_gpu' is left out" in written.err
    assert script.main([str(new)]) == 0
    assert capsys.readouterr().err == ""  # nothing is left to tell


def test_changes_are_in_the_new_file(script, tmp_path, capsys):
    old = upstream.write(tmp_path / "old.yml", TEXTS["EDSR"])
    assert script.main([str(old), "--force_yml", "num_gpu=2", "name=0123"]) == 0
    new = yaml.safe_load(capsys.readouterr().out)
    assert (
        new["train"]["batch_size"] == 32 and new["name"] == "0123" and list(new)[:3] == ["name", "model_type", "scale"]
    )


@pytest.mark.parametrize(
    ("change", "message"), [("train:gan_opt={type: A}", "no counterpart"), ("bit=99", "less than or equal")]
)
def test_what_cannot_be_converted_is_told_and_nothing_is_written(script, tmp_path, capsys, change, message):
    old = upstream.write(tmp_path / "old.yml", TEXTS["2DQuant"])
    assert script.main([str(old), "--force_yml", change]) == 2
    told = capsys.readouterr()
    assert told.out == "" and message in told.err
