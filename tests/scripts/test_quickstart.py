"""scripts/quickstart.sh to its last line, on small pictures and with two iterations."""

import json
import os

import cv2
import pytest
import yaml

from basicsr.utils.options import load_options
from tests import tiny
from tests.scripts.checkouts import checkout_with_environment, run_script

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory):
    """A checkout with corners of the demo pictures and one crop to calibrate on, and what the shortened quickstart returned in it."""
    folder = checkout_with_environment(tmp_path_factory.mktemp("quickstart"), "requirements.txt")
    (folder / "keydata").unlink()
    (folder / "keydata").mkdir()
    crops = json.loads((tiny.ROOT / "keydata/demo_x4.json").read_text())
    (folder / "keydata/demo_x4.json").write_text(json.dumps({**crops, "items": crops["items"][:1]}))
    (folder / "experiments").mkdir()
    os.symlink(tiny.ROOT / "experiments/pretrained_models", folder / "experiments/pretrained_models")
    (folder / "datasets/demo/train").mkdir(parents=True)
    os.symlink(tiny.ROOT / "datasets/demo/train/HR", folder / "datasets/demo/train/HR")
    for part in ("test", "val"):
        (folder / f"datasets/demo/{part}/HR").mkdir(parents=True)
        for file in sorted((tiny.ROOT / f"datasets/demo/{part}/HR").iterdir())[:2]:
            cv2.imwrite(str(folder / f"datasets/demo/{part}/HR/{file.name}"), cv2.imread(str(file))[:72, :72])
    return folder, run_script(folder, "scripts/quickstart.sh", BIT="3", ITERATIONS="2")


def test_it_ends_with_the_table_and_the_picture(quickstart):
    folder, done = quickstart
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    table = (folder / "results/quickstart_bit3/table.md").read_text(encoding="utf-8")
    rows = table.splitlines()[2:]
    assert done.stdout.endswith(
        f"\n{table}\nPage for the browser:  results/quickstart_bit3/report.html\n"
        "Crops side by side:    results/quickstart_bit3/comparison.png\n"
    )
    methods = [row.split("|")[1].strip() for row in rows]
    assert len(methods) == 4 and methods[1:] == ["MinMax", "DOBI", "2DQuant revised"]
    assert [row.split("|")[2].strip() for row in rows] == ["32/32", "3/3", "3/3", "3/3"]
    picture = cv2.imread(str(folder / "results/quickstart_bit3/comparison.png"))
    assert picture is not None and picture.shape[1] > 5 * 64  # HR, bicubic and four networks


def test_only_the_number_of_iterations_is_changed(quickstart):
    folder, _ = quickstart
    for method in ("MinMax", "DOBI", "2DQuant"):
        file = folder / f"experiments/demo_{method}_x4_bit3/options.yml"
        ran = yaml.safe_load(file.read_text())
        whole = load_options(tiny.ROOT / f"options/train/demo_{method}.yml", ["bit=3"]).model_dump(mode="json")
        assert ran["train"].pop("total_iter") == (2 if method == "2DQuant" else 0)
        whole["train"].pop("total_iter")
        for section in ("network_g", "datasets", "quantization", "calibration", "train", "val", "path"):
            assert ran[section] == whole[section], f"{method}, {section}"
