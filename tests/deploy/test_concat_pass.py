"""Features of dense blocks are rounded before they are joined, and nothing changes but that."""

import pytest
import torch

from basicsr.archs.base import joined_inputs_of
from basicsr.deploy import onnx_export
from basicsr.deploy.onnx_export import to_onnx
from basicsr.deploy.runtimes import RuntimeNetwork
from basicsr.quant.insertion.sharing import share_inputs
from tests import tiny
from tests.deploy.networks import IMAGE, calibrated
from tests.quant.helpers import set_min_max_bounds

pytestmark = pytest.mark.slow

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

RDN = {"type": "RDN", "upscale": 2, **tiny.NETWORKS["RDN"]}


def makers_of_joined(model):
    """Return the kinds of the operators whose outputs each Concat joins."""
    makers = {name: node.op_type for node in model.graph.node for name in node.output}
    return [[makers[name] for name in node.input] for node in model.graph.node if node.op_type == "Concat"]


def rdn(shared):
    network, _ = calibrated("body", 4, options=RDN)
    if shared:
        share_inputs(network, joined_inputs_of(network))
        set_min_max_bounds(network, IMAGE)
    return network


@pytest.fixture(scope="module")
def graphs():
    """Graphs of networks whose blocks have one grid, by whether the pass works on them."""
    network, found = rdn(shared=True), {True: None, False: None}
    with pytest.MonkeyPatch.context() as patch:
        found[True] = to_onnx(network)
        patch.setattr(onnx_export, "round_before_concat", lambda _: None)
        found[False] = to_onnx(network)
    return found


def test_features_with_one_grid_are_joined_as_codes(graphs):
    graph, network = graphs[True], rdn(shared=True)
    blocks, layers = len(network.RDBs), len(network.RDBs[0].convs)
    assert (
        makers_of_joined(graph)[:-1]
        == ([["DequantizeLinear"] * 2] + [["Concat", "DequantizeLinear"]] * (layers - 1)) * blocks
    )
    assert all("DequantizeLinear" not in kinds for kinds in makers_of_joined(graphs[False]))
    # each feature once, and the input of the block
    assert sum(node.op_type == "QuantizeLinear" for node in graph.graph.node) == blocks * (layers + 1)
    onnx.checker.check_model(graph, full_check=True)
    image = torch.rand(1, 3, 9, 14, generator=torch.Generator().manual_seed(3))
    outputs = [RuntimeNetwork(model, "onnxruntime", threads=1)(image) for model in graphs.values()]
    torch.testing.assert_close(*outputs, rtol=0, atol=1e-6)
    assert outputs[0].std() > 0.01


def test_openvino_joins_codes(graphs):
    pytest.importorskip("openvino")
    kernels = RuntimeNetwork(graphs[True], "openvino", threads=1).profile(IMAGE)
    joined = [kernel for kernel in kernels if kernel.name.startswith("Concat")]
    assert sum(kernel.count for kernel in joined if kernel.name.endswith("I8")) >= len(joined_inputs_of(rdn(False)))


def test_features_with_grids_of_their_own_stay_as_they_are():
    network = rdn(shared=False)
    with torch.no_grad():
        for names in joined_inputs_of(network):
            for index, name in enumerate(names):
                network.get_submodule(name).act_quantizer.upper_bound.mul_(1 + 0.1 * index)
    assert all("DequantizeLinear" not in kinds for kinds in makers_of_joined(to_onnx(network)))
