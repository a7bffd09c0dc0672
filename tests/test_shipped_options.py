"""Every options file in the repository loads, and runs for two iterations or evaluates one picture."""

import pytest
import yaml

from basicsr import test as test_command
from basicsr import train as train_command
from basicsr.utils.options import load_options
from tests import tiny

TRAIN_FILES = sorted((tiny.ROOT / "options/train").glob("*.yml"))
TEST_FILES = sorted((tiny.ROOT / "options/test").glob("*.yml"))


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


def shorten(file, *more):
    """Return overrides that keep the recipe of a file and shrink network, data and length."""
    raw = load_options(file)
    changes = list(more)
    if raw.train.total_iter:
        changes += ["train:total_iter=2"]
    else:
        changes += ["train:total_iter=0"]
    if raw.train.model_extra.get("feature_layers"):
        changes += ["train:feature_layers=[layers.0.residual_group, layers.1.residual_group]"]
    changes += [f"datasets:{key}:dataroot_gt=absent" for key in raw.datasets_of("test")]
    return raw.scale, changes


@pytest.fixture(scope="module")
def quantized(tmp_path_factory):
    """Networks that the test files evaluate, by scale."""
    made = {}

    def make(scale):
        if scale not in made:
            folder = tmp_path_factory.mktemp(f"x{scale}")
            file = tiny.ROOT / f"options/train/train_2DQuant_x{scale}.yml"
            _, changes = shorten(file)
            arguments = tiny.train_overrides(folder, *changes, "train:total_iter=0", scale=scale)
            assert train_command.main(["-opt", str(file), "--root", str(folder), "--force_yml", *arguments]) == 0
            made[scale] = folder
        return made[scale]

    return make


@pytest.mark.parametrize("file", TRAIN_FILES, ids=name_of)
def test_training_files_run(file, tmp_path):
    scale, changes = shorten(file)
    arguments = tiny.train_overrides(tmp_path, *changes, scale=scale)
    assert train_command.main(["-opt", str(file), "--root", str(tmp_path), "--force_yml", *arguments]) == 0
    assert (tmp_path / "experiments/tiny/models/net_Q_latest.pth").exists()


@pytest.mark.parametrize("file", TEST_FILES, ids=name_of)
def test_test_files_run(file, tmp_path, quantized):
    options = load_options(file)
    folder = quantized(options.scale)
    first, *others = options.datasets_of("test")
    changes = [f"datasets:{key}:dataroot_gt=absent" for key in others]
    changes += [
        f"datasets:{first}:{key}"
        for key in (f"dataroot_gt={tiny.ROOT / 'datasets/demo/val/HR'}", "dataroot_lq=null", "num_images=1")
    ]
    if options.quantization:
        changes.append(f"path:pretrain_network_Q={folder}/experiments/tiny/models/net_Q_latest.pth")
    arguments = tiny.overrides(folder, "name=tiny_test", *changes, scale=options.scale)
    assert test_command.main(["-opt", str(file), "--root", str(tmp_path), "--force_yml", *arguments]) == 0
    assert (tmp_path / "results/tiny_test/metrics.json").exists()
