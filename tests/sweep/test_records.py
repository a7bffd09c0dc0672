"""What counts as finished: a record of the recipe that the grid has now, on all test sets that are on disk."""

import json

import pytest
import torch

from basicsr.data import calibration_crops
from basicsr.sweep.digests import absent_weights
from basicsr.sweep.grid import load_grid
from basicsr.sweep.plan import plan
from basicsr.sweep.records import (
    Places,
    activation_ranges,
    mark_beginning,
    may_continue,
    state_of,
    write_record,
)
from basicsr.utils.errors import CheckpointError, OptionsError
from basicsr.utils.experiment import Experiment
from basicsr.utils.files import write_json
from basicsr.utils.options import load_options, merge
from tests import tiny, tiny_grid

QUANTIZED = 3


@pytest.fixture
def places(tmp_path):
    return Places(tmp_path, tmp_path / "output", tmp_path / "logs")


def runs_of(folder, **changes):
    return plan(load_grid(tiny_grid.write(folder, **changes)), folder)


def finish(run, places, datasets=("demo",)):
    """Leave what the processes of a run leave, and its record."""
    means = {"psnr": 30.0, "ssim": 0.9, "fidelity": 50.0, "images": {"a": {"psnr": 30.0, "ssim": 0.9}}}
    write_json(places.results(run), {"datasets": dict.fromkeys(datasets, means)})
    return write_record(run, places)


def train(run, places):
    """Leave what training leaves, without training."""
    options = load_options(run.train.options_file, list(run.train.overrides))
    experiment = Experiment(options, places.root, False, "net_Q")
    experiment.record("calibrated", 0, "demo_val", {"psnr": 29.0}, 1.5)
    experiment.record("final", options.train.total_iter, "demo_val", {"psnr": 29.5}, 60.0)
    (experiment.models / "net_Q_latest.pth").touch()
    experiment.close()


def test_a_record_finishes_a_run(tmp_path, places):
    run = runs_of(tmp_path)[QUANTIZED]
    assert state_of(run, places) == ("unfinished", [])
    mark_beginning(run, places)
    train(run, places)
    record = finish(run, places)
    assert state_of(run, places) == ("finished", [])
    assert record["seconds"] == {"calibration": 1.5, "training": 60.0}
    assert (record["iterate"], record["iterations"], record["activation_ranges"]) == ("last", 6, "static")
    assert record["full_precision"]["sha256"] and record["options"]["quantization"]["coverage"] == "2dquant"


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"overrides": {"train": {"batch_size": 4}}}, "train:batch_size was 2, is now 4"),
        ({"evaluation": {"val": {"self_ensemble": True}}}, "val:self_ensemble was False, is now True"),
        ({"evaluation": {"datasets": {"test_1": {"num_images": 2}}}}, "test set demo:num_images was 1, is now 2"),
    ],
)
def test_another_recipe_is_noticed(tmp_path, places, changes, difference):
    run = runs_of(tmp_path)[QUANTIZED]
    finish(run, places)
    content = tiny_grid.grid(tmp_path)
    for key, change in changes.items():
        content[key] = merge(content[key], change)
    changed = runs_of(tmp_path, **content)[QUANTIZED]
    assert state_of(changed, places) == ("changed", [difference])


def test_what_does_not_change_results_is_passed_over(tmp_path, places):
    finish(runs_of(tmp_path)[QUANTIZED], places)
    overrides = merge(
        tiny_grid.grid(tmp_path)["overrides"],
        {"num_threads": 2, "train": {"num_workers": 1}, "logger": {"print_freq": 3}, "calibration": {"batch_size": 1}},
    )
    assert state_of(runs_of(tmp_path, overrides=overrides)[QUANTIZED], places) == ("finished", [])


def test_full_precision_does_not_depend_on_the_recipes_of_methods(tmp_path, places):
    full = runs_of(tmp_path)[1]
    finish(full, places)
    overrides = merge(tiny_grid.grid(tmp_path)["overrides"], {"train": {"batch_size": 4}})
    assert state_of(runs_of(tmp_path, overrides=overrides)[1], places)[0] == "finished"


