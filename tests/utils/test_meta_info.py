"""Lists of images."""

import pytest

from basicsr.utils.errors import DataError
from basicsr.utils.meta_info import names_in_meta_info


def test_names_come_with_sizes_in_the_forms_of_basicsr_or_without(tmp_path):
    lines = ["0801_s001.png (480,480,3)", "my photo (2).png (480, 320, 3) 1", "b.jpg (5,6)", "", "c.d.png"]
    (tmp_path / "list.txt").write_text("\n".join(lines) + "\n")
    assert names_in_meta_info(tmp_path / "list.txt") == ["0801_s001.png", "my photo (2).png", "b.jpg", "c.d.png"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"a.png (4,4,3)\nhello world\n", "the line 'hello world'"),
        (b"a.png (4,4,3)\na.png (4,4,3)\n", "names 'a.png' twice"),
        (b"\x89PNG\xff\xfe", "is no text"),
        (None, "cannot be read: No such file"),
    ],
)
def test_what_is_no_list_is_refused(tmp_path, content, words):
    file = tmp_path / "list.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(DataError, match="list.txt") as error:
        names_in_meta_info(file)
    assert words in str(error.value)
