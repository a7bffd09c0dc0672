"""How much neighbouring tiles share where nobody says."""


def default_overlap(tile: int, multiple: int, most: int) -> int:
    """Return how many LR pixels tiles share: at most half of a tile, a multiple of what the network takes.

    Args:
        tile: side of the tiles in LR pixels.
        multiple: sides and overlaps are multiples of this.
        most: what tiles share that are large enough.
    """
    return min(most, tile // 2) // multiple * multiple
