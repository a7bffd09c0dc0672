"""Measure a network on pairs of LR and HR images."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn

from basicsr.data import build_dataset
from basicsr.evaluation.evaluator import DatasetResult, Evaluator
from basicsr.interface.crops import Image, as_image
from basicsr.interface.networks import EnlargingNetwork, probe, size_multiple_of
from basicsr.interface.quantized_network import QuantizedNetwork
from basicsr.utils.errors import DataError, OptionsError
from basicsr.utils.options import ValOptions
from basicsr.utils.saved_images import files_in
from basicsr.utils.signature import validate_model

Pairs = Sequence[tuple[Image, Image]]


class PairList:
    """Pairs of images in memory, as the evaluation takes a data set.

    Args:
        pairs: LR and HR image of each pair, see `crops.Image`.
        scale: the scale factor between them.
        name: name of the set in results.

    Raises:
        DataError: an image cannot be used, or the two of a pair do not fit each other.
    """

    def __init__(self, pairs: Pairs, scale: int, name: str) -> None:
        self.name = name
        self._items: list[dict[str, Tensor | str]] = []
        for number, (lr, hr) in enumerate(pairs):
            lq, gt = as_image(lr, f"LR image {number}"), as_image(hr, f"HR image {number}")
            if tuple(gt.shape[1:]) != (scale * lq.shape[1], scale * lq.shape[2]):
                raise DataError(
                    f"HR image {number} has {gt.shape[1]} x {gt.shape[2]} pixels (height x width), but at scale factor {scale} its LR image of "
                    f"{lq.shape[1]} x {lq.shape[2]} needs {scale * lq.shape[1]} x {scale * lq.shape[2]}. Give pairs of (LR, HR) of this scale."
                )
            file = Path(hr).stem if isinstance(hr, str | Path) else f"image_{number:03d}"
            self._items.append({"lq": lq, "gt": gt, "name": file})

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self._items)

    def __getitem__(self, index: int) -> dict[str, Tensor | str]:
        """Return `lq` (3, h, w) and `gt` (3, scale h, scale w) in 0..1, and `name`."""
        return self._items[index]


def evaluate(
    network: nn.Module,
    images: str | Path | Pairs,
    lr_folder: str | Path | None = None,
    *,
    scale: int | None = None,
    size_multiple: int | None = None,
    crop_border: int | None = None,
    test_y_channel: bool = True,
    tile: int | None = None,
    tile_overlap: int = 16,
    self_ensemble: bool = False,
    save_to: str | Path | None = None,
) -> DatasetResult:
    """Return PSNR and SSIM of a network on images, and for a quantized one its fidelity to the full-precision network.

    Args:
        network: what `quantize` returned, or any module that enlarges images (n, 3, h, w) in 0..1; it is measured in evaluation mode.
        images: folder of HR images, or pairs of (LR, HR) images: files, arrays or tensors, see `crops.Image`.
        lr_folder: folder of their LR images; by default these are made by Matlab's bicubic reduction.
        scale: the scale factor; by default what the network does.
        size_multiple: heights and widths that the network takes are multiples of this; by default its attribute, or 1.
        crop_border: pixels that are left out on every side; by default the scale factor.
        test_y_channel: measure the Y channel instead of R, G and B together.
        tile: side of the tiles in LR pixels; None for whole images.
        tile_overlap: LR pixels that neighbouring tiles share.
        self_ensemble: mean over the 8 flips and rotations.
        save_to: folder for the enlarged images as PNG.

    Returns:
        `means` over the images, and `images` with the values of each: `psnr` (dB), `ssim` (at most 1) and `fidelity` (dB).

    Raises:
        OptionsError: the network does not enlarge images, or by another factor than `scale`.
        DataError: the images cannot be used.
        TrainingError: an output is not finite.
    """
    protocol = {
        "crop_border": crop_border, "test_y_channel": test_y_channel, "tile": tile, "tile_overlap": tile_overlap, "self_ensemble": self_ensemble,
    }  # fmt: skip
    options = validate_model(ValOptions, protocol, "")
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        enlarging, reference = _with_sizes(network, size_multiple)
        if scale is not None and scale != enlarging.scale:
            raise OptionsError(
                f"scale is {scale}, but the network {type(network).__name__} enlarges by {enlarging.scale}. Leave out 'scale'."
            )
        dataset = _dataset(images, lr_folder, enlarging.scale)
        return Evaluator(options, enlarging.scale, reference).evaluate(
            enlarging, dataset, None if save_to is None else files_in(save_to)
        )
    finally:
        for module in training:
            module.training = True


def _with_sizes(network: nn.Module, size_multiple: int | None) -> tuple[EnlargingNetwork, EnlargingNetwork | None]:
    """Return a network with its scale and sizes, and the one to compare with."""
    if not isinstance(network, QuantizedNetwork):
        multiple = size_multiple_of(network, size_multiple)
        return EnlargingNetwork(network, probe(network).scale, multiple), None
    teacher, scale, multiple = network.full_precision, network.scale, network.size_multiple
    return network, None if teacher is None else EnlargingNetwork(teacher, scale, multiple)


def _dataset(images: str | Path | Pairs, lr_folder: str | Path | None, scale: int) -> object:
    if isinstance(images, str | Path):
        section = {
            "type": "PairedImageDataset",
            "name": Path(images).name or "images",
            "dataroot_gt": str(images),
            "dataroot_lq": None if lr_folder is None else str(lr_folder),
        }
        return build_dataset(section, scale, "val", "images")
    pairs = list(images)
    if not pairs or not all(isinstance(pair, tuple | list) and len(pair) == 2 for pair in pairs):
        raise DataError(
            "The images must be the path of a folder of HR images, or a list of pairs (LR, HR) that is not empty."
        )
    return PairList(pairs, scale, "images")
