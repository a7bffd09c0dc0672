import numpy as np
import pytest

from basicsr.data.pairs import ImagePair, find_pairs, load_pair
from basicsr.utils.errors import DataError
from basicsr.utils.image import read_image, write_image
from basicsr.utils.resize import downscale_image


@pytest.mark.parametrize("template", ["a{}x4", "a{}", "a{}_LRBI_x4"])
def test_common_names_of_lr_files_are_recognised(make_images, template):
    hr = make_images("HR", (8, 8), (8, 8))
    lr = make_images("LR", (2, 2), (2, 2), template=template)
    pairs = find_pairs(hr, lr, 4)
    assert [pair.name for pair in pairs] == ["a0", "a1"]
    assert [pair.lq.stem for pair in pairs] == [template.replace("{}", str(index)) for index in range(2)]


def test_enlargements_of_lr_files_are_recognised(make_images):
    """`upscale.py` calls what it makes of `<name>` `<name>_x<scale>`."""
    enlarged = make_images("enlarged", (8, 8), (8, 8), template="a{}x4_x4")
    lr = make_images("LR", (2, 2), (2, 2), template="a{}x4")
    assert [(pair.gt.stem, pair.lq.stem) for pair in find_pairs(enlarged, lr, 4)] == [
        ("a0x4_x4", "a0x4"),
        ("a1x4_x4", "a1x4"),
    ]
    with pytest.raises(DataError, match=r"They match at scale factor 4"):
        find_pairs(enlarged, lr, 2)


def test_other_names_need_a_template(make_images):
    hr = make_images("HR", (8, 8))
    lr = make_images("LR", (2, 2), template="small-a{}-4")
    with pytest.raises(DataError, match=r"HR without LR: a0; LR without HR: small-a0-4\. .*filename_tmpl"):
        find_pairs(hr, lr, 4)
    assert find_pairs(hr, lr, 4, "small-{}-{scale}")[0].lq == lr / "small-a0-4.png"


def test_names_with_braces_are_taken_literally(tmp_path):
    write_image(tmp_path / "HR" / "a{0}{scale}.png", np.zeros((4, 4, 3), np.uint8))
    write_image(tmp_path / "LR" / "a{0}{scale}x2.png", np.zeros((2, 2, 3), np.uint8))
    assert find_pairs(tmp_path / "HR", tmp_path / "LR", 2)[0].lq.stem == "a{0}{scale}x2"


def test_hr_and_lr_that_differ_in_number_are_named(make_images):
    hr = make_images("HR", *[(8, 8)] * 6)
    lr = make_images("LR", (2, 2), template="a{}x4")
    with pytest.raises(
        DataError, match=r"The 6 HR images in .* and the 1 LR images .* HR without LR: a1, a2, a3 and 2 more; .*none"
    ):
        find_pairs(hr, lr, 4)


def test_lr_images_of_another_scale_do_not_match(make_images):
    hr = make_images("HR", (8, 8))
    lr = make_images("LR", (2, 2), template="a{}x3")
    with pytest.raises(DataError, match="LR without HR: a0x3"):
        find_pairs(hr, lr, 4)


def test_images_that_differ_only_in_suffix_keep_apart(make_images):
    hr = make_images("HR", (8, 8))
    write_image(hr / "a0.bmp", np.zeros((8, 8, 3), np.uint8))
    found = find_pairs(hr, None, 4)
    assert [(pair.name, pair.gt.name) for pair in found] == [("a0_bmp", "a0.bmp"), ("a0", "a0.png")]
    lr = make_images("LR", (2, 2))
    with pytest.raises(DataError, match="HR without LR: a0_bmp"):
        find_pairs(hr, lr, 4)
    write_image(lr / "a0.bmp", np.zeros((2, 2, 3), np.uint8))
    assert [(pair.gt.name, pair.lq.name) for pair in find_pairs(hr, lr, 4)] == [("a0.bmp",) * 2, ("a0.png",) * 2]


def test_missing_and_empty_folders_are_named(make_images, tmp_path):
    hr = make_images("HR", (8, 8))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"nowhere' does not exist"):
        find_pairs(tmp_path / "nowhere", None, 4)
    with pytest.raises(DataError, match=r"empty' holds no image"):
        find_pairs(hr, tmp_path / "empty", 4)


def test_lr_is_made_of_hr_cropped_at_the_bottom_and_right(make_images):
    hr = make_images("HR", (14, 19))
    lq, gt = load_pair(find_pairs(hr, None, 4)[0], 4)
    image = read_image(hr / "a0.png")
    np.testing.assert_array_equal(gt, image[:12, :16])
    np.testing.assert_array_equal(lq, downscale_image(image[:12, :16], 4))


def test_lr_files_are_used_as_they_are(make_images):
    hr = make_images("HR", (14, 19))
    lr = make_images("LR", (3, 4))
    lq, gt = load_pair(find_pairs(hr, lr, 4)[0], 4)
    np.testing.assert_array_equal(lq, read_image(lr / "a0.png"))
    assert gt.shape == (12, 16, 3)


def test_lr_of_another_size_is_named(make_images):
    hr = make_images("HR", (14, 19))
    lr = make_images("LR", (5, 6))
    with pytest.raises(DataError, match=r"LR.a0\.png' has 6x5 pixels .* 'HR?.*a0\.png' of 19x14 needs 4x3|needs 4x3"):
        load_pair(find_pairs(hr, lr, 4)[0], 4)


def test_hr_smaller_than_the_scale_is_named(make_images):
    hr = make_images("HR", (3, 9))
    with pytest.raises(DataError, match=r"a0\.png' has 9x3 pixels, too few for the scale factor 4"):
        load_pair(ImagePair("a0", hr / "a0.png", None), 4)


def test_a_list_chooses_the_images(make_images, tmp_path):
    hr = make_images("HR", *[(8, 8)] * 4)
    lr = make_images("LR", *[(2, 2)] * 4, template="a{}x4")
    (lr / "a3x4.png").unlink()  # of an image that is not listed
    listed = tmp_path / "list.txt"
    listed.write_text("a2.png (8,8,3)\na0.png (8,8,3)\n")
    assert [(pair.name, pair.lq.name) for pair in find_pairs(hr, lr, 4, None, listed)] == [
        ("a0", "a0x4.png"), ("a2", "a2x4.png"),
    ]  # fmt: skip
    (lr / "a2x4.png").unlink()
    with pytest.raises(DataError, match="HR without LR: a2"):
        find_pairs(hr, lr, 4, None, listed)
    listed.write_text("a2.jpg (8,8,3)\na0.png (8,8,3)\n")
    with pytest.raises(DataError, match=r"list.txt' names images that '.*HR' does not hold: a2\.jpg\."):
        find_pairs(hr, None, 4, None, listed)
