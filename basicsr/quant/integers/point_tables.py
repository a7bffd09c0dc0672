"""Activations of a static grid with steps of several sizes as runtimes compute them: a table says what a value is rounded to.

Values are cut into many cells of equal width, and those of a cell get the point of its centre. So a value may get the neighbour of its
point only where it is less than half a cell from a threshold, from which both are as far. The lowest and the highest point are
centres. A table of numbers on a grid of 8-bit integers that has zero gives runtimes what they multiply.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from basicsr.quant.integers.containers import largest_codes, steps_from
from basicsr.quant.integers.operators import look_up, through_uint8
from basicsr.quant.quantizers.base import Quantizer

_CELLS_OF_STEP = 128
_MOST_CELLS = 2**14  # 64 KiB in floating point


@dataclass(frozen=True)
class Cells:
    """Which point the values of each cell are rounded to.

    Attributes:
        start: where the first cell begins.
        width: of a cell, above 0.
        points: what there is to round to, float32 (K,), ascending and different.
        places: which of them each cell has, int64 (cells,).
    """

    start: float
    width: float
    points: Tensor
    places: Tensor


def cells_of(quantizer: Quantizer, points: Tensor) -> Cells:
    """Return the cells of a quantizer, so many that the smallest step has `_CELLS_OF_STEP` of them, and at most `_MOST_CELLS`.

    Args:
        quantizer: calibrated and per tensor, with a static grid.
        points: its `uneven_points`.
    """
    points = points.detach().float().unique()
    lowest, span = float(points[0]), float(points[-1] - points[0])
    if span == 0:
        return Cells(lowest, 1.0, points.cpu(), torch.zeros(1, dtype=torch.long))
    number = min(_MOST_CELLS, round(_CELLS_OF_STEP * span / float(points.diff().min())))
    width = span / (number - 1)
    centres = lowest + torch.arange(number, dtype=torch.float64) * width
    rounded = quantizer(centres.float().to(points.device))
    places = (rounded[:, None] - points).abs().argmin(dim=1)
    return Cells(lowest - width / 2, width, points.cpu(), places.cpu())


class PointValues(nn.Module):
    """Rounds activations to the points of a quantizer, in floating point: for products that are not computed in integers.

    Args:
        quantizer, points: see `cells_of`.
    """

    table: Tensor

    def __init__(self, quantizer: Quantizer, points: Tensor) -> None:
        super().__init__()
        self.cells = cells_of(quantizer, points)
        self.register_buffer("table", self.cells.points[self.cells.places])

    def forward(self, x: Tensor) -> Tensor:
        """Return the points, in the shape of `x`."""
        return look_up(x, self.table, self.cells.start, self.cells.width)


class ContainedPoints(nn.Module):
    """Rounds activations to the points of a quantizer, moved onto a grid of 8-bit integers that has zero.

    The step of that grid is the one that moves points least, each in proportion to the steps beside it.

    Args:
        quantizer, points: see `cells_of`.

    Attributes:
        step: of the grid.
        zero_point: the integer that stands for 0.
        moved: largest distance of an integer's value from its point, as a share of the smaller step beside the point, or of `step` where
            that is larger.
    """

    table: Tensor

    def __init__(self, quantizer: Quantizer, points: Tensor) -> None:
        super().__init__()
        self.cells = cells_of(quantizer, points)
        integers, self.step, self.zero_point, self.moved = contained_points(self.cells.points, quantizer.spec.bits)
        values = (integers - self.zero_point) * self.step
        self.register_buffer("table", values.float()[self.cells.places])

    def forward(self, x: Tensor) -> Tensor:
        """Return the values of the integers, in the shape of `x`."""
        values = look_up(x, self.table, self.cells.start, self.cells.width)
        return through_uint8(values, self.step, self.zero_point)


def contained_points(points: Tensor, bits: int) -> tuple[Tensor, float, int, float]:
    """Return the integers that stand for points, int64 (K,), 0 to 255; and step, zero point and `moved` of `ContainedPoints`.

    Args:
        points: float32 (K,), ascending and different.
        bits: of the quantizer, which decide how large an integer may be, see `largest_codes`.
    """
    points, largest = points.double(), largest_codes(bits)[0]
    lowest, highest = min(float(points[0]), 0.0), max(float(points[-1]), 0.0)
    if lowest == highest:
        return torch.zeros(1, dtype=torch.long), 1.0, 0, 0.0
    finest = (highest - lowest) / (largest - 1)  # ends may be rounded outwards
    beside = torch.nn.functional.pad(points.diff(), (1, 1), value=float("inf"))
    beside = torch.minimum(beside[1:], beside[:-1]).clamp(finest, highest - lowest)
    steps = steps_from(finest)
    shares = ((points / steps[:, None]).round() * steps[:, None] - points) / beside
    step = float(steps[shares.square().sum(dim=1).argmin()])
    zero_point = -round(lowest / step)
    integers = ((points / step).round() + zero_point).clamp(0, largest)
    moved = (((integers - zero_point) * step - points).abs() / beside.clamp_min(step)).max()
    return integers.long(), step, zero_point, float(moved)
