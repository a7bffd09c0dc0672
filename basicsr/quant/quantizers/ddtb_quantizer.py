"""Asymmetric quantizer of activations with two trainable bounds, some of them adapted to the sample by a gate."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from basicsr.quant.calibration import VaryingBounds
from basicsr.quant.ops import functional
from basicsr.quant.ops.samples import by_sample
from basicsr.quant.ops.zero_point import with_integer_zero_point
from basicsr.quant.quantizers.base import Channels, Quantizer, StatedRange, require_per_tensor, require_symmetry
from basicsr.quant.quantizers.ddtb_gate import RangeGate
from basicsr.quant.spec import QuantizationError, QuantSpec
from basicsr.utils.registry import QUANTIZER_REGISTRY


@QUANTIZER_REGISTRY.register("DDTB")
class DDTBQuantizer(Quantizer[VaryingBounds]):
    """Dynamic dual trainable bounds (DDTB, arXiv 2203.03844) of activations.

    The parameters `lower_bound` and `upper_bound`, float32 (), are the bounds. In the share `dynamic_ratio` of the quantizers
    of a network, rounded down, a gate scales both for each sample: those whose range varies most from sample to
    sample, among all whose tensors have channels. `settle` chooses them after the calibration; the others lose their gates.
    The buffer `gated` tells which is which, so that a state dict restores it.

    Args:
        spec: bits; not symmetric, per tensor.
        num_channels: None.
        channels: the channels of the tensor; None where it has none, and so no gate.
        dynamic_ratio: share of the quantizers with a gate, 0 to 1: 0.3 for EDSR, 0.5 for RDN, 0.1 for SRResNet.
        gate_channels: number of channels inside of a gate.
        gate_bits: bits inside of a gate; None for full precision.
        pull_steps: so many steps of training long, gates do not act: they start at random, and the mean square of what their sigmoid
            is taken of joins the losses, which pulls their factors to 1. With 0 they start at 1 and act at once.
        integer_zero_point: move the bounds so that 0 is one of the values, see `with_integer_zero_point`.

    Attributes:
        gate: the gate; None where there is none.

    Raises:
        QuantizationError: another specification, a ratio or bits out of range.
    """

    takes = VaryingBounds
    roles = ("activation",)
    takes_channels = True
    dynamic = True
    gated: Tensor
    pulls_left: Tensor

    def __init__(
        self,
        spec: QuantSpec,
        num_channels: int | None = None,
        channels: Channels | None = None,
        /,
        *,
        dynamic_ratio: float = 0.3,
        gate_channels: int = 32,
        gate_bits: int | None = 2,
        pull_steps: int = 0,
        integer_zero_point: bool = True,
    ) -> None:
        super().__init__(spec, num_channels)
        require_symmetry(spec, False, "DDTB")
        require_per_tensor(spec, "The gates of DDTB scale two bounds of a whole sample")
        if not 0 <= dynamic_ratio <= 1 or gate_channels < 1 or pull_steps < 0:
            raise QuantizationError(
                f"Options of DDTB: 'dynamic_ratio' is {dynamic_ratio} and must be from 0 to 1, 'gate_channels' is "
                f"{gate_channels} and must be at least 1, 'pull_steps' is {pull_steps} and must not be below 0."
            )
        self._dynamic_ratio = dynamic_ratio
        self._gate_options = (gate_channels, gate_bits)
        self._integer_zero_point = integer_zero_point
        self._channels = channels
        self._pull_steps = pull_steps
        self._penalty: Tensor | None = None
        self._seen_pulls_left: int | None = 0
        if pull_steps:
            self.register_buffer("pulls_left", torch.tensor(pull_steps))
            self._seen_pulls_left = pull_steps
        self._range_variance = 0.0
        self.lower_bound = nn.Parameter(torch.tensor(-1.0))
        self.upper_bound = nn.Parameter(torch.tensor(1.0))
        self.register_buffer("gated", torch.tensor(False))
        self.gate: RangeGate | None = None
        self.set_gated(channels is not None and dynamic_ratio > 0)

    def set_gated(self, gated: bool) -> None:
        """Give the quantizer a gate, a fresh one if it has none, or take it away."""
        if gated and self.gate is None:
            assert self._channels is not None  # who asks for a gate has looked
            gate = RangeGate(self._channels.number, *self._gate_options, starts_at_one=not self._pull_steps)
            self.gate = gate.to(self.lower_bound.device)
            self.gate.train(self.training)
        elif not gated:
            self.gate = None
        self.dynamic = gated
        self.gated.fill_(gated)

    @classmethod
    def settle(cls, quantizers: Sequence[Quantizer]) -> None:
        """Leave gates to those whose calibration data varied most."""
        own = [q for q in quantizers if isinstance(q, DDTBQuantizer)]
        eligible = sorted((q for q in own if q._channels is not None), key=lambda q: q._range_variance, reverse=True)
        chosen = {id(q) for q in eligible[: int(len(own) * own[0]._dynamic_ratio)]}
        for quantizer in own:
            quantizer.set_gated(id(quantizer) in chosen)

    def bounds(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the first and the last code stand for: () each, or (N,) where a gate acts, for the samples of `x`."""
        lower, upper = self.lower_bound, self.upper_bound
        if self.gate is not None and self._channels is not None and (self.training or not self.is_pulled):
            means = by_sample(x.detach(), self._channels.axis).float().mean(dim=2)  # N, C
            if self.is_pulled:
                self._penalty = self.gate.logits(means).square().mean()
            else:
                factors = self.gate(means)
                lower, upper = lower * factors[:, 1], upper * factors[:, 0]
        return with_integer_zero_point(lower, upper, self.spec.bits) if self._integer_zero_point else (lower, upper)

    def fake_quantize(self, x: Tensor) -> Tensor:
        """Return the values that the codes of `x` stand for, with gradients to `x`, the bounds and the gate."""
        lower, upper = self.bounds(x)
        return functional.fake_quantize(x, lower, upper, self.spec.bits, 0 if lower.dim() else None)

    def codes(self, x: Tensor) -> Tensor:
        """Return the codes of `x`: uint8 from 0 to 2**bits - 1, in the shape of `x`."""
        self.require_calibrated()
        lower, upper = self.bounds(x)
        return functional.quantize(x, lower, upper, self.spec.bits, 0 if lower.dim() else None)

    @property
    def is_pulled(self) -> bool:
        """Whether a gate is still pulled to 1 and does not act."""
        if self._seen_pulls_left is None:
            self._seen_pulls_left = int(self.pulls_left)  # read once, for a GPU would stall for it in each pass
        return self._seen_pulls_left > 0

    def take_penalty(self) -> Tensor | None:
        """Return the mean square of what the sigmoid of a gate is taken of, while it is pulled to 1."""
        penalty, self._penalty = self._penalty, None
        return penalty

    def step_taken(self) -> None:
        """Count the steps that are left to pull the gate."""
        if self.is_pulled:
            self.pulls_left -= 1
            self._seen_pulls_left -= 1  # type: ignore[operator]  # `is_pulled` has read it

    def affine_bounds(self, weight: Tensor | None = None, /) -> tuple[Tensor, Tensor]:
        """Return the bounds, moved so that 0 is one of the values where that is asked for.

        Raises:
            QuantizationError: a gate scales the bounds of each sample.
        """
        if self.gate is not None:
            return super().affine_bounds(weight)
        return self.bounds(self.lower_bound)

    @property
    def needs_data_to_start(self) -> bool:
        """Whether gates are to be given to those whose range varies most, which only data tell."""
        return self._channels is not None and self._dynamic_ratio > 0

    def load_range(self, stated: StatedRange, _weight: Tensor | None = None, /) -> str:
        """Take the bounds. A gate starts with factors of 1 and does not change them."""
        self._set_bounds(*stated.in_shape(())[:2])
        return "the same bounds" + (", moved so that 0 is one of the values" if self._integer_zero_point else "")

    def load_calibration(self, result: VaryingBounds) -> None:
        """Take the bounds, and remember the variance of the range until `settle`.

        Raises:
            QuantizationError: a bound is not finite, or the bounds meet or cross.
        """
        self._set_bounds(result.lower_bound, result.upper_bound)
        self._range_variance = result.range_variance

    @torch.no_grad()
    def _set_bounds(self, lower: Tensor, upper: Tensor) -> None:
        if lower.shape != () or not bool(torch.isfinite(upper - lower) & (lower < upper)):
            raise QuantizationError(
                f"The bounds {lower.tolist()} and {upper.tolist()} for the quantizer '{self.name}' cannot be used: both must "
                "be finite and the lower one must be smaller. Look at what was calibrated."
            )
        self.lower_bound.copy_(lower)
        self.upper_bound.copy_(upper)
        if self._pull_steps:
            self.pulls_left.fill_(self._pull_steps)
            self._seen_pulls_left = None
        self.mark_calibrated()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        gated = state_dict.get(f"{prefix}gated")
        if gated is not None:
            self.set_gated(bool(gated) and self._channels is not None)
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._seen_pulls_left = None if self._pull_steps else 0
