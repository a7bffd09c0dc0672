"""Lay out a folder of images for training or evaluation, or check one.

    python scripts/prepare_data.py --hr my_photos --out datasets/benchmark/MySet --scales 2 3 4
    python scripts/prepare_data.py --check datasets/benchmark/Set5
    python scripts/prepare_data.py --hr datasets/DF2K/HR --out datasets/DF2K_sub --subimages

The layout is HR/<image> and LR_bicubic/X<scale>/<image>x<scale>.png. HR files are copied as they are. LR images are Matlab's
bicubic reduction of the HR image cropped at the bottom and right to a multiple of the scale. An interrupted run is
continued by the same command; files that exist are never overwritten.

With --recursive each folder of images below becomes a data set of its own, in the same place below --out:
my_photos/birds/a.png goes to <out>/birds/HR/a.png. Images that differ only in suffix get different names.

With --subimages overlapping squares are cut out of each image, as BasicSR does for DF2K, and called <image>_s001 and so on. Their LR
images are cut out of the LR image of the whole picture.
"""

import argparse
import functools
import hashlib
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

import numpy as np

from basicsr.data.pairs import NAME_TEMPLATES, files_by_name, lq_name, match_names, size_of
from basicsr.utils.arguments import command_parser, integer_from
from basicsr.utils.errors import DataError, UserError, explained
from basicsr.utils.files import atomic_path, real_path
from basicsr.utils.image import read_image, write_image
from basicsr.utils.image_bytes import read_bytes
from basicsr.utils.image_folders import distinct_names, image_files
from basicsr.utils.lmdb_folders import lmdb_folder_of
from basicsr.utils.resize import crop_to_multiple, downscale_image
from prepared_folders import Layout, images_if_any, parallel
from sub_images import BORDER, Cut, cut_folder, is_sub_image

_SIZES = (
    ("--crop_size", 480, 1, "side of the squares in HR pixels, by default 480"),
    ("--step", 240, 1, "HR pixels from one square to the next, by default 240"),
    ("--thresh_size", 0, 0, "HR pixels that may be left over at the end of a line, by default 0"),
)
_RECURSIVE = "Give --recursive to make a data set of each."


@dataclass
class ImageReport:
    """What `check_image` found out about one HR image."""

    name: str
    checksum: str | None = None
    problems: list[str] = field(default_factory=list)


