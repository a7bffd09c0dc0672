"""What the framework needs of a super-resolution network: `SRNetwork`, and how a network of another kind is asked for it.

Whoever needs a member asks for it here. A network that does not derive from `SRNetwork` has the same defaults, and is
refused with a sentence where a member without a default is needed.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from basicsr.utils.errors import OptionsError


class SRNetwork(nn.Module, ABC):
    """A network that enlarges RGB images (n, 3, h, w) in 0..1 to (n, 3, h * scale, w * scale).

    A subclass provides `forward` and sets `scale`. The other members have defaults.

    Attributes:
        scale: the scale factor, an integer; evaluation, upscaling and export compare sizes with it. It has no default.
        size_multiple: evaluation pads images to multiples of this; 1 where the network takes images of any size.
    """

    scale: int
    size_multiple: int = 1

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Enlarge images (n, 3, h, w) in 0..1 to (n, 3, h * scale, w * scale), not clipped.

        An architecture with options for the numbers of channels takes and returns those in place of 3.
        """

    @property
    def feature_layers(self) -> tuple[str, ...]:
        """Names of the modules whose outputs feature distillation compares, where `train:feature_layers` names none.

        By default there are none, and the options have to name them.
        """
        return ()

    @property
    def reconstruction_blocks(self) -> tuple[str, ...]:
        """Names of the blocks that block-wise reconstruction treats one by one, in the order of execution.

        By default there are none, and each quantized layer is a block of its own.
        """
        return ()

    @property
    def joined_inputs(self) -> tuple[tuple[str, ...], ...]:
        """Names of layers whose inputs are the same features joined with more and more others, group by group, the last sees all.

        Quantization may give the inputs of a group one grid. By default there are none.
        """
        return ()

    @property
    def usual_options(self) -> Mapping[str, Any]:
        """Options that leave no trace in the weights, with the values that public networks of this architecture and size have.

        Loading tells of other values where a file does not say its own. By default there are none.
        """
        return {}

    def remap_state_dict(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return a state dict in the layout of this class, where other layouts of its names are known; loading needs it.

        Raises:
            CheckpointError: the weights are in a known layout, but of another network.
        """
        return dict(state_dict)

    def for_any_size(self) -> nn.Module:
        """Return the form of this network whose graph holds for images of any size; export needs it. By default the network."""
        return self

    @classmethod
    def options_from_state_dict(cls, state_dict: Mapping[str, Tensor]) -> dict[str, Any]:  # noqa: ARG003 -- for subclasses
        """Derive the options of the network that a state dict belongs to, so that bare weights can be upscaled with.

        Args:
            state_dict: in the layout of this class; see `remap_state_dict`.

        Raises:
            KeyError: the state dict is not one of this class, as by default none is.
        """
        raise KeyError(cls.__name__)


def scale_of(network: nn.Module) -> int:
    """Return the scale factor of a network.

    Raises:
        OptionsError: the network does not tell it.
    """
    scale = getattr(network, "scale", None)
    if isinstance(scale, bool) or not isinstance(scale, int):
        raise OptionsError(
            f"The network {type(network).__name__} has no integer attribute 'scale' but {scale!r}. Evaluation, upscaling and "
            "export compare the sizes of images with it; set it to the scale factor."
        )
    return scale


def size_multiple_of(network: nn.Module) -> int:
    """Return what sides of images must be multiples of for a network; 1 where it does not say."""
    multiple = getattr(network, "size_multiple", SRNetwork.size_multiple)
    if isinstance(multiple, bool) or not isinstance(multiple, int) or multiple < 1:
        raise OptionsError(
            f"The attribute 'size_multiple' of the network {type(network).__name__} is {multiple!r}. Images are padded to multiples "
            "of it; set it to a positive integer, or leave it out."
        )
    return multiple


def feature_layers_of(network: nn.Module) -> tuple[str, ...]:
    """Return the modules whose outputs feature distillation compares by default; none where the network does not name them."""
    return tuple(getattr(network, "feature_layers", None) or ())


def reconstruction_blocks_of(network: nn.Module) -> tuple[str, ...]:
    """Return the blocks that block-wise reconstruction treats one by one; none where the network does not name them."""
    return tuple(getattr(network, "reconstruction_blocks", ()))


def joined_inputs_of(network: nn.Module) -> tuple[tuple[str, ...], ...]:
    """Return the layers that read the same features, joined with others; none where the network does not name them."""
    return tuple(getattr(network, "joined_inputs", ()))


def usual_options_of(network: nn.Module) -> Mapping[str, Any]:
    """Return the options that leave no trace in weights, with their usual values; none where the network does not know them."""
    return dict(getattr(network, "usual_options", None) or {})


def for_any_size(network: nn.Module) -> nn.Module:
    """Return the form of a network whose graph holds for images of any size; the network itself where it has no other."""
    return network.for_any_size() if isinstance(network, SRNetwork) else network


def detect_options(architecture: type[nn.Module], state_dict: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """Return the options of the network of an architecture that a state dict belongs to; None where it belongs to none.

    Args:
        architecture: one whose options all have defaults, if it can tell options from a state dict.
        state_dict: in any layout that the architecture knows.
    """
    if not issubclass(architecture, SRNetwork) or _tells_no_options(architecture):
        return None
    try:
        return architecture.options_from_state_dict(architecture().remap_state_dict(state_dict))
    except (KeyError, IndexError, ValueError, ZeroDivisionError):  # not one of this architecture
        return None


def _tells_no_options(architecture: type[SRNetwork]) -> bool:
    return architecture.options_from_state_dict.__func__ is SRNetwork.options_from_state_dict.__func__  # type: ignore[attr-defined]
