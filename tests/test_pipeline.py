"""The whole way from options to results, in one process, on a tiny network."""

import json
import time

import pytest
import torch
import yaml

from basicsr import pipeline
from basicsr import test as test_command
from basicsr import train as train_command
from basicsr.models.ptq_model import PTQModel
from basicsr.training.chosen_bits import with_chosen_bits
from tests import tiny

pytestmark = [pytest.mark.slow, pytest.mark.reports]

DEMO_TEST = tiny.ROOT / "datasets/demo/test/HR"


def train(folder, *more, opt=tiny.TRAIN):
    arguments = ["-opt", str(opt), "--root", str(folder), "--force_yml", *tiny.train_overrides(folder, *more)]
    return train_command.main(arguments)


def evaluate(folder, *more, opt=tiny.TEST):
    changes = ["name=tiny_test", f"datasets:test_1:dataroot_gt={DEMO_TEST}", "datasets:test_1:num_images=2"]
    changes.append(f"path:pretrain_network_Q={folder}/experiments/tiny/models/net_Q_latest.pth")
    arguments = ["-opt", str(opt), "--root", str(folder), "--force_yml", *tiny.overrides(folder, *changes, *more)]
    return test_command.main(arguments)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    assert train(folder, "logger:use_tb_logger=true") == 0
    return folder


def test_a_run_leaves_what_the_readme_says(finished):
    experiment = finished / "experiments/tiny"
    assert {f.name for f in (experiment / "models").iterdir()} == {
        *(f"net_Q_{label}.pth" for label in (2, 4, 6, "latest", "best"))
    }
    assert {f.name for f in (experiment / "training_states").iterdir()} == {"2.state", "4.state", "6.state"}
    assert list(experiment.glob("train_tiny_*.log"))
    assert list((finished / "tb_logger/tiny").iterdir())
    options = yaml.safe_load((experiment / "options.yml").read_text())
    assert options["train"]["optim_bound"]["lr"] == 0.001 and {"version", "commit", "command"} <= set(
        options["provenance"]
    )
    quantization_map = json.loads((experiment / "quantization_map.json").read_text())
    assert sum(len(module["quantizers"]) for module in quantization_map["modules"]) == tiny.NUM_QUANTIZERS
    report = json.loads((experiment / "calibration.json").read_text())
    assert len(report) == tiny.NUM_QUANTIZERS and all(row["lower_bound"] < row["upper_bound"] for row in report)


def test_metrics_have_the_specified_lines(finished):
    lines = [json.loads(line) for line in (finished / "experiments/tiny/metrics.jsonl").read_text().splitlines()]
    assert [(line["stage"], line["iter"]) for line in lines] == [
        ("fp", 0), ("calibrated", 0), ("train", 2), ("train", 4), ("train", 6), ("final", 6),
    ]  # fmt: skip
    assert all(set(line) == {"stage", "iter", "dataset", "psnr", "ssim", "fidelity", "seconds"} for line in lines)
    assert lines[0]["fidelity"] is None and all(line["fidelity"] > 20 for line in lines[1:])
    assert lines[-1]["psnr"] == lines[-2]["psnr"]


def test_the_choice_of_bits_counts_as_calibration(tmp_path, monkeypatch):
    def slowly(*arguments):
        time.sleep(3)
        return with_chosen_bits(*arguments)

    monkeypatch.setattr(pipeline, "with_chosen_bits", slowly)
    assert train(tmp_path, "quantization:average_bits=2", "bit=2", "train:total_iter=0") == 0
    lines = [json.loads(line) for line in (tmp_path / "experiments/tiny/metrics.jsonl").read_text().splitlines()]
    assert [line["seconds"] >= 3 for line in lines if line["stage"] == "calibrated"] == [True]


