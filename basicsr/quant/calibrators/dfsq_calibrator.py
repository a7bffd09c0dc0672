"""Points of subset quantizers from a universal set (DFSQ)."""

from typing import Literal

import torch
from torch import Tensor

from basicsr.quant.calibration import SubsetPoints
from basicsr.quant.calibrators.base import StreamingCalibrator, finite_range
from basicsr.quant.ops.subset import normalize, sample_rows
from basicsr.quant.ops.universal_set import universal_set
from basicsr.quant.search.normalized_histogram import NormalizedHistogram
from basicsr.quant.search.subset_selection import select_by_kmeans, select_exactly
from basicsr.quant.search.threads import single_thread
from basicsr.quant.spec import QuantizationError, QuantSpec
from basicsr.utils.registry import CALIBRATOR_REGISTRY

_CHUNK = 2**17  # elements; what is computed from a chunk stays in the cache


@CALIBRATOR_REGISTRY.register("DFSQ")
class DFSQCalibrator(StreamingCalibrator[SubsetPoints]):
    """Chooses 2**bits points for each channel from a universal set (DFSQ, arXiv 2305.05888), in one pass.

    Values are normalised for each sample and channel, see `subset.normalize`, and counted between all midpoints of the universal
    set, which is all that either selection needs. `exact` finds the points with the least sum of squared distances. `kmeans` is
    the paper's: centres of k-means, each moved to the nearest value of the set. The released code has 5 restarts, pins a centre to 0
    and keeps the restart with the least `quantization_error`.

    Args:
        spec: the quantizer.
        selection: how points are chosen.
        word_sets: 1 to 5, or the words of each set: 0 and powers of two, see `universal_set`. 4 are the word sets of the released code.
        normalization: `mean_max` subtracts the mean of a channel and divides by the largest magnitude, `max` divides only, `auto`
            takes `max` where no value of the calibration data is negative, as after a ReLU.
        pin_zero: 0 is one of the points.
        restarts: of k-means.
        keep_restart: with the least squared distance of values to centres (the paper) or to points (the released code).
        seed: of the random starts of k-means.

    Raises:
        QuantizationError: the universal set has fewer than 2**bits values, or no 0 to pin; or there is no restart.
    """

    gives = SubsetPoints

    def __init__(
        self,
        spec: QuantSpec,
        /,
        *,
        selection: Literal["exact", "kmeans"] = "exact",
        word_sets: int | list[list[float]] = 4,
        normalization: Literal["auto", "mean_max", "max"] = "auto",
        pin_zero: bool = False,
        restarts: int = 3,
        keep_restart: Literal["cluster_error", "quantization_error"] = "cluster_error",
        seed: int = 0,
    ) -> None:
        super().__init__(spec)
        self._universal = universal_set(word_sets)
        if len(self._universal) < spec.num_levels:
            raise QuantizationError(
                f"The universal set of word_sets {word_sets} has {len(self._universal)} values, but {spec.bits} bits need "
                f"{spec.num_levels} points. Use more word sets or fewer bits."
            )
        if pin_zero and not (self._universal.numerators == 0).any():
            raise QuantizationError(f"pin_zero needs 0 in the universal set, but word_sets {word_sets} cannot give 0.")
        if restarts < 1:
            raise QuantizationError(f"restarts is {restarts}, but k-means must start at least once.")
        self._selection = selection
        self._pin_zero = pin_zero
        self._restarts = restarts
        self._keep_restart = keep_restart
        self._seed = seed
        # until a negative value is seen, `auto` keeps both statistics
        self._post_relu_kinds = {"auto": (False, True), "mean_max": (False,), "max": (True,)}[normalization]
        self._histograms: dict[bool, NormalizedHistogram] = {}

    def _look_at(self, tensor: Tensor) -> None:
        rows = sample_rows(tensor, self.spec.channel_axis).contiguous()
        self._widen_range(*(bound.view(rows.shape[:2]) for bound in finite_range(rows.flatten(0, 1))))
        if len(self._post_relu_kinds) > 1 and (self._lowest < 0).any():
            self._post_relu_kinds = (False,)
            self._histograms.pop(True, None)
        if not self._histograms:
            for post_relu in self._post_relu_kinds:
                self._histograms[post_relu] = NormalizedHistogram(self._universal, rows.shape[1], rows.device)
        with single_thread():
            for samples in rows.split(max(1, _CHUNK // rows[0].numel())):
                for post_relu, histogram in self._histograms.items():
                    normalized, _, _ = normalize(samples, torch.tensor(post_relu, device=rows.device))
                    histogram.add(normalized)

    def _widen_range(self, lowest: Tensor, highest: Tensor) -> None:
        lowest, highest = lowest.amin(dim=0), highest.amax(dim=0)
        if self._elements_of_pass == 0:  # the first batch
            self._lowest, self._highest = lowest, highest
        else:
            self._lowest, self._highest = torch.minimum(self._lowest, lowest), torch.maximum(self._highest, highest)

    def finish(self) -> SubsetPoints:
        """Return the points, after `end_pass()` returned False.

        Raises:
            QuantizationError: passes are missing.
        """
        self._require_complete()
        post_relu = self._post_relu_kinds[-1]
        histogram = self._histograms[post_relu]
        with single_thread():
            chosen = self._select(histogram)
        error = float(histogram.squared_errors(chosen).sum() / histogram.counts.sum())
        chosen = chosen if self.spec.channel_axis is not None else chosen.squeeze(0)
        return SubsetPoints(
            points=self._universal.values.to(chosen.device)[chosen].float(),
            word_indices=self._universal.word_indices.to(chosen.device)[chosen],
            word_sets=self._universal.word_sets,
            post_relu=post_relu,
            mean_squared_error=max(error, 0.0),
            constant=bool((self._lowest == self._highest).any()),
        )

    def _select(self, histogram: NormalizedHistogram) -> Tensor:
        if self._selection == "kmeans":
            return select_by_kmeans(
                histogram,
                self.spec.num_levels,
                restarts=self._restarts,
                pin_zero=self._pin_zero,
                keep=self._keep_restart,
                generator=torch.Generator().manual_seed(self._seed),
            )
        return select_exactly(histogram, self.spec.num_levels, self._candidates(histogram), pin_zero=self._pin_zero)

    def _candidates(self, histogram: NormalizedHistogram) -> Tensor:
        """Return the indices of the values to choose from: where no value is negative, no negative point is needed."""
        numerators = self._universal.numerators.to(histogram.counts.device)
        useful = numerators >= 0
        if (self._lowest < 0).any() or not self._post_relu_kinds[-1] or int(useful.sum()) < self.spec.num_levels:
            useful = torch.ones_like(useful)
        return useful.nonzero().squeeze(1)
