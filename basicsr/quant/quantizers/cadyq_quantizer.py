"""Quantizer of activations that chooses its bits for each picture."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from basicsr.quant.calibration import Bounds
from basicsr.quant.calibrators.base import CONSTANT_MINIMUM_WIDTH
from basicsr.quant.ops.image_gradient import mean_image_gradient
from basicsr.quant.ops.samples import by_sample
from basicsr.quant.ops.step_functional import fake_quantize_by_step, quantize_by_step
from basicsr.quant.quantizers.base import Channels, Quantizer, StatedRange, require_per_tensor, require_symmetry
from basicsr.quant.spec import MIN_BITS, QuantizationError, QuantSpec
from basicsr.utils.registry import QUANTIZER_REGISTRY

_GRADIENT_SCALE = 1e3
"""Of image gradients, as in the released code: they are far smaller than deviations of activations."""


@QUANTIZER_REGISTRY.register("CADyQ")
class CADyQQuantizer(Quantizer[Bounds]):
    """Content-aware dynamic quantization (CADyQ, ECCV 2022): a linear layer chooses for each sample one of several numbers of bits.

    The layer `selector` sees the mean gradient of the picture, see `mean_image_gradient`, and the standard deviation of each channel
    of the activation. The choice with the largest of its values is taken; the gradient is that of the mixture by their softmax.
    Each choice has a largest magnitude of its own, as in PAMS: the parameter `alpha`, float32 (choices,). At first the
    selector takes the most bits. In training the bits join the losses, so that it takes fewer where they cost little.

    Args:
        spec: the most bits; symmetric, per tensor.
        num_channels: None.
        channels: the channels of the tensor; None where it has none, and the deviation of all of it counts.
        choices: numbers of bits to choose from; the largest is that of the run. By default that, and two and four fewer: 4, 6 and 8.
            Of 2 and 3 bits this leaves one, which is PAMS.
        bit_weight: weight of the loss, the sum over samples and quantizers of bits over expected bits: w + g t after t steps.
        bit_weight_growth: g of that, for each step of training.
        average_bits: pause that loss while the mean bits of a batch, over all quantizers, are not above this; None for never.

    Attributes:
        chosen_bits: bits of the samples of the last forward pass, float32 (N,); None before the first.
        image_gradient: of the pictures of this forward pass, (N, 2); handed over by the network, see `attach`.

    Raises:
        QuantizationError: another specification, choices that do not fit it, or an average that they cannot reach.
    """

    takes = Bounds
    roles = ("activation",)
    takes_channels = True
    dynamic = True
    only_gradients = ("bit_weight", "bit_weight_growth", "average_bits")
    steps: Tensor
    bits_of_choices: Tensor

    def __init__(
        self,
        spec: QuantSpec,
        num_channels: int | None = None,
        channels: Channels | None = None,
        /,
        *,
        choices: tuple[int, ...] | None = None,
        bit_weight: float = 1e-5,
        bit_weight_growth: float = 1e-10,
        average_bits: float | None = None,
    ) -> None:
        super().__init__(spec, num_channels)
        require_symmetry(spec, True, "CADyQ")
        require_per_tensor(spec, "CADyQ chooses one number of bits for a whole sample")
        self.choices = _checked_choices(spec, choices, average_bits)
        self._channels = channels
        self._bit_weight, self._bit_weight_growth, self._average_bits = bit_weight, bit_weight_growth, average_bits
        self.alpha = nn.Parameter(torch.ones(len(self.choices)))
        self.selector = nn.Linear((channels.number if channels else 1) + 2, len(self.choices))
        with torch.no_grad():
            self.selector.weight.fill_(1.0)
            self.selector.bias.zero_()[-1] = 1.0
        self.register_buffer("steps", torch.tensor(0))
        self.register_buffer("bits_of_choices", torch.tensor(self.choices, dtype=torch.float32), persistent=False)
        self.image_gradient: Tensor | None = None
        self.chosen_bits: Tensor | None = None
        self._penalty: Tensor | None = None

    @classmethod
    def attach(cls, network: nn.Module) -> None:
        """Let a network hand the gradient of its pictures to its quantizers before each forward pass."""
        network.register_forward_pre_hook(_share_image_gradient)

    def logits(self, x: Tensor) -> Tensor:
        """Return the value of each choice for the samples of `x`, (N, choices).

        Raises:
            QuantizationError: the tensor has other samples than the pictures.
        """
        rows = by_sample(x.detach(), self._channels.axis if self._channels else None).float()  # N, C, elements
        deviations = rows.std(dim=2, correction=int(rows.shape[2] > 1))
        gradient = self.image_gradient
        if gradient is None:  # outside of a network
            gradient = deviations.new_zeros(len(x), 2)
        if len(gradient) != len(x):
            raise QuantizationError(
                f"The quantizer '{self.name}' chooses bits for each picture, but is given {len(x)} samples for {len(gradient)} pictures. "
                "CADyQ is for layers whose samples are the pictures, such as convolutions; leave this one out with 'quantization:exclude'."
            )
        values: Tensor = self.selector(torch.cat([_GRADIENT_SCALE * gradient.to(deviations), deviations], dim=1))
        return values

    def fake_quantize(self, x: Tensor) -> Tensor:
        """Return the values that the codes of `x` stand for, with gradients to `x`, alpha and the selector."""
        logits = self.logits(x)
        shares, choice = logits.softmax(dim=1), logits.argmax(dim=1)
        self._count(shares, choice)
        broadcast = (len(x), *[1] * (x.dim() - 1))
        soft, hard = torch.zeros_like(x), torch.zeros_like(x)
        for number, bits in enumerate(self.choices):
            highest = 2 ** (bits - 1) - 1
            values = fake_quantize_by_step(x, self.alpha[number] / highest, -highest, highest, None)
            soft = soft + shares[:, number].view(broadcast).to(x) * values
            hard = torch.where((choice == number).view(broadcast), values.detach(), hard)
        return hard + (soft - soft.detach()) if soft.requires_grad else hard

    def _count(self, shares: Tensor, choice: Tensor) -> None:
        bits = self.bits_of_choices.to(shares)
        self.chosen_bits = bits[choice]
        if self.training and shares.requires_grad:
            expected = shares @ bits
            straight_through = self.chosen_bits + (expected - expected.detach())
            weight = self._bit_weight + self._bit_weight_growth * self.steps
            self._penalty = weight * (straight_through / expected.detach()).sum()

    def codes(self, x: Tensor) -> Tensor:
        """Return the codes of `x`, counted from that of -alpha of its choice: uint8, in the shape of `x`."""
        self.require_calibrated()
        choice = self.logits(x).argmax(dim=1).view(len(x), *[1] * (x.dim() - 1))
        found = torch.zeros_like(x, dtype=torch.uint8)
        for number, bits in enumerate(self.choices):
            highest = 2 ** (bits - 1) - 1
            codes = quantize_by_step(x, self.alpha[number] / highest, -highest, highest, None)
            found = torch.where(choice == number, codes, found)
        return found

    def take_penalty(self) -> Tensor | None:
        """Return the loss of the bits of the last forward pass in training, a sum over its samples."""
        penalty, self._penalty = self._penalty, None
        return penalty

    @classmethod
    def join_penalties(cls, penalties: Sequence[Tensor], quantizers: Sequence[Quantizer]) -> Tensor:
        """Return the sum; 0 while the mean bits are not above those that are asked for."""
        own = [q for q in quantizers if isinstance(q, CADyQQuantizer)]
        total, wanted = torch.stack(list(penalties)).sum(), own[0]._average_bits
        chosen = [q.chosen_bits for q in own if q.chosen_bits is not None]
        if wanted is None:
            return total
        # compared where it is: a GPU would stand still for the host
        reached = torch.cat(chosen).mean().double() <= wanted
        return torch.where(reached, total * 0, total)

    @torch.no_grad()
    def step_taken(self) -> None:
        """Count the steps, with which the weight of the loss grows."""
        self.steps += 1

    def load_range(self, stated: StatedRange, _weight: Tensor | None = None, /) -> str:
        """Take the largest magnitude for alpha of all choices."""
        magnitude = stated.in_shape(()).magnitude
        self.load_calibration(Bounds(-magnitude, magnitude))
        return "alpha of all choices is the larger magnitude of both bounds"

    @torch.no_grad()
    def load_calibration(self, result: Bounds) -> None:
        """Take the larger magnitude of the bounds for alpha of all choices.

        Raises:
            QuantizationError: a bound is not finite, or there is one for each channel.
        """
        magnitude = torch.maximum(result.lower_bound.abs(), result.upper_bound.abs())
        if magnitude.dim() or not bool(magnitude.isfinite()):
            raise QuantizationError(
                f"The bounds for the quantizer '{self.name}' cannot be used: they must be finite numbers, one for the tensor. Look at "
                "what was calibrated."
            )
        self.alpha.fill_(magnitude.clamp_min(CONSTANT_MINIMUM_WIDTH))
        self.mark_calibrated()


def _checked_choices(spec: QuantSpec, choices: tuple[int, ...] | None, average: float | None) -> tuple[int, ...]:
    """Return the numbers of bits to choose from, the smallest first."""
    if choices is None:
        choices = tuple(bits for bits in (spec.bits - 4, spec.bits - 2, spec.bits) if bits >= MIN_BITS)
    found = tuple(sorted(set(choices)))
    if not found or found[0] < MIN_BITS or found[-1] != spec.bits:
        raise QuantizationError(
            f"CADyQ is to choose from {list(choices)} bits in a run of {spec.bits} bits: the choices are from {MIN_BITS} bits on, and the "
            "largest is that of the run. Set 'bit' or 'quantization:a_bits' to it, or give other choices."
        )
    if average is not None and not found[0] <= average < found[-1]:
        raise QuantizationError(
            f"An average of {average:g} bits is out of reach: CADyQ chooses from {list(found)} bits, whose averages are from {found[0]} to "
            f"below {found[-1]}. Ask for another 'average_bits', or give other 'choices'."
        )
    return found


def _share_image_gradient(network: nn.Module, inputs: tuple[Any, ...]) -> None:
    with torch.no_grad():
        gradient = mean_image_gradient(inputs[0].float())
    for module in network.modules():
        if isinstance(module, CADyQQuantizer):
            module.image_gradient = gradient