def test_debug_is_a_quick_look_under_another_name(finished):
    changes = tiny.train_overrides(finished, "train:total_iter=100")
    arguments = ["-opt", str(tiny.TRAIN), "--root", str(finished), "--debug", "--force_yml", *changes]
    assert train_command.main(arguments) == 0
    assert (finished / "experiments/debug_tiny/models/net_Q_4.pth").exists()


def test_training_moves_bounds_only(finished):
    first, last = (
        torch.load(finished / f"experiments/tiny/models/net_Q_{label}.pth", weights_only=True)["params"]
        for label in (2, 6)
    )
    changed = {key for key in first if not torch.equal(first[key], last[key])}
    assert changed and all(key.endswith(("lower_bound", "upper_bound")) for key in changed)


def test_distillation_improves_fidelity_on_other_pictures(tmp_path):
    changes = ["bit=2", "calibration:activations:type=MinMax", "calibration:weights:type=MinMax", "train:total_iter=40"]
    assert train(tmp_path, *changes, "train:optim_bound:lr=1e-2", "val:val_freq=40", opt=tiny.TRAIN) == 0
    lines = [json.loads(line) for line in (tmp_path / "experiments/tiny/metrics.jsonl").read_text().splitlines()]
    fidelity = {line["stage"]: line["fidelity"] for line in lines}
    assert fidelity["final"] > fidelity["calibrated"] + 1


def test_training_can_start_from_a_quantized_network(finished, tmp_path):
    start = finished / "experiments/tiny/models/net_Q_best.pth"
    weights = finished / "fp_x4.pth"
    changes = [f"path:pretrain_network_Q={start}", f"path:pretrain_network_FP={weights}", "train:total_iter=0"]
    assert train(tmp_path, *changes) == 0
    networks = [
        torch.load(f, weights_only=True)["params"]
        for f in (start, tmp_path / "experiments/tiny/models/net_Q_latest.pth")
    ]
    assert all(torch.equal(networks[0][key], networks[1][key]) for key in networks[0])


def test_an_evaluation_writes_means_and_images(finished):
    assert evaluate(finished) == 0
    result = json.loads((finished / "results/tiny_test/metrics.json").read_text())
    assert (result["network"], result["method"], result["scale"]) == ("SwinIR", "2DQuant revised", 4)
    assert (result["w_bits"], result["a_bits"], result["activation_ranges"]) == (4, 4, "static")
    demo = result["datasets"]["demo"]
    assert len(demo["images"]) == 2
    assert demo["psnr"] == pytest.approx(sum(image["psnr"] for image in demo["images"].values()) / 2, abs=1e-3)
    assert len(list((finished / "results/tiny_test/visualization/demo").glob("*.png"))) == 2


def test_runs_leave_reports_losses_and_activations(finished):
    experiment = finished / "experiments/tiny"
    lines = [json.loads(line) for line in (experiment / "losses.jsonl").read_text().splitlines()]
    assert [line["iter"] for line in lines] == [2, 4, 6]
    assert all(line["lr"] >= 0 and max(line["losses"].values()) > 0 for line in lines)
    page = (experiment / "report.html").read_text()
    assert "2DQuant revised 4/4" in page and "Losses" in page and "train:total_iter: 6" in page
    assert evaluate(finished, "name=reported") == 0
    folder = finished / "results/reported"
    content = json.loads((folder / "activations.json").read_text())
    inputs = tiny.NUM_QUANTIZERS - 4 * 6  # all but the weights of q, k, v, the projection and both layers of the MLP
    assert len(content["quantizers"]) == inputs and len(content["histograms"]) == 12
    page = (folder / "report.html").read_text()
    assert all(name in page for name in list(content["histograms"])[:6]) and "Losses" in page
    assert evaluate(finished, "name=reported", "val:histograms=false") == 0
    assert not (folder / "activations.json").exists() and "No histograms" in (folder / "report.html").read_text()


