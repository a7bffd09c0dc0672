"""Networks whose weights calibration has changed are trained, packed and computed in integers like any other."""

import pytest
import torch

from basicsr.archs import build_network
from basicsr.deploy.integer import integer_network
from basicsr.deploy.packed_file import load_packed, save_packed
from basicsr.models.ptq_model import PTQModel
from basicsr.quant.observe.capture import count_codes
from basicsr.utils.options import load_options
from tests import tiny

QUICK = [*(f"calibration:{role}={{type: MinMax}}" for role in ("weights", "activations")), "calibration:by_output=[]"]


@pytest.mark.parametrize(
    "change", ["calibration:fold_norms=2", "calibration:conditioning=0.01", "quantization:rotate_inputs=true"]
)
def test_a_changed_network_learns_and_packs_as_it_computes(change, tmp_path):
    description = {"type": "SwinIR", "upscale": 4, **tiny.NETWORK}
    network = build_network(description).eval()
    given = tiny.train_overrides(tmp_path, "bit=3", change, *QUICK)
    options = load_options(tiny.TRAIN, given)
    crops = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    model = PTQModel(network, options, torch.device("cpu"), feature_layers=["layers.0"])
    before = {key: value.clone() for key, value in model.full_precision.state_dict().items()}
    model.calibrate(crops)
    bounds = [parameter.clone() for parameter in model.parameters]
    model.optimize_parameters({"lq": crops})
    assert any(not torch.equal(old, new) for old, new in zip(bounds, model.parameters, strict=True))
    assert all(torch.equal(value, before[key]) for key, value in model.full_precision.state_dict().items())
    changed = model.network.state_dict()
    assert any(not torch.equal(changed[key], value) for key, value in before.items())
    with torch.no_grad(), count_codes(model.network) as codes:
        output = model.network_for_evaluation()(crops)
    assert max(codes.values()) <= 8
    with torch.no_grad():
        torch.testing.assert_close(integer_network(model.network)(crops), output, rtol=1e-3, atol=1e-3)
    save_packed(model.network, description, model.quantization_map, tmp_path / "packed.safetensors")
    with torch.no_grad():
        torch.testing.assert_close(load_packed(tmp_path / "packed.safetensors")[0](crops), output)
