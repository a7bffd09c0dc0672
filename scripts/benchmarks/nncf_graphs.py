"""Graphs quantized by NNCF, OpenVINO's own quantizer, as networks: `pip install -e '.[peers]'`."""

import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from basicsr.deploy.graph_metadata import read_metadata
from basicsr.deploy.runtime_names import Precision
from basicsr.deploy.runtimes import openvino_core

PERFORMANCE, MIXED, TRANSFORMER = "performance", "mixed", "mixed, transformer"


def quantized_by_nncf(graph: Path, crops: Tensor, preset: str) -> Any:
    """Return the `openvino.Model` that NNCF makes of a full-precision graph of `save_onnx`, in 8 bits.

    Constants are folded before: NNCF 3.4 ends with an error of its own at the position bias of SwinIR, a weight that nothing multiplies.

    Args:
        graph: the file.
        crops: LR crops (N, 3, h, w) that it calibrates on, all of them.
        preset: `PERFORMANCE` has symmetric activations, `MIXED` asymmetric ones, `TRANSFORMER` these and NNCF's rules for transformers.
    """
    import nncf  # an optional package, and slow to import
    from openvino.passes import ConstantFolding, Manager

    model, passes = openvino_core().read_model(graph), Manager()
    passes.register_pass(ConstantFolding())
    passes.run_passes(model)
    with contextlib.redirect_stdout(io.StringIO()):  # where NNCF draws its progress
        return nncf.quantize(
            model,
            nncf.Dataset([crop[None].numpy() for crop in crops]),
            preset=nncf.QuantizationPreset.PERFORMANCE if preset == PERFORMANCE else nncf.QuantizationPreset.MIXED,
            subset_size=len(crops),
            model_type=nncf.ModelType.TRANSFORMER if preset == TRANSFORMER else None,
        )


class NncfNetwork(nn.Module):
    """A model of `quantized_by_nncf`, run by OpenVINO on one thread.

    Args:
        graph: the full-precision graph that it was made of.
        model: the model.
        precision: of what does not multiply integers.

    Attributes:
        scale: the scale factor.
        size_multiple: heights and widths are multiples of this.
    """

    def __init__(self, graph: Path, model: Any, precision: Precision = "f32") -> None:
        super().__init__()
        import onnx

        metadata = read_metadata(onnx.load(str(graph)))
        self.scale, self.size_multiple = metadata.scale, metadata.size_multiple
        config = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": 1}
        self._request = openvino_core().compile_model(model, "CPU", config).create_infer_request()

    def forward(self, x: Tensor) -> Tensor:
        """Enlarge images (n, 3, h, w) in 0..1."""
        outputs = [next(iter(self._request.infer({0: image[None].numpy()}).values())) for image in x]
        return torch.from_numpy(np.concatenate(outputs))
