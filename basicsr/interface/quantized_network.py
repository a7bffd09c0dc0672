"""What `quantize` returns: a network that one can call, with everything that was done to it."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from basicsr.interface.networks import EnlargingNetwork
from basicsr.quant.insertion.quantization_map import QuantizationMap
from basicsr.training.calibration.network_calibration import CalibratedQuantizer
from basicsr.utils.errors import OptionsError


class QuantizedNetwork(EnlargingNetwork):
    """A quantized network; `quantized(lr)` enlarges images (n, 3, h, w) in 0..1 to (n, 3, h * scale, w * scale), not clipped.

    Its state dict is that of the quantized network under the prefix `network.`; moving it to a device moves the full-precision one too.

    Args:
        network: the network with quantizers inside.
        scale: its scale factor.
        size_multiple: heights and widths that it takes are multiples of this.
        full_precision: the network that it was made of, with the weights as they were; None where that is not at hand.
        quantization_map: the record of every quantizer.
        calibration: the calibration report, a line for each quantizer; empty for a network that was loaded.
        sections: what the options of a run would say of it: `quantization` and `calibration`, and the `recipe` that they are of; empty for
            a network that was loaded.
        methods: what was done, in order, such as `("DOBI", "2DQuant, 100 iterations")`.
        left_out: layers with weights that stay in full precision because they cannot be quantized, with the reason.
        smallest_side: images of at least so many pixels in height and width are known to go through.

    Attributes:
        scale, size_multiple, quantization_map, calibration, sections, methods, left_out, smallest_side: as given.
    """

    def __init__(
        self,
        network: nn.Module,
        scale: int,
        size_multiple: int,
        *,
        full_precision: nn.Module | None,
        quantization_map: QuantizationMap,
        calibration: tuple[CalibratedQuantizer, ...],
        sections: Mapping[str, Any],
        methods: tuple[str, ...],
        left_out: Mapping[str, str],
        smallest_side: int,
    ) -> None:
        super().__init__(network, scale, size_multiple)
        self._full_precision = (full_precision,)  # no module of this one: its weights are not in the state dict
        self.quantization_map = quantization_map
        self.calibration = calibration
        self.sections = dict(sections)
        self.methods = methods
        self.left_out = dict(left_out)
        self.smallest_side = smallest_side

    @property
    def full_precision(self) -> nn.Module | None:
        """The network that this one was made of, in float32 and evaluation mode."""
        return self._full_precision[0]

    @property
    def method(self) -> str:
        """Label for results: what was done, in order."""
        return " + ".join(self.methods)

    @property
    def coverage(self) -> str:
        """Which layers have quantizers: the name of a preset, or `given` where a file says."""
        return str(self.sections.get("quantization", {}).get("coverage", "given"))

    def bits(self, role: str) -> dict[int, int]:
        """Return how many quantizers of `weight` or `activation` have which number of bits."""
        entries = self.quantization_map.quantizers.values()
        return dict(sorted(Counter(entry.spec.bits for entry in entries if entry.role == role).items()))

    def extra_repr(self) -> str:
        """Return the facts that stand first in the representation."""
        counted = {
            role: ", ".join(f"{count} x {bits} bits" for bits, count in self.bits(role).items()) or "none"
            for role in ("weight", "activation")
        }
        return (
            f"method='{self.method}', scale={self.scale}, coverage='{self.coverage}', quantizers={len(self.quantization_map.quantizers)} "
            f"(weights {counted['weight']}; activations {counted['activation']}), left out={len(self.left_out)}"
        )

    def __repr__(self) -> str:
        """Return method, scale, coverage, and number and bits of the quantizers; `network` has the layers."""
        return f"{type(self).__name__}({type(self.network).__name__}, {self.extra_repr()})"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "QuantizedNetwork":
        super()._apply(fn, recurse)
        if self.full_precision is not None:
            self.full_precision._apply(fn, recurse)
        return self


def require_quantized(network: nn.Module) -> None:
    """Raise an OptionsError for a network that `quantize` has not made."""
    if not isinstance(network, QuantizedNetwork):
        raise OptionsError(
            f"A quantized network is needed, but this is a {type(network).__name__}. Begin with "
            "basicsr.quantize(network, crops), which returns one."
        )
