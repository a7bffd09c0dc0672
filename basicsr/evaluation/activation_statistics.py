"""How the inputs of a network's activation quantizers are distributed, and what their quantizers do with them: activations.json."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from basicsr.evaluation.inference import PadMode, device_of, upscale
from basicsr.quant.insertion.insert import named_quantizers
from basicsr.quant.observe.capture import observe_activations, observe_quantizer_inputs
from basicsr.quant.quantizers.base import Quantizer
from basicsr.quant.spec import QuantizationError

PICTURES, SIDE = 2, 48
"""Pictures that are looked at, and the side of the middle of each in LR pixels."""
BINS = 64
HISTOGRAMS = 12
"""Quantizers whose histograms are kept, those with the largest relative error."""
_DIGITS = 6


@dataclass
class _Input:
    """What is known of the input of one quantizer; more than one call of it adds up in the bins of the first."""

    quantizer: Quantizer
    range: tuple[float, float] | None = None
    full_precision: Tensor = field(default_factory=lambda: torch.zeros(BINS))
    quantized: Tensor = field(default_factory=lambda: torch.zeros(BINS))
    squared_error: float = 0.0
    squares: float = 0.0
    gives: tuple[float, float] | None = None

    @property
    def error(self) -> float:
        """Sum of squared errors divided by the sum of squares; 0 where all values are 0."""
        return self.squared_error / self.squares if self.squares else 0.0

    def see_full_precision(self, x: Tensor) -> None:
        x = x.float()
        quantized = self.quantizer.fake_quantize(x)
        if self.range is None:
            low, high = (float(bound) for bound in x.aminmax())
            # a width of 0, of a constant input, would give every value to no bin
            self.range = (low, high) if high > low else (low - 0.5, low + 0.5)
        self.full_precision += torch.histc(x, BINS, *self.range).cpu()
        self.squared_error += float((x - quantized).square().sum())
        self.squares += float(x.square().sum())

    def see_quantized(self, x: Tensor, output: Tensor) -> None:
        assert self.range is not None  # the input was seen in full precision before
        self.quantized += torch.histc(x.float(), BINS, *self.range).cpu()
        low, high = (float(bound) for bound in output.aminmax())
        self.gives = (low, high) if self.gives is None else (min(low, self.gives[0]), max(high, self.gives[1]))


@torch.no_grad()
def activation_statistics(network: nn.Module, dataset: Any, pad: PadMode) -> dict[str, Any]:
    """Look at the activations of a quantized network on the middle of a few LR pictures.

    The relative error of a quantizer is that on its input while all quantizers let their inputs through; so it is its own, not
    that of the layers before it.

    Args:
        network: a calibrated quantized network, in evaluation mode.
        dataset: items with `lq` (3, h, w) in 0..1 and `name`; the first ones are taken.
        pad: how a picture grows to a multiple of the window, see `inference.upscale`.

    Returns:
        `pictures`: their names; `quantizers`: for each quantizer of activations its `name`, `type`, `bits`, whether it is
        `per_channel`, its `bounds` (the outermost ones over the channels; None for one without fixed bounds), the lowest and the
        highest value that it `gives` here, and its relative `error`; `histograms`: by name, for those with the largest errors,
        the `range` of the input and how many values lie in each of 64 bins of it, `full_precision` without and `quantized` with
        quantizers at work. Values of the latter outside the range are left out.
    """
    items = [dataset[index] for index in range(min(PICTURES, len(dataset)))]
    probes = [_middle(item["lq"]).to(device_of(network)) for item in items]
    if len({probe.shape for probe in probes}) == 1:
        probes = [torch.cat(probes)]  # one call of each quantizer, whose range then is that of all pictures
    inputs = {name: _Input(quantizer) for name, quantizer in named_quantizers(network, "activation")}
    with observe_quantizer_inputs(network, {name: one.see_full_precision for name, one in inputs.items()}):
        for probe in probes:
            upscale(network, probe, pad=pad)
    with observe_activations(network, lambda name, x, output: inputs[name].see_quantized(x, output)):
        for probe in probes:
            upscale(network, probe, pad=pad)
    used = {name: one for name, one in inputs.items() if one.gives is not None}
    largest = sorted(used, key=lambda name: -used[name].error)[:HISTOGRAMS]
    return {
        "pictures": [item["name"] for item in items],
        "quantizers": [_summary(name, one) for name, one in used.items()],
        "histograms": {
            name: {
                "range": _rounded(used[name].range),
                "full_precision": [int(count) for count in used[name].full_precision],
                "quantized": [int(count) for count in used[name].quantized],
            }
            for name in largest
        },
    }


def _middle(lq: Tensor) -> Tensor:
    top, left = (max(side - SIDE, 0) // 2 for side in lq.shape[1:])
    return lq[None, :, top : top + SIDE, left : left + SIDE]


def _summary(name: str, one: _Input) -> dict[str, Any]:
    quantizer = one.quantizer
    return {
        "name": name,
        "type": type(quantizer).__name__.removesuffix("Quantizer"),
        "bits": quantizer.spec.bits,
        "per_channel": quantizer.spec.granularity == "per_channel",
        "bounds": _bounds(quantizer),
        "gives": _rounded(one.gives),
        "error": _rounded([one.error])[0],
    }


def _bounds(quantizer: Quantizer) -> list[float] | None:
    if quantizer.dynamic:
        return None
    try:
        lower, upper = quantizer.affine_bounds()
    except QuantizationError:
        return None
    return _rounded([float(lower.min()), float(upper.max())])


def _rounded(values: Sequence[float] | None) -> list[float]:
    assert values is not None  # the quantizers without inputs are left out
    return [float(f"{value:.{_DIGITS}g}") for value in values]