def main(arguments: list[str] | None = None) -> int:
    options = _parse(arguments)
    try:
        if options.check:
            layouts = layouts_below(options.check) if options.recursive else [Layout(options.check)]
            problems = [problem for layout in layouts for problem in check_layout(layout, options.workers)]
            return _report(problems, f"'{options.check}' is in order.")
        files = image_files(options.hr, recursive=options.recursive, leave_out=options.out, remedy=_RECURSIVE)
        if options.subimages:
            cut = Cut(options.crop_size, options.step, options.thresh_size)
            problems = cut_folder(files, Layout(options.out), options.scales, cut, options.workers)
            return _report(problems, f"'{options.out}' holds {len(images_if_any(options.out / 'HR'))} sub-images.")
        problems = []
        for folder in sorted({file.parent for file in files}):
            layout = Layout(options.out / folder.relative_to(options.hr))
            own = [file for file in files if file.parent == folder]
            problems += lay_out(own, layout, options.scales, options.link, options.workers)
        return _report(problems, f"'{options.out}' is ready for the scale factors {options.scales}.")
    except (UserError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted; the same command continues the work.", file=sys.stderr)
        return 130


def lay_out(files: list[Path], layout: Layout, scales: list[int], link: bool, workers: int) -> list[str]:
    """Bring the images of a folder into the layout; return what went wrong, one sentence an image.

    Raises:
        DataError: the folder is unusable, or the layout holds other images already.
    """
    source = files[0].parent
    if any(real_path(source) == real_path(layout.lr(scale)) for scale in scales):
        raise DataError(f"The HR images in '{source}' lie where the LR images would go. Choose another --out.")
    names = distinct_names(files, lambda _: ".png")
    if real_path(source) == real_path(layout.hr):
        renamed = next((file for file, name in names.items() if name != file.stem), None)
        if renamed is not None:
            raise DataError(
                f"The image '{renamed}' differs from another one only in its suffix, and lies where it has to stay. Rename one of "
                "the two, or choose another --out."
            )
        targets = {file: file for file in files}
    else:
        targets = {file: layout.hr / f"{name}{file.suffix}" for file, name in names.items()}
        foreign = sorted({file.name for file in images_if_any(layout.hr)} - {file.name for file in targets.values()})
        if foreign:
            raise DataError(
                f"'{layout.hr}' holds files that are not in '{source}', such as {foreign[0]}. Choose another --out."
            )
    prepare = functools.partial(prepare_image, layout=layout, scales=scales, link=link)
    return [problem for problem in parallel(prepare, targets.items(), workers) if problem]


def prepare_image(job: tuple[Path, Path], layout: Layout, scales: list[int], link: bool) -> str | None:
    """Make those files of an image, for its place among the HR images, that are not there yet; return what went wrong."""
    file, target = job
    try:
        with explained(DataError, f"The image '{file}' cannot be prepared"):
            lr_names = {scale: lq_name(target.stem, NAME_TEMPLATES[0], scale) for scale in scales}
            missing = {scale: layout.lr(scale) / f"{name}.png" for scale, name in lr_names.items()}
            missing = {scale: lr for scale, lr in missing.items() if not lr.exists()}
            image = read_image(file) if missing else None
            if image is not None and min(image.shape[:2]) < max(missing):
                return f"The image '{file}' has {size_of(image)} pixels, too few for scale factor {max(missing)}; it is left out."
            if target != file:
                _copy(file, target, link)
            for scale, lr in missing.items():
                assert image is not None  # it was read, as something is missing
                write_image(lr, downscale_image(crop_to_multiple(image, scale), scale))
    except UserError as error:
        return str(error)
    return None


def layouts_below(root: Path) -> list[Layout]:
    """Return the layouts in a folder and below.

    Raises:
        DataError: there is none.
    """
    layouts = [Layout(folder.parent) for folder in sorted(root.rglob("HR")) if folder.is_dir()]
    if not layouts:
        raise DataError(f"'{root}' holds no folder named HR, and neither do its subfolders. Check the path.")
    return layouts


def check_layout(layout: Layout, workers: int) -> list[str]:
    """Return everything that is wrong with a prepared folder, one sentence each.

    Raises:
        DataError: there are no HR images.
    """
    files = files_by_name(image_files(layout.hr))
    scales = layout.scales()
    if not scales:
        return [f"'{layout.root}' has no LR images: '{layout.lr(4)}' or that of another scale factor is expected."]
    problems: list[str] = []
    partners: dict[str, list[tuple[int, Path]]] = {name: [] for name in files}
    for scale in scales:
        lr_files = {file.stem: file for file in images_if_any(layout.lr(scale))}
        match = match_names(files, lr_files, scale)
        problems += [f"HR image '{files[name]}' has no LR image in X{scale}." for name in match.without_lq]
        problems += [f"LR image '{lr_files[name]}' has no HR image." for name in match.without_gt]
        for name, partner in match.lq_names.items():
            if partner in lr_files:
                partners[name].append((scale, lr_files[partner]))
    jobs = [(file, partners[name]) for name, file in files.items()]
    reports = sorted(parallel(check_image, jobs, workers), key=lambda report: report.name)
    problems += [problem for report in reports for problem in report.problems]
    return problems + _duplicates(reports)


def check_image(job: tuple[Path, list[tuple[int, Path]]]) -> ImageReport:
    """Compare the LR images of one HR image with Matlab's bicubic reduction."""
    file, partners = job
    report = ImageReport(file.name)
    try:
        image = read_image(file)
    except DataError as error:
        report.problems.append(str(error))
        return report
    report.checksum = hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()
    for scale, lr_file in partners:
        try:
            border = BORDER if is_sub_image(file.stem) else 0
            problem = _compare(read_image(lr_file), crop_to_multiple(image, scale), scale, border)
        except DataError as error:
            report.problems.append(str(error))
            continue
        if problem:
            report.problems.append(f"LR image '{lr_file}' {problem}")
    return report


def _compare(lr: np.ndarray, hr: np.ndarray, scale: int, border: int) -> str | None:
    expected_size = f"{hr.shape[1] // scale}x{hr.shape[0] // scale}"
    if size_of(lr) != expected_size:
        return f"has {size_of(lr)} pixels; its HR image needs {expected_size} (width x height)."
    expected = downscale_image(hr, scale)
    if lr.dtype != expected.dtype:
        return f"has pixels of type {lr.dtype}, its HR image of {expected.dtype}."
    inside = slice(border, -border or None)
    difference = np.abs(lr.astype(np.int64) - expected)[inside, inside]
    if not difference.any():
        return None
    psnr = 10 * np.log10(np.iinfo(lr.dtype).max ** 2 / np.mean(difference**2))
    return (
        f"is not Matlab's bicubic reduction: {np.mean(difference != 0):.1%} of the values differ, "
        f"by at most {difference.max()} ({psnr:.1f} dB)."
    )


def _duplicates(reports: Iterable[ImageReport]) -> list[str]:
    first: dict[str, str] = {}
    problems = []
    for report in reports:
        if report.checksum is None:
            continue
        other = first.setdefault(report.checksum, report.name)
        if other != report.name:
            problems.append(f"HR images '{other}' and '{report.name}' are the same picture.")
    return problems


def _copy(file: Path, target: Path, link: bool) -> None:
    if target.exists():
        if target.read_bytes() != read_bytes(file):
            raise DataError(f"'{target}' exists and differs from '{file}'; it is left as it is. Choose another --out.")
        return
    with explained(DataError, f"'{target}' cannot be written"):
        if link and lmdb_folder_of(file) is None:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(real_path(file))
        else:
            with atomic_path(target) as temporary:
                temporary.write_bytes(read_bytes(file))


def _report(problems: list[str], success: str) -> int:
    for problem in problems:
        print(problem)
    print(f"Problems found: {len(problems)}." if problems else success)
    return 1 if problems else 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument("--hr", type=Path, metavar="FOLDER", help="folder of HR images; it is only read")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="folder to lay out")
    parser.add_argument(
        "--scales", type=integer_from(2), nargs="+", default=[2, 3, 4], help="scale factors, by default 2 3 4"
    )
    parser.add_argument("--link", action="store_true", help="link to the HR images instead of copying them")
    parser.add_argument("--recursive", action="store_true", help="make or check a data set of each folder below, too")
    parser.add_argument("--subimages", action="store_true", help="cut the images into overlapping squares")
    for name, default, minimum, text in _SIZES:
        parser.add_argument(name, type=integer_from(minimum), default=default, help=f"of --subimages: {text}")
    parser.add_argument("--check", type=Path, metavar="FOLDER", help="check a folder that is laid out")
    parser.add_argument(
        "--workers", type=integer_from(1), default=os.cpu_count(), help="processes, by default one a core"
    )
    options = parser.parse_args(arguments)
    if bool(options.check) == bool(options.hr or options.out) or bool(options.hr) != bool(options.out):
        parser.error("give either --hr and --out, or --check")
    if options.subimages and (options.check or options.link or options.recursive):
        parser.error("--subimages goes with --hr and --out, without --link and --recursive")
    return options


if __name__ == "__main__":
    sys.exit(main())
