"""Operators between values and 8-bit codes that become a few nodes of an ONNX graph, with the same values in PyTorch."""

import torch
from torch import Tensor

NAMESPACE = "basicsr_quant"


@torch.library.custom_op(f"{NAMESPACE}::through_uint8", mutates_args=())
def through_uint8(x: Tensor, step: float, zero_point: int) -> Tensor:
    """Return values as uint8 codes stand for them: (code - zero_point) * step with code = round(x / step) + zero_point in 0..255."""
    codes = (x / step).round_().add_(zero_point).clamp_(0, 255)
    return codes.sub_(zero_point).mul_(step)


@through_uint8.register_fake
def _(x: Tensor, step: float, zero_point: int) -> Tensor:  # noqa: ARG001
    return torch.empty_like(x)


@torch.library.custom_op(f"{NAMESPACE}::from_int8", mutates_args=())
def from_int8(codes: Tensor, steps: Tensor) -> Tensor:
    """Return code * step for int8 codes (rows, ...) and steps (rows,), float32."""
    return codes.float() * steps.view(-1, *[1] * (codes.dim() - 1))


@from_int8.register_fake
def _(codes: Tensor, steps: Tensor) -> Tensor:
    return torch.empty(codes.shape, dtype=steps.dtype, device=codes.device)


@torch.library.custom_op(f"{NAMESPACE}::look_up", mutates_args=())
def look_up(x: Tensor, table: Tensor, start: float, width: float) -> Tensor:
    """Return the entry of a table (n,) for each value: entry i for values from start + i * width on, the outermost ones beyond them."""
    places = ((x - start) * (1 / width)).clamp_(0, len(table) - 1)
    return table[places.int()]


@look_up.register_fake
def _(x: Tensor, table: Tensor, start: float, width: float) -> Tensor:  # noqa: ARG001
    return torch.empty(x.shape, dtype=table.dtype, device=x.device)
