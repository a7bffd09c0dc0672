"""Fake quantization and its gradients by the compiled loops, for tensors on the CPU."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from basicsr.quant.kernels.library import load_library

_enabled = False


@contextmanager
def fused_quantizers(enable: bool = True) -> Iterator[None]:
    """Let the quantizers of this process use the compiled loops within this block, or not.

    Forward values are the same bits either way. Gradients of bounds are sums, which are added up in another order.

    Raises:
        NotCompiledError: the loops cannot be compiled; says why.
    """
    global _enabled
    if enable:
        load_library()
    before, _enabled = _enabled, enable
    try:
        yield
    finally:
        _enabled = before


def rows_of(x: Tensor, bound: Tensor, channel_axis: int | None) -> "Rows | None":
    """Return a tensor as the loops take it; None where they are not in use, or not for this one."""
    if not _enabled or torch.compiler.is_compiling() or x.device.type != "cpu":
        return None
    if x.dtype not in (torch.float32, torch.bfloat16) or bound.dtype != torch.float32 or channel_axis not in (None, 0):
        return None
    return Rows(x, channel_axis) if x.numel() else None


class Rows:
    """A tensor as the loops take it: its values in the order of memory, as one row, or as one row a channel.

    Args:
        x: float32 or bfloat16, on the CPU, of any layout; what is not dense is copied.
        channel_axis: 0 for rows of their own, None for one row.
    """

    def __init__(self, x: Tensor, channel_axis: int | None) -> None:
        # in both layouts axis 0 is the outermost
        dense = x.is_contiguous() or (x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last))
        self._x = x.detach() if dense else x.detach().contiguous()
        rows = 1 if channel_axis is None else x.shape[0]
        self._size = (rows, x.numel() // rows)

    def values(self, lower: Tensor, upper: Tensor, max_code: int) -> Tensor:
        """Return what the codes stand for, in the shape and the type of the tensor."""
        y, lower, upper = torch.empty_like(self._x), lower.contiguous(), upper.contiguous()
        load_library().fake_quantize(*self._from_to(y), *self._size, lower.data_ptr(), upper.data_ptr(), max_code)
        return y

    def values_by_step(self, step: Tensor, lowest: float, highest: float) -> Tensor:
        """Return the multiples of the step that the codes stand for, in the shape and the type of the tensor."""
        y, step = torch.empty_like(self._x), step.contiguous()
        load_library().fake_quantize_by_step(*self._from_to(y), *self._size, step.data_ptr(), lowest, highest)
        return y

    def gradients(
        self, upstream: Tensor, lower: Tensor, upper: Tensor, max_code: int, *, exact_zeros: bool, window: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients of the tensor and of both bounds, see `functional.fake_quantize`."""
        upstream, of_x = self._like(upstream), torch.empty_like(self._x)
        lower, upper = lower.contiguous(), upper.contiguous()
        of_lower, of_upper = torch.empty_like(lower), torch.empty_like(upper)
        failed = load_library().gradients(
            *self._from_to(upstream, of_x), *self._size, lower.data_ptr(), upper.data_ptr(), max_code, exact_zeros,
            window, of_lower.data_ptr(), of_upper.data_ptr(),
        )  # fmt: skip
        _require_memory(failed)
        return of_x, of_lower, of_upper

    def gradients_by_step(self, upstream: Tensor, step: Tensor, lowest: float, highest: float) -> tuple[Tensor, Tensor]:
        """Return the straight-through gradients of the tensor and of the step, see `step_functional.fake_quantize_by_step`."""
        upstream, of_x, step = self._like(upstream), torch.empty_like(self._x), step.contiguous()
        of_step = torch.empty_like(step)
        failed = load_library().gradients_by_step(
            *self._from_to(upstream, of_x), *self._size, step.data_ptr(), lowest, highest, of_step.data_ptr()
        )
        _require_memory(failed)
        return of_x, of_step

    def _from_to(self, *others: Tensor) -> tuple[int, ...]:
        """Return whether values are bfloat16, and the addresses of the tensor and of others in its layout."""
        return self._x.dtype == torch.bfloat16, self._x.data_ptr(), *(other.data_ptr() for other in others)

    def _like(self, upstream: Tensor) -> Tensor:
        """Return a gradient in the type and the layout of the tensor."""
        if upstream.dtype == self._x.dtype and upstream.stride() == self._x.stride():
            return upstream
        return torch.empty_like(self._x).copy_(upstream)


def _require_memory(failed: int) -> None:
    if failed:
        raise MemoryError("The memory does not suffice for the gradients of a quantizer.")
