"""Enlarge images with a network: padding, tiles and self-ensemble, as plain functions.

A network is any module with the attributes `scale` (an image of h x w becomes one of h * scale x w * scale) and
`size_multiple` (heights and widths that it works on are multiples of this).
"""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from functools import reduce
from typing import Literal

import torch
from torch import Tensor, nn

from basicsr.archs.arch_util import mirror_to_size
from basicsr.archs.base import scale_of, size_multiple_of
from basicsr.utils.errors import DataError, OptionsError
from basicsr.utils.memory import require_memory

PadMode = Literal["official", "mirror", "reflect"]


def pad_to_multiple(x: Tensor, multiple: int, mode: PadMode) -> Tensor:
    """Continue images to the right and below until height and width are multiples of `multiple`.

    Args:
        x: (n, c, h, w) of any size; images smaller than the padding are mirrored several times.
        multiple: positive; 1 leaves every image as it is.
        mode: `official` continues with a flipped copy to (h // multiple + 1) * multiple, which adds a whole multiple
            where h fits already (test script of SwinIR); `mirror` with the same copy, only as far as needed
            (2DQuant); `reflect` without repeating the last pixel, as far as needed (inside of SwinIR).

    Returns:
        (n, c, height, width) with the images at the top left.
    """
    if multiple == 1:
        return x
    height, width = (
        (side // multiple + 1) * multiple if mode == "official" else -(-side // multiple) * multiple
        for side in x.shape[-2:]
    )
    return mirror_to_size(x, height, width, repeat_edge=mode != "reflect")


def device_of(network: nn.Module) -> torch.device:
    """Return where a network lives; the CPU for one without parameters and buffers, whose work another library does."""
    tensors = itertools.chain(network.parameters(), network.buffers())
    return next((tensor.device for tensor in tensors), torch.device("cpu"))


@torch.inference_mode()
def upscale(
    network: nn.Module,
    lr: Tensor,
    *,
    pad: PadMode = "official",
    tile: int | None = None,
    tile_overlap: int = 32,
    self_ensemble: bool = False,
) -> Tensor:
    """Return images enlarged by a network.

    Args:
        network: see the head of this file; in evaluation mode.
        lr: (n, c, h, w) with values 0..1, on the device of the network.
        pad: how images whose size the network does not work on are continued, see `pad_to_multiple`.
        tile: side of the tiles in LR pixels, a multiple of `size_multiple`; None processes images at once.
        tile_overlap: LR pixels that neighbouring tiles share, a multiple of `size_multiple` below `tile`. The outer
            quarter at each side is discarded and the tiles blend into each other over the rest: the result is that of
            the whole image if no output depends on inputs farther than `tile_overlap / 4` (and for any network it has
            no steps).
        self_ensemble: average over the eight flips and rotations of the input.

    Returns:
        (n, c, h * scale, w * scale), not clipped.

    Raises:
        OptionsError: tile or tile_overlap do not fit the network.
        DataError: the memory does not suffice for the result, or the network cannot compute images of this size.
    """
    scale, multiple = scale_of(network), size_multiple_of(network)
    check_tiles(network, tile, tile_overlap)
    if lr.is_cpu:
        height, width = (side * scale for side in lr.shape[-2:])
        held = lr.numel() * scale**2 * lr.element_size() * (1 if tile is None else 2)  # tiles are summed, then weighted
        require_memory(held, f"to enlarge an image to {width}x{height} pixels", "Cut the image into parts.")

    def enlarge(images: Tensor) -> Tensor:
        h, w = images.shape[-2:]
        padded = pad_to_multiple(images, multiple, pad)
        with _told(network, padded):
            sr = network(padded) if tile is None else _by_tiles(network, padded, tile, tile_overlap)
        if sr.shape[-2:] != (padded.shape[-2] * scale, padded.shape[-1] * scale):
            raise DataError(
                f"{type(network).__name__} makes {sr.shape[-1]}x{sr.shape[-2]} pixels of {padded.shape[-1]}x{padded.shape[-2]}, but says "
                f"that its scale is {scale}. Correct its attribute `scale`, or its forward pass."
            )
        return sr[..., : h * scale, : w * scale]

    return _ensemble(enlarge, lr) if self_ensemble else enlarge(lr)


@contextlib.contextmanager
def _told(network: nn.Module, images: Tensor) -> Iterator[None]:
    """Turn what a network raises over its input into a sentence; networks of others may ask for more pixels than an image has."""
    try:
        yield
    except RuntimeError as error:
        if "memory" in str(error).lower():
            raise
        height, width = images.shape[-2:]
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].removesuffix(".")
        raise DataError(
            f"{type(network).__name__} cannot enlarge an image of {width}x{height} pixels: {reason}. Give larger images if it asks for more "
            "pixels, or correct the network."
        ) from error


