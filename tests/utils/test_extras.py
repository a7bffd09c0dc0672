"""Every package that only some runs need, hidden: told before any work, with what installs it and what does without it."""

import ast
import importlib.util
import sys

import pytest

from basicsr import pipeline
from basicsr import report as report_command
from basicsr import test as test_command
from basicsr import train as train_command
from basicsr.deploy import exporting
from basicsr.deploy.exporting import ExportOptions, export
from basicsr.deploy.upscaling import load_for_runtime
from basicsr.sweep import command_work as sweep_work
from basicsr.sweep.command import main as sweep
from basicsr.utils.errors import OptionsError
from basicsr.utils.extras import EXTRAS, require, usable
from basicsr.utils.logger import warn_once
from basicsr.utils.options import load_options
from tests import tiny, tiny_grid

pytestmark = pytest.mark.reports
OURS = ("basicsr.reporting.", "basicsr.training.diagnostic_figures", "torch.utils.tensorboard")
SIDE_PRODUCTS = ("tensorboard", "matplotlib", "jinja2")


@pytest.fixture
def hide(monkeypatch):
    """Makes a package impossible to import, also for modules of ours that have it already; those are back afterwards."""

    def hidden(package):
        loaded = dict(sys.modules)
        for name in loaded:
            ours = name.startswith(OURS) and name not in ("basicsr.reporting.attempt", "basicsr.reporting.entries")
            if ours:  # a package keeps its modules as attributes, too
                parent, _, child = name.rpartition(".")
                monkeypatch.delattr(loaded[parent], child, raising=False)
            if name.startswith(f"{package}.") or ours:
                monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, package, None)
        warn_once.cache_clear()

    return hidden


def told(package):
    extra = EXTRAS[package]
    return f"'{package}' is needed for {extra.purpose} and is not installed: `pip install {extra.install}` installs it. {extra.without}"


@pytest.mark.parametrize("package", EXTRAS)
def test_each_package_is_named_with_its_remedies(hide, package):
    hide(package)
    with pytest.raises(OptionsError) as error:
        require(f"{package}.part")
    assert told(package) in str(error.value)
    assert not usable([package])


def test_a_package_that_is_broken_is_not_called_absent(monkeypatch, tmp_path):
    (tmp_path / "onnxruntime.py").write_text("raise AttributeError('_ARRAY_API not found')")
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        OptionsError, match=r"cannot be imported \(AttributeError: _ARRAY_API not found\): `pip install"
    ):
        require("onnxruntime")


def test_the_table_names_all_that_is_imported_late():
    """A package that is none of the dependencies, or that is imported inside of a function, is in the table."""
    always = {"torch", "numpy", "cv2", "PIL", "yaml", "pydantic", "safetensors", "filelock", "tqdm", "basicsr"}
    found = set()
    for file in (tiny.ROOT / "basicsr").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found |= {name.partition(".")[0] for name in names}
    assert found - always - set(sys.stdlib_module_names) - set(EXTRAS) == set()


def fails(*_arguments, **_more):
    raise AssertionError("the work has begun")


@pytest.mark.slow
@pytest.mark.parametrize("package", SIDE_PRODUCTS)
def test_a_training_goes_on_without_what_only_shows_it(hide, tmp_path, capfd, package):
    opt = tiny.ROOT / "options/train/demo_QAT.yml"
    short = ["train:total_iter=1", "logger:use_tb_logger=true", "train:diagnostics_freq=1", "val:full_precision=false"]
    overrides = tiny.train_overrides(tmp_path, *short, architecture="EDSR", optimizers=("optim_g",))
    hide(package)
    assert train_command.main(["-opt", str(opt), "--root", str(tmp_path), "--force_yml", *overrides]) == 0
    error = capfd.readouterr().err
    assert error.count(told(package)) == 1 and "Traceback" not in error
    assert error.index(told(package)) < error.index("iteration 1/1"), "told after the work"
    folder = tmp_path / "experiments/tiny"
    assert (folder / "metrics.jsonl").is_file() and (folder / "models/net_Q_1.pth").is_file()
    assert (folder / "report.html").is_file() == (package == "tensorboard")
    assert (folder / "visualization/diagnostics.png").is_file() == (package != "matplotlib")


