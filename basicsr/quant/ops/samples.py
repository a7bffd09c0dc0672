"""Views of a tensor by sample and channel, for ranges that are taken of each sample."""

from torch import Tensor


def by_sample(x: Tensor, channel_axis: int | None) -> Tensor:
    """Return `x` as (N, C, elements): samples are the indices of axis 0; C is 1 without a channel axis.

    Args:
        x: at least one axis, and another one where the channels are.
        channel_axis: the axis of the channels, other than 0; None to treat all of a sample alike.
    """
    if channel_axis is None:
        return x.reshape(len(x), 1, -1)
    moved = x.movedim(channel_axis, 1)
    return moved.reshape(*moved.shape[:2], -1)  # N, C, all the rest


def from_samples(rows: Tensor, like: Tensor, channel_axis: int | None) -> Tensor:
    """Return what `by_sample` made of a tensor in the shape of `like` again."""
    if channel_axis is None:
        return rows.reshape(like.shape)
    return rows.reshape(like.movedim(channel_axis, 1).shape).movedim(1, channel_axis)
