"""Random crops and orientations that hit the LR and the HR image of a pair alike. Images are H,W,3."""

import numpy as np

from basicsr.utils.errors import DataError


def paired_random_crop(
    lq: np.ndarray, gt: np.ndarray, lq_size: int, scale: int, random: np.random.Generator, name: str
) -> tuple[np.ndarray, np.ndarray]:
    """Cut the same random square out of both images.

    Args:
        lq: LR image h,w,3.
        gt: HR image h*scale,w*scale,3.
        lq_size: side of the LR square; that of HR is `scale` times as large.
        scale: the scale factor.
        random: where the position is drawn from.
        name: name of the image, for the message.

    Returns:
        Views: LR lq_size,lq_size,3 and HR lq_size*scale,lq_size*scale,3.

    Raises:
        DataError: the image is smaller than the square.
    """
    check_crop_fits(gt, lq_size, scale, name)
    height, width = lq.shape[:2]
    top, left = random_position(random, height, width, lq_size)
    return (
        lq[top : top + lq_size, left : left + lq_size],
        gt[top * scale : (top + lq_size) * scale, left * scale : (left + lq_size) * scale],
    )


def check_crop_fits(gt: np.ndarray, lq_size: int, scale: int, name: str) -> None:
    """Raise a DataError if the HR image H,W,3 called `name` is smaller than a square of `lq_size` LR pixels."""
    problem = crop_problem(gt.shape[1], gt.shape[0], lq_size, scale, name)
    if problem is not None:
        raise DataError(problem)


def crop_problem(width: int, height: int, lq_size: int, scale: int, name: str) -> str | None:
    """Return why the HR image called `name` is too small for squares of `lq_size` LR pixels; None where it is not.

    Args:
        width, height: of the HR image in pixels, cropped to a multiple of the scale.
        lq_size: side of the squares in LR pixels.
        scale: the scale factor.
        name: name of the image.
    """
    if min(width, height) >= lq_size * scale:
        return None
    return (
        f"The HR image '{name}' has {width}x{height} pixels (cropped to a multiple of the scale factor), too few for "
        f"lq_size {lq_size} at x{scale}. Set a smaller lq_size, or remove the image from the training folder."
    )


def random_position(random: np.random.Generator, height: int, width: int, size: int) -> tuple[int, int]:
    """Draw the top and the left of a square of side `size` in an image."""
    return int(random.integers(height - size + 1)), int(random.integers(width - size + 1))


def orient(image: np.ndarray, *, hflip: bool = False, vflip: bool = False, rot90: bool = False) -> np.ndarray:
    """Return a view that is flipped left-right, then top-bottom, then transposed, each if asked for.

    The three choices together give the 8 orientations of a square; `rot90` swaps the axes, as in BasicSR's `augment`.
    """
    if hflip:
        image = image[:, ::-1]
    if vflip:
        image = image[::-1]
    return image.transpose(1, 0, 2) if rot90 else image


def random_orientation(random: np.random.Generator, use_hflip: bool, use_rot: bool) -> dict[str, bool]:
    """Draw the arguments of `orient`: a flip half of the time, and with `use_rot` also its vertical and transposed kin."""
    hflip, vflip, rot90 = (bool(draw) for draw in random.integers(2, size=3))
    return {"hflip": hflip and use_hflip, "vflip": vflip and use_rot, "rot90": rot90 and use_rot}
