"""Architectures by name. Their files are imported when a network is built.

May import utils; never quant.
"""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from torch import nn

from basicsr.utils.registry import ARCH_REGISTRY
from basicsr.utils.stated_network import mark_as_built


def build_network(options: Mapping[str, Any], where: str = "network_g") -> nn.Module:
    """Build the network that `{type: Name, ...}` describes.

    Args:
        options: name of the architecture and the keyword arguments of its constructor; not changed.
        where: path of the options, used in messages.

    Raises:
        OptionsError: the architecture is unknown or an option does not fit its constructor.
    """
    component, arguments = ARCH_REGISTRY.resolve(deepcopy(dict(options)), where)
    network: nn.Module = component(**arguments)
    mark_as_built(network, {"type": options["type"], **arguments})
    return network
