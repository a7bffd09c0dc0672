"""One component of every registry from a folder outside the package: trained, tested, exported, upscaled and put in tables."""

import importlib.util
import json
import re

import pytest
import torch
import yaml

from basicsr.archs import build_network
from basicsr.export import main as export_main
from basicsr.report import main as report_main
from basicsr.sweep import plot
from basicsr.sweep.published import PublishedResults
from basicsr.sweep.rows import rows_of, write_csv
from basicsr.sweep.tables import markdown
from basicsr.test import main as evaluate_main
from basicsr.train import main as train_main
from basicsr.upscale import main as upscale_main
from basicsr.utils.image import read_image
from basicsr.utils.image_folders import image_files
from basicsr.utils.options import load_options
from basicsr.utils.registry import ALL_REGISTRIES
from tests import tiny
from tests.forked import ForkedProgram
from tests.sweep.test_tables import record

pytestmark = pytest.mark.slow

FILES = {
    "outside_arch.py": '''
"""A network with a convolution of its own class, whose output has a factor for each channel."""
import torch
from torch import nn
from torch.nn import functional as F
from basicsr.utils.registry import ARCH_REGISTRY


class ScaledConv2d(nn.Conv2d):
    def __init__(self, channels):
        super().__init__(channels, channels, 3, padding=1)
        self.factors = nn.Parameter(torch.linspace(0.5, 1.5, channels))

    def forward(self, x):
        return super().forward(x) * self.factors.view(-1, 1, 1)


@ARCH_REGISTRY.register()
class OutsideNet(nn.Module):
    size_multiple = 1

    def __init__(self, *, upscale: int = 4, width: int = 6) -> None:
        super().__init__()
        self.scale = upscale
        self.head = nn.Conv2d(3, width, 3, padding=1)
        self.body = ScaledConv2d(width)
        self.tail = nn.Conv2d(width, 3 * upscale**2, 1)

    def forward(self, x):
        skip = x.repeat_interleave(self.scale, -1).repeat_interleave(self.scale, -2)
        return skip + F.pixel_shuffle(self.tail(self.body(self.head(x)).relu()), self.scale)
''',
    "outside_dataset.py": '''
from basicsr.data.paired_image_dataset import PairedImageDataset
from basicsr.utils.registry import DATASET_REGISTRY


@DATASET_REGISTRY.register()
class OutsideDataset(PairedImageDataset):
    """Pairs of a folder."""
''',
    "outside_loss.py": """
import torch
from basicsr.utils.registry import LOSS_REGISTRY


@LOSS_REGISTRY.register()
class OutsideLoss(torch.nn.Module):
    def __init__(self, *, epsilon: float = 1e-3) -> None:
        super().__init__()
        self.epsilon = epsilon

    def forward(self, output, target):
        return ((output - target).square() + self.epsilon**2).sqrt().mean()
""",
    "outside_metric.py": """
import numpy as np
from basicsr.metrics.base import declare
from basicsr.utils.registry import METRIC_REGISTRY


@METRIC_REGISTRY.register()
@declare(label="MAE", unit="levels", decimals=3, higher_is_better=False, compares="hr")
def outside_mae(img: np.ndarray, img2: np.ndarray, /, *, crop_border: int) -> float:
    inside = slice(crop_border, -crop_border or None)
    return float(np.abs(img.astype(float) - img2.astype(float))[inside, inside].mean())
""",
    "outside_model.py": '''
from basicsr.models.qat_model import QATModel
from basicsr.utils.registry import MODEL_REGISTRY


@MODEL_REGISTRY.register()
class OutsideModel(QATModel):
    """Quantization-aware training."""
''',
    "outside_rule.py": """
from basicsr.training.gradient_rules.base import GradientRule
from basicsr.utils.registry import GRADIENT_RULE_REGISTRY


@GRADIENT_RULE_REGISTRY.register()
class OutsideRule(GradientRule):
    def __init__(self, *, share: float = 0.5) -> None:
        self._share = share

    def combine(self, main, auxiliary, layers):
        return [a + self._share * b for a, b in zip(main, auxiliary, strict=True)]
""",
    "outside_quantizer.py": '''
from basicsr.quant.quantizers.affine_quantizer import AffineQuantizer
from basicsr.utils.registry import QUANTIZER_REGISTRY


@QUANTIZER_REGISTRY.register()
class OutsideQuantizer(AffineQuantizer):
    """A uniform grid with learned bounds."""
''',
    "outside_calibrator.py": """
from basicsr.quant.calibrators.base import BoundsCalibrator, FoundBounds
from basicsr.utils.registry import CALIBRATOR_REGISTRY


@CALIBRATOR_REGISTRY.register()
class OutsideCalibrator(BoundsCalibrator):
    def __init__(self, spec, /, *, share: float = 1.0) -> None:
        super().__init__(spec)
        self._share = share

    def _find_bounds(self):
        return FoundBounds(self._share * self._lowest.double(), self._share * self._highest.double())
""",
    "outside_qmodule.py": '''
"""A convolution whose output has a factor for each channel: quantized, in integers, and as runtimes compute it."""
from torch import nn
from torch.nn import functional as F
from basicsr.quant.modules.base import QModule
from basicsr.quant.modules.conv2d_qmodule import QConv2d
from basicsr.quant.modules.cost import Cost
from basicsr.utils.registry import QMODULE_REGISTRY


class Factors(nn.Module):
    def __init__(self, convolution, factors):
        super().__init__()
        self.convolution = convolution
        self.register_buffer("values", factors.detach().clone().view(-1, 1, 1))

    def forward(self, x):
        return self.convolution(x) * self.values


@QMODULE_REGISTRY.register()
class QScaledConv2d(QConv2d):
    source_type = "ScaledConv2d"

    def forward(self, x):
        return super().forward(x) * self.factors.view(-1, 1, 1)

    def cost(self, inputs, output, /):
        own = super().cost(inputs, output)
        return Cost("scaled_conv", own.macs + output.numel(), own.weights, own.factor_bits)

    def integer_twin(self):
        return Factors(super().integer_twin(), self.factors)

    def runtime_form(self, *, integer_linear):
        return Factors(super().runtime_form(integer_linear=integer_linear), self.factors)
''',
}
OPTIONS = """
name: outside
model_type: OutsideModel
scale: 4
bit: 4
method: Outside
device: cpu
num_threads: 1
plugins: [{plugins}]
network_g: {{type: OutsideNet, width: 5}}
datasets:
  train: {{name: train, type: OutsideDataset, dataroot_gt: {demo}/train/HR, num_images: 2, lq_size: 16}}
  val: {{name: val, type: OutsideDataset, dataroot_gt: {demo}/val/HR, num_images: 1}}
  test_1: {{name: test, type: OutsideDataset, dataroot_gt: {demo}/test/HR, num_images: 2}}
path: {{pretrain_network_FP: {root}/fp.pth, pretrain_network_Q: {network}}}
quantization:
  coverage: [{{modules: body, type: QScaledConv2d}}]
  weight_quantizer: {{type: OutsideQuantizer}}
  activation_quantizer: {{type: OutsideQuantizer}}
calibration:
  weights: {{type: OutsideCalibrator}}
  activations: {{type: OutsideCalibrator, share: 0.9}}
  num_images: 2
  crop_size: 16
train:
  total_iter: 4
  batch_size: 2
  num_workers: 0
  pixel_loss: {{type: OutsideLoss, epsilon: 0.01}}
  mismatch_loss: {{type: MismatchLoss, loss_weight: 0.01}}
  gradient_rule: {{type: OutsideRule}}
val:
  val_freq: 2
  best_metric: mae
  metrics:
    psnr: {{type: calculate_psnr}}
    mae: {{type: outside_mae, crop_border: 2}}
    fidelity: {{type: calculate_fidelity}}
logger: {{use_tb_logger: false, save_checkpoint_freq: 2}}
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The folder of a run with all plugins, after training and test."""
    root = tmp_path_factory.mktemp("outside")
    known = [(registry, list(registry._folders)) for registry in ALL_REGISTRIES]
    (root / "plugins").mkdir()
    for name, text in FILES.items():
        (root / "plugins" / name).write_text(text.lstrip())
    trained = root / "experiments/outside/models/net_Q_latest.pth"
    for name, network in (("train", "null"), ("test", trained)):
        text = OPTIONS.format(plugins=root / "plugins", demo=tiny.ROOT / "datasets/demo", root=root, network=network)
        (root / f"{name}.yml").write_text(text)
    load_options(root / "train.yml")  # makes the plugins known
    torch.manual_seed(0)
    torch.save({"params": build_network({"type": "OutsideNet", "width": 5}).state_dict()}, root / "fp.pth")
    for command, name in ((train_main, "train"), (evaluate_main, "test")):
        assert command(["-opt", str(root / f"{name}.yml"), "--root", str(root)]) == 0
    yield root
    # registries live as long as the process, as do the package's own files that were imported here
    for registry, folders in known:
        own = {name: part for name, part in registry._components.items() if part.__module__.startswith("basicsr.")}
        registry._folders, registry._components = folders, own


