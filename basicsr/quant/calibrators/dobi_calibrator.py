"""Distribution-oriented bound initialization (DOBI) of 2DQuant, without its exhaustive loop."""

import torch
from torch import Tensor

from basicsr.quant.calibrators.base import BoundsCalibrator, FoundBounds
from basicsr.quant.search.bound_search import BoundSearch, SearchOptions, SearchResult
from basicsr.quant.search.candidates import OneSidedStep, Search
from basicsr.quant.search.row_search import search_rows
from basicsr.quant.search.threads import single_thread
from basicsr.quant.spec import QuantizationError, QuantSpec
from basicsr.utils.registry import CALIBRATOR_REGISTRY

_BINS_PER_TENSOR = 2**16
_BINS_PER_CHANNEL = 2**12
_SHORT = 2**13  # elements of a channel
_MANY = 8  # channels; fewer are searched one by one as fast


@CALIBRATOR_REGISTRY.register("DOBI")
class DOBICalibrator(BoundsCalibrator):
    """The candidate bounds with the smallest squared error ||x - quantized x||_2 (2DQuant, arXiv 2406.06649, Alg. 1).

    The winner is that of an exhaustive search in exact arithmetic, at the cost of one or two passes over the data
    instead of one for each candidate: see `BoundSearch`. `Bounds.mean_squared_error` is right to 0.01 percent, and
    exact if there was a second pass. Per channel, each channel has its own search, with 4096 bins. Channels of few elements, as
    weights have, try all candidates instead: see `search_rows`.

    The paper looks at plots to tell which data are one-sided; `auto` looks at the median (`candidates.bulk_side`).
    The code released with the paper always searches symmetrically.

    Args:
        search: `symmetric` moves both bounds inward together, `one_sided` moves only the upper bound (only the lower
            one if the bulk of the data is at the maximum), `auto` is `one_sided` for one-sided data, else
            `symmetric`, `joint` moves both independently over num_candidates**2 pairs: never worse than the other
            searches with the step `2K`.
        num_candidates: K, the number of steps from minimum or maximum inward.
        one_sided_step: step of a one-sided search: `2K` is (max - min) / 2K as in Algorithm 1 of the paper, `K` is
            (max - min) / K as in the released code.

    Raises:
        QuantizationError: K is below 1, or a one-sided or joint search for bounds -u and u.
    """

    def __init__(
        self,
        spec: QuantSpec,
        /,
        *,
        search: Search = "auto",
        num_candidates: int = 100,
        one_sided_step: OneSidedStep = "2K",
    ) -> None:
        super().__init__(spec)
        if num_candidates < 1:
            raise QuantizationError(f"num_candidates is {num_candidates}, but must be at least 1.")
        if spec.symmetric and search in ("one_sided", "joint"):
            raise QuantizationError(
                f"The search is '{search}', which moves the bounds independently, but the quantizer is symmetric "
                "(bounds -u and u); use 'auto' or 'symmetric'."
            )
        self._options = SearchOptions(
            max_code=spec.max_code,
            symmetric_bounds=spec.symmetric,
            max_bins=_BINS_PER_TENSOR if spec.channel_axis is None else _BINS_PER_CHANNEL,
            search=search,
            num_candidates=num_candidates,
            one_sided_step=one_sided_step,
        )
        self._searches: list[BoundSearch] = []
        self._results: list[SearchResult] = []
        self._short: list[Tensor] | None = None if spec.channel_axis is None or search == "joint" else []

    def _observe(self, rows: Tensor) -> None:
        if self._short is None:
            self._search(rows)
            return
        self._short.append(rows.clone())
        if len(rows) < _MANY or sum(kept.shape[1] for kept in self._short) > _SHORT:
            before, self._short = self._short, None
            for kept in before:
                self._search(kept)

    def _search(self, rows: Tensor) -> None:
        if not self._searches:
            self._searches = [BoundSearch(self._options, rows.device) for _ in rows]
        ranges = zip(self._lowest.tolist(), self._highest.tolist(), strict=True)
        with single_thread():
            for search, row, (lowest, highest) in zip(self._searches, rows, ranges, strict=True):
                search.add(row, lowest, highest)

    def _needs_another_pass(self) -> bool:
        with single_thread():
            if self._short is not None:
                self._results = search_rows(torch.cat(self._short, dim=1), self._options)
                return False
            return any([search.narrow() for search in self._searches])

    def _find_bounds(self) -> FoundBounds:
        results = self._results or [s.result for s in self._searches if s.result is not None]  # all of them
        pairs = torch.tensor([(result.lower, result.upper) for result in results], dtype=torch.float64)
        lower, upper = pairs.to(self._lowest.device).T  # (C,), (C,)
        return FoundBounds(
            lower,
            upper,
            mean_squared_error=sum(result.squared_error for result in results) / self._elements_of_first_pass,
            search="+".join(sorted({result.name for result in results})),
        )
