"""Folders of images as people have them: what is read, what is left out and said, and names that would collide."""

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from basicsr.utils.errors import DataError, explained
from basicsr.utils.files import real_path, why_no_folder
from basicsr.utils.image import IMAGE_SUFFIXES
from basicsr.utils.lmdb_folders import SUFFIX, lmdb_images
from basicsr.utils.logger import warn_once

_SUFFIXES_NOT_READ = (
    *(
        ".apng",
        ".avif",
        ".avifs",
        ".cur",
        ".dcm",
        ".dds",
        ".dib",
        ".exr",
        ".fit",
        ".fits",
        ".hdr",
        ".icns",
        ".ico",
        ".mpo",
    ),
    *(
        ".heic",
        ".heics",
        ".heif",
        ".heifs",
        ".hif",
        ".j2c",
        ".j2k",
        ".jng",
        ".jp2",
        ".jpc",
        ".jpf",
        ".jpm",
        ".jpx",
        ".jxl",
    ),
    *(".jxr", ".pam", ".pbm", ".pcx", ".pfm", ".pgm", ".pjp", ".pjpeg", ".pnm", ".ppm", ".psb", ".psd", ".qoi", ".ras"),
    *(".sgi", ".svg", ".svgz", ".tga", ".wdp", ".xbm", ".xcf", ".xpm"),
    *(
        ".3fr",
        ".arw",
        ".cr2",
        ".cr3",
        ".crw",
        ".dng",
        ".erf",
        ".iiq",
        ".kdc",
        ".mef",
        ".mrw",
        ".nef",
        ".nrw",
        ".orf",
    ),  # of
    *(".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"),  # cameras
    *(".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm"),  # films, of which people want the frames
)
_NAMES_SHOWN = 3

_logger = logging.getLogger(__name__)


def image_files(
    folder: str | Path,
    *,
    recursive: bool = False,
    leave_out: Path | None = None,
    remedy: str | None = None,
) -> list[Path]:
    """Return the images of `folder`, sorted by path; names with a leading dot are left out.

    Images of formats that are not read here are left out with a warning. Of a folder that ends in .lmdb those are returned that
    its list names, see `lmdb_images`.

    Args:
        folder: where they are.
        recursive: take the subfolders, too; links to folders are not followed.
        leave_out: a folder below that is not searched, such as the one for the results.
        remedy: how to have the images of subfolders, a full sentence; given, a warning tells of those that are left out.

    Raises:
        DataError: the folder is missing, is no folder, cannot be listed or holds no image.
    """
    folder = Path(folder)
    if (problem := why_no_folder(folder)) is not None:
        raise DataError(f"The image folder '{folder}' {problem}. Check the path in the options or on the command line.")
    if folder.suffix == SUFFIX:
        return lmdb_images(folder)
    with explained(DataError, f"The image folder '{folder}' cannot be listed", "Check its permissions."):
        files = list(_tree(folder, leave_out)) if recursive else [f for f in sorted(folder.iterdir()) if not f.is_dir()]
    files = [file for file in files if not file.name.startswith(".")]
    not_read = [file for file in files if file.suffix.lower() in _SUFFIXES_NOT_READ]
    images = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES]
    if not images:
        raise DataError(
            f"{_nothing_in(folder, not_read, leave_out, remedy)} Images end in {', '.join(IMAGE_SUFFIXES)}."
        )
    if not_read:
        _logger.warning(
            "%s in '%s' are left out, since their format is not read here. Convert them to PNG to have them.",
            _first_of(not_read, folder), folder,
        )  # fmt: skip
    if remedy and not recursive and (below := _images_below(folder, leave_out)):
        _logger.warning("%d images in subfolders, such as '%s', are left out. %s", len(below), below[0], remedy)
    return images


def distinct_names(files: Iterable[Path], result_suffix: Callable[[Path], str]) -> dict[Path, str]:
    """Return a name without suffix for each file, so that no two results of a folder get the same name.

    That is the stem where no other file wants it. Of `a.png` and `a.jpg`, whose results are both PNG, the second becomes
    `a_jpg`: who has the suffix of the result keeps the stem.

    Args:
        files: each path once.
        result_suffix: suffix of the result of a file.
    """
    files = list(files)
    wanted: dict[Path, list[Path]] = {}
    for file in files:
        result = file.with_suffix(result_suffix(file))
        wanted.setdefault(result, []).append(file)
    names: dict[Path, str] = {}
    taken: set[Path] = set()
    for result, rivals in wanted.items():
        keeper = rivals[0] if len(rivals) == 1 else result
        if keeper in rivals:
            names[keeper] = keeper.stem
            taken.add(result)
    for result, rivals in wanted.items():
        for file in rivals:
            if file not in names:
                names[file] = _free_name(result, f"{file.stem}_{file.suffix[1:]}", taken)
                warn_once(f"'{file}' has the name of another image; its result is named '{names[file]}'.")
    return names


def _free_name(result: Path, name: str, taken: set[Path]) -> str:
    number, free = 1, name
    while result.with_name(free + result.suffix) in taken:
        number += 1
        free = f"{name}_{number}"
    taken.add(result.with_name(free + result.suffix))
    return free


def _tree(folder: Path, leave_out: Path | None) -> Iterator[Path]:
    """Yield the files of a folder and below in the order of their paths, without hidden ones."""
    without = real_path(leave_out) if leave_out else None
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith(".") and real_path(Path(place) / f) != without)
        yield from (Path(place) / name for name in sorted(names) if not name.startswith("."))


def _images_below(folder: Path, leave_out: Path | None) -> list[Path]:
    """Return the images in the subfolders of a folder, without those directly in it."""
    return [f for f in _tree(folder, leave_out) if f.parent != folder and f.suffix.lower() in IMAGE_SUFFIXES]


def _nothing_in(folder: Path, not_read: list[Path], leave_out: Path | None, remedy: str | None) -> str:
    """Return why no image was found, and what to do."""
    below = _images_below(folder, leave_out)
    if below:
        return (
            f"The folder '{folder}' holds no image itself, but its subfolders hold {len(below)}, such as '{below[0]}'. "
            f"{remedy or 'Give the folder that holds the images.'}"
        )
    if not_read:
        return f"The folder '{folder}' holds no image that is read here, but {_first_of(not_read, folder)}. Convert to PNG."
    return f"The folder '{folder}' holds no image."


def _first_of(files: list[Path], folder: Path) -> str:
    shown = ", ".join(f"'{file.relative_to(folder)}'" for file in files[:_NAMES_SHOWN])
    rest = len(files) - _NAMES_SHOWN
    return f"{shown} and {rest} more" if rest > 0 else shown
