"""Every recipe that trains, on a device that is not the CPU: a step waits for its loss, and for what is stated here."""

import pytest

from basicsr.training.host_waits import HostWaits
from basicsr.utils.options import load_options
from tests import tiny
from tests.devices.lane_of_steps import LOSS_OF_A_STEP, tiny_options, training, trainings
from tests.devices.second import SecondDevice, skipped
from tests.test_shipped_options import trained_by_recipe

pytestmark = skipped

DEPTHS = 3
LOSSES = {"QuantSR": DEPTHS}
"""How often a step looks at a loss, where that is more than once."""
OTHERS = {"QuantSR": "depth.py"}
"""What else it waits for, once: the host decides which blocks a network of fewer of them leaves out."""
AVERAGE = "quantization:activation_quantizer:average_bits=5"


def recipes():
    """Return what trains, each recipe once and in its own file, without those that the other lane takes."""
    found = {}
    for file, recipe in trained_by_recipe():
        takes_recipe = "{recipe}" in file.read_text(encoding="utf-8")
        changes = [f"recipe={recipe}"] if takes_recipe else []
        options = load_options(file, changes)
        if file.stem.startswith("train") and options.required_train().total_iter:
            found[recipe] = pytest.param(recipe, file, changes, id=recipe)
    found["CADyQ to a mean"] = pytest.param(
        "CADyQ", tiny.ROOT / "options/train/train_CADyQ.yml", [AVERAGE], id="CADyQ to a mean"
    )
    in_other_lane = {file.stem.removeprefix("demo_") for file in trainings()} - {"DDTB", "PAMS"}
    return [param for recipe, param in found.items() if recipe not in in_other_lane]


@pytest.mark.parametrize(("recipe", "file", "changes"), recipes())
def test_a_step_waits_for_its_loss_and_for_what_is_stated(recipe, file, changes, tmp_path):
    second = SecondDevice()
    raw = load_options(file, changes)
    layers = "train:feature_layers=[layers.0.residual_group, layers.1.residual_group]"
    named = raw.network_g["type"] == "SwinIR" and raw.required_train().model_extra.get("feature_layers")
    options = tiny_options(file, tmp_path, "train:total_iter=40", *changes, *([layers] if named else []))
    with second:
        _, step = training(options, second.device)
        step()
        with HostWaits() as looked_at:
            step()
    places = [wait.place for wait in looked_at.waits]
    losses = [place for place in places if LOSS_OF_A_STEP in place]
    others = [place for place in places if place not in losses]
    assert len(losses) <= LOSSES.get(recipe, 1), looked_at.by_place
    assert all(OTHERS.get(recipe, "nothing") in place for place in others), looked_at.by_place
    assert len(others) <= (recipe in OTHERS), looked_at.by_place


def test_the_recipes_that_read_most_are_among_them():
    assert {"CADyQ", "DDTB", "QuantSR", "SPR2Q", "OutlierAware"} <= {param.values[0] for param in recipes()}
