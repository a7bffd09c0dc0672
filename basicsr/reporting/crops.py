"""Crops of pictures side by side, enlarged without smoothing, with two lines of text under each."""

from collections.abc import Sequence

import cv2
import numpy as np

TILE, LABEL = 192, 34
"""Pixels of a crop as it is shown, in each direction, and of the text under it."""
SIZES = (32, 48, 64, 96)
"""Pixels of a crop in the image; a tile shows each as a square of whole pixels."""


def tile(image: np.ndarray, top: int, left: int, size: int, label: str, value: str) -> np.ndarray:
    """Cut a crop (`size` x `size`) of an 8-bit image (H, W, 3), enlarge it, and write two lines under it; returns (226, 192, 3)."""
    crop = image[top : top + size, left : left + size]
    large = cv2.resize(crop, (TILE, TILE), interpolation=cv2.INTER_NEAREST)
    canvas = np.full((large.shape[0] + LABEL, large.shape[1], 3), 255, np.uint8)
    canvas[: large.shape[0]] = large
    for line, text in enumerate((label, value)):
        place = (4, large.shape[0] + 14 + 15 * line)
        cv2.putText(canvas, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
    return canvas


def most_different(images: Sequence[np.ndarray], size: int) -> tuple[int, int]:
    """Return top and left of the crop (`size` x `size`) in which images of equal size (H, W, 3) differ most."""
    spread = np.ptp(np.stack(images).astype(np.float32).mean(-1), axis=0)
    sums = cv2.boxFilter(spread, -1, (size, size), anchor=(0, 0), normalize=False, borderType=cv2.BORDER_CONSTANT)
    height, width = spread.shape
    corners = sums[: height - size + 1, : width - size + 1]
    top, left = np.unravel_index(np.argmax(corners), corners.shape)
    return int(top), int(left)


def wrapped(tiles: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """Return tiles of equal size in lines of `columns`, the last one filled up with white."""
    blank = np.full_like(tiles[0], 255)
    filled = [*tiles, *[blank] * (-len(tiles) % columns)]
    return np.vstack([np.hstack(filled[start : start + columns]) for start in range(0, len(filled), columns)])
