"""The recipe is what the options compute: marks on the options say what it leaves out."""

from pathlib import Path

import pytest

from basicsr.utils.errors import CheckpointError
from basicsr.utils.options import load_options
from basicsr.utils.recipe import recipe
from basicsr.utils.registry import ALL_REGISTRIES
from basicsr.utils.training_states import require_same
from tests import tiny

OPTIONS = tiny.ROOT / "options"
MOVED = [f"datasets:train:{key}=elsewhere" for key in ("name", "dataroot_gt", "dataroot_lq", "filename_tmpl")]
OWN_DATASET = """
from typing import Annotated

from basicsr.data.paired_image_dataset import PairedImageDataset
from basicsr.utils.registry import DATASET_REGISTRY
from basicsr.utils.signature import NOT_RECIPE


@DATASET_REGISTRY.register()
class ShiftedDataset(PairedImageDataset):
    def __init__(self, scale, phase, /, *, shift: int = 0, workers: Annotated[int, NOT_RECIPE] = 1, **others) -> None:
        super().__init__(scale, phase, **others)
"""


def recipe_of(file, *overrides):
    return recipe(load_options(OPTIONS / file, list(overrides)))


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("train/demo_2DQuant.yml", [*MOVED, "datasets:train:cache_budget_mb=3", "name=other", "val:val_freq=3"]),
        ("train/demo_2DQuant.yml", ["calibration:batch_size=3", "train:num_workers=0", "train:piece_minutes=3"]),
        ("train/demo_2DQuant.yml", ["train:data_in_memory=auto", "train:data_memory_mb=3"]),
        ("train/train_FP_cpu.yml", ["train:check_losses=true", "train:cuda_graphs=true", "train:compile=default"]),
        ("train/demo_BRECQ.yml", ["train:cache_budget_mb=3", "train:cache_folder=elsewhere"]),
    ],
)
def test_options_with_the_mark_may_differ(file, changes):
    assert recipe_of(file) == recipe_of(file, *changes)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ("bit=3", "bit"),
        ("manual_seed=3", "manual_seed"),
        ("train:batch_size=3", "train"),
        ("train:pixel_loss:loss_weight=3", "train"),
        ("datasets:train:lq_size=20", "datasets:train"),
        ("calibration:data=null", "calibration"),
        ("calibration:activations:search=joint", "calibration"),
        ("quantization:activation_quantizer:exact_zeros=true", "quantization"),
        ("network_g:embed_dim=30", "network_g"),
    ],
)
def test_all_others_are_the_recipe(change, key):
    before, after = recipe_of("train/demo_2DQuant.yml"), recipe_of("train/demo_2DQuant.yml", change)
    assert [name for name in before if before[name] != after[name]] == [key]


def test_a_component_of_ones_own_marks_its_options(tmp_path, monkeypatch):
    for registry in ALL_REGISTRIES:  # what a plugin brings is remembered as long as the process lives
        monkeypatch.setattr(registry, "_folders", list(registry._folders))
        monkeypatch.setattr(registry, "_components", dict(registry._components))
    (tmp_path / "shifted_dataset.py").write_text(OWN_DATASET, encoding="utf-8")
    data = "{type: ShiftedDataset, shift: 3, workers: 5}"
    options = load_options(OPTIONS / "train/demo_2DQuant.yml", [f"plugins=[{tmp_path}]", f"datasets:train={data}"])
    assert recipe(options)["datasets:train"] == {"type": "ShiftedDataset", "shift": 3}


def test_without_training_data_there_are_none():
    assert recipe_of("test/demo.yml")["datasets:train"] == {} and recipe_of("test/demo.yml")["train"] is None


def fails(*_):
    raise AssertionError("the length is the same")


def test_a_run_is_continued_on_its_calibration_set_only():
    options = load_options(OPTIONS / "train/demo_2DQuant.yml")
    first, other = ({"sha256": letter * 64, "source": f"{letter}.pth"} for letter in "ab")
    of_earlier_version = {"iter": 6, "recipe": recipe(options)}
    state = {**of_earlier_version, "calibration_set": first}
    for before, now in ((state, first), (state, None), (of_earlier_version, other)):
        require_same(before, options, now, Path("6.state"), fails)
    with pytest.raises(
        CheckpointError,
        match=r"6.state' was calibrated on another set: a.pth \(SHA-256 aaaaaaaaaaaa...\), and now it is b.pth",
    ):
        require_same(state, options, other, Path("6.state"), fails)
