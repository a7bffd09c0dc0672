import numpy as np

from basicsr.data.cache import ImageCache


def test_images_are_loaded_once_within_the_budget_and_each_time_beyond():
    loads = []

    def load(key):
        loads.append(key)
        return (np.full((10, 10, 3), key, np.uint8),)

    cache = ImageCache(budget=700)
    for key in (0, 1, 2, 0, 1, 2):
        (image,) = cache.get(key, lambda key=key: load(key))
        assert image[0, 0, 0] == key
    assert loads == [0, 1, 2, 2]


def test_no_budget_keeps_nothing():
    cache = ImageCache(budget=0)
    first, second = (cache.get("a", lambda: (np.zeros((2, 2, 3), np.uint8),)) for _ in range(2))
    assert first[0] is not second[0]
