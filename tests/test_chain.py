"""A run that comes after another one: what both share, what is measured, what continues, and what they are called."""

import json

import pytest
import yaml

from basicsr import train as train_command
from basicsr.sweep.grid import Grid
from basicsr.sweep.plan import plan
from basicsr.utils.errors import OptionsError
from basicsr.utils.options import first_of_chain, load_options
from basicsr.utils.recipe import recipe
from basicsr.utils.weights import load_weights_file
from tests import tiny

CHAIN = tiny.ROOT / "options/train/demo_chain.yml"


def overrides(folder, *more):
    given = tiny.train_overrides(
        folder, "train:total_iter=2", "after:train:total_iter=3", *more, architecture="EDSR", optimizers=()
    )
    return [text for text in given if "val_freq" not in text] + [
        "val:val_freq=10",
        "logger:save_checkpoint_freq=10",
        "bit=3",
    ]


def run(folder, *more, arguments=()):
    given = overrides(folder, *more)
    return train_command.main(["-opt", str(CHAIN), "--root", str(folder), *arguments, "--force_yml", *given])


def stages(folder, name):
    lines = (folder / f"experiments/{name}/metrics.jsonl").read_text().splitlines()
    return [(line["stage"], line["iter"]) for line in map(json.loads, lines)]


def test_both_share_what_is_no_matter_of_a_method(tmp_path):
    options = load_options(CHAIN, overrides(tmp_path, "manual_seed=7", "quantization:weight_quantizer={type: Affine}"))
    first = first_of_chain(options)
    assert (first.name, first.bit, first.manual_seed) == ("tiny_start", 3, 7)
    assert first.network_g == options.network_g and first.datasets == options.datasets
    assert first.path.pretrain_network_FP == options.path.pretrain_network_FP
    assert (options.train.total_iter, first.train.total_iter) == (2, 3)
    assert options.quantization.weight_quantizer["type"] == first.quantization.weight_quantizer["type"] == "Affine"
    assert first.quantization.weight_symmetric is False  # of its own recipe
    assert first.train.model_extra["relative_lr"] is True


def test_the_label_names_both_and_so_does_the_recipe(tmp_path):
    given = overrides(tmp_path)
    assert load_options(CHAIN, given).method_name == "DOBI > DQC > ODM"
    unnamed = load_options(CHAIN, [*given, "method=ODM"])
    assert unnamed.method_name == f"{first_of_chain(unnamed).method} > ODM"
    alone = load_options(CHAIN, [*given, "after=null"])
    assert alone.method_name == "DOBI > DQC > ODM" and "after" not in recipe(alone)  # the label of the file
    longer = load_options(CHAIN, [*given, "after:train:total_iter=4"])
    assert recipe(longer) != recipe(unnamed) == recipe(load_options(CHAIN, given))


@pytest.mark.slow
def test_all_runs_have_the_bits_that_the_first_one_chose(tmp_path):
    assert run(tmp_path, "quantization:average_bits=3.5") == 0
    found = []
    for name in ("tiny_start", "tiny"):
        weights = load_weights_file(tmp_path / f"experiments/{name}/models/net_Q_latest.pth")
        found.append({key: int(value) for key, value in weights.items() if key.endswith(".bits")})
    assert found[0] == found[1] and len(set(found[0].values())) > 1


@pytest.mark.slow
def test_a_chain_runs_measures_every_stage_and_continues(tmp_path):
    assert run(tmp_path) == 0
    assert stages(tmp_path, "tiny_start") == [("fp", 0), ("calibrated", 0), ("train", 3), ("final", 3)]
    assert stages(tmp_path, "tiny") == [("fp", 0), ("calibrated", 0), ("train", 2), ("final", 2)]
    written = yaml.safe_load((tmp_path / "experiments/tiny/options.yml").read_text())
    assert written["method"] == "DOBI > DQC > ODM" and written["after"]["name"] == "tiny_start"
    assert written["path"]["pretrain_network_Q"].endswith("experiments/tiny_start/models/net_Q_latest.pth")
    first = (tmp_path / "experiments/tiny_start/models/net_Q_latest.pth").stat().st_mtime_ns
    assert run(tmp_path, arguments=["--auto_resume"]) == 0
    assert (tmp_path / "experiments/tiny_start/models/net_Q_latest.pth").stat().st_mtime_ns == first
    assert run(tmp_path, "after:train:total_iter=1", arguments=["--auto_resume"]) != 0  # other recipes do not continue


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("after={train: {total_iter: 2}}", "names no options file"),
        ("after:options=absent.yml", "The run that comes first, 'after:options=absent.yml'.*absent.yml"),
        ("after:train:no_such=1", "comes first.*Unknown option 'train:no_such'"),
    ],
)
def test_a_first_run_that_cannot_be_is_told(tmp_path, override, message):
    given = overrides(tmp_path, override)
    if override.startswith("after={"):
        given = ["after=null", *given, override, "after:options=null"]
    with pytest.raises(OptionsError, match=message):
        load_options(CHAIN, given)


def test_two_starts_contradict_each_other(tmp_path, capsys):
    assert run(tmp_path, "path:pretrain_network_Q=some.pth") == 2
    assert "both say which network the run starts from" in capsys.readouterr().err


def test_a_sweep_shortens_all_of_a_chain_and_does_not_call_it_by_the_method_alone(tmp_path):
    def grid(label):
        return Grid(
            name="chains",
            architectures=["EDSR"],
            scales=[4],
            bits=[3],
            share=0.5,
            overrides={"network": "edsr_baseline", "train": {"total_iter": 8}, "after": {"train": {"total_iter": 6}}},
            evaluation={
                "datasets": {
                    "test_1": {"name": "demo", "type": "PairedImageDataset", "dataroot_gt": "datasets/demo/test/HR"}
                }
            },
            methods=[{"label": label, "options": str(CHAIN)}],
        )

    *_, chained = plan(grid("2DQuant > ODM"), tmp_path)
    assert {"train:total_iter=4", "after:train:total_iter=3"} <= set(chained.train.overrides)
    assert chained.method == chained.published == chained.options.method_name == "2DQuant > ODM"
    with pytest.raises(OptionsError, match="as in '2DQuant.* > ODM'"):
        plan(grid("ODM"), tmp_path)