@pytest.mark.slow
@pytest.mark.parametrize("package", ["matplotlib", "jinja2"])
def test_an_evaluation_goes_on_without_its_report_which_alone_is_refused(hide, tmp_path, capfd, package):
    changes = [f"datasets:test_1:dataroot_gt={tiny.ROOT / 'datasets/demo/test/HR'}", "datasets:test_1:num_images=1"]
    overrides = tiny.overrides(tmp_path, *changes, "quantization=null", "name=tiny", architecture="EDSR")
    hide(package)
    assert test_command.main(["-opt", str(tiny.TEST), "--root", str(tmp_path), "--force_yml", *overrides]) == 0
    error = capfd.readouterr().err
    assert error.count(told(package)) == 1 and "Traceback" not in error
    results = tmp_path / "results/tiny"
    assert (results / "metrics.json").is_file() and not (results / "report.html").exists()
    assert report_command.main([str(results), "-o", str(tmp_path / "report.html")]) == 2
    assert told(package) in capfd.readouterr().err


def _require_others(package, *looked_for_first):
    """Skip where another package is told, since it is not installed either."""
    for other in looked_for_first:
        if other == package:
            return
        if importlib.util.find_spec(other) is None:
            pytest.skip(f"the package {other} is not installed")


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnx_ir"])
def test_nothing_is_packed_where_the_graph_cannot_be_written(hide, tmp_path, monkeypatch, package):
    _require_others(package, "onnx", "onnxscript")
    monkeypatch.setattr(exporting, "full_precision_network", fails)
    options = load_options(tiny.TEST, tiny.overrides(tmp_path, "bit=4", "quantization={coverage: 2dquant}"))
    hide(package)
    with pytest.raises(OptionsError) as error:
        export(options, tmp_path, "cpu", ExportOptions(onnx=True))
    assert told(package) in str(error.value)


@pytest.mark.parametrize("package", ["openvino", "onnxruntime", "onnx"])
def test_nothing_is_traced_for_a_runtime_that_is_not_there(hide, tmp_path, package):
    _require_others(package, "openvino")
    hide(package)
    with pytest.raises(OptionsError) as error:
        load_for_runtime(tmp_path / "absent.pth", "openvino" if package == "onnx" else package)
    assert told(package) in str(error.value)


@pytest.mark.parametrize("package", ["submitit", "cloudpickle"])
def test_a_launcher_without_its_package_is_refused_before_anything_is_looked_at(
    hide, tmp_path, monkeypatch, capsys, package
):
    monkeypatch.setattr(sweep_work, "unfinished", fails)
    hide(package)
    grid = str(tiny_grid.write(tmp_path))
    assert sweep(["-grid", grid, "--root", str(tmp_path), "--launcher", "slurm"]) == 2
    assert told(package) in capsys.readouterr().err


@pytest.mark.parametrize("package", ["matplotlib", "jinja2"])
def test_a_sweep_runs_without_what_only_draws(hide, tmp_path, monkeypatch, caplog, package):
    seen = []
    monkeypatch.setattr(sweep_work, "work", lambda *_: seen.append("work") or sweep_work.Summary())
    hide(package)
    assert sweep(["-grid", str(tiny_grid.write(tmp_path)), "--root", str(tmp_path)]) == 0
    assert seen == ["work"] and told(package) in caplog.text


def test_the_pipeline_asks_before_it_builds_data(hide, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(pipeline, "usable", lambda packages: asked.append(packages) or True)
    monkeypatch.setattr(pipeline, "build_evaluation_sets", fails)
    options = load_options(tiny.TRAIN, tiny.train_overrides(tmp_path))
    with pytest.raises(AssertionError, match="the work has begun"):
        pipeline.train(options, tmp_path, "cpu")
    assert asked == [pipeline.PACKAGES]