def test_other_weights_under_the_same_name_are_noticed(tmp_path, places):
    run = runs_of(tmp_path)[QUANTIZED]
    mark_beginning(run, places)
    train(run, places)
    record = finish(run, places)
    weights = tmp_path / "fp_x4.pth"
    known = weights.read_bytes()
    weights.unlink()
    assert state_of(run, places)[0] == "finished"  # where the weights are absent, there is nothing to compare
    weights.write_bytes(known + b"0")
    state, (difference,) = state_of(run, places)
    assert state == "changed" and "fp_x4.pth' are others" in difference and record["full_precision"]["sha256"]
    assert not may_continue(run, places)


def test_a_benchmark_that_has_come_since_is_measured(tmp_path, places):
    later = {"name": "later", "type": "PairedImageDataset", "dataroot_gt": str(tmp_path / "later")}
    evaluation = merge(tiny_grid.grid(tmp_path)["evaluation"], {"datasets": {"test_2": later}})
    run = runs_of(tmp_path, evaluation=evaluation)[QUANTIZED]
    finish(run, places)
    assert state_of(run, places)[0] == "finished"
    (tmp_path / "later").mkdir()
    assert state_of(run, places) == ("unfinished", ["not yet measured on later"])


METRICS = {"psnr": {"type": "calculate_psnr"}, "psnr_rgb": {"type": "calculate_psnr", "test_y_channel": False}}


def with_metrics(folder, metrics):
    evaluation = merge(tiny_grid.grid(folder)["evaluation"], {"val": {"metrics": metrics}})
    return runs_of(folder, evaluation=evaluation)[QUANTIZED]


def test_a_metric_that_has_come_since_is_measured(tmp_path, places):
    finish(runs_of(tmp_path)[QUANTIZED], places)
    assert state_of(with_metrics(tmp_path, METRICS), places) == ("unfinished", ["not yet measured by psnr_rgb"])
    assert state_of(with_metrics(tmp_path, {"psnr": METRICS["psnr"]}), places) == ("finished", [])


def test_another_definition_of_a_metric_is_noticed(tmp_path, places):
    finish(runs_of(tmp_path)[QUANTIZED], places)
    state, differences = state_of(with_metrics(tmp_path, {"psnr": METRICS["psnr_rgb"]}), places)
    assert (state, differences) == ("changed", ["metric:psnr:test_y_channel was True, is now False"])


def test_options_that_are_new_in_the_code_do_not_matter(tmp_path, places):
    run = runs_of(tmp_path)[QUANTIZED]
    record = finish(run, places)
    del record["options"]["calibration"]["batch_size"], record["options"]["quantization"]["weight_granularity"]
    write_json(places.record(run), record)
    assert state_of(run, places)[0] == "finished"
    record["options"]["an_option_of_old"] = 1
    write_json(places.record(run), record)
    state, (difference,) = state_of(run, places)
    assert state == "changed" and "cannot be read any more" in difference


def test_a_damaged_record_is_named(tmp_path, places):
    run = runs_of(tmp_path)[QUANTIZED]
    places.record(run).parent.mkdir(parents=True)
    places.record(run).write_text("{")
    with pytest.raises(CheckpointError, match=f"{run.name}.json"):
        state_of(run, places)


def test_a_run_without_results_has_no_record(tmp_path, places):
    with pytest.raises(CheckpointError, match="is missing although"):
        write_record(runs_of(tmp_path)[QUANTIZED], places)


def test_training_continues_with_its_own_recipe_only(tmp_path, places):
    run = runs_of(tmp_path)[QUANTIZED]
    train(run, places)
    assert not may_continue(run, places)  # begun by something else than the sweep
    mark_beginning(run, places)
    assert may_continue(run, places)
    overrides = merge(tiny_grid.grid(tmp_path)["overrides"], {"train": {"batch_size": 4}})
    assert not may_continue(runs_of(tmp_path, overrides=overrides)[QUANTIZED], places)
    beginning = json.loads(places.beginning(run).read_text())
    write_json(places.beginning(run), {**beginning, "full_precision": "0" * 64})
    assert not may_continue(run, places)


