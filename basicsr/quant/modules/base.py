"""What every quantized module has in common: it takes over the parameters of the module that it replaces."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn

from basicsr.quant.quantizers.base import Channels
from basicsr.quant.spec import QuantizationError

Role = Literal["weight", "activation"]


@dataclass(frozen=True)
class QuantizerSlot:
    """A place for a quantizer in a quantized module.

    Attributes:
        name: path of the quantizer inside the module, such as `weight_quantizer` or `q.act_quantizer`.
        role: whether it quantizes a weight or an activation.
        num_channels: number of channels of a per-channel quantizer; None where the tensor has no channels.
        channel_axis: the axis of these channels: 0 of a weight, 1 of the input of a convolution, -1 of that of a linear layer.
    """

    name: str
    role: Role
    num_channels: int | None = None
    channel_axis: int | None = None

    @property
    def channels(self) -> Channels | None:
        """Number and axis of the channels; None where the tensor has none."""
        return None if self.num_channels is None else Channels(self.num_channels, self.channel_axis)


class QModule(nn.Module, ABC):
    """A module whose inputs pass through quantizers.

    It shares the parameters of the module that it replaces: the same objects under the same names, so that the keys of
    full-precision checkpoints stay valid. A subclass defines `slots` and `forward`.

    Args:
        source: the full-precision module to replace.
        quantizers: one for each slot, by the name of the slot; an `nn.Identity` where the tensor stays in full precision.

    Attributes:
        source_type: name of the class that it replaces. The class itself is compared by name, and subclasses are not
            replaced, because their forward pass may do something else. A name also reaches classes of the
            architectures, which this package does not import.
    """

    source_type: ClassVar[str]

    def __init__(self, source: nn.Module, quantizers: Mapping[str, nn.Module], /) -> None:
        super().__init__()
        for name, parameter in source._parameters.items():  # with those that are None, such as an absent bias
            self.register_parameter(name, parameter)
        for name, quantizer in quantizers.items():
            self.add_module(name, quantizer)
        self.train(source.training)

    @classmethod
    @abstractmethod
    def slots(cls, source: nn.Module, split: tuple[str, ...], /) -> list[QuantizerSlot]:
        """Return the places for quantizers in the quantized twin of `source`.

        Args:
            source: the full-precision module to replace.
            split: names of the parts to treat separately; empty for a module that is not split.

        Raises:
            QuantizationError: the module cannot be split as asked, or not be quantized at all.
        """

    def weights(self) -> dict[str, Tensor]:
        """Return what each weight quantizer quantizes, by the name of its slot: the weight, or rows of it."""
        return {"weight_quantizer": self.weight} if "weight" in self._parameters else {}

    def slots_with_same_input(self) -> tuple[str, ...]:
        """Return the slots of activations that quantize one and the same tensor; one calibration serves them all."""
        return ()


def weight_slot(name: str, rows: int) -> QuantizerSlot:
    """Return the slot of a weight with `rows` output channels, which are its axis 0."""
    return QuantizerSlot(name, "weight", rows, 0)


def refuse_split(module_type: str, split: tuple[str, ...]) -> None:
    """Raise a QuantizationError if a split is asked of a module that has no parts."""
    if split:
        raise QuantizationError(f"{module_type} cannot be split into {', '.join(split)}; only QSplitLinear has parts.")
