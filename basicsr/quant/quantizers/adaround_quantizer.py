"""Uniform quantizer of a weight whose rounding is learned (AdaRound)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from basicsr.quant.ops import functional
from basicsr.quant.quantizers.affine_quantizer import AffineQuantizer
from basicsr.quant.spec import QuantizationError, QuantSpec
from basicsr.utils.registry import QUANTIZER_REGISTRY

GAMMA, ZETA = -0.1, 1.1
"""The sigmoid is stretched to this range and then clipped to 0..1, so that it reaches 0 and 1 (Nagel et al., section 3.2)."""


def rectified_sigmoid(v: Tensor) -> Tensor:
    """Return h(v) = clip(sigmoid(v) (ZETA - GAMMA) + GAMMA, 0, 1) (Nagel et al. 2020, arXiv 2004.10568, equation 23)."""
    return (torch.sigmoid(v) * (ZETA - GAMMA) + GAMMA).clamp(0, 1)


def inverse_rectified_sigmoid(h: Tensor) -> Tensor:
    """Return the v with h(v) = `h`, for values in 0..1."""
    return torch.logit((h - GAMMA) / (ZETA - GAMMA))


@QUANTIZER_REGISTRY.register("AdaRound")
class AdaRoundQuantizer(AffineQuantizer):
    """The grid of `Affine`, with a learned choice between the two grid points next to each weight (arXiv 2004.10568).

    With s and l for step and lower bound, the code of a weight w is clip(floor((w - l) / s) + h(V), 0, 2**bits - 1), where
    V is a variable for each weight and h the rectified sigmoid. Rounding is

    - to the nearest, as that of `Affine`, until `start_rounding` is called with the weight;
    - learned from then on: V starts where floor + h(V) is the weight itself, clipped to the bounds. Inside `soft_rounding`
      codes are not whole numbers and V gets a gradient; outside of it h(V) is 0 or 1, whichever is nearer, so
      that there are never more than 2**bits codes;
    - fixed after `finish_rounding`.

    V is the buffer `rounding`: absent, float32, or, once fixed, bool (whether a weight is rounded up), in the shape of the
    weight. With the bounds it is the whole state, and a state dict brings its shape along. As V is no parameter, it is not
    counted as a part of the network. The bounds get the gradients that those of `Affine` get.

    Args:
        spec: bits, symmetry and granularity.
        num_channels: number of channels along `spec.channel_axis`, for a per-channel quantizer.

    Attributes:
        soft: codes need not be whole numbers. Only `soft_rounding` switches it.
    """

    rounding: Tensor | None

    def __init__(self, spec: QuantSpec, num_channels: int | None = None, /) -> None:
        super().__init__(spec, num_channels)
        self.register_buffer("rounding", None)
        self.soft = False

    @property
    def is_learned(self) -> bool:
        """Whether the rounding is being learned: started and not finished."""
        return self.rounding is not None and self.rounding.dtype != torch.bool

    @property
    def has_learned_rounding(self) -> bool:
        """Whether the rounding was started, and possibly finished."""
        return self.rounding is not None

    @torch.no_grad()
    def start_rounding(self, weight: Tensor) -> None:
        """Make the rounding of `weight` a leaf tensor for an optimiser, `rounding`, which needs a gradient.

        Raises:
            QuantizationError: the quantizer has not been calibrated.
        """
        self.require_calibrated()
        position, _, _ = functional.grid_positions(weight, *self.bounds(), self.spec.bits, self.spec.channel_axis)
        self.rounding = inverse_rectified_sigmoid(position - position.floor()).requires_grad_()

    def finish_rounding(self) -> None:
        """Fix the rounding that was learned."""
        if self.rounding is not None:
            self.rounding = _rounds_up(self.rounding)

    def started_rounding(self) -> Tensor:
        """Return the buffer `rounding`.

        Raises:
            QuantizationError: the rounding has not been started.
        """
        if self.rounding is None:
            raise QuantizationError(
                f"The quantizer '{self.name}' does not learn its rounding yet; call start_rounding first."
            )
        return self.rounding

    def rounding_regularizer(self, beta: float) -> Tensor:
        """Return sum(1 - |2 h(V) - 1|**beta), which is 0 where all h(V) are 0 or 1 (equation 24).

        Raises:
            QuantizationError: the rounding has not been started.
        """
        return (1 - (2 * rectified_sigmoid(self.started_rounding()) - 1).abs().pow(beta)).sum()

    def fake_quantize(self, x: Tensor) -> Tensor:
        """Return the values that the codes of `x` stand for, with gradients to V in `soft_rounding`, to `x` and the bounds."""
        if self.rounding is None:
            return super().fake_quantize(x)
        self._require_shape(x, self.rounding)
        position, lower, step = functional.grid_positions(x, *self.bounds(), self.spec.bits, self.spec.channel_axis)
        soft = self.soft and self.is_learned
        up = rectified_sigmoid(self.rounding) if soft else _rounds_up(self.rounding)
        codes = (position.detach().floor() + up).clamp(0, self.spec.max_code)
        # a zero that carries the gradients of the clipped position: straight-through, as in `Affine`
        straight_through = position.clamp(0, self.spec.max_code)
        return ((codes + (straight_through - straight_through.detach())) * step + lower).to(x.dtype)

    def codes(self, x: Tensor) -> Tensor:
        """Return the codes of `x`, never soft: uint8 from 0 to 2**bits - 1, in the shape of `x`."""
        if self.rounding is None:
            return super().codes(x)
        self.require_calibrated()
        self._require_shape(x, self.rounding)
        with torch.no_grad():
            position, _, _ = functional.grid_positions(x, *self.bounds(), self.spec.bits, self.spec.channel_axis)
            return (position.floor() + _rounds_up(self.rounding)).clamp(0, self.spec.max_code).to(torch.uint8)

    def _require_shape(self, x: Tensor, rounding: Tensor) -> None:
        if x.shape != rounding.shape:
            raise QuantizationError(
                f"The quantizer '{self.name}' has learned the rounding of a weight of the shape {tuple(rounding.shape)}, "
                f"but is given one of the shape {tuple(x.shape)}. Load the checkpoint into the network that it was made with."
            )

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        stored = state_dict.get(f"{prefix}rounding")
        if stored is not None and not _is_rounding(stored):
            raise QuantizationError(
                f"The checkpoint holds in '{prefix}rounding' {stored.dtype} values that are no rounding of weights: finite float32 "
                "numbers or booleans are. It is damaged or not one of this framework; take another one."
            )
        # what is loaded is copied into a tensor that exists: make one of the kind and shape of the stored one
        self.rounding = None if stored is None else torch.empty_like(stored, device=self.upper_bound.device)
        super()._load_from_state_dict(state_dict, prefix, *args)


def _rounds_up(rounding: Tensor) -> Tensor:
    """Return where h(V) is at least 1/2, bool; V once fixed says so itself."""
    return rounding if rounding.dtype == torch.bool else rounding.detach() >= 0


def _is_rounding(tensor: Tensor) -> bool:
    return tensor.dtype == torch.bool or (tensor.dtype == torch.float32 and bool(torch.isfinite(tensor).all()))


@contextmanager
def soft_rounding(module: nn.Module) -> Iterator[None]:
    """Let the quantizers in a module whose rounding is being learned give values between the grid points, with gradients."""
    quantizers = [quantizer for quantizer in module.modules() if isinstance(quantizer, AdaRoundQuantizer)]
    for quantizer in quantizers:
        quantizer.soft = True
    try:
        yield
    finally:
        for quantizer in quantizers:
            quantizer.soft = False
