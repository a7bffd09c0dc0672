"""Make datasets/demo: small pictures with simple licences for the quickstart and the tests.

    python scripts/make_demo_data.py --photos ../shared/data/train_photos

`train/HR` and `val/HR` are cut from those photos (crops named p<photo>_<rank>.webp with a LICENSES.md beside them), `test/`
from the colour photographs that scikit-image carries. No picture is in two of the three.
"""

import re
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import skimage.data

from basicsr.utils.arguments import command_parser
from basicsr.utils.errors import DataError, UserError
from basicsr.utils.files import atomic_path
from basicsr.utils.image import read_image, write_image
from basicsr.utils.resize import downscale_image

SIZE = 256
STEP = 16
SCALES = (2, 3, 4)
TRAIN_PHOTOS = [
    "p000_0",
    "p007_1",
    "p008_0",
    "p014_0",
    "p017_0",
    "p020_0",
    "p021_0",
    "p025_0",
    "p033_0",
    "p034_0",
    "p037_0",
    "p038_0",
    "p041_0",
    "p044_0",
    "p050_0",
    "p056_1",
    "p057_0",
    "p058_1",
    "p067_0",
    "p069_0",
    "p071_0",
    "p075_0",
    "p079_0",
    "p089_0",
]
VAL_PHOTOS = ["p006_1", "p066_1", "p091_0"]
LICENCE_LINKS = {
    "CC0": "https://creativecommons.org/publicdomain/zero/1.0/",
    "CC0 / public domain": "https://creativecommons.org/publicdomain/zero/1.0/",
    "CC BY 3.0": "https://creativecommons.org/licenses/by/3.0/",
    "CC BY 4.0": "https://creativecommons.org/licenses/by/4.0/",
    "Public domain": "https://creativecommons.org/publicdomain/mark/1.0/",
}


@dataclass(frozen=True)
class ScikitPicture:
    """Where a test picture lies in a photograph of scikit-image; all sides are multiples of 12, for every scale factor."""

    name: str
    reduction: int
    top: int
    left: int
    height: int
    width: int
    credit: str
    licence: str


TEST_PICTURES = (
    ScikitPicture("astronaut", 1, 0, 96, 288, 288, "NASA", "Public domain"),
    ScikitPicture("chelsea", 1, 6, 84, 288, 288, "Stéfan van der Walt", "CC0"),
    ScikitPicture("coffee", 1, 60, 180, 288, 288, "Rachel Michetti, courtesy of Pikolo Espresso Bar", "CC0"),
    ScikitPicture("hubble_deep_field", 2, 80, 120, 288, 288, "NASA / ESA, HubbleSite", "Public domain"),
    ScikitPicture("retina", 4, 24, 40, 288, 288, "Mikael Häggström, Wikimedia Commons", "CC0"),
    ScikitPicture("rocket", 2, 4, 4, 204, 312, "SpaceX", "Public domain"),
)


def main(arguments: list[str] | None = None) -> int:
    parser = command_parser(__doc__)
    parser.add_argument("--photos", type=Path, required=True, help="folder of the photos, with their LICENSES.md")
    parser.add_argument("--out", type=Path, default=Path("datasets/demo"), help="by default datasets/demo")
    options = parser.parse_args(arguments)
    try:
        make_photo_crops(options.photos, options.out / "train" / "HR", TRAIN_PHOTOS)
        make_photo_crops(options.photos, options.out / "val" / "HR", VAL_PHOTOS)
        make_test_pictures(options.out / "test")
        text = licence_text(options.photos)
        with atomic_path(options.out / "LICENSES.md") as temporary:
            temporary.write_text(text, encoding="utf-8")
    except (UserError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


def make_photo_crops(photos: Path, out: Path, names: list[str]) -> None:
    for name in names:
        write_image(out / f"{name}.webp", most_detailed(read_image(photos / f"{name}.webp")))


def make_test_pictures(out: Path) -> None:
    for picture in TEST_PICTURES:
        photo = getattr(skimage.data, picture.name)()
        if picture.reduction > 1:  # their JPEG artefacts vanish
            photo = downscale_image(photo, picture.reduction)
        image = photo[picture.top : picture.top + picture.height, picture.left : picture.left + picture.width]
        write_image(out / "HR" / f"{picture.name}.png", image)
        for scale in SCALES:
            path = out / "LR_bicubic" / f"X{scale}" / f"{picture.name}x{scale}.png"
            write_image(path, downscale_image(image, scale))


def most_detailed(image: np.ndarray) -> np.ndarray:
    """Return the square of SIZE pixels with the highest mean gradient of the luma, on a grid of STEP pixels."""
    luma = image @ np.array([0.299, 0.587, 0.114])
    detail = np.hypot(*np.gradient(luma))
    corners = [
        (top, left)
        for top in range(0, image.shape[0] - SIZE + 1, STEP)
        for left in range(0, image.shape[1] - SIZE + 1, STEP)
    ]
    top, left = max(corners, key=lambda corner: detail[corner[0] :, corner[1] :][:SIZE, :SIZE].mean())
    return image[top : top + SIZE, left : left + SIZE]


def licence_text(photos: Path) -> str:
    """Return LICENSES.md of the demo data: credit, source and licence of every picture."""
    sources = read_sources(photos / "LICENSES.md")
    lines = [
        "# Licences of the demo pictures",
        "",
        "All pictures are adapted: reduced and cropped, without any other change. They stay under the licence of their photo.",
        'CC BY asks that the credit below is kept. "CC0 / public domain": photos published on Unsplash before 8 June 2017,',
        "when Unsplash released photos under CC0.",
        "",
        "`train/HR` and `val/HR`: 256x256, lossless WebP. Photos reduced by a Lanczos filter, then cropped. `scripts/make_demo_data.py`",
        "made the folder; `LR_bicubic` in `test` is Matlab's bicubic reduction of `HR` and stays under its licences.",
        "",
        "| picture | photo | credit | licence |",
        "|---|---|---|---|",
    ]
    for folder, names in (("train", TRAIN_PHOTOS), ("val", VAL_PHOTOS)):
        for name in names:
            repository, file, credit, licence = sources[name.split("_")[0]]
            lines.append(
                f"| {folder}/HR/{name}.webp | github.com/{repository}: {file} | {credit} | {_linked(licence)} |"
            )
    for picture in TEST_PICTURES:
        change = f", reduced by {picture.reduction}" if picture.reduction > 1 else ""
        source = f"scikit-image: skimage.data.{picture.name}{change}"
        lines.append(f"| test/HR/{picture.name}.png | {source} | {picture.credit} | {_linked(picture.licence)} |")
    return "\n".join(lines) + "\n"


def read_sources(path: Path) -> dict[str, tuple[str, str, str, str]]:
    """Read the tables of the photos' LICENSES.md: photo to repository, file, credit and licence."""
    sources: dict[str, tuple[str, str, str, str]] = {}
    repository = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        heading = re.fullmatch(r"## (\S+/\S+)", line)
        repository = heading[1] if heading else repository
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if re.fullmatch(r"p\d{3}", cells[0]):
            sources[cells[0]] = (repository, cells[1], cells[2], cells[3])
    missing = {name.split("_")[0] for name in TRAIN_PHOTOS + VAL_PHOTOS} - sources.keys()
    if missing:
        raise DataError(f"'{path}' does not name the licences of the photos {', '.join(sorted(missing))}.")
    return sources


def _linked(licence: str) -> str:
    return f"[{licence}]({LICENCE_LINKS[licence]})"


if __name__ == "__main__":
    sys.exit(main())
