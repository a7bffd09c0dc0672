"""What a calibrator is: it sees the calibration data, as often as it asks for, and answers with bounds or points."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

import torch
from torch import Tensor

from basicsr.quant.calibration import Bounds, CalibrationResult
from basicsr.quant.spec import QuantizationError, QuantSpec

ResultT = TypeVar("ResultT", bound=CalibrationResult, covariant=True)

CONSTANT_RELATIVE_WIDTH = 2.0**-8
CONSTANT_MINIMUM_WIDTH = 2.0**-20
REPEATABILITY = 2.0**-12
"""Share of the largest magnitude by which values may differ from one pass to the next."""


@dataclass(frozen=True)
class FoundBounds:
    """What a calibrator hands to `BoundsCalibrator.finish`: float64 bounds of shape (C,), one channel if per tensor."""

    lower: Tensor
    upper: Tensor
    mean_squared_error: float | None = None
    search: str | None = None


class Calibrator(ABC, Generic[ResultT]):
    """Finds the parameters of one quantizer in one or more passes over the same data.

        while True:
            for batch in data:
                calibrator.update(batch)
            if not calibrator.end_pass():
                break
        result = calibrator.finish()

    Every process of a distributed run calibrates on the whole data and so finds the same result.

    A subclass provides `gives`, `update`, `end_pass` and `finish`. Most derive from `StreamingCalibrator`, which asks for
    `_look_at` and `finish`, or from `BoundsCalibrator`, which asks for `_find_bounds`. Both provide all else.

    Args:
        spec: the quantizer.

    Attributes:
        gives: the kind of result, which the quantizer must take.
    """

    gives: ClassVar[type[CalibrationResult]]

    def __init__(self, spec: QuantSpec, /) -> None:
        self.spec = spec

    @abstractmethod
    def update(self, tensor: Tensor) -> None:
        """Look at one batch of the current pass: the tensor that the quantizer would quantize.

        Raises:
            QuantizationError: the batch is empty or holds NaN or infinity, or does not fit the batches before.
        """

    @abstractmethod
    def end_pass(self) -> bool:
        """Close the pass; return True if another one over the same data is needed.

        Raises:
            QuantizationError: the pass saw no data, or other data than the first pass.
        """

    @abstractmethod
    def finish(self) -> ResultT:
        """Return the result, after `end_pass()` returned False."""


class StreamingCalibrator(Calibrator[ResultT]):
    """A calibrator that checks its data and counts its passes. A subclass defines `_look_at` and `finish`.

    The data may be cut into batches in any way and order, the same or another in every pass. All arithmetic on
    elements starts from float32: other types are converted first.
    """

    def __init__(self, spec: QuantSpec, /) -> None:
        super().__init__(spec)
        self._num_channels: int | None = None
        self._elements_of_pass = 0
        self._elements_of_first_pass = 0  # until it is over
        self._complete = False

    def update(self, tensor: Tensor) -> None:
        """Look at one batch of the current pass.

        Args:
            tensor: any shape (with `per_channel`: the same number of channels in every batch), any device.

        Raises:
            QuantizationError: the batch is empty or holds NaN or infinity (also after conversion to float32), it has
                another number of channels than the first, a later pass leaves the range of the first by more than
                rounding, or all passes are over.
        """
        if self._complete:
            raise QuantizationError("The calibrator needs no more data: end_pass() returned False. Call finish().")
        self._check(tensor)
        self._look_at(tensor.detach().to(torch.float32))
        self._elements_of_pass += tensor.numel()
        if self.spec.channel_axis is not None:
            self._num_channels = tensor.shape[self.spec.channel_axis]

    def end_pass(self) -> bool:
        """Close the pass; return True if another one over the same data is needed.

        Raises:
            QuantizationError: the pass saw no data, or another number of elements than the first pass.
        """
        if self._complete:
            return False
        if self._elements_of_pass == 0:
            raise QuantizationError("The calibrator saw no data in this pass; call update() with at least one batch.")
        if not self._elements_of_first_pass:
            self._elements_of_first_pass = self._elements_of_pass
        elif self._elements_of_pass != self._elements_of_first_pass:
            raise QuantizationError(
                f"A later calibration pass saw {self._elements_of_pass} elements, the first "
                f"{self._elements_of_first_pass}; every pass must see the same data."
            )
        self._elements_of_pass = 0
        self._complete = not self._needs_another_pass()
        return not self._complete

    @abstractmethod
    def _look_at(self, tensor: Tensor) -> None:
        """Look at a batch, float32, that is not empty and has the channels of the batches before."""

    def _needs_another_pass(self) -> bool:
        """Return whether another pass is needed after the one that ends."""
        return False

    def _require_complete(self) -> None:
        if not self._complete:
            raise QuantizationError("Calibration is not complete: call end_pass() until it returns False.")

    def _check(self, tensor: Tensor) -> None:
        if tensor.numel() == 0:
            raise QuantizationError(
                f"The calibration data are empty: a batch has the shape {tuple(tensor.shape)}. Give at least one element."
            )
        if tensor.is_complex():
            raise QuantizationError(f"The calibration data are {tensor.dtype}; only real numbers can be quantized.")
        axis = self.spec.channel_axis
        if axis is None:
            return
        if not -tensor.ndim <= axis < tensor.ndim:
            raise QuantizationError(f"channel_axis is {axis}, but the tensor has the shape {tuple(tensor.shape)}.")
        if self._num_channels not in (None, tensor.shape[axis]):
            raise QuantizationError(
                f"A batch has {tensor.shape[axis]} channels (shape {tuple(tensor.shape)}, channel_axis {axis}), "
                f"the first had {self._num_channels}."
            )


class BoundsCalibrator(StreamingCalibrator[Bounds]):
    """A calibrator of bounds.

    On a GPU, kernels that add in an order of their own make the same activations differ by rounding from pass to pass; so a later
    pass may leave the range of the first by `REPEATABILITY` times the largest magnitude, and what leaves it counts as the
    nearest value of the range. Later passes only refine what the first has found: a calibrator that needs them keeps
    its results within the limits that the first pass has set.

    Args:
        spec: the quantizer; with `symmetric`, the bounds are -u and u.
    """

    gives: ClassVar[type[Bounds]] = Bounds
    _lowest: Tensor  # (C,) float32, over all batches so far; set by the first one
    _highest: Tensor

    def finish(self) -> Bounds:
        """Return the bounds, after `end_pass()` returned False.

        Data of one value c have no range. They get the lower bound c, which is code 0 and so c exactly, and the upper
        bound c + max(|c| / 256, 2**-20), also where c is 0. With `symmetric`, u is |c|, or 2**-20 where c is 0.
        Bounds that rounding to float32 made equal are moved apart by one float32.

        Raises:
            QuantizationError: passes are missing, or the range upper - lower is beyond float32.
        """
        self._require_complete()
        found = self._find_bounds()
        constant = self._lowest == self._highest
        lower, upper = found.lower.float(), found.upper.float()
        if constant.any():
            constant_lower, constant_upper = self._bounds_of_constant()
            lower = torch.where(constant, constant_lower, lower)
            upper = torch.where(constant, constant_upper, upper)
        upper = torch.where(upper > lower, upper, torch.nextafter(lower, lower.new_tensor(torch.inf)))
        if not (upper - lower).isfinite().all():
            raise QuantizationError(
                f"The bounds {lower.min().item():g} and {upper.max().item():g} are too far apart for float32; "
                "scale the tensor down."
            )
        per_channel = self.spec.channel_axis is not None
        return Bounds(
            lower_bound=lower if per_channel else lower.squeeze(0),  # (C,) or ()
            upper_bound=upper if per_channel else upper.squeeze(0),
            mean_squared_error=found.mean_squared_error,
            search=found.search,
            constant=bool(constant.any()),
        )

    @abstractmethod
    def _find_bounds(self) -> FoundBounds:
        """Return the bounds after the last pass; those of a constant channel are ignored."""

    def _observe(self, rows: Tensor) -> None:  # noqa: B027 - the range is all that some calibrators need
        """Look at the batch as float32 of shape (C, elements); its range is in `_lowest` and `_highest` already."""

    def _look_at(self, tensor: Tensor) -> None:
        rows = self._as_rows(tensor)
        lowest, highest = finite_range(rows)
        if not self._elements_of_first_pass:
            self._widen_range(lowest, highest)
        else:
            rows = self._within_range(rows, lowest, highest)
        self._observe(rows)

    def _as_rows(self, tensor: Tensor) -> Tensor:
        axis = self.spec.channel_axis
        if axis is None:
            return tensor.reshape(1, -1)  # any shape -> 1,M
        return tensor.movedim(axis, 0).flatten(1) if tensor.ndim > 1 else tensor.unsqueeze(1)  # ...,C,... -> C,M

    def _widen_range(self, lowest: Tensor, highest: Tensor) -> None:
        if self._elements_of_pass == 0:  # the first batch
            self._lowest, self._highest = lowest, highest
            return
        self._lowest = torch.minimum(self._lowest, lowest)
        self._highest = torch.maximum(self._highest, highest)

    def _within_range(self, rows: Tensor, lowest: Tensor, highest: Tensor) -> Tensor:
        """Return the rows of a later pass with what rounding put outside the range of the first moved into it."""
        outside = torch.maximum(self._lowest - lowest, highest - self._highest)
        if not (outside > 0).any():
            return rows
        if (outside > REPEATABILITY * torch.maximum(self._lowest.abs(), self._highest.abs())).any():
            raise QuantizationError(
                "A later calibration pass has values outside the range of the first; every pass must see the same "
                "data. Put the network into eval mode and fix the random crops."
            )
        return rows.clamp(self._lowest[:, None], self._highest[:, None])

    def _bounds_of_constant(self) -> tuple[Tensor, Tensor]:
        value = self._lowest
        if self.spec.symmetric:
            magnitude = torch.where(value == 0, CONSTANT_MINIMUM_WIDTH, value.abs())
            return -magnitude, magnitude
        return value, value + (value.abs() * CONSTANT_RELATIVE_WIDTH).clamp_min(CONSTANT_MINIMUM_WIDTH)


def calibrate_tensor(calibrator: Calibrator[ResultT], tensor: Tensor) -> ResultT:
    """Run all passes of a calibrator over one tensor, such as a weight, and return its result."""
    calibrator.update(tensor)
    while calibrator.end_pass():
        calibrator.update(tensor)
    return calibrator.finish()


def finite_range(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return minimum and maximum of each row of (C, elements), shape (C,).

    Raises:
        QuantizationError: there are NaN or infinite values.
    """
    if len(rows) == 1:
        lowest, highest = (bound.reshape(1) for bound in rows.aminmax())  # over rows it would use one thread
    else:
        lowest, highest = rows.aminmax(dim=1)
    if not (lowest.isfinite() & highest.isfinite()).all():  # NaN propagates into both
        num_nan, num_infinite = int(rows.isnan().sum()), int(rows.isinf().sum())
        raise QuantizationError(
            f"The calibration data hold {num_nan} NaN and {num_infinite} infinite values (as float32) among "
            f"{rows.numel()}; bounds need finite values. Check the network and its inputs."
        )
    return lowest, highest
