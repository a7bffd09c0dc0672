"""What every quantizer has in common: its state lives in the state dict, and it never runs uncalibrated."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar, cast

import torch
from torch import Tensor, nn

from basicsr.quant.calibration import Bounds, CalibrationResult
from basicsr.quant.spec import QuantizationError, QuantSpec

ResultT = TypeVar("ResultT", bound=CalibrationResult, contravariant=True)


class Channels(NamedTuple):
    """The channels of the tensor that a quantizer is given, also where it is per tensor: their number and their axis."""

    number: int
    axis: int


class StatedRange(NamedTuple):
    """What a quantizer with a static uniform grid states of its range, so that another kind can start from it.

    Attributes:
        lower: what code 0 stands for, float32, () per tensor or (C,) per channel.
        upper: what code 2**bits - 1 stands for, in the same shape.
        largest: the largest value that occurs: `upper`, or less where the last code is never used.
    """

    lower: Tensor
    upper: Tensor
    largest: Tensor

    @property
    def magnitude(self) -> Tensor:
        """The largest magnitude of a value, in the shape of the bounds."""
        return torch.maximum(self.lower.abs(), self.largest.abs())

    def in_shape(self, shape: Sequence[int]) -> "StatedRange":
        """Return the range with one pair of bounds for each channel, where it has one for all."""
        return StatedRange(*(bound.detach().float().expand(tuple(shape)) for bound in self))


class Quantizer(nn.Module, ABC, Generic[ResultT]):
    """Maps a tensor to at most 2**bits distinct values (in each channel, if it is per channel).

    The buffers `bits` and `calibrated` and the parameters of the subclass are its whole state, so that a state dict alone
    restores it. A subclass defines `takes`, `fake_quantize`, `codes` and `load_calibration`, and creates its parameters in its
    constructor.

    Args:
        spec: bits, symmetry and granularity.
        num_channels: number of channels along `spec.channel_axis`; given for a per-channel quantizer only.

    Attributes:
        takes: the kind of calibration result that it is set up from.
        roles: what it can quantize, `weight`, `activation` or both.
        takes_channels: its constructor takes a third positional argument, the `Channels` of its tensor, or None where the
            tensor has none: for parameters that each channel has, although all channels share one grid.
        dynamic: the values that codes stand for are computed anew for each sample (each index of axis 0), so that 2**bits
            values are meant for each sample apart. Of the class, whether it may be so; of a quantizer, whether it is.
        own_calibrator: registered name of the calibrator that sets it up, whatever the options name for others; None for that of the
            options.
        only_gradients: options that change gradients alone: a trained network computes the same with other values of them.
        name: where the quantizer sits in its network, for messages; filled in by the insertion.
        built_from: its registered type and its options; filled in by the insertion.
        bypass: lets the full-precision tensor through. Only the context managers of `capture.py` switch it.

    Raises:
        QuantizationError: `num_channels` does not go with the granularity.
    """

    takes: ClassVar[type[CalibrationResult]]
    roles: ClassVar[tuple[str, ...]] = ("weight", "activation")
    takes_channels: ClassVar[bool] = False
    own_calibrator: ClassVar[str | None] = None
    dynamic: bool = False
    only_gradients: ClassVar[tuple[str, ...]] = ()
    bits: Tensor
    calibrated: Tensor

    def __init__(self, spec: QuantSpec, num_channels: int | None = None, /) -> None:
        super().__init__()
        if (num_channels is not None) != (spec.granularity == "per_channel"):
            raise QuantizationError(
                f"The number of channels is {num_channels!r} with granularity '{spec.granularity}': "
                "per_channel needs a number of channels, per_tensor has none."
            )
        self.spec = spec
        self.name = ""
        self.built_from: dict[str, Any] = {}
        self.bypass = False
        self.bounds_shape = () if num_channels is None else (num_channels,)
        self.register_buffer("bits", torch.tensor(spec.bits))
        self.register_buffer("calibrated", torch.tensor(False))
        # `calibrated` is asked for in every forward pass; reading it from a GPU each time would stall the device
        self._seen_calibrated = False

    def forward(self, x: Tensor) -> Tensor:
        """Return the fake-quantized tensor, in the shape and type of `x`.

        Raises:
            QuantizationError: the quantizer has not been calibrated.
        """
        if self.bypass:
            return x
        self.require_calibrated()
        return self.fake_quantize(x)

    @abstractmethod
    def fake_quantize(self, x: Tensor) -> Tensor:
        """Return the values that the codes of `x` stand for, with gradients to `x` and to the parameters."""

    @abstractmethod
    def codes(self, x: Tensor) -> Tensor:
        """Return the codes of `x`: uint8 from 0 to 2**bits - 1, in the shape of `x`."""

    @abstractmethod
    def load_calibration(self, result: ResultT) -> None:
        """Take what calibration found, a result of the kind `takes`, and mark the quantizer as calibrated.

        Raises:
            QuantizationError: the result cannot be used, for instance because a bound is not finite.
        """

    @classmethod
    def settle(cls, quantizers: Sequence["Quantizer"]) -> None:  # noqa: B027 -- most quantizers need to know only themselves
        """Decide what the quantizers of one network have to decide together, once all of them have been calibrated.

        Args:
            quantizers: all quantizers of this class in the network, in the order of registration.
        """

    def affine_bounds(self, _weight: Tensor | None = None, /) -> tuple[Tensor, Tensor]:
        """Return what code 0 and code 2**bits - 1 stand for, each of the shape () or (C,), in a static uniform grid.

        Args:
            _weight: what is quantized, for a quantizer whose grid follows from its weight.

        Raises:
            QuantizationError: the quantizer has no static uniform grid.
        """
        raise QuantizationError(
            f"The quantizer '{self.name}' is a {type(self).__name__}, which has no fixed uniform grid: it can be neither frozen nor started from."
        )

    def uneven_points(self) -> Tensor | None:
        """Return what the codes stand for, float32 (K,) in ascending order, in a static grid for a tensor whose steps differ; None in others.

        Graphs for runtimes have a table of them.
        """
        return None

    def stated_range(self, weight: Tensor | None = None, /) -> StatedRange:
        """Return the range, for a quantizer of another kind that starts from it.

        Args:
            weight: what is quantized, for a quantizer whose grid follows from its weight.

        Raises:
            QuantizationError: the range is dynamic, or the grid is not uniform; says so.
        """
        if self.dynamic:
            raise QuantizationError(
                f"A {type(self).__name__} computes its range anew for each sample, so that it has no bounds to hand on."
            )
        lower, upper = self.affine_bounds(weight)
        return StatedRange(lower, upper, upper)

    def load_range(self, stated: StatedRange, _weight: Tensor | None = None, /) -> str:
        """Start from the range of a quantizer of another kind, as after a calibration; return in a few words how, for the log.

        By default the bounds are taken for what calibration found, which is right for all that are set up from bounds.

        Args:
            stated: the range, its tensors in the shape of the bounds of this quantizer or ().
            _weight: what is quantized, for a quantizer whose grid follows from its weight.

        Raises:
            QuantizationError: the quantizer cannot be set up from static bounds; says what it needs.
        """
        if self.dynamic or not issubclass(Bounds, self.takes):
            needs = "computes its range anew for each sample" if self.dynamic else f"needs {self.takes.__name__}"
            raise QuantizationError(
                f"A {type(self).__name__} {needs}, so that bounds mean nothing to it: it can only be calibrated."
            )
        lower, upper, _ = stated.in_shape(self.bounds_shape)
        self.load_calibration(cast(Any, Bounds(lower, upper)))
        return "the same bounds"

    @property
    def needs_data_to_start(self) -> bool:
        """Whether bounds are not all that it starts from, so that the network is calibrated before `load_range`."""
        return False

    @property
    def has_learned_rounding(self) -> bool:
        """Whether codes of a weight are not the nearest ones of the grid, so that the grid alone does not give them."""
        return False

    def take_penalty(self) -> Tensor | None:
        """Return what the last forward pass in training adds to the losses, once, with its gradients; None where that is nothing."""
        return None

    @classmethod
    def join_penalties(cls, penalties: Sequence[Tensor], quantizers: Sequence["Quantizer"]) -> Tensor:  # noqa: ARG003
        """Return what the penalties of quantizers of this class, one each, are together: by default their mean."""
        return torch.stack(list(penalties)).mean()

    @classmethod
    def attach(cls, network: nn.Module) -> None:  # noqa: B027 -- most quantizers see enough by themselves
        """Let a network tell its quantizers of this class what they cannot see; called once for each network."""

    def step_taken(self) -> None:  # noqa: B027 -- most quantizers do not count them
        """Note that training has changed what is learned."""

    def parameter_units(self) -> dict[str, Tensor]:
        """Return for each parameter, by name, the change that moves the outermost of the values, or the thresholds, by one
        quantization step.

        Each is above 0, of the shape of its parameter, and that of the present state.

        Raises:
            QuantizationError: the quantizer learns something that is not measured in quantization steps.
        """
        if next(self.parameters(), None) is None:
            return {}
        raise QuantizationError(
            f"The quantizer '{self.name}' is a {type(self).__name__}, which learns something that is not measured in "
            "quantization steps."
        )

    def mark_calibrated(self) -> None:
        """Record that the parameters hold calibrated values."""
        self.calibrated.fill_(True)
        self._seen_calibrated = True

    def require_calibrated(self) -> None:
        """Raise a QuantizationError unless the quantizer has been calibrated."""
        if self._seen_calibrated:
            return
        if not bool(self.calibrated):
            raise QuantizationError(
                f"The quantizer '{self.name}' has no bounds yet. Calibrate the network, or load a checkpoint of a "
                "calibrated one, before running it."
            )
        self._seen_calibrated = True

    def extra_repr(self) -> str:
        """Return the specification and whether the quantizer is calibrated, for `print(network)`."""
        symmetry = "symmetric" if self.spec.symmetric else "asymmetric"
        state = "calibrated" if bool(self.calibrated) else "not calibrated"
        return f"bits={self.spec.bits}, {symmetry}, {self.spec.granularity}, {state}"

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        stored_bits = state_dict.get(f"{prefix}bits")
        if stored_bits is not None and int(stored_bits) != self.spec.bits:
            raise QuantizationError(
                f"The quantizer '{self.name or prefix.rstrip('.')}' has {self.spec.bits} bits, but the checkpoint was made "
                f"with {int(stored_bits)} bits. Ask for the bits of the checkpoint, or calibrate the network anew."
            )
        for name in self._parameters:
            bound = state_dict.get(prefix + name)
            if bound is not None and not bool(torch.isfinite(bound).all()):
                raise QuantizationError(
                    f"The checkpoint holds a value that is not finite in '{prefix}{name}': the bounds of a quantizer must be "
                    "finite. The run that wrote it diverged; take an earlier checkpoint."
                )
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._seen_calibrated = False


def require_symmetry(spec: QuantSpec, symmetric: bool, kind: str) -> None:
    """Raise a QuantizationError unless the specification is symmetric, or is not, as the quantizer called `kind` is."""
    if spec.symmetric != symmetric:
        has = "bounds -u and u" if symmetric else "no bounds -u and u"
        raise QuantizationError(
            f"{kind} has {has}: set 'quantization:activation_symmetric' or 'quantization:weight_symmetric', whichever is its "
            f"place, to {str(symmetric).lower()}."
        )


def require_per_tensor(spec: QuantSpec, reason: str) -> None:
    """Raise a QuantizationError that gives the reason if the specification is per channel."""
    if spec.granularity != "per_tensor":
        raise QuantizationError(
            f"{reason}: set 'quantization:activation_granularity' or 'quantization:weight_granularity', whichever is its place, "
            "to per_tensor."
        )
