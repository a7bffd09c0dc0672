"""What every quantized module has in common: it takes over the parameters of the module that it replaces."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Generic, Literal, TypeVar

import torch
from torch import Tensor, nn

from basicsr.quant.modules.cost import Cost
from basicsr.quant.modules.input_change import behind_change
from basicsr.quant.modules.input_rotation import InputRotation, padded_channels
from basicsr.quant.modules.input_scale import InputScale
from basicsr.quant.quantizers.base import Channels
from basicsr.quant.spec import QuantizationError

Role = Literal["weight", "activation"]
SourceT = TypeVar("SourceT", bound=nn.Module)


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
        if self.num_channels is None or self.channel_axis is None:
            return None
        return Channels(self.num_channels, self.channel_axis)

    @property
    def rotated(self) -> "QuantizerSlot":
        """The slot as it is in a layer whose input is rotated, see `InputRotation`."""
        if self.role == "weight" or self.num_channels is None:
            return self
        return replace(self, num_channels=padded_channels(self.num_channels))


class QModule(nn.Module, ABC, Generic[SourceT]):
    """A module whose inputs pass through quantizers.

    It shares the parameters of the module that it replaces: the same objects under the same names, so that the keys of
    full-precision checkpoints stay valid. A subclass defines `slots`, `cost` and `forward`; and to be exported, `runtime_form`, and
    to be checked against exact integers, `integer_twin`.

    Args:
        source: the full-precision module to replace.
        quantizers: one for each slot, by the name of the slot; an `nn.Identity` where the tensor stays in full precision.

    Attributes:
        source_type: name of the class that it replaces. The class itself is compared by name, and subclasses are not
            replaced, because their forward pass may do something else. A name also reaches classes of the
            architectures, which this package does not import.
        scales_its_input: whether `forward` divides its input as `scaled` does, the input channels being axis 1 of the weight.
        rotates_its_input: whether it can rotate its input: a linear layer, which multiplies the last axis by its weight (rows, channels).
        learns_besides: it has parameters of its own, so that it takes its place even where none of its tensors is quantized.
        input_scale: the factors, where the insertion asked for them; see `add_input_scale`.
        input_rotation: the rotation, likewise; see `add_input_rotation`. A layer has at most one of both.
        late_division: its first factor is a softmax map, whose rows are divided by their sum behind the product; see `divide_late`.
    """

    source_type: ClassVar[str]
    scales_its_input: ClassVar[bool] = False
    rotates_its_input: ClassVar[bool] = False
    learns_besides: ClassVar[bool] = False
    input_scale: InputScale | None
    input_rotation: InputRotation | None
    late_division: bool

    def __init__(self, source: SourceT, quantizers: Mapping[str, nn.Module], /) -> None:
        super().__init__()
        self.input_scale = None
        self.input_rotation = None
        self.late_division = False
        for name, parameter in source._parameters.items():  # with those that are None, such as an absent bias
            self.register_parameter(name, parameter)
        for name, quantizer in quantizers.items():
            self.add_module(name, quantizer)
        self.train(source.training)

    @classmethod
    @abstractmethod
    def slots(cls, source: SourceT, split: tuple[str, ...], /) -> list[QuantizerSlot]:
        """Return the places for quantizers in the quantized twin of `source`.

        Args:
            source: the full-precision module to replace.
            split: names of the parts to treat separately; empty for a module that is not split.

        Raises:
            QuantizationError: the module cannot be split as asked, or not be quantized at all.
        """

    @abstractmethod
    def cost(self, inputs: tuple[Tensor, ...], output: Tensor, /) -> Cost:
        """Return what one call of the layer costs.

        Args:
            inputs: the positional arguments of the call.
            output: what it returned; only shapes matter.
        """

    def behind_input_change(self, twin: nn.Module) -> nn.Module:
        """Return a twin of the layer with the factors or the rotation of the input before it, where there is one of both."""
        change = self.input_rotation if self.input_scale is None else self.input_scale
        return behind_change(change, twin)

    def integer_twin(self) -> nn.Module:
        """Return a module with the same inputs and outputs that multiplies integer codes and adds them up exactly.

        Raises:
            QuantizationError: the layer has none, or a quantizer no uniform grid.
        """
        raise QuantizationError(_missing(self, "integer_twin", "says nothing of how it computes in integers"))

    def runtime_form(self, *, integer_linear: bool) -> nn.Module:
        """Return a module with the same inputs and outputs, as runtimes compute the layer: what is exported as an ONNX graph.

        Made of `quant.integers.products`, its graph holds what runtimes fuse into integer kernels.

        Args:
            integer_linear: compute linear layers in integers, where that is the choice of the layer.

        Raises:
            QuantizationError: the layer has none, or an activation quantizer no static uniform grid.
        """
        del integer_linear
        raise QuantizationError(_missing(self, "runtime_form", "has no form for runtimes"))

    def weights(self) -> dict[str, Tensor]:
        """Return what each weight quantizer quantizes, by the name of its slot: the weight, or rows of it."""
        weight = self._parameters.get("weight")
        return {} if weight is None else {"weight_quantizer": weight}

    def add_input_scale(self, channels: Channels) -> None:
        """Give the layer factors for the channels of its input, all 1.

        Raises:
            QuantizationError: the layer does not scale its input.
        """
        if not self.scales_its_input:
            raise QuantizationError(f"A {type(self).__name__} does not scale its input.")
        self.input_scale = InputScale(channels)

    def add_input_rotation(self) -> None:
        """Let the layer rotate its input, and give it the rotated weight: a parameter of its own, with a power of two columns.

        Raises:
            QuantizationError: the layer cannot rotate its input, or has factors of it.
        """
        if not self.rotates_its_input or self.input_scale is not None:
            raise QuantizationError(
                f"A {type(self).__name__} cannot rotate its input, or scales it: only one of both goes, in a linear layer."
            )
        weight = self.get_parameter("weight")
        rotation = InputRotation(weight.shape[1], weight.device)
        self.register_parameter(
            "weight", nn.Parameter(rotation.of_weight(weight.detach()), requires_grad=weight.requires_grad)
        )
        self.input_rotation = rotation

    def divide_late(self) -> None:
        """Let the layer quantize a softmax map before its rows are divided by their sum.

        Raises:
            QuantizationError: the layer has no factor that can be one: only products of two activations have.
        """
        raise QuantizationError(
            f"'quantization:late_division' names a {type(self).__name__}, but only a product of two activations (QMatMul) can divide late. "
            "Name the products of softmax maps alone, such as '*.attn.av'."
        )

    def scaled(self, x: Tensor, /) -> Tensor:
        """Return the input of the layer as its quantizers get it: divided by the factors, or rotated, where there is one of both."""
        if self.input_rotation is not None:
            return self.input_rotation(x)
        return x if self.input_scale is None else self.input_scale(x)

    @torch.no_grad()
    def set_input_scale(self, factors: Tensor) -> None:
        """Set the factors of the input, and scale the weight accordingly; so what the layer computes in full precision stays.

        Args:
            factors: (C,), above 0.

        Raises:
            QuantizationError: the layer has no factors, or these are not finite and above 0.
        """
        if self.input_scale is None or not bool(((factors > 0) & factors.isfinite()).all()):
            raise QuantizationError(
                "The input can be scaled only by factors that are finite and above 0, in a layer that has such."
            )
        old = self.input_scale.factors
        weight = self.get_parameter("weight")
        rows, inputs = weight.shape[:2]
        groups = len(old) // inputs
        of_row = (factors.to(old) / old).view(groups, 1, inputs).expand(groups, rows // groups, inputs)
        weight.mul_(of_row.reshape(rows, inputs, *[1] * (weight.dim() - 2)))
        old.copy_(factors)

    def patches(self, x: Tensor, /) -> Tensor | None:
        """Return what the rows of the weight are multiplied with, (positions, groups, inputs), for an input of the layer.

        The rows are shared equally by the groups, in their order. None, as by default, where the layer does not say.
        """
        del x
        return None

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


def _missing(module: QModule, method: str, what: str) -> str:
    kind = type(module).__name__
    return f"A {kind} {what}: define {kind}.{method}, or leave the layer in full precision with 'quantization:exclude'."
