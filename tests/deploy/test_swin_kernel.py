"""Swin layers computed by the project's own kernel are those of the quantized network."""

import pytest
import torch

from basicsr.archs.window_attention import token_layouts
from basicsr.deploy import native_library as native
from basicsr.deploy import swin_kernel
from basicsr.deploy.onnx_export import to_onnx
from basicsr.deploy.runtimes import RuntimeNetwork
from basicsr.deploy.swin_kernel import KernelSwinLayers, check_sizes, expected_lengths, with_kernels
from basicsr.deploy.swin_parameters import swin_parameters
from basicsr.quant.modules.base import QModule
from basicsr.utils.errors import OptionsError
from tests.deploy.networks import IMAGE, calibrated
from tests.quant.helpers import set_min_max_bounds

pytestmark = pytest.mark.slow

SIZE = (24, 32)  # inner windows, and those at each border and in the corner


@pytest.fixture
def library():
    library = native.native_library()
    if library is None:
        pytest.skip("the kernels cannot be compiled here, or the processor has no AVX-512 with VNNI")
    return library


def options(dim=20, heads=2, mlp_ratio=2):
    sizes = {"depths": [2], "embed_dim": dim, "num_heads": [heads], "window_size": 8, "img_size": 16}
    return {"type": "SwinIR", "upscale": 2, **sizes, "mlp_ratio": mlp_ratio}


def tokens(dim):
    return torch.randn(1, SIZE[0] * SIZE[1], dim, generator=torch.Generator().manual_seed(3))


def layer_of_pytorch(block, x):
    layouts = token_layouts(*SIZE, 8, x.device)
    y = block(layouts.reorder(x, "image", block.order), layouts.groups[block.order])
    return layouts.reorder(y, block.order, "image")


def require_layers_of_pytorch(network, x, a_flip=1e-3):
    for block in network.layers[0].residual_group.blocks:
        expected = layer_of_pytorch(block, x)
        found = KernelSwinLayers([swin_parameters(block)])(x, SIZE)
        difference = (found - expected).abs() / (expected - x).abs().mean()
        # a code may flip where sums differ by rounding, and moves what is computed with it
        assert float(difference.median()) < 1e-5
        assert float((difference < a_flip).float().mean()) > 0.98


# heads of less and of more than 16 channels, channels and hidden channels of less and of more than a block of 64, all bits
@pytest.mark.parametrize(
    ("dim", "heads", "mlp_ratio", "bits"), [(20, 2, 2, 4), (36, 2, 2, 8), (72, 3, 1, 2), (60, 6, 2, 3), (16, 1, 5, 8)]
)
@torch.no_grad()
def test_a_layer_is_that_of_the_quantized_network(dim, heads, mlp_ratio, bits, library):
    network, _ = calibrated(bits=bits, options=options(dim, heads, mlp_ratio))
    require_layers_of_pytorch(network, tokens(dim))


@torch.no_grad()
def test_symmetric_weights_and_steps_of_rows(library):
    network, _ = calibrated(options=options(), weight_symmetric=True, weight_granularity="per_channel")
    block = network.layers[0].residual_group.blocks[1]
    difference = (
        KernelSwinLayers([swin_parameters(block)])(tokens(20), SIZE) - layer_of_pytorch(block, tokens(20))
    ).abs()
    assert float((difference < 1e-5).float().mean()) > 0.98


@pytest.mark.parametrize(("dim", "heads", "bits"), [(20, 2, 4), (60, 6, 2), (36, 2, 8)])
@torch.no_grad()
def test_maps_that_are_divided_late_and_inputs_whose_channels_are_scaled(dim, heads, bits, library):
    network, _ = calibrated(
        bits=bits,
        options=options(dim, heads),
        late_division=["*.attn.av"],
        input_scales=True,
        weight_granularity="per_channel",
    )
    generator = torch.Generator().manual_seed(5)
    for layer in network.modules():
        if isinstance(layer, QModule) and layer.input_scale is not None:
            layer.set_input_scale(0.5 + torch.rand(len(layer.input_scale.factors), generator=generator))
    set_min_max_bounds(network, IMAGE)
    # with 256 codes in each row many lie near a threshold, and a flip moves little
    require_layers_of_pytorch(network, tokens(dim), a_flip=1e-3 if bits < 8 else 1e-2)


