"""Quantizer to a few points of a universal set, in the scale of each sample."""

from typing import Any

import torch
from torch import Tensor

from basicsr.quant.calibration import SubsetPoints
from basicsr.quant.ops import subset
from basicsr.quant.quantizers.base import Quantizer, StatedRange
from basicsr.quant.spec import QuantizationError, QuantSpec
from basicsr.utils.registry import QUANTIZER_REGISTRY


@QUANTIZER_REGISTRY.register("Subset")
class SubsetQuantizer(Quantizer[SubsetPoints]):
    """The nearest of 2**bits points after normalising each channel of each sample (DFSQ, arXiv 2305.05888); for activations.

    The range is dynamic: mean and largest magnitude of every channel of every sample (index of axis 0), or of every sample where
    the quantizer is per tensor, are computed at inference, see `subset.normalize`. Nothing is trained.

    The buffers `points`, float32 (C, 2**bits) or (2**bits,), ascending, and `post_relu` say what the quantizer does. `word_sets`
    and `word_indices` are for an exporter that replaces products by shifts: with the words
    w_s = word_sets[s, word_indices[..., k, s]], the point k is plus or minus the sum of the w_s divided by the sum of the largest
    word of each set. They are empty until the quantizer is calibrated.

    Args:
        spec: bits and granularity; the channels must not lie along axis 0, which is that of the samples.
        num_channels: number of channels along `spec.channel_axis`, for a per-channel quantizer.

    Raises:
        QuantizationError: a symmetric quantizer is asked for, or one of channels along axis 0.
    """

    takes = SubsetPoints
    dynamic = True
    roles = ("activation",)
    points: Tensor
    post_relu: Tensor
    word_indices: Tensor
    word_sets: Tensor

    def __init__(self, spec: QuantSpec, num_channels: int | None = None, /) -> None:
        super().__init__(spec, num_channels)
        if spec.symmetric:
            raise QuantizationError(
                "A Subset quantizer has points in place of bounds -u and u: set 'quantization:activation_symmetric' to false."
            )
        if spec.channel_axis == 0:
            raise QuantizationError(
                "A Subset quantizer cannot have its channels along axis 0, the axis of the samples."
            )
        shape = (*self.bounds_shape, spec.num_levels)
        self.register_buffer("points", torch.linspace(-1, 1, spec.num_levels).expand(shape).clone())
        self.register_buffer("post_relu", torch.tensor(False))
        self.register_buffer("word_indices", torch.zeros(*shape, 0, dtype=torch.uint8))
        self.register_buffer("word_sets", torch.zeros(0, 0))

    def fake_quantize(self, x: Tensor) -> Tensor:
        """Return the values that the codes of `x` stand for, with a gradient to `x` between the outermost points."""
        return subset.fake_quantize(x, self.points, self.post_relu, self.spec.channel_axis)

    def codes(self, x: Tensor) -> Tensor:
        """Return the index of the point of each element: uint8 from 0 to 2**bits - 1, in the shape of `x`."""
        self.require_calibrated()
        return subset.quantize(x, self.points, self.post_relu, self.spec.channel_axis)

    @torch.no_grad()
    def load_calibration(self, result: SubsetPoints) -> None:
        """Take the points that calibration found.

        Raises:
            QuantizationError: points are not finite or not ascending, or their shape does not fit.
        """
        if result.points.shape != self.points.shape or result.word_indices.shape[:-1] != self.points.shape:
            raise QuantizationError(
                f"The points for the quantizer '{self.name}' have the shape {tuple(result.points.shape)} and their words "
                f"{tuple(result.word_indices.shape)}, but it needs {tuple(self.points.shape)} points."
            )
        self._check_points(result.points, f"for the quantizer '{self.name}'")
        device = self.points.device
        self.points.copy_(result.points)
        self.post_relu.fill_(result.post_relu)
        self.word_indices = result.word_indices.to(device, copy=True)
        self.word_sets = result.word_sets.to(device, copy=True)
        self.mark_calibrated()

    def stated_range(self, _weight: Tensor | None = None, /) -> StatedRange:
        """Raise a QuantizationError: there are points in the range of each sample, and no bounds."""
        raise QuantizationError(
            "A SubsetQuantizer takes a subset of points in the range of each sample, so that it has no bounds to hand on."
        )

    @staticmethod
    def _check_points(points: Tensor, where: str) -> None:
        if not bool(torch.isfinite(points).all() & (points.diff(dim=-1) >= 0).all()):
            raise QuantizationError(f"The points {where} cannot be used: they must be finite and ascending.")

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        points = state_dict.get(f"{prefix}points")
        if points is not None:
            self._check_points(points, f"that the checkpoint holds in '{prefix}points'")
        # the shapes of these two depend on the word sets, which the file knows
        for name, shape in (("word_indices", self.points.shape), ("word_sets", ())):
            own, stored = getattr(self, name), state_dict.get(prefix + name)
            if stored is not None and stored.ndim == own.ndim:
                setattr(self, name, own.new_zeros(*shape, *stored.shape[len(shape) :]))
        super()._load_from_state_dict(state_dict, prefix, *args)
