"""Networks of the repository and their cards: packing, checking, and what they say."""

import pytest

from basicsr.utils.cards import read_card
from tests import tiny

pytestmark = pytest.mark.slow

OPTIONS, OVERRIDES = "options/test/demo_FP.yml", ["network=edsr_baseline"]
CARDS = sorted((tiny.ROOT / "experiments/pretrained_models").glob("*.json"))


@pytest.fixture
def packed(load_script, tmp_path, monkeypatch):
    """Folder with a packed EDSR-baseline of random weights and its card."""
    monkeypatch.chdir(tiny.ROOT)
    weights = tiny.save_network(tmp_path / "fp.pth", architecture="EDSR", num_feat=64, num_block=16, img_range=255.0)
    command = ["--name", "EDSR_x4", "--weights", str(weights), "--options", OPTIONS, "--force_yml", *OVERRIDES]
    load_script("pack_pretrained").main([*command, "--training", "none", "--folder", str(tmp_path)])
    return tmp_path


def test_a_packed_network_agrees_with_its_card(packed, load_script, capsys):
    assert load_script("check_pretrained").main(["--folder", str(packed)]) == 0
    assert "EDSR_x4.safetensors, demo:" in capsys.readouterr().out
    assert (packed / "EDSR_x4.safetensors").stat().st_size < (packed / "fp.pth").stat().st_size * 0.55


def test_what_cannot_be_packed_or_checked_is_named(load_script, tmp_path, capsys):
    command = ["--name", "x", "--options", OPTIONS, "--force_yml", *OVERRIDES, "--training", "none"]
    command += ["--folder", str(tmp_path), "--weights"]
    assert load_script("pack_pretrained").main([*command, "absent.pth"]) == 1
    assert "The file of weights 'absent.pth' does not exist" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert load_script("check_pretrained").main(["--folder", str(tmp_path)]) == 2
    assert "holds no card" in capsys.readouterr().err


def test_figures_that_do_not_agree(packed, load_script):
    card = packed / "EDSR_x4.json"
    psnr = read_card(card).results["demo"]["psnr"]
    card.write_text(card.read_text().replace(f"{psnr}", f"{psnr + 0.05:.4f}"))
    assert load_script("check_pretrained").main(["--folder", str(packed), "EDSR_x4"]) == 1


def test_a_card_of_another_network_is_refused(packed, load_script, capsys):
    card = packed / "EDSR_x4.json"
    parameters = read_card(card).parameters
    card.write_text(card.read_text().replace(f"{parameters}", f"{parameters + 1}"))
    assert load_script("check_pretrained").main(["--folder", str(packed)]) == 2
    assert f"tells of {parameters + 1} parameters" in capsys.readouterr().err


def test_a_network_that_cannot_be_tested_is_named(packed, load_script, capsys):
    card = packed / "EDSR_x4.json"
    card.write_text(card.read_text().replace("network=edsr_baseline", "network=rdn_small"))
    assert load_script("check_pretrained").main(["--folder", str(packed)]) == 2
    assert (
        "EDSR_x4.safetensors' could not be tested with 'options/test/demo_FP.yml'"
        in capsys.readouterr().err.replace(str(tiny.ROOT) + "/", "")
    )


@pytest.mark.parametrize("card_file", CARDS, ids=lambda file: file.stem)
def test_networks_of_the_repository(card_file, load_script, shared, tmp_path):
    card, script = read_card(card_file), load_script("check_pretrained")
    assert card_file.with_suffix(".safetensors").stat().st_size <= 4_000_000
    scale = card_file.stem[-1]
    folder = shared / "data/benchmark/Set5"
    overrides = [
        f"datasets:test_1:dataroot_gt={folder / 'HR'}",
        f"datasets:test_1:dataroot_lq={folder}/LR_bicubic/X{scale}",
    ]
    others = [f"datasets:test_{i}:dataroot_gt=absent" for i in range(2, 6)]
    results = script.tested(
        card_file.with_suffix(".safetensors"),
        tiny.ROOT / card.options,
        tmp_path,
        [*card.overrides, *overrides, *others, "device=cpu"],
    )
    assert results["Set5"]["psnr"] == pytest.approx(card.results["Set5"]["psnr"], abs=0.01)


def test_all_networks_of_the_repository_together_are_small():
    assert sum(card.with_suffix(".safetensors").stat().st_size for card in CARDS) <= 20_000_000
