"""The Python interface on networks that say nothing of themselves, and on one that is well trained."""

import logging
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import basicsr
from basicsr.archs import build_network
from basicsr.evaluation.evaluator import check_levels
from basicsr.quant.insertion.insert import insert_quantizers, named_quantizers
from basicsr.quant.spec import QuantizationError
from basicsr.utils.errors import CheckpointError, DataError, OptionsError
from basicsr.utils.registry import ARCH_REGISTRY
from tests import tiny
from tests.rfdn import RFDN

DEMO = tiny.ROOT / "datasets/demo"


class Block(nn.Module):
    """A residual block of a grouped, a pointwise and a gating convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.spatial = nn.Sequential(nn.Conv2d(8, 8, 5, padding=2, groups=4), nn.ReLU())
        self.mix, self.gate = nn.Conv2d(8, 8, 1), nn.Linear(8, 8)

    def forward(self, x):
        y = self.mix(self.spatial(x))
        return x + y * torch.sigmoid(self.gate(y.mean((2, 3))))[..., None, None]


class Foreign(nn.Module):
    """x2, and with everything that a network of others may have: the last layer registered first, one that is never called, a `scale`
    that is something else, layers that cannot be quantized, dropout, and functions without modules."""

    def __init__(self) -> None:
        super().__init__()
        self.tail = nn.Conv2d(8, 3, 3, 1, 1)
        self.head = nn.Conv2d(3, 8, 3, 1, 1)
        self.scale = nn.Parameter(torch.ones(1))
        self.body = nn.Sequential(nn.Sequential(Block(), Block()), nn.Dropout(0.5))
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.up = nn.ConvTranspose2d(8, 8, 2, 2)
        self.unused = nn.Conv2d(8, 8, 3)

    def forward(self, x):
        y = self.body(self.head(x)) * self.scale
        small = F.adaptive_avg_pool2d(y, 4).flatten(2).transpose(1, 2)
        y = y + self.attention(small, small, small)[0].mean(1)[..., None, None]
        return self.tail(F.relu(self.up(y))) + F.interpolate(x, scale_factor=2.0)


@pytest.fixture
def foreign():
    torch.manual_seed(0)
    return Foreign()


@pytest.fixture
def crops():
    return torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def photos():
    return basicsr.draw_crops(DEMO / "train/HR", 4, number=8, size=32)


def shipped(name, **options):
    from basicsr.deploy.upscaling import load_model

    return load_model(tiny.ROOT / f"experiments/pretrained_models/{name}.safetensors", **options)


def bits_of(quantized, layer):
    return [
        quantized.network.get_submodule(f"{layer}.{slot}").spec.bits for slot in ("weight_quantizer", "act_quantizer")
    ]


def test_any_network_is_quantized_and_stays_as_it_was(foreign, crops, caplog):
    foreign.train()
    before = {name: tensor.clone() for name, tensor in foreign.state_dict().items()}
    with caplog.at_level(logging.WARNING, "basicsr"):
        quantized = basicsr.quantize(foreign, crops, bits=4)
    assert foreign.training and not quantized.training
    assert all(torch.equal(before[name], tensor) for name, tensor in foreign.state_dict().items())
    assert (quantized.scale, quantized.size_multiple, quantized.coverage) == (2, 1, "full")
    assert quantized(crops).shape == (4, 3, 32, 32)
    assert set(quantized.left_out) == {"attention", "attention.out_proj", "up", "unused"}
    assert "'up' stays in full precision: a ConvTranspose2d has no quantized form" in caplog.text
    assert "'attention' stays in full precision: a MultiheadAttention has" in caplog.text
    assert "'unused' stays in full precision: the forward pass does not call it" in caplog.text
    # first and last are those of execution, although the last one is registered first
    assert bits_of(quantized, "head") == bits_of(quantized, "tail") == [8, 8]
    assert bits_of(quantized, "body.0.0.spatial.0") == bits_of(quantized, "body.0.1.gate") == [4, 4]
    assert quantized.bits("weight") == {4: 6, 8: 2}
    assert "method='DOBI', scale=2, coverage='full', quantizers=16" in repr(quantized) and len(repr(quantized)) < 400
    assert {row.name for row in quantized.calibration} == {name for name, _ in named_quantizers(quantized.network)}
    assert check_levels(quantized, crops[0]) <= 256


def test_the_full_precision_network_is_the_one_given_in_evaluation_mode(foreign, crops):
    quantized = basicsr.quantize(foreign, crops, bits=8)
    torch.testing.assert_close(quantized.full_precision(crops), foreign.eval()(crops))
    assert "full_precision" not in " ".join(quantized.state_dict())
    assert not any(parameter.requires_grad for parameter in quantized.parameters())
    error = (quantized(crops) - foreign(crops)).abs().max()
    assert 0 < error < 0.05 * foreign(crops).abs().max()


@pytest.mark.parametrize("kind", [torch.float16, torch.float64])
def test_other_types_of_parameters_are_computed_in_float32(foreign, crops, kind):
    foreign.eval()
    expected = basicsr.quantize(foreign, crops)(crops)
    quantized = basicsr.quantize(Foreign.to(foreign, kind), crops)
    assert next(foreign.parameters()).dtype == kind and quantized(crops).dtype == torch.float32
    if kind is torch.float64:
        torch.testing.assert_close(quantized(crops), expected)


@pytest.mark.parametrize("normalise", [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm])
@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated")
def test_normalised_weights_are_multiplied_in(crops, normalise):
    network = nn.Sequential(
        normalise(nn.Conv2d(3, 8, 3, 1, 1)), normalise(nn.Conv2d(8, 12, 3, 1, 1)), nn.PixelShuffle(2)
    )
    quantized = basicsr.quantize(network, crops)
    torch.testing.assert_close(quantized.full_precision(crops), network(crops))
    assert len(quantized.quantization_map.quantizers) == 4 and not quantized.left_out


def test_wrappers_are_taken_off(foreign, crops):
    foreign.eval()
    expected = basicsr.quantize(foreign, crops)(crops)
    torch.testing.assert_close(basicsr.quantize(nn.DataParallel(foreign), crops)(crops), expected)


@pytest.mark.parametrize(
    "method", ["MinMax", "Percentile", "DOBI", "DBDC", "DFSQ", "2DQuant", "BRECQ", "LSQ", "dobi", "PAMS"]
)
def test_methods_calibrate(foreign, crops, method):
    quantized = basicsr.quantize(foreign.eval(), crops, 6, method)
    assert torch.isfinite(quantized(crops)).all()
    assert quantized.methods[0].lower().startswith(method.lower())


@pytest.mark.slow
def test_the_recipe_is_that_of_the_command(crops):
    """The same bounds as `train.py` finds with the same options: the YAML files are the only place of hyper-parameters."""
    from basicsr.networks.quantized import quantized_copy
    from basicsr.training.calibration.network_calibration import calibrate_network
    from basicsr.utils.options import load_options

    network = shipped("EDSR_x4")
    options = load_options(tiny.ROOT / "options/train/demo_DOBI.yml", ["network=edsr_baseline", "bit=3"])
    expected, _ = quantized_copy(network, options, share_weights=False)
    calibrate_network(expected, crops, options.calibration)
    quantized = basicsr.quantize(network, crops, bits=3, method="DOBI")
    assert quantized.coverage == "body"  # that of an architecture of this package
    found = quantized.network.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.state_dict().items())


def test_bits_exclusions_and_options_reach_the_quantizers(foreign, crops):
    changes = {"quantization": {"weight_granularity": "per_channel"}}
    quantized = basicsr.quantize(foreign, crops, w_bits=3, a_bits=5, exclude=["body.0.0.*"], options=changes)
    assert quantized.bits("weight") == {3: 3, 8: 2} and quantized.bits("activation") == {5: 3, 8: 2}
    assert quantized.network.get_submodule("body.0.1.mix.weight_quantizer").lower_bound.shape == (8,)


def test_what_is_excluded_already_is_not_asked_for_again(foreign, crops):
    quantized = basicsr.quantize(foreign, crops, exclude=["unused", "head", "tail"])
    assert quantized.bits("weight") == {4: 6}


def test_a_padding_that_is_not_known_is_left_out(crops):
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, 1, 1, padding_mode="reflect"), Block(), nn.Conv2d(8, 12, 3, 1, 1), nn.PixelShuffle(2)
    )
    quantized = basicsr.quantize(network, crops)
    assert quantized.left_out == {
        "0": "A convolution with padding_mode 'reflect' cannot be quantized; only 'zeros' can"
    }
    assert bits_of(quantized, "1.spatial.0") == [8, 8] and bits_of(quantized, "1.mix") == [4, 4]
    with pytest.raises(
        QuantizationError,
        match=r"module '0' cannot be quantized\. A convolution with padding_mode.*quantization:exclude",
    ):
        insert_quantizers(network, "full", 4, 4)


def test_crops_as_people_have_them(foreign, crops):
    lr = sorted((DEMO / "test/LR_bicubic/X4").iterdir())[:2]
    array = (crops[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    for given in (crops.double(), [*crops], [array, array[:12]], [str(lr[0]), lr[1]], [array.astype(np.float32) / 255]):
        assert basicsr.quantize(foreign, given, method="MinMax")(crops).shape == (4, 3, 32, 32)


BAD_CROPS = {
    "0..255": (torch.rand(1, 3, 8, 8) * 255, "not within 0..1.*Divide pixels of 8 bits by 255"),
    "-1..1": (torch.rand(1, 3, 8, 8) * 2 - 1, "not within 0..1, but within -"),
    "nan": (torch.full((1, 3, 8, 8), torch.nan), "not within 0..1"),
    "integers": (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "of type uint8.*divide them by 255"),
    "channels last": (torch.rand(1, 8, 8, 3), r"the shape \(1, 8, 8, 3\)"),
    "one image": (torch.rand(3, 8, 8), r"the shape \(3, 8, 8\)"),
    "none": ([], "a list of images is needed"),
    "folder": ("datasets/demo", "draw_crops"),
    "array": ([np.zeros((3, 8, 8), np.uint8)], r"\(h, w, 3\) is needed"),
    "missing file": (["nothing.png"], "'nothing.png' does not exist"),
}


@pytest.mark.parametrize("crops, message", BAD_CROPS.values(), ids=BAD_CROPS)
def test_crops_that_cannot_be_used(foreign, crops, message):
    with pytest.raises(DataError, match=message):
        basicsr.quantize(foreign, crops)


@pytest.mark.parametrize("arguments, message", [
    ({"bits": 1}, "bits is 1, but must be an integer from 2 to 8"),
    ({"bits": 4.0}, "bits is 4.0"),
    ({"w_bits": 9}, "w_bits is 9"),
    ({"method": "DOBY"}, "no method 'DOBY'. Did you mean 'DOBI'"),
    ({"coverage": "ful"}, "no coverage preset 'ful'. Did you mean 'full'"),
    ({"coverage": "2dquant"}, "meant for networks of Swin transformer layers"),
    ({"size_multiple": 0}, "size_multiple is 0"),
    ({"exclude": ["nothing*"]}, "exclusion 'nothing\\*' matches no"),
    ({"options": {"quantization": {"granularity": 1}}}, "Unknown option 'quantization:granularity'"),
])  # fmt: skip
def test_arguments_that_cannot_be_used(foreign, crops, arguments, message):
    with pytest.raises((OptionsError, QuantizationError), match=message):
        basicsr.quantize(foreign, crops, **arguments)


class Returns(nn.Module):
    """Returns what a function makes of an image that has been enlarged twice."""

    def __init__(self, function) -> None:
        super().__init__()
        self.conv, self.function = nn.Conv2d(3, 3, 3, 1, 1), function

    def forward(self, x):
        return self.function(F.interpolate(self.conv(x), scale_factor=2.0))


@pytest.mark.parametrize("network, message", [
    (Returns(lambda y: (y, y)), "returns an object of type tuple, not a tensor"),
    (Returns(lambda y: y[..., :-1]), r"makes \(1, 3, 32, 31\).*not enlarged by a whole number"),
    (Returns(lambda y: y[:, :1]), "not enlarged by a whole number"),
    (Returns(lambda y: y.reshape(7)), "fails for images of the shape .1, 3, 16, 16.: RuntimeError: .*Give crops of a size"),
    (Returns(lambda y: y + torch.rand(1)), "With quantizers that change nothing.*draws random numbers"),
    (nn.Upsample(scale_factor=2), "calls no layer that can be quantized. These are of the classes Conv2d, Linear, MatMul"),
    ("a file", "must be a torch.nn.Module, not an object of type str"),
])  # fmt: skip
def test_networks_that_cannot_be_used(crops, network, message):
    with pytest.raises((OptionsError, QuantizationError), match=message):
        basicsr.quantize(network, crops)


@pytest.mark.slow
def test_distillation_brings_the_network_closer_and_leaves_the_given_one(crops):
    torch.manual_seed(0)
    network = Foreign().eval()
    quantized = basicsr.quantize(network, crops, bits=3)
    before = {name: tensor.clone() for name, tensor in quantized.state_dict().items()}
    distilled = basicsr.distill(quantized, crops, 60, batch_size=2)
    assert all(torch.equal(before[name], tensor) for name, tensor in quantized.state_dict().items())
    assert distilled.methods == ("DOBI", "2DQuant revised, 60 iterations")

    def error(candidate):
        return (candidate(crops) - network(crops)).abs().mean().item()

    assert error(distilled) < 0.9 * error(quantized)
    torch.testing.assert_close(distilled.full_precision(crops), network(crops))


def test_a_loss_on_features_takes_the_repeated_blocks(foreign, crops, caplog):
    quantized = basicsr.quantize(foreign, crops)
    with caplog.at_level(logging.INFO, "basicsr"):
        basicsr.distill(quantized, crops, 1)
    assert (
        "names no 'feature_layers'; the outputs of its repeated blocks are compared: body.0.0, body.0.1." in caplog.text
    )
    plain = nn.Sequential(nn.Conv2d(3, 12, 3, 1, 1), nn.PixelShuffle(2))
    caplog.clear()
    basicsr.distill(basicsr.quantize(plain, crops), crops, 1)
    assert "repeats no blocks, so that only outputs are compared" in caplog.text
    with pytest.raises(OptionsError, match=r"names 'bodi', which the network has not. Did you mean 'body'"):
        basicsr.distill(quantized, crops, 1, feature_layers=["bodi"])


@pytest.mark.parametrize("method, iterations", [("DBDC+Pac", 4), ("BRECQ joint", 8), ("QDrop", 8)])
def test_methods_that_train_on_crops(foreign, crops, method, iterations):
    quantized = basicsr.quantize(foreign, crops, method=method)
    trained = basicsr.distill(quantized, crops, iterations, batch_size=2)
    assert trained.methods[1] == f"{method}, {iterations} iterations"
    assert not torch.equal(trained(crops), quantized(crops))
    assert all(
        torch.equal(a, b)
        for a, b in zip(trained.full_precision.parameters(), quantized.full_precision.parameters(), strict=True)
    )


def test_quantization_aware_training_needs_images(foreign, crops):
    quantized = basicsr.quantize(foreign, crops, method="LSQ")
    with pytest.raises(OptionsError, match="trains against HR images: name their folder with images="):
        basicsr.distill(quantized, crops, 2)
    trained = basicsr.distill(quantized, crops, 2, batch_size=2, images=DEMO / "train/HR")
    weights = [network.state_dict()["head.weight"] for network in (trained.network, quantized.network)]
    assert not torch.equal(*weights) and torch.equal(weights[1], foreign.head.weight)
    with pytest.raises(OptionsError, match="needs a weight quantizer of type Affine, but the network has LSQ"):
        basicsr.distill(trained, crops, 2, method="2DQuant")


@pytest.mark.parametrize("arguments, message", [
    ({"method": "DOBI"}, "trains nothing"),
    ({"method": "BRECQ"}, "needs a weight quantizer of type AdaRound, but the network has Affine"),
    ({"iterations": 0}, "iterations is 0"),
    ({"batch_size": -1}, "batch_size is -1"),
    ({"options": {"train": {"optim_bond": None}}}, "Did you mean 'optim_bound'"),
])  # fmt: skip
def test_distillation_that_cannot_be(foreign, crops, arguments, message):
    quantized = basicsr.quantize(foreign, crops)
    with pytest.raises(OptionsError, match=message):
        basicsr.distill(quantized, crops, **{"iterations": 1, **arguments})


@pytest.mark.slow
def test_evaluation_of_folders_and_pairs(foreign, crops, tmp_path):
    network = shipped("EDSR_x4")
    folder = basicsr.evaluate(network, DEMO / "test/HR", DEMO / "test/LR_bicubic/X4", save_to=tmp_path)
    names = sorted(folder.images)
    assert len(names) == 6 and (tmp_path / f"{names[0]}.png").is_file() and "fidelity" not in folder.means
    pairs = [(DEMO / f"test/LR_bicubic/X4/{name}x4.png", DEMO / f"test/HR/{name}.png") for name in names[:2]]
    few = basicsr.evaluate(network.train(), pairs)
    assert {name: values["psnr"] for name, values in few.images.items()} == pytest.approx(
        {name: folder.images[name]["psnr"] for name in names[:2]}
    )
    assert network.training
    quantized = basicsr.quantize(network, crops, bits=8)
    assert basicsr.evaluate(quantized, pairs).means["fidelity"] > 35
    for given, message in {
        "nowhere": "does not exist",
        (): "not empty",
        ((crops[0], crops[1]),): "needs 64 x 64",
    }.items():
        with pytest.raises(DataError, match=message):
            basicsr.evaluate(network, given)
    with pytest.raises(OptionsError, match="scale is 3, but the network EDSR enlarges by 4"):
        basicsr.evaluate(network, pairs, scale=3)


def test_files_of_a_network_that_no_name_rebuilds(foreign, crops, tmp_path):
    quantized = basicsr.distill(basicsr.quantize(foreign, crops), crops, 2)
    (file,) = basicsr.export(quantized, tmp_path)
    assert file.name == "Foreign_DOBI_w4_a4.safetensors"
    loaded = basicsr.load(file, Foreign())  # the weights are in the file
    assert torch.equal(loaded(crops), quantized(crops))
    assert (loaded.scale, loaded.method, loaded.quantization_map.quantizers.keys()) == (
        2, quantized.method, quantized.quantization_map.quantizers.keys()
    )  # fmt: skip
    with pytest.raises(
        CheckpointError, match=r"of the class \S+\.Foreign, which is no registered architecture.*network=\.\.\."
    ):
        basicsr.load(file)
    with pytest.raises(CheckpointError, match="belongs to another network than the one given"):
        basicsr.load(file, RFDN())
    with pytest.raises(OptionsError, match="ends in '.pth'"):
        basicsr.export(quantized, tmp_path / "network.pth")
    with pytest.raises(OptionsError, match="loaded from a packed file"):
        basicsr.distill(loaded, crops, 1)


def test_files_of_a_registered_architecture_need_no_network(crops, tmp_path):
    quantized = basicsr.quantize(shipped("EDSR_x2"), crops)
    (file,) = basicsr.export(quantized, tmp_path / "edsr.safetensors")
    loaded = basicsr.load(file)
    assert type(loaded.network) is ARCH_REGISTRY.get("EDSR") and loaded.full_precision is None
    assert torch.equal(loaded(crops), quantized(crops)) and loaded.scale == 2


@pytest.mark.slow
def test_a_graph_computes_what_the_network_does(foreign, crops, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    network = nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), Block(), nn.Conv2d(8, 12, 3, 1, 1), nn.PixelShuffle(2))
    quantized = basicsr.quantize(network, crops, bits=8)
    (file,) = basicsr.export(quantized, tmp_path / "network.onnx")
    session = runtime.InferenceSession(file, providers=["CPUExecutionProvider"])
    lr = torch.rand(1, 3, 24, 18)
    found = torch.from_numpy(session.run(None, {"lr": lr.numpy()})[0])
    assert found.shape == (1, 3, 48, 36)
    assert (found - quantized(lr)).abs().max() < 0.05 * quantized(lr).abs().max()


@pytest.mark.slow
def test_a_graph_of_swinir_is_for_any_size(crops, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    network = build_network({"type": "SwinIR", "upscale": 2, **tiny.NETWORK})
    quantized = basicsr.quantize(network, crops)
    (file,) = basicsr.export(quantized, tmp_path / "swinir.onnx")
    session = runtime.InferenceSession(file, providers=["CPUExecutionProvider"])
    for size in ((16, 16), (24, 40)):
        lr = torch.rand(1, 3, *size)
        found = torch.from_numpy(session.run(None, {"lr": lr.numpy()})[0])
        assert found.shape == (1, 3, 2 * size[0], 2 * size[1])
        assert (found - quantized(lr)).abs().max() < 0.05 * quantized(lr).abs().max()


@pytest.mark.slow
def test_a_well_trained_network_of_others(shared, photos):
    weights = shared / "weights/rfdn_x4.pth"
    if not weights.is_file():
        pytest.skip(f"there are no weights at {weights}")
    network = RFDN()
    network.load_state_dict(torch.load(weights, weights_only=True))
    set5 = shared / "data/benchmark/Set5"
    full_precision = basicsr.evaluate(network, set5 / "HR")
    assert full_precision.means["psnr"] == pytest.approx(32.16, abs=0.005)
    quantized = basicsr.quantize(network, photos, bits=8, coverage="full")
    assert len(quantized.quantization_map.quantizers) == 2 * 64 and not quantized.left_out
    measured = basicsr.evaluate(quantized, set5 / "HR")
    assert 30 < measured.means["psnr"] < full_precision.means["psnr"]
    assert measured.means["fidelity"] > 33
    assert check_levels(quantized, photos[0]) <= 256
    fitted = basicsr.quantize(network, photos, bits=4, method="DOBI_fitted", coverage="full")
    measured = basicsr.evaluate(fitted, set5 / "HR")
    assert measured.means["psnr"] > 29.5  # with bounds alone it has 27.3
    assert check_levels(fitted, photos[0]) <= 256  # of the first and the last layer, the others have 16


@pytest.mark.slow
def test_chosen_bits_have_the_average_and_come_nearer(crops):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, 1, 1), Block(), Block(), Block(), nn.Conv2d(8, 12, 3, 1, 1), nn.PixelShuffle(2)
    )
    mixed = basicsr.quantize(network, crops, method="DOBI", coverage="full", average_bits=3.5)
    alike = basicsr.quantize(network, crops, 3, "DOBI", coverage="full")
    with torch.no_grad():
        errors = [float((one(crops) - network(crops)).square().mean()) for one in (alike, mixed)]
    assert errors[1] < 0.8 * errors[0]
    entries = mixed.quantization_map.quantizers
    ends = {"0.weight_quantizer", "0.act_quantizer", "4.weight_quantizer", "4.act_quantizer"}
    assert {entries[name].spec.bits for name in ends} == {8}, "the coverage gives them bits of their own"
    assert len({entry.spec.bits for name, entry in entries.items() if name not in ends}) > 1


@pytest.mark.parametrize("average", [1.9, 8.5, float("nan")])
def test_averages_out_of_reach_are_refused(crops, average):
    with pytest.raises(OptionsError, match="average_bits is .* but must be a number from 2 to 8"):
        basicsr.quantize(nn.Conv2d(3, 3, 3, 1, 1), crops, average_bits=average)


@pytest.mark.slow
def test_distillation_of_weights_needs_crops_alone(crops):
    torch.manual_seed(1)  # a network to which so short a training brings much, in float32 and in bfloat16
    network = nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), Block(), nn.Conv2d(8, 12, 3, 1, 1), nn.PixelShuffle(2))
    quantized = basicsr.quantize(network, crops, bits=2, method="QAD")
    trained = basicsr.distill(quantized, crops, 60, batch_size=2)
    assert trained.method.endswith("QAD, 60 iterations")
    with torch.no_grad():
        before, after = (float((one(crops) - network(crops)).square().mean()) for one in (quantized, trained))
    assert after < 0.95 * before
    assert not torch.equal(trained.network.get_submodule("0").weight, quantized.network.get_submodule("0").weight)


@pytest.mark.slow
def test_importing_the_package_imports_nothing_of_it():
    code = "import sys, basicsr; assert 'torch' not in sys.modules; import basicsr.export; assert basicsr.export.__module__ == 'basicsr.interface.storing'; basicsr.quantize"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tiny.ROOT)
    assert set(basicsr.__all__) <= set(dir(basicsr))
    with pytest.raises(AttributeError, match="no attribute 'quantise'"):
        _ = basicsr.quantise


def test_a_network_that_is_not_quantized_is_refused_with_the_remedy(foreign, crops, tmp_path):
    for call in (
        lambda: basicsr.distill(foreign, crops, 2),
        lambda: basicsr.export(foreign, tmp_path / "a.safetensors"),
    ):
        with pytest.raises(OptionsError, match=r"A quantized network is needed, .*basicsr\.quantize\(network, crops\)"):
            call()


def test_changes_that_are_no_mapping(foreign, crops):
    for call in (basicsr.quantize, basicsr.distill):
        given = foreign if call is basicsr.quantize else basicsr.quantize(foreign, crops, method="MinMax")
        with pytest.raises(
            OptionsError, match="`options` is 'quantization:w_bits=3', but must be a mapping of sections"
        ):
            call(given, crops, options="quantization:w_bits=3")


@pytest.mark.parametrize("name", ["number", "size", "scale"])
def test_crops_need_numbers_above_0(name):
    with pytest.raises(DataError, match=f"{name} is 0, but must be a whole number of at least 1"):
        basicsr.draw_crops(DEMO / "train/HR", **{"scale": 4, name: 0})
