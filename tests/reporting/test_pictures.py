"""Pictures fit the room that a page has for them, cut to where the versions differ."""

import base64

import cv2
import numpy as np

from basicsr.reporting.pictures import Views, embed


def views(size=(200, 240), count=3, names=("one", "two")):
    random = np.random.default_rng(0)
    result = []
    for name in names:
        hr = random.integers(0, 256, (*size, 3)).astype(np.uint8)
        images = {"HR": hr}
        for index in range(count):
            other = hr.copy()
            other[100:140, 30:70] ^= np.uint8(64 + index)
            images[f"m{index}"] = other
        result.append(Views(name, images, {}))
    return result


def spent(pictures):
    return sum(len(version["source"]) for picture in pictures for version in picture.versions)


def test_whole_where_there_is_room():
    embedded = embed(views(), 10**8)
    assert [picture.size for picture in embedded] == [(240, 200)] * 2 and not any(picture.crop for picture in embedded)


def test_cut_to_where_versions_differ_where_there_is_not():
    budget = 400_000
    embedded = embed(views(), budget)
    assert spent(embedded) <= budget and len(embedded) == 2
    side = embedded[0].size[0]
    assert embedded[0].size == (side, side) and 64 <= side < 200
    assert "where the versions differ most" in embedded[0].crop
    first, second = (
        cv2.imdecode(np.frombuffer(base64.b64decode(version["source"].partition(",")[2]), np.uint8), cv2.IMREAD_COLOR)
        for version in embedded[0].versions[:2]
    )
    assert (first != second).any(-1).sum() == 40 * 40, "the crop holds all of the place that differs"


def test_fewer_pictures_where_even_the_smallest_crops_do_not_fit():
    one = embed(views(names=("one",)), 80_000)
    assert len(one) == 1
    assert len(embed(views(), 80_000)) == 1 and embed(views(), 1000) == []
