"""What calibrators hand to quantizers."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


class CalibrationResult(ABC):
    """What the calibration of one quantizer found; each kind of quantizer takes one kind of result.

    Attributes:
        mean_squared_error: mean over the calibration data of (x - quantized x)**2; None where it is not measured.
        constant: the data, or the data of at least one channel, had only one value.
    """

    mean_squared_error: float | None
    constant: bool

    @abstractmethod
    def as_dict(self) -> dict[str, Any]:
        """Return plain values for the calibration report, a JSON file."""


@dataclass(frozen=True)
class Bounds(CalibrationResult):
    """The bounds of one quantizer, and how they were found.

    Attributes:
        lower_bound: float32, shape () per tensor or (C,) per channel.
        upper_bound: as `lower_bound`, and larger than it everywhere.
        mean_squared_error: mean over the calibration data of (x - quantized x)**2, before the bounds are rounded to
            float32; None where the calibrator does not measure it.
        search: which search found the bounds, for reports; None where there is only one.
        constant: the data, or the data of at least one channel, had only one value; see `BoundsCalibrator.finish`.
    """

    lower_bound: Tensor
    upper_bound: Tensor
    mean_squared_error: float | None = None
    search: str | None = None
    constant: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for the calibration report, a JSON file."""
        return {
            "lower_bound": self.lower_bound.tolist(),
            "upper_bound": self.upper_bound.tolist(),
            "search": self.search,
            "mean_squared_error": self.mean_squared_error,
            "constant": self.constant,
        }


@dataclass(frozen=True)
class SubsetPoints(CalibrationResult):
    """The points of one subset quantizer (DFSQ), chosen from a universal set.

    Attributes:
        points: float32, shape (2**bits,) per tensor or (C, 2**bits) per channel, ascending, in -1..1.
        word_indices: uint8, shape of `points` and one more axis: which word of each word set a point is the sum of.
        word_sets: float32 (word sets, words), see `universal_set.UniversalSet`.
        post_relu: samples are normalised by their largest magnitude alone, without subtracting the mean.
        mean_squared_error: mean over the calibration data of (y - nearest point)**2 for the normalised values y.
        constant: the data of at least one channel had only one value.
    """

    points: Tensor
    word_indices: Tensor
    word_sets: Tensor
    post_relu: bool
    mean_squared_error: float | None = None
    constant: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for the calibration report, a JSON file."""
        return {
            "points": self.points.tolist(),
            "post_relu": self.post_relu,
            "mean_squared_error": self.mean_squared_error,
            "constant": self.constant,
        }


@dataclass(frozen=True)
class StaticPoints(CalibrationResult):
    """The points of one quantizer, in the scale of its tensor.

    Attributes:
        points: float32 (2**bits,), ascending.
        mean_squared_error: mean over the calibration data of (x - nearest point)**2.
        constant: the data had only one value.
    """

    points: Tensor
    mean_squared_error: float | None = None
    constant: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for the calibration report, a JSON file."""
        return {
            "points": self.points.tolist(),
            "mean_squared_error": self.mean_squared_error,
            "constant": self.constant,
        }


@dataclass(frozen=True)
class MeanMagnitude(Bounds):
    """The range of the data with their mean magnitude, which steps are set from.

    Attributes:
        mean_magnitude: mean of |x|, float32, in the shape of the bounds.
    """

    mean_magnitude: Tensor = field(kw_only=True)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for the calibration report, a JSON file."""
        return {**super().as_dict(), "mean_magnitude": self.mean_magnitude.tolist()}


@dataclass(frozen=True)
class VaryingBounds(Bounds):
    """Bounds for all data, and how much the range varies from sample to sample.

    Attributes:
        range_variance: variance of the largest value of a sample plus that of the smallest one, over all samples.
    """

    range_variance: float = field(kw_only=True)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for the calibration report, a JSON file."""
        return {**super().as_dict(), "range_variance": self.range_variance}


@dataclass(frozen=True)
class OutlierBounds(Bounds):
    """Bounds of all values, and where outliers begin.

    Attributes:
        breakpoint: the magnitude above which a value counts as an outlier, above 0; float32, in the shape of the bounds.
    """

    breakpoint: Tensor = field(kw_only=True)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for the calibration report, a JSON file."""
        return {**super().as_dict(), "breakpoint": self.breakpoint.tolist()}