@torch.no_grad()
def test_a_row_of_a_late_division_that_is_rounded_to_0_gives_0(library):
    network, _ = calibrated(options=options(), late_division=["*.attn.av"])
    block = network.layers[0].residual_group.blocks[0]
    block.attn.av.a_quantizer.set_bounds(torch.tensor(0.0), torch.tensor(100.0))
    found = KernelSwinLayers([swin_parameters(block)])(tokens(20), SIZE)
    torch.testing.assert_close(found, layer_of_pytorch(block, tokens(20)), rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_threads_and_samples_of_a_batch_do_not_change_a_bit(library, monkeypatch):
    network, _ = calibrated(options=options())
    kernels = KernelSwinLayers([swin_parameters(block) for block in network.layers[0].residual_group.blocks])
    expected = kernels(tokens(20), SIZE)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    assert torch.equal(kernels(torch.cat([tokens(20), tokens(20)]), SIZE), torch.cat([expected, expected]))


@torch.no_grad()
def test_openvino_runs_the_kernel(library):
    pytest.importorskip("openvino")
    pytest.importorskip("onnxscript")
    network, _ = calibrated(options=options())
    graph = to_onnx(network, own_kernels=True)
    assert sum(node.op_type == swin_kernel.OPERATOR for node in graph.graph.node) == 2
    runtime, expected = RuntimeNetwork(graph, "openvino", threads=2), with_kernels(network)
    assert runtime.quantized
    for height, width in ((16, 24), (8, 8)):
        x = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(height))
        difference = (runtime(x) - expected(x)).abs() / expected(x).abs().max()
        assert float(difference.median()) < 1e-5


@pytest.mark.parametrize("insertion", [{"exclude": ["*.mlp.fc1"]}, {"activation_granularity": "per_channel"}])
def test_a_layer_that_is_quantized_in_another_way_stays(insertion, library):
    network, _ = calibrated(options=options(), **insertion)
    assert swin_parameters(network.layers[0].residual_group.blocks[0]) is None
    assert not any(isinstance(module, KernelSwinLayers) for module in with_kernels(network).modules())


def test_without_the_library_nothing_is_replaced(monkeypatch):
    monkeypatch.setattr(swin_kernel, "native_library", lambda: None)
    network, _ = calibrated(options=options())
    assert not any(isinstance(module, KernelSwinLayers) for module in with_kernels(network).modules())
    with pytest.raises(OptionsError, match="own kernels"):
        swin_kernel.run_kernel(swin_kernel.Addresses(0, 0, 0, 0), (8, 8, 4), (4, 8, 1, 0), 1)


@pytest.mark.parametrize(("compiler", "reason"), [("no-such-compiler", "no compiler"), ("false", "makes no library")])
def test_a_compiler_that_is_not_there_or_fails_is_no_fault(compiler, reason, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CXX", compiler)
    with caplog.at_level("INFO"):
        assert native.native_library.__wrapped__() is None
    assert reason in caplog.text
    assert not list(tmp_path.rglob("*.so"))


def test_what_does_not_fit_is_refused():
    sizes = (20, 40, 2, 0)
    lengths = expected_lengths(sizes)
    check_sizes((8, 16, 20), sizes, *lengths)
    for shape, wrong, numbers, codes in (
        ((8, 12, 20), sizes, *lengths),
        ((8, 16, 24), sizes, *lengths),
        ((8, 16, 20), (20, 40, 3, 0), *lengths),
        ((8, 16, 20), (64, 40, 2, 0), *lengths),
        ((8, 16, 20), (20, 400, 2, 0), *lengths),
        ((8, 16, 20), sizes, lengths[0] - 1, lengths[1]),
        ((8, 16, 20), (20, -40, 2, 0), *lengths),
    ):
        with pytest.raises(OptionsError):
            check_sizes(shape, wrong, numbers, codes)
