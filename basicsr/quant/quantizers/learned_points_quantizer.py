"""Quantizer to points that lie as close together as the values do."""

import torch
from torch import Tensor, nn

from basicsr.quant.calibration import StaticPoints
from basicsr.quant.ops import points as ops
from basicsr.quant.ops.functional import MINIMAL_WIDTH
from basicsr.quant.quantizers.base import Quantizer, require_per_tensor, require_symmetry
from basicsr.quant.spec import QuantizationError, QuantSpec
from basicsr.utils.registry import QUANTIZER_REGISTRY


@QUANTIZER_REGISTRY.register("LearnedPoints")
class LearnedPointsQuantizer(Quantizer[StaticPoints]):
    """The nearest of 2**bits points, which calibration finds and training moves; for activations.

    Values of activations crowd around 0, and equal steps spend most of their points on the few large ones. Points with the least squared
    error (Lloyd 1982, Max 1960) have steps as fine as the values are dense. The parameter `points`, float32 (2**bits,), is static: the same for
    all pictures. The grid is not uniform: graphs have a table of it, and it cannot be frozen or handed on.

    Args:
        spec: bits; neither symmetric nor per channel.

    Raises:
        QuantizationError: a symmetric or a per-channel quantizer is asked for.
    """

    takes = StaticPoints
    roles = ("activation",)
    own_calibrator = "OptimalPoints"

    def __init__(self, spec: QuantSpec, num_channels: int | None = None, /) -> None:
        super().__init__(spec, num_channels)
        require_symmetry(spec, False, "LearnedPoints")
        require_per_tensor(spec, "LearnedPoints has one set of points for a tensor")
        self.points = nn.Parameter(torch.linspace(-1, 1, spec.num_levels))

    def fake_quantize(self, x: Tensor) -> Tensor:
        """Return the points that the codes of `x` stand for, with gradients to `x` and to the points."""
        return ops.fake_quantize(x, self.points)

    def codes(self, x: Tensor) -> Tensor:
        """Return which of the points in ascending order is nearest: uint8 from 0 to 2**bits - 1, in the shape of `x`."""
        return ops.quantize(x, self.uneven_points())

    def uneven_points(self) -> Tensor:
        """Return the points in ascending order, float32 (2**bits,)."""
        self.require_calibrated()
        return self.points.detach().sort().values

    @torch.no_grad()
    def parameter_units(self) -> dict[str, Tensor]:
        """Return for each point the mean of the steps on both its sides; for the outermost ones the one step."""
        ordered, order = self.points.sort()
        steps = ordered.diff()
        beside = torch.cat([steps[:1], (steps[1:] + steps[:-1]) / 2, steps[-1:]]).clamp_min(MINIMAL_WIDTH)
        return {"points": torch.empty_like(beside).scatter_(0, order, beside)}

    @torch.no_grad()
    def load_calibration(self, result: StaticPoints) -> None:
        """Take the points.

        Raises:
            QuantizationError: they are not 2**bits finite numbers in ascending order.
        """
        found = result.points.float()
        if found.shape != self.points.shape or not bool(found.isfinite().all()) or not bool((found.diff() >= 0).all()):
            raise QuantizationError(
                f"The points {found.tolist()} for the quantizer '{self.name}' cannot be used: it needs {self.spec.num_levels} finite numbers "
                "in ascending order. Look at what was calibrated."
            )
        self.points.copy_(found)
        self.mark_calibrated()

    def extra_repr(self) -> str:
        """Return the specification and where the points lie, for `print(network)`."""
        lowest, highest = (float(bound) for bound in self.points.detach().aminmax())
        return f"{super().extra_repr()}, {self.spec.num_levels} points from {lowest:.4g} to {highest:.4g}"
