"""Put evaluated methods side by side: one table, one picture.

    python scripts/compare.py --out results/comparison results/demo_FP_x4 results/demo_MinMax_x4_bit4 ...

Each folder is one that basicsr/test.py left with `val:save_img=true`; the pictures' HR files are found through the options
that the folder names. The picture shows, for each image, the 64 x 64 crop of HR that differs most between the methods.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from basicsr.sweep.crops import most_different, tile
from basicsr.utils.image import image_files, read_image, write_image
from basicsr.utils.resize import crop_to_multiple, downscale_image, upscale_image

CROP = 64
"""Side of the crops, in HR pixels."""


def read_results(folder: Path) -> dict[str, Any]:
    """Return the metrics.json of an evaluation."""
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))


def table(results: list[dict[str, Any]]) -> str:
    """Return a Markdown table: method, bits, PSNR, SSIM, fidelity, size; one row for each result and dataset."""
    lines = [
        "| method | W/A bits | dataset | PSNR (dB) | SSIM | fidelity (dB) | size (KB) | ratio |",
        "|---|---|---|---|---|---|---|---|",
    ]
    full = results[0]["complexity"]["bytes"]
    for result in results:
        for name, means in result["datasets"].items():
            fidelity = means.get("fidelity")
            size = result["complexity"]["bytes"]
            lines.append(
                f"| {result['method']} | {result['w_bits']}/{result['a_bits']} | {name} | {means['psnr']:.3f} | {means['ssim']:.4f} "
                f"| {'-' if fidelity is None else f'{fidelity:.2f}'} | {size / 1000:.0f} | {full / size:.2f} |"
            )
    return "\n".join(lines)


def row(hr_file: Path, dataset: str, folders: list[Path], results: list[dict[str, Any]]) -> np.ndarray:
    """Return HR, bicubic and all methods for one picture, side by side."""
    scale = results[0]["scale"]
    hr = crop_to_multiple(read_image(hr_file), scale)
    bicubic = upscale_image(downscale_image(hr, scale), scale)
    outputs = [read_image(folder / "visualization" / dataset / f"{hr_file.stem}.png") for folder in folders]
    top, left = most_different([hr, *outputs], CROP)
    tiles = [tile(hr, top, left, CROP, "HR", hr_file.stem), tile(bicubic, top, left, CROP, "bicubic", "")]
    for result, output in zip(results, outputs, strict=True):
        values = result["datasets"][dataset]["images"][hr_file.stem]
        bits = "" if result["w_bits"] == 32 else f" {result['w_bits']}/{result['a_bits']} bit"
        tiles.append(tile(output, top, left, CROP, f"{result['method']}{bits}", f"{values['psnr']:.2f} dB"))
    return np.hstack(tiles)


def main() -> None:
    """Write the table and the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "folders", nargs="+", type=Path, help="result folders; the first one is the full-precision network"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for table.md and comparison.png")
    parser.add_argument("--hr", type=Path, default=Path("datasets/demo/test/HR"), help="HR pictures of the dataset")
    arguments = parser.parse_args()
    results = [read_results(folder) for folder in arguments.folders]
    text = table(results)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "table.md").write_text(text + "\n", encoding="utf-8")
    dataset = next(iter(results[0]["datasets"]))
    rows = [row(file, dataset, arguments.folders, results) for file in image_files(arguments.hr)]
    write_image(arguments.out / "comparison.png", np.vstack(rows), smallest=True)
    print(text)
    print(f"Crops side by side: {arguments.out / 'comparison.png'}")


if __name__ == "__main__":
    main()
