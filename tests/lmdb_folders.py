"""LMDB folders as BasicSR's script makes them."""

from pathlib import Path

import cv2
import lmdb


def make_lmdb(images: Path, folder: Path) -> Path:
    """Put the PNG files of a folder into an LMDB folder: encoded images by name, and their sizes in meta_info.txt."""
    lines = []
    environment = lmdb.open(str(folder), map_size=1 << 26)
    with environment.begin(write=True) as transaction:
        for file in sorted(images.glob("*.png")):
            pixels = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
            encoded = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1]
            transaction.put(file.stem.encode("ascii"), encoded.tobytes())
            height, width, channels = pixels.shape
            lines.append(f"{file.name} ({height},{width},{channels}) 1\n")
    environment.close()
    (folder / "meta_info.txt").write_text("".join(lines))
    return folder


def change(folder: Path, **values: bytes | None) -> None:
    """Put values under keys of an LMDB folder; None removes the key."""
    environment = lmdb.open(str(folder), map_size=1 << 26)
    with environment.begin(write=True) as transaction:
        for key, value in values.items():
            if value is None:
                transaction.delete(key.encode())
            else:
                transaction.put(key.encode(), value)
    environment.close()
