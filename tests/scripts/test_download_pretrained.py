"""The list of official files is right, and what is put in place is checked."""

import hashlib
import shutil

import pytest
import torch

from basicsr.archs import build_network
from basicsr.utils.options import load_options
from tests import tiny


@pytest.fixture
def script(load_script):
    return load_script("download_pretrained")


def test_the_networks_have_the_official_numbers_of_parameters(script):
    for name, entry in script.OFFICIAL_FILES.items():
        with torch.device("meta"):
            network = build_network(entry.network)
        assert script.parameters_of(network) == entry.parameters, name


def test_the_options_files_name_these_files(script):
    named = {f"experiments/pretrained_models/{entry.file}" for entry in script.OFFICIAL_FILES.values()}
    for scale in (2, 4):
        options = load_options(tiny.ROOT / "options/test/test_FP.yml", [f"scale={scale}"])
        assert options.path.pretrain_network_FP in named


def small(script, monkeypatch, weights, digest=""):
    """Let the list hold one tiny network, which `weights` are of."""
    network = {"type": "SwinIR", "upscale": 4, **tiny.NETWORK}
    count = script.parameters_of(build_network(network))
    entry = script.OfficialFile("S/a.pth", "https://page", weights.as_uri(), network, count, 0.1, digest)
    monkeypatch.setattr(script, "OFFICIAL_FILES", {"tiny": entry})
    return entry


def test_files_are_listed_checked_and_fetched(script, monkeypatch, tmp_path, capsys):
    weights = tiny.save_network(tmp_path / "fp.pth")
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()[:8]
    small(script, monkeypatch, weights, digest)
    folder = tmp_path / "models"
    assert script.main(["--folder", str(folder)]) == 0
    assert "absent" in capsys.readouterr().out and not folder.exists()
    assert script.main(["--folder", str(folder), "--download", "ti*"]) == 0
    assert "in place, checked" in capsys.readouterr().out
    assert (folder / "S/a.pth").read_bytes() == weights.read_bytes()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[:1000]), "is not the official one: its sha256 begins with"),
        (lambda file: tiny.save_network(file, scale=2), "is not the official one"),
    ],
    ids=["cut off", "another network"],
)
def test_a_file_that_is_not_the_official_one_is_named(script, monkeypatch, tmp_path, capsys, damage, message):
    weights = tiny.save_network(tmp_path / "fp.pth")
    small(script, monkeypatch, weights, hashlib.sha256(weights.read_bytes()).hexdigest()[:8])
    file = tmp_path / "models/S/a.pth"
    file.parent.mkdir(parents=True)
    shutil.copy(weights, file)
    damage(file)
    assert script.main(["--folder", str(tmp_path / "models"), "--check"]) == 2
    out = capsys.readouterr().out
    assert "WRONG" in out and message in out


def test_another_scale_is_seen_without_a_digest(script, monkeypatch, tmp_path, capsys):
    small(script, monkeypatch, tiny.save_network(tmp_path / "fp.pth"))
    (tmp_path / "S").mkdir()
    tiny.save_network(tmp_path / "S/a.pth", scale=2)
    assert script.main(["--folder", str(tmp_path), "--check"]) == 2
    assert "the file holds a network with upscale 2, the options ask for upscale 4" in capsys.readouterr().out


def test_what_cannot_be_fetched_leaves_nothing(script, monkeypatch, tmp_path, capsys):
    weights = tmp_path / "fp.pth"
    weights.write_bytes(b"an error page")
    small(script, monkeypatch, weights)
    folder = tmp_path / "models"
    assert script.main(["--folder", str(folder), "--download", "tiny"]) == 2
    assert not list(folder.rglob("*.*"))
    small(script, monkeypatch, tmp_path / "absent.pth")
    assert script.main(["--folder", str(folder), "--download", "tiny"]) == 2
    assert "cannot be fetched" in capsys.readouterr().err
    assert script.main(["--download", "EDRS*"]) == 2
    assert "There is no official file 'EDRS*'" in capsys.readouterr().err
