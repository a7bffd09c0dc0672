import pytest

from basicsr.utils.tiles import default_overlap


@pytest.mark.parametrize(
    ("tile", "multiple", "overlap"),
    [(256, 8, 48), (96, 8, 48), (32, 8, 16), (24, 8, 8), (8, 8, 0), (7, 1, 3), (0, 8, 0)],
)
def test_tiles_share_at_most_half_of_a_small_one(tile, multiple, overlap):
    assert default_overlap(tile, multiple, 48) == overlap
