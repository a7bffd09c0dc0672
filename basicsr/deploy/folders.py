"""Work through a folder of pictures: where each enlargement goes, what is there already, and what goes wrong with one of them."""

import functools
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from basicsr.deploy.overlapping import overlapped
from basicsr.deploy.upscaling import Enlarge, enlarge_picture
from basicsr.utils.errors import DataError, UserError, explained
from basicsr.utils.files import DOES_NOT_EXIST, real_path, why_no_file, why_no_folder
from basicsr.utils.image import IMAGE_SUFFIXES, Picture, check_writable, read_picture, write_picture
from basicsr.utils.image_folders import distinct_names, image_files
from basicsr.utils.image_header import any_size, glance
from basicsr.utils.logger import get_logger
from basicsr.utils.memory import require_memory

_SUFFIXES_KEPT = (".png", ".tif", ".tiff", ".webp", ".bmp")
_BYTES_OF_A_PIXEL = 24  # of a result that is put together of tiles: three channels, a sum and its weighted form
_RECURSIVE = "Give --recursive to take them all; the tree of folders is kept."


@dataclass
class Outcome:
    """How many pictures were enlarged, were there already, or failed."""

    enlarged: int = 0
    skipped: int = 0
    failed: int = 0


def output_files(inputs: Iterable[Path], folder: Path, scale: int, root: Path | None = None) -> dict[Path, Path]:
    """Return where each enlarged picture goes: `<name>_x<scale>` in `folder`, JPEG and GIF as PNG.

    Pictures that differ only in suffix get different names, see `distinct_names`.

    Args:
        inputs: the pictures.
        folder: where the enlarged pictures go.
        scale: the scale factor.
        root: folder that the inputs lie in or below; what is below keeps its subfolder.

    Raises:
        DataError: an output would overwrite an input.
    """
    inputs = list(inputs)
    real_folder = functools.cache(real_path)

    def place_of(path: Path) -> str:  # as `real_path`, of a hundred thousand files in seconds
        return str(real_path(path)) if os.path.islink(path) else f"{real_folder(path.parent)}{os.sep}{path.name}"

    taken = {place_of(path) for path in inputs}
    outputs: dict[Path, Path] = {}
    for path, name in distinct_names(inputs, _result_suffix).items():
        place = folder / path.parent.relative_to(root) if root else folder
        output = place / f"{name}_x{scale}{_result_suffix(path)}"
        if place_of(output) in taken:
            raise DataError(
                f"The enlarged '{path}' would overwrite '{output}', which is an input. Choose another output folder, or rename "
                "one of the two."
            )
        outputs[path] = output
    return outputs


@dataclass(frozen=True)
class Pictures:
    """What is to be enlarged.

    Attributes:
        files: the pictures.
        folder: where the results go.
        root: folder that the pictures lie in or below; None where a single picture was named.
    """

    files: list[Path]
    folder: Path
    root: Path | None


def find_pictures(source: Path, folder: Path, *, recursive: bool = False) -> Pictures:
    """Find what is to be enlarged, before a network is loaded.

    Args:
        source: a picture, or a folder of pictures.
        folder: where the enlarged pictures go; made if absent.
        recursive: take the pictures in subfolders, too; `folder` itself is left out where it is one of them.

    Raises:
        DataError: there is no picture, or `folder` cannot be used, see `check_output`.
    """
    if why_no_folder(source) is None:
        check_output(folder, source)
        return Pictures(image_files(source, recursive=recursive, leave_out=folder, remedy=_RECURSIVE), folder, source)
    check_output(folder)
    if (problem := why_no_file(source)) is not None:
        raise DataError(f"The picture '{source}' {problem}. Give a picture or a folder of pictures.")
    return Pictures([source], folder, None)


def upscale_files(
    source: Path, folder: Path, enlarge: Enlarge, scale: int, *, recursive: bool = False, skip_existing: bool = False
) -> Outcome:
    """Enlarge a picture, or all pictures of a folder, see `find_pictures` and `upscale_pictures`."""
    pictures = find_pictures(source, folder, recursive=recursive)
    return upscale_pictures(pictures, enlarge, scale, skip_existing=skip_existing)


