"""What a file of weights says of the network that it belongs to, and whether that is the network that it is loaded into.

Options such as EDSR's `img_range` change what a network computes and leave no trace in its tensors: given wrongly, they cost decibels
without a word. So every file that is written here states type and options of its network, and every loading compares.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from basicsr.utils.errors import CheckpointError
from basicsr.utils.logger import get_logger
from basicsr.utils.registry import ARCH_REGISTRY
from basicsr.utils.signature import without_effect

ENTRY = "network_g"
"""Entry of a `.pth` file, and key of the metadata of a `.safetensors` file, with type and options of the network."""
QUANTIZERS_ENTRY = "quantizers"
"""Entry of a `.pth` file of a quantized network, with types and options of its quantizers by name."""
_BUILT_FROM = "built_from"


@runtime_checkable
class HasUsualOptions(Protocol):
    """A network whose architecture has usual values of options that leave no trace; see `archs.base.SRNetwork`."""

    usual_options: Mapping[str, Any]


class Weights(dict[str, Tensor]):
    """A state dict with what its file says of its network.

    Attributes:
        network: type and options; None where the file does not say.
        quantizers: types and options of the quantizers by name, of a quantized network; None where the file does not say.
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        network: Mapping[str, Any] | None = None,
        quantizers: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(tensors)
        self.network = network
        self.quantizers = quantizers


def mark_as_built(network: nn.Module, options: Mapping[str, Any]) -> None:
    """Let a network know the type and the complete options that it was built from."""
    setattr(network, _BUILT_FROM, plain(options))


def built_from(network: nn.Module) -> dict[str, Any] | None:
    """Return type and options of a network of `build_network`; None of any other."""
    built = getattr(network, _BUILT_FROM, None)
    return built if isinstance(built, dict) else None


def plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options as values of JSON, as files hold them."""
    return dict(json.loads(json.dumps(dict(options))))


def stated_in(entry: Any) -> dict[str, Any] | None:
    """Return type and options from an entry of a file or the text of its metadata; None where it is something else."""
    if isinstance(entry, str):
        try:
            entry = json.loads(entry)
        except ValueError:
            return None
    if not isinstance(entry, Mapping) or not isinstance(entry.get("type"), str):
        return None
    try:
        return plain(entry)
    except (TypeError, ValueError):
        return None


def check_stated(network: nn.Module, stated: Mapping[str, Any] | None, path: object) -> None:
    """Compare a network that has just taken the weights of a file with what the file says of its network.

    Args:
        network: built by `build_network`; of another one nothing is known.
        stated: type and options in the file; None where it does not say, so that a value that is not usual is told in a warning.
        path: the file, for messages.

    Raises:
        CheckpointError: an option that changes the output has another value; names it.
    """
    built = built_from(network)
    if built is None:
        return
    if stated is None:
        _tell_unusual(network, built, path)
        return
    differences = [(key, stated[key], built[key]) for key in _differing(built, stated)]
    if built["type"] != stated["type"]:
        get_logger().warning(
            "The weights '%s' are of the network %s, and are used for %s.", path, stated["type"], built["type"]
        )
    elif differences:
        told = "; ".join(f"network_g:{key}={_text(value)}, not {_text(ours)}" for key, value, ours in differences)
        remedy = " ".join(f"network_g:{key}={_text(value)}" for key, value, _ in differences)
        raise CheckpointError(
            f"The weights '{path}' are of a network with {told}. Nothing else tells it, and the images would be worse. Give {remedy}"
        )


def tell_differences(network: nn.Module, stated: Mapping[str, Any] | None, path: object) -> None:
    """Warn where some weights of a file go into a network that treats its images in another way than the one of the file."""
    built = built_from(network)
    if stated is None or built is None or not isinstance(network, HasUsualOptions):
        return
    for key in _differing(built, stated, network.usual_options):
        get_logger().warning(
            "The weights '%s' are of a network with %s %s, and start one with %s.",
            path, key, _text(stated[key]), _text(built[key]),
        )  # fmt: skip


def _differing(built: Mapping[str, Any], stated: Mapping[str, Any], keys: Iterable[str] | None = None) -> list[str]:
    """Return the options that change the output and have another value on both sides."""
    passed_over = {"type", *without_effect(ARCH_REGISTRY.get(built["type"]))}
    compared = built if keys is None else [key for key in keys if key in built]
    return [key for key in compared if key not in passed_over and key in stated and stated[key] != built[key]]


def _tell_unusual(network: nn.Module, built: Mapping[str, Any], path: object) -> None:
    """Warn of options that a public file leaves open and that have another value than is usual."""
    usual = plain(network.usual_options) if isinstance(network, HasUsualOptions) else {}
    for key, value in usual.items():
        if key in built and built[key] != value:
            get_logger().warning(
                "The weights '%s' do not say their %s: %s is given, but %s is usual for %s. If images come out wrong, give network_g:%s=%s",
                path, key, _text(built[key]), _text(value), built["type"], key, _text(value),
            )  # fmt: skip


def _text(value: Any) -> str:
    return json.dumps(value).replace(", ", ",")