def _ensemble(enlarge: Callable[[Tensor], Tensor], lr: Tensor) -> Tensor:
    """Return the mean over flips and rotations, each undone: "enhanced prediction" of Timofte et al. 2016."""

    def views() -> Iterator[Tensor]:
        for turns in range(4):
            turned = lr.rot90(turns, (-2, -1))
            for flipped in (False, True):
                sr = enlarge(turned.flip(-1)).flip(-1) if flipped else enlarge(turned)
                yield sr.rot90(-turns, (-2, -1))

    return reduce(torch.add, views()) / 8  # one view after the other, so that two at most are held


def check_tiles(network: nn.Module, tile: int | None, overlap: int) -> None:
    """Refuse tiles (side and overlap in LR pixels, None for none) that do not fit a network, with an OptionsError."""
    if tile is None:
        return
    multiple = size_multiple_of(network)
    if tile < 1 or tile % multiple:
        raise OptionsError(f"tile is {tile}, but must be a positive multiple of {multiple} for this network.")
    if not 0 <= overlap < tile or overlap % multiple:
        raise OptionsError(
            f"tile_overlap is {overlap}, but must be a multiple of {multiple}, at least 0 and below tile ({tile})."
        )


def _by_tiles(network: nn.Module, x: Tensor, tile: int, overlap: int) -> Tensor:
    scale = scale_of(network)
    n, _, height, width = x.shape
    total: Tensor | None = None
    weights = x.new_zeros(height * scale, width * scale)

    def weight_of(start: int, length: int) -> Tensor:
        own = _tile_weight(start, length, tile, overlap, scale)
        return own.to(x.device, x.dtype, non_blocking=True)

    rows, columns = _tile_starts(height, tile, overlap), _tile_starts(width, tile, overlap)
    for top in rows:
        row_weight = weight_of(top, height)
        for left in columns:
            weight = row_weight[:, None] * weight_of(left, width)
            sr = network(x[..., top : top + tile, left : left + tile])
            if total is None:
                total = sr.new_zeros(n, sr.shape[1], height * scale, width * scale)
            place = (
                ...,
                slice(top * scale, top * scale + sr.shape[-2]),
                slice(left * scale, left * scale + sr.shape[-1]),
            )
            total[place] += sr * weight
            weights[place] += weight
    assert total is not None  # there is at least one tile
    return total / weights


def _tile_starts(length: int, tile: int, overlap: int) -> list[int]:
    """Return where tiles begin on a side; the last one ends where the side ends."""
    return [*range(0, length - tile, tile - overlap), max(length - tile, 0)]


def _tile_weight(start: int, length: int, tile: int, overlap: int, scale: int) -> Tensor:
    """Return the weight of each SR pixel of a tile on one axis.

    The weight is 0 in the outer quarter of the overlap, rises linearly over its middle half and is 1 further inside;
    a side at the border of the image has weight 1 throughout.
    """
    size = min(tile, length) * scale
    inward = torch.arange(size) + 0.5  # distance from the first side
    ramp = overlap * scale / 2
    rise = ((inward - ramp / 2) / ramp).clamp(0, 1) if overlap else torch.ones(size)
    at_start = torch.ones(size) if start == 0 else rise
    at_end = torch.ones(size) if start + tile >= length else rise.flip(0)
    return torch.minimum(at_start, at_end)
