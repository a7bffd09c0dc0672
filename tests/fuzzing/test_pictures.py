"""Broken pictures go through the one reader of pictures: pixels of the size that the header says, or a sentence that names the file."""

import numpy as np
import pytest
from hypothesis import strategies as st

from basicsr.utils.errors import DataError
from basicsr.utils.image import Picture, read_image, read_picture
from basicsr.utils.image_header import any_size, glance
from tests.fuzzing.broken_pictures import WHOLE, broken
from tests.memory import at_most

pytestmark = pytest.mark.slow
LONGEST = 1000
MOST_MEMORY = 3  # GiB; a header may say sizes for which there is memory, and no pixels


def read(path):
    """Return what the reader makes of a file; None where it tells in a sentence what is wrong with it."""
    try:
        picture = read_picture(path)
    except DataError as error:
        assert f"'{path}'" in str(error) and str(error)[-1] == "." and len(str(error)) < LONGEST, str(error)
        with pytest.raises(DataError):
            read_image(path)
        return None
    np.testing.assert_array_equal(picture.rgb, read_image(path))
    return picture


def assert_a_picture(picture: Picture):
    height, width, channels = picture.rgb.shape
    assert channels == 3 and height > 0 and width > 0 and picture.rgb.dtype in (np.uint8, np.uint16)
    assert picture.rgb.flags.c_contiguous
    assert picture.alpha is None or (picture.alpha.shape, picture.alpha.dtype) == ((height, width), picture.rgb.dtype)


@pytest.mark.parametrize("kind", WHOLE)
def test_broken_pictures(kind, fuzz, tmp_path, monkeypatch):
    monkeypatch.setattr("basicsr.utils.memory._HARMLESS", 1 << 20)
    monkeypatch.setattr("basicsr.utils.memory.available_memory", lambda: 1 << 28)
    outcomes = []

    def check(data):
        path = tmp_path / f"a.{kind}"
        path.write_bytes(data)
        picture = read(path)
        outcomes.append(picture is not None)
        with any_size():
            seen = glance(path)
        if picture is not None:
            assert_a_picture(picture)
            assert seen is None or sorted(seen.size) == sorted(picture.rgb.shape[:2])

    with at_most(MOST_MEMORY):
        fuzz(broken(kind), check)
    assert any(outcomes) and not all(outcomes)


def test_bytes_that_are_no_picture(fuzz, tmp_path):
    starts = st.sampled_from([data[:length] for files in WHOLE.values() for data in files for length in (0, 4, 12, 30)])

    def check(data):
        path = tmp_path / "a.png"
        path.write_bytes(data)
        if (picture := read(path)) is not None:
            assert_a_picture(picture)

    fuzz(st.builds(bytes.__add__, starts, st.binary(max_size=60)), check)


@pytest.mark.parametrize("kind", WHOLE)
def test_the_whole_ones_are_read(kind, tmp_path):
    for index, data in enumerate(WHOLE[kind]):
        path = tmp_path / f"{index}.{kind}"
        path.write_bytes(data)
        assert_a_picture(read_picture(path))
