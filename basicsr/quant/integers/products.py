"""What layers multiply as a runtime computes it: operators that give and take codes around integer weights.

Everything is written so that its graph holds what runtimes fuse into integer kernels: a clip, an addition, a pair of
QuantizeLinear and DequantizeLinear in front of the layer, and int8 weights with a step for each row. The values are those of the
quantized network; see `containers` for what 8 bits cannot hold exactly.
"""

from collections.abc import Callable

from torch import Tensor, nn

from basicsr.quant.integers.containers import (
    ActivationContainer,
    WeightContainer,
    largest_codes,
    weight_container,
)
from basicsr.quant.integers.frozen import freeze_weight
from basicsr.quant.integers.operators import from_int8, through_uint8
from basicsr.quant.integers.point_tables import ContainedPoints, PointValues
from basicsr.quant.quantizers.base import Quantizer
from basicsr.quant.spec import QuantizationError

Containers = Callable[[float, float, int], ActivationContainer | None]
"""Gives the grid for an input with the lower bound, the upper bound and the bits of its quantizer; None where there is no good one."""


class GridValues(nn.Module):
    """Rounds activations to the values of a quantizer, in floating point: for products that are not computed in integers.

    Args:
        quantizer: calibrated, with a static uniform grid.
    """

    def __init__(self, quantizer: Quantizer) -> None:
        super().__init__()
        self.grid: tuple[float, float, float] | tuple[Tensor, Tensor, Tensor] = _numbers(quantizer) or _rows(quantizer)

    @property
    def starts_at_zero(self) -> bool:
        """Whether values are codes times one step, with nothing to add."""
        return isinstance(self.grid[0], float) and self.grid[0] == 0

    def forward(self, x: Tensor) -> Tensor:
        """Return the nearest values, in the shape of `x`."""
        lower, _, step = self.grid
        return self.codes(x) * step + lower

    def codes(self, x: Tensor) -> Tensor:
        """Return the codes of the nearest values, whole numbers from 0 on, in the shape and type of `x`."""
        lower, upper, step = self.grid
        return ((x.clamp(lower, upper) - lower) * (1 / step)).round()  # type: ignore[arg-type]  # the stubs know no unions


class ContainedValues(nn.Module):
    """Rounds activations to the values of a quantizer, moved onto the grid of a container, through 8-bit codes.

    Args:
        quantizer: calibrated and per tensor, with a static uniform grid.
        container: the grid; its step is that of the quantizer or a whole fraction of it.

    Raises:
        QuantizationError: the quantizer is per channel.
    """

    def __init__(self, quantizer: Quantizer, container: ActivationContainer) -> None:
        super().__init__()
        numbers = _numbers(quantizer)
        if numbers is None:
            raise QuantizationError(
                f"The quantizer '{quantizer.name}' has bounds for each channel; a container holds one grid."
            )
        self.lower, self.upper, self.step = numbers
        self.container = container

    def forward(self, x: Tensor) -> Tensor:
        """Return the nearest values plus `container.shift`, in the shape of `x`."""
        shift, x = self.container.shift, x.clamp(self.lower, self.upper)
        if round(self.step / self.container.step) == 1:  # both round at the same places
            x = x + shift if shift else x
        else:
            x = ((x - self.lower) * (1 / self.step)).round() * self.step + (self.lower + shift)
        return through_uint8(x, self.container.step, self.container.zero_point)


class FloatWeight(nn.Module):
    """A weight that stays in floating point, at most rounded to the values of its quantizer."""

    values: Tensor

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.register_buffer("values", values)

    def forward(self) -> Tensor:
        """Return the weight."""
        return self.values


class IntegerWeight(nn.Module):
    """A weight of int8 codes with a step for each row.

    Attributes:
        moved: largest distance of a value from that of the quantizer, in steps of the quantizer.
    """

    codes: Tensor
    steps: Tensor

    def __init__(self, weight: WeightContainer) -> None:
        super().__init__()
        self.moved = weight.moved
        self.register_buffer("codes", weight.codes)
        self.register_buffer("steps", weight.steps)

    def forward(self) -> Tensor:
        """Return the values of the codes, float32."""
        return from_int8(self.codes, self.steps)