def results(root):
    return json.loads((root / "results/outside/metrics.json").read_text())


def test_every_registry_has_its_plugin(root):
    for registry in ALL_REGISTRIES:
        own = [file for file in (root / "plugins").glob(f"*{registry._suffix}.py")]
        assert len(own) == 1, registry.kind
        assert any(component.__module__.endswith(own[0].stem) for component in registry._components.values()), (
            registry.kind
        )
    assert len(FILES) == len(ALL_REGISTRIES)


def test_training_took_them(root):
    experiment = root / "experiments/outside"
    (module,) = json.loads((experiment / "quantization_map.json").read_text())["modules"]
    assert (module["name"], module["type"]) == ("body", "QScaledConv2d")
    assert {entry["type"] for entry in module["quantizers"].values()} == {"OutsideQuantizer"}
    lines = [json.loads(line) for line in (experiment / "metrics.jsonl").read_text().splitlines()]
    assert {line["stage"] for line in lines} == {"fp", "calibrated", "train", "final"}
    assert all(set(line) == {"stage", "iter", "dataset", "psnr", "mae", "fidelity", "seconds"} for line in lines)
    assert all(line["mae"] > 0 for line in lines)
    state = torch.load(experiment / "training_states/4.state", weights_only=True)["best"]
    assert state["mae"] == pytest.approx(min(line["mae"] for line in lines if line["stage"] == "train"), abs=1e-6)
    assert (experiment / "models/net_Q_best.pth").is_file()