def upscale_pictures(pictures: Pictures, enlarge: Enlarge, scale: int, *, skip_existing: bool = False) -> Outcome:
    """Enlarge pictures, reading the next and writing the last meanwhile; one that fails is reported, and the others go on.

    Args:
        pictures: see `find_pictures`.
        enlarge: see `enlarger`.
        scale: the scale factor.
        skip_existing: leave out pictures whose enlargement is there.

    Returns:
        What became of the pictures.

    Raises:
        DataError: an output would overwrite an input.
    """
    outcome = Outcome()
    outputs = output_files(pictures.files, pictures.folder, scale, pictures.root)
    missing = [pair for pair in outputs.items() if not (skip_existing and why_no_file(pair[1]) is None)]
    outcome.skipped = len(outputs) - len(missing)
    stages = Stages(enlarge, scale)
    done = overlapped(missing, stages.read, stages.enlarge, stages.write)
    for _, error in tqdm(done, desc="upscale", unit="picture", total=len(missing), disable=None):
        if error is None:
            outcome.enlarged += 1
        else:
            outcome.failed += 1
            get_logger().error("%s", error)
    if pictures.root:
        get_logger().info(
            "%d pictures enlarged, %d there already, %d failed.", outcome.enlarged, outcome.skipped, outcome.failed
        )
    return outcome


def check_output(folder: Path, root: Path | None = None) -> None:
    """Refuse a folder for results before anything is computed.

    Args:
        folder: where the results go.
        root: folder of the inputs, if there is one.

    Raises:
        DataError: it is a file, is called like a picture, or is the folder of the inputs, where a second start would take the results
            for inputs.
    """
    problem = why_no_folder(folder)
    if problem is None:
        if root is not None and real_path(folder) == real_path(root):
            raise DataError(
                f"The output folder '{folder}' is the folder of the inputs, where the next start would enlarge the results again. Give "
                f"another one, such as '{folder / 'enlarged'}'."
            )
    elif problem != DOES_NOT_EXIST:
        raise DataError(
            f"The output folder '{folder}' {problem}. Give a folder; the files in it are named by their inputs."
        )
    elif folder.suffix.lower() in IMAGE_SUFFIXES:
        raise DataError(
            f"The output '{folder}' is called like a picture, but is to be a folder. Give a folder; the files in it are named by their inputs."
        )


def _result_suffix(path: Path) -> str:
    return path.suffix if path.suffix.lower() in _SUFFIXES_KEPT else ".png"


class Stages:
    """What is done with each picture (path, output), see `overlapped`; all raise a DataError that names it.

    Args:
        enlarge: see `enlarger`.
        scale: the scale factor.
    """

    def __init__(self, enlarge: Enlarge, scale: int) -> None:
        self._enlarge, self._scale = enlarge, scale

    def read(self, files: tuple[Path, Path]) -> Picture:
        """Return the picture; refused where its enlargement would not fit into the memory or its file format."""
        path, output = files
        with _explained(path):
            _require_memory(path, self._scale)
            picture = read_picture(path)
            height, width = (side * self._scale for side in picture.rgb.shape[:2])
            check_writable(output, height, width, picture.rgb.dtype, alpha=picture.alpha is not None)
            return picture

    def enlarge(self, files: tuple[Path, Path], picture: Picture) -> Picture:
        """Return the enlarged picture."""
        path, _ = files
        height, width = (side * self._scale for side in picture.rgb.shape[:2])
        with _explained(path, f" to {width}x{height} pixels"):
            try:
                return enlarge_picture(picture, self._enlarge, self._scale)
            except UserError as error:  # of this network, or of its graph, and pictures of this size
                raise DataError(f"The picture '{path}' cannot be enlarged: {error}") from error

    def write(self, files: tuple[Path, Path], enlarged: Picture) -> None:
        """Write the enlarged picture."""
        path, output = files
        with _explained(path, f" to {enlarged.rgb.shape[1]}x{enlarged.rgb.shape[0]} pixels"):
            write_picture(output, enlarged)
        get_logger().info("Wrote '%s'.", output)


@contextmanager
def _explained(path: Path, size: str = "") -> Iterator[None]:
    """Turn what the system and the memory refuse to do with a picture into a DataError."""
    try:
        with explained(DataError, f"The picture '{path}' cannot be enlarged"):
            yield
    except (MemoryError, RuntimeError) as error:  # torch says it with the second
        if isinstance(error, RuntimeError) and "memory" not in str(error).lower():
            raise
        raise DataError(
            f"The memory does not suffice to enlarge '{path}'{size}. Give a smaller --tile, or cut it."
        ) from error


def _require_memory(path: Path, scale: int) -> None:
    """Refuse a picture whose enlargement the memory cannot hold, by its header, before it is decoded."""
    with any_size():
        seen = glance(path)
    if seen is not None:
        width, height = (side * scale for side in seen.size)
        purpose = f"to enlarge '{path}' to {width}x{height} pixels"
        require_memory(width * height * _BYTES_OF_A_PIXEL, purpose, "Cut the picture into parts.")
