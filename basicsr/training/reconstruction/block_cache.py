"""What a block is given and what it should return, for every calibration crop."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from basicsr.quant.observe.module_calls import Arguments, ModuleCall, capture_call, gradient_at_output
from basicsr.training.reconstruction.crop_tensors import CropTensors
from basicsr.utils.errors import TrainingError

Inputs = Literal["quantized", "full_precision", "mixed"]


@dataclass(frozen=True)
class CacheOptions:
    """What is kept of each block.

    Attributes:
        inputs: what the block gets: its inputs behind the quantized blocks before it, those in the full-precision network,
            or both, to be mixed.
        fisher: keep the Fisher information of the block's output too.
        batch_size: crops that go through the networks together.
        folder: see `CropTensors`.
        seed: of the random directions for the Fisher information.
        error_exponent: p of the error |output - target|**p.
    """

    inputs: Inputs
    fisher: bool
    batch_size: int
    folder: Path | None = None
    seed: int = 0
    error_exponent: float = 2.0

    def bytes_per_crop(self, name: str, call: ModuleCall) -> int:
        """Return what is kept of one crop, given a call of the block with one.

        Raises:
            TrainingError: the arguments or the output of the block are not as `BlockCache` needs them.
        """
        _check_call(name, call, 1)
        inputs = sum(_num_bytes(tensor) for tensor in call.tensors.values())
        return inputs * (2 if self.inputs == "mixed" else 1) + _num_bytes(call.output) * (2 if self.fisher else 1)


class BlockCache:
    """Inputs and targets of one block for all calibration crops.

    To fill it, both networks run over all crops as far as the block and no further. For block k of n these are about k / n of a pass,
    so n / 2 passes of each network over the crops for all blocks together, which is little beside the iterations of a full-length
    run. With the Fisher information the full-precision network also runs to its end and back to the block.

    Args:
        full_precision: its outputs of the block are the targets.
        network: the quantized network, whose blocks before this one decide about quantized inputs.
        name: full name of the block. Every tensor that it gets, and the one that it returns, has the crops as axis 0; its other
            arguments are the same for all crops.
        crops: (N, 3, h, w).
        options: what to keep.

    Raises:
        TrainingError: the block has other arguments or outputs, or the disk is full.
    """

    def __init__(
        self, full_precision: nn.Module, network: nn.Module, name: str, crops: Tensor, options: CacheOptions
    ) -> None:
        self._name, self._options, self._num_crops = name, options, len(crops)
        self._device = next(network.parameters()).device
        self._tensors = CropTensors(len(crops), options.folder)
        self._constants: Arguments | None = None
        self._tensor_names: list[int | str] = []
        generator = torch.Generator().manual_seed(options.seed)
        for number, batch in enumerate(crops.split(options.batch_size)):
            first, x = number * options.batch_size, batch.to(self._device)
            with torch.no_grad():
                call = capture_call(full_precision, name, x)
                self._tensors.write("target", first, call.output)
                if options.inputs != "quantized":
                    self._write_inputs("full_precision", first, call)
                if options.inputs != "full_precision":
                    self._write_inputs("quantized", first, capture_call(network, name, x))
            if options.fisher:
                self._tensors.write("fisher", first, _fisher_diagonal(full_precision, name, x, generator))
        self._fisher_mean = self._mean("fisher") if options.fisher else 1.0

    def inputs(self, index: Tensor, full_precision_share: float = 0.0) -> Arguments:
        """Return the arguments of the block for some crops, on the device of the network.

        Args:
            index: numbers of the crops, int64 on the CPU.
            full_precision_share: with mixed inputs, the probability of an element to come from the full-precision network.
        """
        kind = "full_precision" if self._options.inputs == "full_precision" else "quantized"
        assert self._constants is not None  # the first crops brought them
        arguments = dict(self._constants)
        for name in self._tensor_names:
            values = self._read(f"{kind} input {name}", index)
            if self._options.inputs == "mixed" and full_precision_share:
                others = self._read(f"full_precision input {name}", index)
                values = torch.where(torch.rand_like(values) < full_precision_share, others, values)
            arguments[name] = values
        return arguments

    def error(self, output: Tensor, index: Tensor) -> Tensor:
        """Return the mean of |output - target|**p over some crops, weighted by its Fisher information if that is kept."""
        distance = output - self._read("target", index)
        exponent = self._options.error_exponent
        errors = distance.square() if exponent == 2 else distance.abs().pow(exponent)
        if self._options.fisher:
            errors = errors * self._read("fisher", index).div_(self._fisher_mean)
        return errors.mean()

    def batches(self) -> list[Tensor]:
        """Return the numbers of all crops in order, in the batches that filled the cache."""
        return list(torch.arange(self._num_crops).split(self._options.batch_size))

    def _read(self, name: str, index: Tensor) -> Tensor:
        return self._tensors.read(name, index).to(self._device, non_blocking=True)

    def _write_inputs(self, kind: str, first: int, call: ModuleCall) -> None:
        _check_call(self._name, call, len(call.output))
        if self._constants is None:
            self._constants, self._tensor_names = call.constants, list(call.tensors)
        elif call.constants != self._constants:
            raise TrainingError(
                f"The block '{self._name}' is called with {call.constants} for some calibration crops and with {self._constants} for "
                "others, so they cannot be reconstructed together."
            )
        for name, tensor in call.tensors.items():
            self._tensors.write(f"{kind} input {name}", first, tensor)

    def _mean(self, name: str) -> float:
        """Return the mean of a tensor over all crops; 1 if that is 0, for then there is nothing to divide."""
        total = sum(float(self._tensors.read(name, index).double().mean()) * len(index) for index in self.batches())
        return total / self._num_crops or 1.0


def _check_call(name: str, call: ModuleCall, num_crops: int) -> None:
    """Raise a TrainingError unless inputs and output of a block can be kept crop by crop."""
    if not isinstance(call.output, Tensor):
        raise TrainingError(f"The block '{name}' returns a {type(call.output).__name__}, but must return one tensor.")
    for tensor in (*call.tensors.values(), call.output):
        if tensor.ndim == 0 or len(tensor) != num_crops:
            raise TrainingError(
                f"The block '{name}' gets or returns a tensor of the shape {tuple(tensor.shape)} for {num_crops} crops: axis 0 must be "
                "the crops. Choose other blocks with 'train:blocks'."
            )


def _num_bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _fisher_diagonal(full_precision: nn.Module, name: str, x: Tensor, generator: torch.Generator) -> Tensor:
    """Return an estimate of the diagonal of the Fisher information of a block's output, in the shape of that.

    The squared error between outputs is, up to constants, the negative logarithm of a Gaussian likelihood around the output of the
    full-precision network. Its Fisher information is the expected squared gradient for targets drawn from that Gaussian
    (BRECQ, arXiv 2102.05426, equations 8 to 10): the gradient of the output's inner product with standard normal noise, one sample
    of it for each crop. Up to a factor that is the Gauss-Newton diagonal of the squared error to the full-precision output, at that output,
    where the error itself has no gradient yet.
    """

    def loss(output: Tensor) -> Tensor:
        # crop by crop, so that the numbers do not depend on how many go through the network together
        noise = torch.stack([torch.randn(crop.shape, generator=generator) for crop in output])
        return (output * noise.to(output.device)).sum()

    return gradient_at_output(full_precision, name, x, loss).square_()