@pytest.mark.slow
def test_squared_errors_are_geometric_means_of_weights_and_of_activations(tmp_path, places):
    run = runs_of(tmp_path)[QUANTIZED]
    train(run, places)
    errors = {"a.weight_quantizer": 1e-6, "b.weight_quantizer": 1e-4, "a.act_quantizer": 0.5, "b.act_quantizer": None}
    report = [{"name": name, "mean_squared_error": error} for name, error in errors.items()]
    write_json(places.experiment(run) / "calibration.json", report)
    assert finish(run, places)["squared_error"] == pytest.approx({"weights": 1e-5, "activations": 0.5})


def test_a_record_knows_the_share_of_the_iterations(tmp_path, places):
    calibrated, trained = (finish(run, places) for run in runs_of(tmp_path, share=0.5)[2:])
    assert (trained["iterations"], trained["share"]) == (3, 0.5)
    assert (calibrated["iterations"], calibrated["share"]) == (0, None)


def test_weights_that_are_absent_are_named(tmp_path):
    bicubic, full, *quantized = runs_of(tmp_path)
    assert [absent_weights(run) for run in (bicubic, full, *quantized)] == [None] * 4
    weights = tmp_path / "fp_x4.pth"
    weights.unlink()
    assert [absent_weights(run) for run in (bicubic, full, *quantized)] == [None] + [str(weights)] * 3


def test_ranges_are_those_of_the_quantizer():
    options = load_options(tiny.TRAIN)
    assert activation_ranges(options) == "static"
    assert activation_ranges(load_options(tiny.TRAIN, ["quantization=null"])) is None


def test_the_calibration_set_belongs_to_a_record(tmp_path, places):
    file = tmp_path / "crops.pth"
    torch.save(torch.rand(2, 3, 8, 8), file)
    overrides = merge(tiny_grid.grid(tmp_path)["overrides"], {"calibration": {"data": str(file)}})
    run = runs_of(tmp_path, overrides=overrides)[QUANTIZED]
    mark_beginning(run, places)
    train(run, places)
    crops = calibration_crops(run.options.calibration, None, 4, 0)
    write_json(places.experiment(run) / "calibration_set.json", crops.identity())
    assert finish(run, places)["calibration_set"]["sha256"] == crops.identity()["sha256"]
    assert state_of(run, places) == ("finished", []) and may_continue(run, places)
    torch.save(torch.rand(2, 3, 8, 8), file)
    assert state_of(run, places) == ("changed", [f"the calibration set '{file}' is another than {file}"])
    assert not may_continue(run, places)


def test_what_was_begun_before_sets_were_marked_may_be_continued(tmp_path, places):
    run = runs_of(tmp_path)[QUANTIZED]
    mark_beginning(run, places)
    train(run, places)
    marked = json.loads(places.beginning(run).read_text())
    write_json(places.beginning(run), {"full_precision": marked["full_precision"]})
    assert may_continue(run, places)
    write_json(places.beginning(run), {"full_precision": "another"})
    assert not may_continue(run, places)


def test_a_record_knows_the_network_that_a_run_started_from(tmp_path, places):
    start = tmp_path / "start.pth"
    start.write_bytes(b"one network")
    method = {
        "options": f"{tiny_grid.OPTIONS}/demo_2DQuant.yml",
        "overrides": {"path": {"pretrain_network_Q": str(start)}},
    }
    with pytest.raises(OptionsError, match="as in 'START > 2DQuant'"):
        runs_of(tmp_path, methods=[{"label": "2DQuant", **method}])
    methods = [{"label": "DOBI > 2DQuant", **method}]
    run = runs_of(tmp_path, methods=methods)[-1]
    mark_beginning(run, places)
    train(run, places)
    record = finish(run, places)
    assert record["start"]["file"] == str(start) and len(record["start"]["sha256"]) == 64
    assert state_of(run, places)[0] == "finished" and may_continue(run, places)
    start.write_bytes(b"another network")
    assert state_of(run, places) == ("changed", [f"the quantized network that it starts from, {start}, is another one"])
    assert not may_continue(run, places)
    alone = runs_of(tmp_path, methods=[{"label": "DOBI > 2DQuant", "options": method["options"]}])[-1]
    assert state_of(alone, places) == ("changed", ["the quantized network that it starts from, none, is another one"])
