from pathlib import Path

import numpy as np
import pytest

from basicsr.utils.image import write_image


@pytest.fixture
def make_images(tmp_path):
    """Write noise images `a0.png`, `a1.png`, ... of the given sizes (height, width) into a folder."""

    def make(folder: str, *sizes: tuple[int, int], template: str = "a{}") -> Path:
        random = np.random.default_rng(len(folder))
        for index, size in enumerate(sizes):
            image = random.integers(0, 256, (*size, 3), dtype=np.uint8)
            write_image(tmp_path / folder / f"{template.replace('{}', str(index))}.png", image)
        return tmp_path / folder

    return make