def test_a_report_that_fails_is_told_and_costs_nothing(finished, monkeypatch, capsys):
    monkeypatch.setattr("basicsr.reporting.page.render", lambda *_: 1 / 0)
    assert evaluate(finished, "name=unreported", "val:save_img=false") == 0
    assert "could not be made: division by zero." in capsys.readouterr().err
    assert (finished / "results/unreported/metrics.json").exists()
    assert not (finished / "results/unreported/report.html").exists()


def test_dfsq_runs_and_says_that_its_ranges_are_dynamic(tmp_path):
    dfsq = ["quantization:activation_quantizer={type: Subset}", "quantization:activation_granularity=per_channel"]
    calibrators = ["calibration:activations={type: DFSQ, word_sets: 3}", "calibration:weights={type: MinMax}"]
    assert train(tmp_path, *dfsq, *calibrators, "calibration:by_output=[]", "train:total_iter=0") == 0
    written = json.loads((tmp_path / "experiments/tiny/quantization_map.json").read_text())
    assert written["activation_ranges"] == "dynamic"
    assert evaluate(tmp_path, *dfsq) == 0
    result = json.loads((tmp_path / "results/tiny_test/metrics.json").read_text())
    assert result["activation_ranges"] == "dynamic"
    activations = json.loads((tmp_path / "results/tiny_test/activations.json").read_text())
    assert all(one["bounds"] is None for one in activations["quantizers"])
    assert ", dynamic" in (tmp_path / "results/tiny_test/report.html").read_text()
    lines = [json.loads(line) for line in (tmp_path / "experiments/tiny/metrics.jsonl").read_text().splitlines()]
    assert 15 < next(line["fidelity"] for line in lines if line["stage"] == "calibrated") < 100


def test_a_checkpoint_with_other_weights_leaves_the_full_precision_network_alone(finished, tmp_path):
    checkpoint = torch.load(finished / "experiments/tiny/models/net_Q_latest.pth", weights_only=True)
    checkpoint["params"]["conv_first.weight"] += 0.05
    torch.save(checkpoint, tmp_path / "other.pth")
    values = []
    for path in (finished / "experiments/tiny/models/net_Q_latest.pth", tmp_path / "other.pth"):
        assert evaluate(finished, f"path:pretrain_network_Q={path}", "name=weights") == 0
        values.append(
            json.loads((finished / "results/weights/metrics.json").read_text())["datasets"]["demo"]["fidelity"]
        )
    assert values[1] < values[0] - 3


def test_an_evaluation_does_not_depend_on_batching(finished):
    values = []
    for size in (1, 2):
        assert evaluate(finished, f"val:batch_size={size}", f"name=batch{size}") == 0
        values.append(
            json.loads((finished / f"results/batch{size}/metrics.json").read_text())["datasets"]["demo"]["psnr"]
        )
    assert values[0] == pytest.approx(values[1], abs=1e-3)


@pytest.mark.parametrize("variant", ["_as_published", "_as_released"])
def test_the_other_recipes_train(tmp_path, variant):
    opt = tiny.ROOT / "options/train/train_2DQuant.yml"
    layers = ["train:feature_layers=[layers.0.residual_group]"] if variant == "_as_released" else []
    changes = ["train:total_iter=2", "datasets:test_1:dataroot_gt=absent", f"recipe=2DQuant{variant}"]
    assert train(tmp_path, *changes, *layers, opt=opt) == 0


def test_accumulation_gives_the_same_step(tmp_path):
    results = []
    for steps in (1, 2):
        folder = tmp_path / str(steps)
        folder.mkdir()
        assert train(folder, "train:total_iter=2", f"train:accumulation_steps={steps}") == 0
        results.append(torch.load(folder / "experiments/tiny/models/net_Q_2.pth", weights_only=True)["params"])
    for key, value in results[0].items():
        torch.testing.assert_close(value, results[1][key], rtol=1e-3, atol=1e-5)


