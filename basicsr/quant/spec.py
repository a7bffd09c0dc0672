"""What a quantizer is, in one immutable object."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from basicsr.utils.errors import UserError

MIN_BITS, MAX_BITS = 2, 8
FULL_PRECISION_BITS = 32
"""Of weights or activations that stay in full precision."""

Granularity = Literal["per_tensor", "per_channel"]


class QuantizationError(UserError):
    """A quantizer, its bounds or its place in a network cannot be as asked. The message is a full sentence."""


@dataclass(frozen=True)
class QuantSpec:
    """Description of one quantizer.

    Attributes:
        bits: 2 to 8; the quantizer has at most 2**bits distinct codes.
        symmetric: bounds are -u and u.
        granularity: one pair of bounds for the tensor, or one pair for each index of `channel_axis`.
        channel_axis: the axis of the channels; only with `per_channel`.

    Raises:
        QuantizationError: bits outside 2..8, or a channel axis that does not go with the granularity.
    """

    bits: int
    symmetric: bool = False
    granularity: Granularity = "per_tensor"
    channel_axis: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.bits, bool) or not isinstance(self.bits, int) or not MIN_BITS <= self.bits <= MAX_BITS:
            raise QuantizationError(f"bits is {self.bits!r}, but must be a whole number from {MIN_BITS} to {MAX_BITS}.")
        if (self.granularity == "per_channel") != (self.channel_axis is not None):
            raise QuantizationError(
                f"channel_axis is {self.channel_axis!r} with granularity '{self.granularity}': "
                "per_channel needs a channel axis, per_tensor has none."
            )

    @property
    def num_levels(self) -> int:
        """Number of distinct codes, 2**bits."""
        return 2**self.bits

    @property
    def max_code(self) -> int:
        """The largest code, 2**bits - 1; the smallest is 0."""
        return self.num_levels - 1

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, as they are written into a quantization map."""
        return asdict(self)
