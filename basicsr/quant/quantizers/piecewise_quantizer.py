"""Quantizer whose steps are fine where most values lie and coarse where outliers do."""

from typing import Any

import torch
from torch import Tensor, nn

from basicsr.quant.calibration import OutlierBounds
from basicsr.quant.ops import piecewise
from basicsr.quant.ops.functional import MINIMAL_WIDTH
from basicsr.quant.quantizers.base import Quantizer, require_per_tensor, require_symmetry
from basicsr.quant.spec import QuantizationError, QuantSpec
from basicsr.utils.registry import QUANTIZER_REGISTRY


@QUANTIZER_REGISTRY.register("Piecewise")
class PiecewiseQuantizer(Quantizer[OutlierBounds]):
    """Uniform steps between -t and t, and other uniform steps on both sides of it up to the bounds (arXiv 2511.00682); for activations.

    There are 2**(bits - 1) - 1 points inside, 0 among them, and 2**(bits - 2) - 1 on each side: 2**bits - 3 values. At 2 bits that
    formula leaves 0 alone. There the values are both bounds, -t and t. Where calibration found outliers on one side alone, as behind a
    ReLU, that side has the points of both, and the points inside reach to the bound on the other side.

    The parameters `lower_bound`, `upper_bound` and `breakpoint`, float32 (), are learned; the buffer `steps` (3,) says how many steps each
    of the regions has. See `ops.piecewise` for values and gradients. The range is static, but the grid is not uniform: graphs
    have a table of it, and it cannot be frozen or handed on.

    Args:
        spec: bits; neither symmetric nor per channel.

    Raises:
        QuantizationError: a symmetric or a per-channel quantizer is asked for.
    """

    takes = OutlierBounds
    roles = ("activation",)
    steps: Tensor

    def __init__(self, spec: QuantSpec, num_channels: int | None = None, /) -> None:
        super().__init__(spec, num_channels)
        require_symmetry(spec, False, "Piecewise")
        require_per_tensor(spec, "Piecewise has one grid for a tensor")
        self.lower_bound = nn.Parameter(torch.tensor(-1.0))
        self.upper_bound = nn.Parameter(torch.tensor(1.0))
        self.breakpoint = nn.Parameter(torch.tensor(0.5))
        self.register_buffer("steps", torch.tensor(_steps(spec.bits, True, True)))

    def _grid(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.lower_bound, self.upper_bound, self.breakpoint, self.steps

    def fake_quantize(self, x: Tensor) -> Tensor:
        """Return the values that the codes of `x` stand for, with gradients to `x`, to the bounds and to the breakpoint."""
        return piecewise.fake_quantize(x, *self._grid())

    def codes(self, x: Tensor) -> Tensor:
        """Return the codes of `x`: uint8 from 0 to 2**bits - 1, in the shape of `x`."""
        self.require_calibrated()
        return piecewise.quantize(x, *self._grid())

    @torch.no_grad()
    def uneven_points(self) -> Tensor:
        """Return the values of all regions in ascending order, float32."""
        self.require_calibrated()
        return piecewise.points_of(*self._grid())

    @torch.no_grad()
    def parameter_units(self) -> dict[str, Tensor]:
        """Return for each bound the step beside it, and for the breakpoint the step inside."""
        below, inside, above = (region.step for region in piecewise.regions_of(*self._grid()))
        return {
            "lower_bound": torch.where(self.steps[0] > 0, below, inside),
            "upper_bound": torch.where(self.steps[2] > 0, above, inside),
            "breakpoint": inside,
        }

    @torch.no_grad()
    def load_calibration(self, result: OutlierBounds) -> None:
        """Take bounds and breakpoint, and tell from them on which sides there are outliers.

        Raises:
            QuantizationError: a number is not finite, the bounds meet or cross, or the breakpoint is not above 0.
        """
        lower, upper, middle = (b.float() for b in (result.lower_bound, result.upper_bound, result.breakpoint))
        numbers = [float(bound) for bound in (lower, upper, middle) if bound.shape == ()]
        usable = len(numbers) == 3 and bool(torch.isfinite(torch.stack([lower, upper, middle])).all())
        if not usable or numbers[1] - numbers[0] < MINIMAL_WIDTH or numbers[2] <= 0:
            raise QuantizationError(
                f"The bounds {lower.tolist()} and {upper.tolist()} with the breakpoint {middle.tolist()} for the quantizer '{self.name}' "
                "cannot be used: they must be finite numbers, the lower bound below the upper one, and the breakpoint above 0. Look at "
                "what was calibrated."
            )
        self.lower_bound.copy_(lower)
        self.upper_bound.copy_(upper)
        self.breakpoint.copy_(middle)
        self.steps.copy_(torch.tensor(_steps(self.spec.bits, numbers[0] < -numbers[2], numbers[1] > numbers[2])))
        self.mark_calibrated()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        steps = state_dict.get(f"{prefix}steps")
        known = [_steps(self.spec.bits, below, above) for below in (True, False) for above in (True, False)]
        if steps is not None and steps.tolist() not in known:
            raise QuantizationError(
                f"The checkpoint holds in '{prefix}steps' {steps.tolist()}, but {self.spec.bits} bits have one of {known}. It is damaged or "
                "not one of this framework; take another one."
            )


def _steps(bits: int, below: bool, above: bool) -> list[int]:
    """Return the number of steps below, inside and above, given on which sides there are outliers."""
    inside, outside = max(2 ** (bits - 1) - 2, 1), max(2 ** (bits - 2) - 1, 1)
    if below and above:
        return [outside, inside, outside]
    return [2 * outside * below, inside, 2 * outside * above]
