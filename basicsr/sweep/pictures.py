"""Crops of test images as the networks of a sweep enlarge them: HR, bicubic, full precision and every method, at some bits."""

import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from basicsr.data import build_evaluation_sets
from basicsr.evaluation.evaluator import Evaluator
from basicsr.metrics.base import build_metrics
from basicsr.networks.build import network_to_test, quantized_network
from basicsr.reporting.crops import most_different, tile, wrapped
from basicsr.sweep.plan import Run
from basicsr.utils.errors import DataError, OptionsError
from basicsr.utils.image import read_image, tensor_to_image
from basicsr.utils.options import DEFAULT_METRICS, Options
from basicsr.utils.resize import upscale_image
from basicsr.utils.saved_images import files_in

COLUMNS = 9
_PSNR = {"psnr": DEFAULT_METRICS["psnr"]}
_PLACE = re.compile(r"([^/:]+)/([^/:]+)(?::(\d+),(\d+))?")


@dataclass(frozen=True)
class Place:
    """A crop to show.

    Attributes:
        dataset: name of a test set.
        image: name of one of its images.
        size: height and width of the crop in HR pixels, one of `crops.SIZES`.
        corner: its top and left in HR pixels; None for where the outputs differ most.
    """

    dataset: str
    image: str
    size: int
    corner: tuple[int, int] | None = None

    @classmethod
    def parse(cls, text: str, size: int) -> "Place":
        """Read `<dataset>/<image>` or `<dataset>/<image>:<top>,<left>`, for a crop of `size` x `size` pixels.

        Raises:
            OptionsError: it is neither.
        """
        found = _PLACE.fullmatch(text)
        if found is None:
            raise OptionsError(
                f"The crop '{text}' must be <dataset>/<image> or <dataset>/<image>:<top>,<left>, such as Set5/butterfly:80,150."
            )
        dataset, image, top, left = found.groups()
        return cls(dataset, image, size, None if top is None else (int(top), int(left)))


class _One:
    """A data set of one image."""

    def __init__(self, name: str, item: Mapping[str, Any]) -> None:
        self.name, self._item = name, item

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        return self._item


def picture(
    runs: Sequence[Run], places: Sequence[Place], device: torch.device, report: Callable[[str], None]
) -> np.ndarray:
    """Return crops as one 8-bit image: for each place and bit width HR, bicubic, full precision and all methods.

    Args:
        runs: trained runs of one architecture and scale.
        places: what to show.
        device: where networks run.
        report: takes lines for the user.

    Raises:
        DataError: a test set or an image is not on disk.
        CheckpointError: the network of a run cannot be read.
    """
    options = runs[0].options
    images = [_image(options, place) for place in places]
    full_precision = network_to_test(options).to(device).eval()
    fp = [_enlarged(full_precision, image, options) for image in images]
    methods: list[list[tuple[Run, tuple[np.ndarray, float]]]] = [[] for _ in images]
    for run in runs:
        network = quantized_network(full_precision, run.options)[0].to(device).eval()
        for column, image in zip(methods, images, strict=True):
            column.append((run, _enlarged(network, image, run.options)))
        report(f"{run.name}: {', '.join(f'{column[-1][1][1]:.2f} dB' for column in methods)}")
    blocks = [
        block
        for place, image, full, column in zip(places, images, fp, methods, strict=True)
        for block in _blocks(place, image, full, column, options)
    ]
    return np.vstack(blocks)


def _image(options: Options, place: Place) -> _One:
    """Return the image of a place as a data set of its own."""
    chosen = {key: value for key, value in options.datasets_of("test").items() if value["name"] == place.dataset}
    for dataset in build_evaluation_sets(chosen, options.scale):
        for index in range(len(dataset)):
            item = dataset[index]
            if item["name"] == place.image:
                _check_corner(place, item["gt"])
                return _One(dataset.name, item)
    known = ", ".join(value["name"] for value in options.datasets_of("test").values())
    raise DataError(
        f"There is no image '{place.image}' in a test set '{place.dataset}' of the sweep on disk. Its test sets: {known}."
    )


def _check_corner(place: Place, gt: torch.Tensor) -> None:
    height, width = gt.shape[1:]
    top, left = place.corner or (0, 0)
    if top + place.size > height or left + place.size > width:
        raise DataError(
            f"The crop of {place.size} x {place.size} pixels at {top},{left} leaves the image '{place.image}' ({height} x {width}). "
            "Choose another corner or a smaller size."
        )


def _enlarged(network: nn.Module, image: _One, options: Options) -> tuple[np.ndarray, float]:
    """Return a network's output as an 8-bit image, and its PSNR in dB under the protocol of the options.

    Raises:
        DataError: the image has no PSNR, such as one that is no larger than the border that is left out.
    """
    evaluator = Evaluator(options.val.model_copy(update={"metrics": _PSNR}), options.scale, None)
    with tempfile.TemporaryDirectory() as folder:
        result = evaluator.evaluate(network, image, files_in(folder))
        name, psnr = image[0]["name"], result.means["psnr"]
        if psnr is None:
            raise DataError(f"The image '{name}' has no PSNR under the protocol of the options. Choose another place.")
        return read_image(files_in(folder)(name)), psnr


def _blocks(
    place: Place,
    image: _One,
    full: tuple[np.ndarray, float],
    methods: Sequence[tuple[Run, tuple[np.ndarray, float]]],
    options: Options,
) -> list[np.ndarray]:
    """Return, for each bit width, the tiles of one place."""
    hr, bicubic = tensor_to_image(image[0]["gt"]), upscale_image(tensor_to_image(image[0]["lq"]), options.scale)
    metric = build_metrics(options.val.model_copy(update={"metrics": _PSNR}), options.scale)["psnr"]
    psnr = metric(bicubic, hr)
    corner = place.corner or most_different([hr, full[0], *(output for _, (output, _) in methods)], place.size)
    crop = (*corner, place.size)
    references = [
        tile(hr, *crop, "HR", f"{place.dataset}, {place.image}"),
        tile(bicubic, *crop, "bicubic", f"{psnr:.2f} dB"),
        tile(full[0], *crop, "full precision", f"{full[1]:.2f} dB"),
    ]
    blocks = []
    for bits in dict.fromkeys((run.options.w_bits, run.options.a_bits) for run, _ in methods):
        tiles = [
            tile(output, *crop, run.method, f"{bits[0]}/{bits[1]} bit, {value:.2f} dB")
            for run, (output, value) in methods
            if (run.options.w_bits, run.options.a_bits) == bits
        ]
        blocks.append([*references, *tiles])
    columns = min(COLUMNS, max(len(block) for block in blocks))
    return [wrapped(block, columns) for block in blocks]