BAD_RUNS = {
    "missing training folder": (["datasets:train:dataroot_gt=absent"], "absent"),
    "missing weights": (
        ["path:pretrain_network_FP=absent.pth"],
        "'absent.pth' of option 'path:pretrain_network_FP' does not exist",
    ),
    "no weights": (["path:pretrain_network_FP=null"], "pretrain_network_FP"),
    "missing calibration set": (["calibration:data=absent.json"], "absent.json"),
    "coverage": (["quantization:coverage=body"], "body"),
    "unknown coverage": (["quantization:coverage=2dquamt"], "2dquant"),
    "override that matches nothing": (["quantization:overrides=[{match: 'layer.*', w_bits: 8}]"], "layer.*"),
    "no loss": (["train:pixel_loss=null", "train:feature_loss=null"], "at least one"),
    "unknown feature layer": (["train:feature_layers=[layers.9]"], "layers.9"),
    "no quantization": (["quantization=null"], "quantization"),
    "no bits": (["bit=null"], "bit"),
    "crops larger than the images": (["datasets:train:lq_size=128"], "lq_size 128"),
    "bad optimiser": (["train:optim_bound:type=Adamm"], "Did you mean 'Adam'"),
    "bad learning rate": (["train:optim_bound:lr=fast"], "'train:optim_bound:lr' has the value 'fast'"),
    "bad optimiser option": (["train:optim_bound:lr_=1"], "Did you mean 'lr'"),
    "resume state that is a network": (["path:resume_state={folder}/fp_x4.pth"], "no training state"),
}


@pytest.mark.parametrize("name", BAD_RUNS)
def test_what_a_user_gets_wrong_is_said_in_a_sentence(tmp_path, capfd, name):
    changes, message = BAD_RUNS[name]
    assert train(tmp_path, *(change.replace("{folder}", str(tmp_path)) for change in changes)) == 2
    error = capfd.readouterr().err
    assert message in error and "Traceback" not in error


@pytest.mark.parametrize("what", ["loss", "bound"])
def test_a_run_that_diverges_keeps_the_last_good_checkpoint(tmp_path, capfd, monkeypatch, what):
    step = PTQModel.optimize_parameters

    def diverging(self, batch):
        losses = step(self, batch)
        if self.scheduler.last_epoch == 4 and what == "loss":
            losses["l_pix"] = losses["l_pix"] * float("nan")
        if self.scheduler.last_epoch == 4 and what == "bound":
            self.parameters[3].data.fill_(float("inf"))
        return losses

    monkeypatch.setattr(PTQModel, "optimize_parameters", diverging)
    assert train(tmp_path, "logger:save_checkpoint_freq=1", "val:val_freq=100") == 2
    error = capfd.readouterr().err
    assert {"loss": "'l_pix' is nan at iteration 4", "bound": "upper_bound"}[what] in error
    states = {file.name for file in (tmp_path / "experiments/tiny/training_states").glob("*.state")}
    assert states == {"1.state", "2.state", "3.state"}


def test_weights_of_another_scale_are_explained(tmp_path, capfd):
    weights = tiny.save_network(tmp_path / "x2.pth", scale=2)
    assert train(tmp_path, f"path:pretrain_network_FP={weights}") == 2
    assert "x2" in capfd.readouterr().err


def test_a_folder_without_permission_or_space(tmp_path, capfd):
    (tmp_path / "experiments").write_text("a file where a folder should be")
    assert train(tmp_path) == 2
    assert "cannot be set up" in capfd.readouterr().err


def test_checkpoints_of_other_bits_are_refused(finished, capfd):
    assert evaluate(finished, "bit=3") == 2
    assert "4 bits" in capfd.readouterr().err


def test_no_benchmark_on_disk(finished, capfd):
    assert evaluate(finished, "datasets:test_1:dataroot_gt=absent") == 2
    assert "None of the benchmarks is on disk" in capfd.readouterr().err


def test_missing_quantized_network(finished, capfd):
    assert evaluate(finished, "path:pretrain_network_Q=null") == 2
    assert "pretrain_network_Q" in capfd.readouterr().err
