"""Every options file in the repository loads, and runs for two iterations or evaluates one picture."""

import re

import pytest
import yaml

from basicsr import test as test_command
from basicsr import train as train_command
from basicsr.utils.options import load_options
from tests import tiny

TRAIN_FILES = sorted((tiny.ROOT / "options/train").glob("*.yml"))
TEST_FILES = sorted((tiny.ROOT / "options/test").glob("*.yml"))
NETWORK_FILES = sorted(f for f in (tiny.ROOT / "options/base").glob("*.yml") if "\nnetwork_g:" in f.read_text())


def name_of(file):
    return file.stem


@pytest.mark.parametrize("file", TRAIN_FILES + TEST_FILES, ids=name_of)
def test_it_loads_and_is_called_by_its_file(file):
    options = load_options(file)
    assert (options.train is not None) == (file.parent.name == "train")
    text = yaml.safe_load(file.read_text())
    assert f"_x{text['scale']}" in file.stem and "{scale}" in text["name"]
    for folder in options.datasets.values():
        assert "{" not in folder["dataroot_gt"]


@pytest.mark.parametrize("file", NETWORK_FILES, ids=name_of)
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_networks_fit_every_scale(file, scale, tmp_path):
    whole = tmp_path / "whole.yml"
    whole.write_text(f"base: [{file}, {file.parent / 'benchmarks.yml'}]\nname: network\nscale: {scale}\n")
    options = load_options(whole)
    assert f"_x{scale}." in options.path.pretrain_network_FP and options.network_g["upscale"] == scale


def shorten(file, *more):
    """Return overrides that keep the recipe of a file and shrink network, data and length."""
    raw = load_options(file)
    changes = list(more)
    if raw.model_type == "ReconstructionModel":
        changes += ["train:total_iter=4"]  # one for each block
    elif raw.train.total_iter:
        changes += ["train:total_iter=2"]
    else:
        changes += ["train:total_iter=0"]
    extras = raw.train.model_extra
    if raw.network_g["type"] == "SwinIR" and extras.get("feature_layers"):
        changes += ["train:feature_layers=[layers.0.residual_group, layers.1.residual_group]"]
    if "compile" in extras:  # takes a minute
        changes += ["train:compile=none"]
    changes += [f"datasets:{key}:dataroot_gt=absent" for key in raw.datasets_of("test")]
    optimizers = [key for key in extras if key.startswith("optim_")]
    return {"scale": raw.scale, "architecture": raw.network_g["type"], "optimizers": optimizers}, changes


@pytest.fixture(scope="module")
def quantized(tmp_path_factory):
    """Networks that the test files evaluate, by architecture and scale."""
    made = {}

    def make(architecture, scale):
        if (architecture, scale) not in made:
            folder = tmp_path_factory.mktemp(f"{architecture}_x{scale}")
            name = "2DQuant" if architecture == "SwinIR" else f"{architecture}_2DQuant"
            file = tiny.ROOT / f"options/train/train_{name}_x{scale}.yml"
            network, changes = shorten(file)
            arguments = tiny.train_overrides(folder, *changes, "train:total_iter=0", **network)
            assert train_command.main(["-opt", str(file), "--root", str(folder), "--force_yml", *arguments]) == 0
            made[architecture, scale] = folder
        return made[architecture, scale]

    return make


@pytest.mark.parametrize("file", TRAIN_FILES, ids=name_of)
def test_training_files_run(file, tmp_path):
    network, changes = shorten(file)
    start = load_options(file).path.pretrain_network_g
    if start:  # a network of the scale that the recipe starts from
        scale = int(re.search(r"_x(\d)\.", start).group(1))
        changes.append(
            f"path:pretrain_network_g={tiny.save_network(tmp_path / 'start.pth', scale, network['architecture'])}"
        )
    arguments = tiny.train_overrides(tmp_path, *changes, **network)
    assert train_command.main(["-opt", str(file), "--root", str(tmp_path), "--force_yml", *arguments]) == 0
    label = "net_Q" if load_options(file).quantization else "net_g"
    assert (tmp_path / f"experiments/tiny/models/{label}_latest.pth").exists()


@pytest.mark.parametrize("file", TEST_FILES, ids=name_of)
def test_test_files_run(file, tmp_path, quantized):
    options = load_options(file)
    architecture = options.network_g["type"]
    folder = quantized(architecture, options.scale) if options.quantization else tmp_path
    first, *others = options.datasets_of("test")
    changes = [f"datasets:{key}:dataroot_gt=absent" for key in others]
    changes += [
        f"datasets:{first}:{key}"
        for key in (f"dataroot_gt={tiny.ROOT / 'datasets/demo/val/HR'}", "dataroot_lq=null", "num_images=1")
    ]
    if options.quantization:
        changes.append(f"path:pretrain_network_Q={folder}/experiments/tiny/models/net_Q_latest.pth")
    arguments = tiny.overrides(folder, "name=tiny_test", *changes, scale=options.scale, architecture=architecture)
    assert test_command.main(["-opt", str(file), "--root", str(tmp_path), "--force_yml", *arguments]) == 0
    assert (tmp_path / "results/tiny_test/metrics.json").exists()
