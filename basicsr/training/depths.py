"""Training of a network together with those of fewer blocks within it."""

from collections.abc import Iterator, Sequence

from torch import nn

from basicsr.quant.insertion.depth import blocks_beyond, blocks_beyond_each, leave_out, left_out, take_in
from basicsr.utils.options import Options

_OPTION = "train:depths"


class Depths:
    """The shares of its blocks that a network is trained with in each step.

    Args:
        network: what is trained.
        shares: of the blocks, each above 0 and at most 1; None for all of them alone.
        options: of the run; `quantization:depth` is the share to evaluate.

    Raises:
        QuantizationError: the network has no blocks that can be left out.
    """

    def __init__(self, network: nn.Module, shares: Sequence[float] | None, options: Options) -> None:
        self._network = network
        self._shares = list(shares or [1.0])
        self._evaluated = 1.0 if options.quantization is None else options.quantization.depth
        if shares:
            blocks_beyond(network, 1.0, _OPTION)
        if self._evaluated < 1:
            blocks_beyond(network, self._evaluated, "quantization:depth")

    def each(self) -> Iterator[float]:
        """Bring the network to one depth after the other, and yield the share of the loss that it has there."""
        take_in(self._network)
        whole = min(self._shares) == 1
        each = [[]] * len(self._shares) if whole else blocks_beyond_each(self._network, self._shares, _OPTION)
        for beyond in each:
            with left_out(self._network, beyond):
                yield 1 / len(self._shares)

    def for_evaluation(self) -> None:
        """Bring the network to the depth that is evaluated."""
        take_in(self._network)
        if self._evaluated < 1:
            leave_out(self._network, blocks_beyond(self._network, self._evaluated, "quantization:depth"))