def test_results_hold_the_metric_and_the_cost_that_the_layer_states(root):
    found = results(root)
    assert found["metrics"]["mae"] == {
        "label": "MAE", "unit": "levels", "decimals": 3, "higher_is_better": False, "compares": "hr", "in_plots": True,
    }  # fmt: skip
    means = found["datasets"]["test"]
    assert means["mae"] == pytest.approx(sum(image["mae"] for image in means["images"].values()) / 2, abs=1e-6)
    pixels = 128 * 128
    assert found["complexity"]["macs"] == pixels * (3 * 5 * 9 + 5 * 5 * 9 + 5 + 5 * 48)
    assert found["complexity"]["quantized_macs"] == pixels * (5 * 5 * 9 + 5)
    assert "not_counted" not in found["complexity"] and found["coverage"] == "rules"


def test_tables_csv_and_plot_of_a_sweep_show_the_metric(root, tmp_path):
    runs = [{**record("Outside", 4), "metrics": results(root)}]
    rows = rows_of(runs, PublishedResults.load())
    mae = results(root)["datasets"]["test"]["mae"]
    text = markdown("demo", rows, [])
    assert f"/ {mae:.3f} |" in text and "PSNR (dB) / fidelity (dB) / MAE (levels)" in text
    write_csv(rows, tmp_path / "results.csv")
    assert "metric_mae" in (tmp_path / "results.csv").read_text().splitlines()[0]
    plot.draw(rows, "test", tmp_path / "plot.svg")
    assert (tmp_path / "plot.svg").stat().st_size > 1000


def test_the_report_shows_the_metric(root):
    page = root / "report/report.html"
    assert report_main([str(root / "results/outside"), "-o", str(page)]) == 0
    mae = results(root)["datasets"]["test"]["mae"]
    table = (root / "report/table.md").read_text()
    assert "| MAE (levels) |" in table and f"| {mae:.3f} |" in table and page.stat().st_size > 10_000


def test_the_packed_file_is_the_network_and_upscales(root, tmp_path):
    assert export_main(["-opt", str(root / "test.yml"), "--root", str(root)]) == 0
    report = json.loads((root / "results/outside/export.json").read_text())["datasets"]["test"]
    assert report["packed"]["mae"] == report["trained"]["mae"] == results(root)["datasets"]["test"]["mae"]
    picture = image_files(tiny.ROOT / "datasets/demo/val/HR")[0]
    packed = root / "results/outside/outside.safetensors"
    arguments = ["-opt", str(root / "test.yml"), "--model", str(packed), "-i", str(picture), "-o", str(tmp_path)]
    assert upscale_main(arguments) == 0
    (written,) = tmp_path.iterdir()
    assert read_image(written).shape[0] == 4 * read_image(picture).shape[0]


@pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript")), reason="onnx is not installed"
)
def test_its_graph_is_the_network(root):
    assert export_main(["-opt", str(root / "test.yml"), "--root", str(root), "--onnx"]) == 0
    report = json.loads((root / "results/outside/export.json").read_text())
    assert (root / "results/outside/outside.onnx").is_file() and report["onnx"]["weights_moved"] < 0.5
    assert report["datasets"]["test"]["8-bit integers in PyTorch"]["fidelity"] > 40
    for runtime in report["onnx"]["runtimes"].values():
        assert runtime["largest_difference"] < 0.02


def test_the_component_of_the_documentation_runs_as_it_stands(tmp_path):
    page = (tiny.ROOT / "docs/extending.md").read_text(encoding="utf-8")
    blocks = dict(re.findall(r"^```(python|yaml)\n# \S+, .*?\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL))
    (tmp_path / "mine").mkdir()
    for folder in ("datasets", "keydata"):
        (tmp_path / folder).symlink_to(tiny.ROOT / folder)
    (tmp_path / "mine/my_calibrator.py").write_text(blocks["python"])
    (tmp_path / "my.yml").write_text(blocks["yaml"].replace("base: ", f"base: {tiny.ROOT}/"))
    words = ["basicsr/train.py", "-opt", "my.yml", "--force_yml", "bit=4", "name=mine", *tiny.overrides(tmp_path)]
    run = ForkedProgram(words, tmp_path)
    text, _ = run.communicate(timeout=tiny.PATIENCE)
    assert run.returncode == 0, text[-2000:]
    resolved = yaml.safe_load((tmp_path / "experiments/mine/options.yml").read_text())
    assert resolved["calibration"]["activations"] == {"type": "Mine", "share": 0.8}
