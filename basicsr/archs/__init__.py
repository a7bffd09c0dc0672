"""Architectures by name. Their files are imported when a network is built.

May import utils; never quant.
"""

from collections.abc import Mapping
from contextlib import nullcontext
from copy import deepcopy
from typing import Any

from torch import nn

from basicsr.utils.errors import OptionsError
from basicsr.utils.network_size import Bound, TooLargeError, within
from basicsr.utils.registry import ARCH_REGISTRY
from basicsr.utils.stated_network import mark_as_built


def build_network(options: Mapping[str, Any], where: str = "network_g", bound: Bound | None = None) -> nn.Module:
    """Build the network that `{type: Name, ...}` describes.

    Args:
        options: name of the architecture and the keyword arguments of its constructor; not changed.
        where: path of the options, used in messages.
        bound: the most that the network may take, where it is filled from a file; by default anything.

    Raises:
        OptionsError: the architecture is unknown, an option does not fit its constructor, or the network takes more than the bound.
    """
    component, arguments = ARCH_REGISTRY.resolve(deepcopy(dict(options)), where)
    try:
        with within(bound) if bound is not None else nullcontext():
            network: nn.Module = component(**arguments)
    except TooLargeError as error:
        raise OptionsError(
            f"Section '{where}' does not belong to the file of weights. {error} Correct its options, such as the numbers of blocks and "
            "channels, or give the file that belongs to them."
        ) from error
    mark_as_built(network, {"type": options["type"], **arguments})
    return network