class Product(nn.Module):
    """What a linear layer or a convolution multiplies: its input on a grid, its weight, and a bias that compensates the shift.

    Args:
        inputs: applied to the input of the layer.
        weight: gives the weight.
        bias: (rows,) or None.
        shift: by how much `inputs` moves the values.
    """

    bias: Tensor | None

    def __init__(
        self, inputs: nn.Module, weight: FloatWeight | IntegerWeight, bias: Tensor | None, shift: float
    ) -> None:
        super().__init__()
        self.inputs, self.weight = inputs, weight
        if shift:
            correction = -shift * weight().double().flatten(1).sum(1)
            bias = (correction if bias is None else bias.double() + correction).float()
        self.register_buffer("bias", bias)


def _grid(quantizer: Quantizer) -> tuple[Tensor, Tensor, Tensor]:
    """Return lower bound, upper bound and step, each of the shape () or (C,)."""
    lower, upper = (bound.detach().float() for bound in quantizer.affine_bounds())
    return lower, upper, (upper - lower) / quantizer.spec.max_code


def _numbers(quantizer: Quantizer) -> tuple[float, float, float] | None:
    """Return lower bound, upper bound and step as numbers; None where there is one for each channel."""
    lower, upper, step = _grid(quantizer)
    return None if lower.dim() else (lower.item(), upper.item(), step.item())


def _rows(quantizer: Quantizer) -> tuple[Tensor, Tensor, Tensor]:
    """Return lower bounds, upper bounds and steps of the channels, so that they broadcast."""
    lower, upper, step = _grid(quantizer)
    shape = (-1, 1, 1) if quantizer.spec.channel_axis == 1 else (-1,)  # of a convolution, of a linear layer
    return lower.view(shape), upper.view(shape), step.view(shape)


def grid_values(quantizer: nn.Module) -> nn.Module:
    """Return what rounds an activation in floating point; nothing where it stays in full precision, without a quantizer."""
    if not isinstance(quantizer, Quantizer):
        return nn.Identity()
    points = quantizer.uneven_points()
    return GridValues(quantizer) if points is None else PointValues(quantizer, points)


def offset_codes(lower: float, upper: float, bits: int) -> ActivationContainer:
    """Return the grid of the quantizer itself, moved so that code 0 stands for zero: without padding, nothing else does."""
    return ActivationContainer((upper - lower) / (2**bits - 1), 0, -lower)


def product_of(
    act_quantizer: nn.Module,
    weight_quantizer: nn.Module,
    weight: Tensor,
    bias: Tensor | None,
    container_for: Containers | None,
) -> Product:
    """Return the product of a layer in integers, or in floating point.

    Args:
        act_quantizer: of the input; no quantizer where it stays in full precision.
        weight_quantizer: of the weight, likewise.
        weight: rows first.
        bias: (rows,) or None.
        container_for: gives the grid for an input; floating point where it is None or gives None.
    """
    if container_for and isinstance(act_quantizer, Quantizer) and isinstance(weight_quantizer, Quantizer):
        contained = _contained(act_quantizer, container_for)
        if contained is not None:
            largest = largest_codes(act_quantizer.spec.bits)[1]
            integers = weight_container(freeze_weight(weight_quantizer, weight), largest)
            return Product(contained[0], IntegerWeight(integers), bias, contained[1])
    values = weight_quantizer(weight) if isinstance(weight_quantizer, Quantizer) else weight
    return Product(grid_values(act_quantizer), FloatWeight(values.detach()), bias, 0.0)


def _contained(quantizer: Quantizer, container_for: Containers) -> tuple[nn.Module, float] | None:
    """Return what gives an input in 8-bit integers, and by how much it moves the values; None where no grid holds them."""
    points = quantizer.uneven_points()
    if points is not None:
        return ContainedPoints(quantizer, points), 0.0
    numbers = _numbers(quantizer)
    container = None if numbers is None else container_for(numbers[0], numbers[1], quantizer.spec.bits)
    return None if container is None else (ContainedValues(quantizer, container), container.shift)
