"""What happens inside a quantization-aware training: agreement of gradients, mismatch and bounds over the iterations."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from basicsr.quant.insertion.insert import learned_by_quantizers
from basicsr.quant.observe.capture import tap_activations
from basicsr.training.gradient_rules.agreement import conflicting_share, cosines
from basicsr.utils.extras import usable

_PROBE_IMAGES = 4
_BINS = 256
_LARGEST = 1e30
Histogram = dict[str, list[float]]


class Diagnostics:
    """Records of a training, and the figures that are drawn from them with each checkpoint.

    A record of an iteration has the cosine between the gradients of the main and of the mismatch loss and the share of the
    parameters for which their signs conflict, over the parameters that both losses reach; the norm ||X - q(X)||_2 of each
    activation quantizer on the batch; and what each quantizer has learned, averaged where that has several elements.
    Histograms of the activations before training and at the checkpoint are those of the first `_PROBE_IMAGES` crops of the first batch.

    A recorded iteration costs one backward pass more where the model has no mismatch loss; nothing is computed in the others.

    Args:
        network: the quantized network.
        every: number of iterations from one record to the next; the first iteration is recorded too.
    """

    def __init__(self, network: nn.Module, every: int) -> None:
        self._every = every
        self._records: dict[str, Any] = {"iterations": [], "cosine": [], "conflict": [], "mismatch": {}, "learned": {}}
        self._probe: Tensor | None = None
        self._before: dict[str, Histogram] = {}
        self._norms: dict[str, Tensor] = {}
        self._learned = learned_by_quantizers(network)

    def is_due(self, iteration: int) -> bool:
        """Whether an iteration, from 1, is one to record."""
        return iteration == 1 or iteration % self._every == 0

    def before_training(self, network: nn.Module, lq: Tensor) -> None:
        """Keep LR crops (N, 3, h, w) to look at the activations with, and look at them now."""
        self._probe = lq[:_PROBE_IMAGES].cpu()
        self._before = activation_histograms(network, self._probe)

    def look_at(self, pairs: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """Take the mismatch of a forward pass from inputs and outputs of the activation quantizers."""
        with torch.no_grad():
            self._norms = {name: torch.linalg.vector_norm(x - quantized) for name, (x, quantized) in pairs.items()}

    def record(
        self, iteration: int, main: Sequence[Tensor], auxiliary: Sequence[Tensor], layers: Sequence[str]
    ) -> None:
        """Add the record of an iteration.

        Args:
            iteration: its number, from 1.
            main: gradient of the main loss for each parameter that both losses reach; one at least.
            auxiliary: gradient of the mismatch loss for the same parameters.
            layers: name of the layer that each parameter belongs to.
        """
        records = self._records
        records["iterations"].append(iteration)
        records["cosine"].append(float(cosines(main, auxiliary, layers, "network")[0]))
        records["conflict"].append(float(conflicting_share(main, auxiliary)))
        for name, norm in self._norms.items():
            records["mismatch"].setdefault(name, []).append(float(norm))
        for name, parameter in self._learned.items():
            records["learned"].setdefault(name, []).append(float(parameter.detach().mean()))

    def scalars(self) -> dict[str, float]:
        """Return the latest record as named scalars."""
        records = self._records
        values = {f"gradients/{key}": records[key][-1] for key in ("cosine", "conflict")}
        for group in ("mismatch", "learned"):
            values |= {f"{group}/{name}": history[-1] for name, history in records[group].items()}
        return values

    def draw(self, network: nn.Module, folder: Path) -> None:
        """Write `diagnostics.png` and `activations.png` into a folder; where matplotlib is not installed, a warning says so.

        Raises:
            CheckpointError: they cannot be written.
        """
        if not usable(["matplotlib"]):
            return
        from basicsr.training.diagnostic_figures import draw_activations, draw_records  # imports matplotlib

        assert self._probe is not None  # figures are drawn of a training that has begun
        draw_records(self._records, folder / "diagnostics.png")
        draw_activations(self._before, activation_histograms(network, self._probe), folder / "activations.png")

    def state_dict(self) -> dict[str, Any]:
        """Return all records, as a resumed run needs them."""
        return {"records": self._records, "probe": self._probe, "before": self._before}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._records, self._probe, self._before = state["records"], state["probe"], state["before"]


@torch.no_grad()
def activation_histograms(network: nn.Module, lq: Tensor) -> dict[str, Histogram]:
    """Return how the inputs of the activation quantizers are distributed, by name.

    Args:
        network: a quantized network.
        lq: LR crops (N, 3, h, w).

    Returns:
        For each quantizer `counts` of 256 bins, the `range` that they divide, and the lowest and the highest value that the
        quantizer gives (`bounds`).
    """
    with tap_activations(network) as pairs:
        network(lq.to(next(network.parameters()).device))
    histograms = {}
    for name, (x, quantized) in pairs.items():
        values = x.float().flatten().cpu().nan_to_num(0.0, _LARGEST, -_LARGEST)  # what overflows is still to be seen
        low, high = (float(bound) for bound in values.aminmax())
        histograms[name] = {
            "counts": torch.histc(values, _BINS, low, high).tolist(),
            "range": [low, high],
            "bounds": [float(bound) for bound in quantized.aminmax()],
        }
    return histograms
