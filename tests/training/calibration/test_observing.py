"""Passes through a network for calibrators: they end where nothing is left to look at."""

import pytest
import torch
from torch import nn

from basicsr.archs import build_network
from basicsr.quant.insertion.insert import insert_quantizers, named_quantizers, quantized_weights
from basicsr.quant.quantizers.affine_quantizer import AffineQuantizer
from basicsr.quant.spec import QuantSpec
from basicsr.training.calibration.observing import build_calibrator, calibrate_inputs
from basicsr.utils.registry import CALIBRATOR_REGISTRY
from tests import tiny

CROPS = torch.rand(5, 3, 12, 12, generator=torch.Generator().manual_seed(0))


def calibrators_of(network, kind):
    weights = quantized_weights(network)
    return {
        name: build_calibrator(quantizer, {"type": kind}, "calibration:activations")
        for name, quantizer in named_quantizers(network)
        if name not in weights
    }


@pytest.mark.parametrize(("name", "coverage", "behind"), [("EDSR", "body", "conv_last"), ("RDN", "body", "conv_last")])
@pytest.mark.parametrize("kind", ["MinMax", "DOBI"])
def test_what_comes_behind_is_computed_once_a_pass(name, coverage, behind, kind):
    torch.manual_seed(0)
    network = build_network({"type": name, "upscale": 2, **tiny.NETWORKS[name]}).eval()
    insert_quantizers(network, coverage, 4, 4)
    calls = {"first": 0, "behind": 0}
    first, *_, last = [m for m in network.modules() if isinstance(m, nn.Conv2d)]

    def count(which):
        def counted(*_):
            calls[which] += 1

        return counted

    first.register_forward_hook(count("first"))
    last.register_forward_hook(count("behind"))
    one_by_one = calibrate_inputs(network, CROPS, calibrators_of(network, kind), 1)
    passes = calls["first"] // len(CROPS)
    assert calls == {"first": passes * len(CROPS), "behind": passes} and passes >= 1
    at_once = calibrate_inputs(network, CROPS, calibrators_of(network, kind), len(CROPS))
    assert one_by_one.keys() == at_once.keys() and len(at_once) > 2
    for quantizer, found in at_once.items():
        values = {key: value for key, value in found.as_dict().items() if isinstance(value, (int, float))}
        assert {"lower_bound", "upper_bound"} <= values.keys()
        assert {key: one_by_one[quantizer].as_dict()[key] for key in values} == pytest.approx(values, rel=1e-9)


class Branching(nn.Module):
    """Calls its second quantizer for bright pictures only."""

    def __init__(self):
        super().__init__()
        self.first, self.second = (AffineQuantizer(QuantSpec(4)) for _ in range(2))
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        x = self.scale * self.first(x)
        return self.second(x) if float(x.detach().mean()) > 0.5 else x


@pytest.mark.parametrize("dark_first", [True, False])
def test_a_pass_with_fewer_looks_goes_to_its_end(dark_first):
    network = Branching().eval()
    batches = torch.cat([torch.full((1, 3, 4, 4), 0.75), torch.full((1, 3, 4, 4), 0.25), torch.full((1, 3, 4, 4), 1.0)])
    order = [1, 0, 2] if dark_first else [0, 1, 2]
    calibrators = {
        name: CALIBRATOR_REGISTRY.build({"type": "MinMax"}, QuantSpec(4), where="calibration:activations")
        for name in ("first", "second")
    }
    looks = {name: [] for name in calibrators}
    for name, calibrator in calibrators.items():
        update = calibrator.update
        calibrator.update = lambda x, name=name, update=update: (looks[name].append(float(x.max())), update(x))
    calibrate_inputs(network, batches[order], calibrators, 1)
    assert looks == {"first": [[0.75, 0.25, 1.0][i] for i in order], "second": [0.75, 1.0]}
