"""What coarse grids of activations really do to the output of a network, where derivatives foretell too little.

Derivatives take errors as small, and as not correlated. With 2 to 4 bits they are neither: the values of a softmax map, say, are rounded to the
same side all together. So these errors are measured, one quantizer at a time. Finer grids keep the proportions that derivatives give.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from basicsr.archs.base import size_multiple_of
from basicsr.quant.insertion.insert import named_quantizers
from basicsr.quant.observe.capture import bypass_quantizers
from basicsr.quant.observe.replay import KeptPass
from basicsr.quant.ops.functional import fake_quantize
from basicsr.training.bit_choice import ExpectedErrors

MEASURED = (2, 3, 4)
"""Numbers of bits that are tried."""
_CROPS, _SIDE = 16, 16
"""Parts of crops that go through the network together: many that are small, for what few crops say does not hold for others."""


@torch.no_grad()
def measure_errors(network: nn.Module, errors: Mapping[str, ExpectedErrors], crops: Tensor) -> None:
    """Replace the expected errors of activations by measured ones, in place.

    For each tensor and number of bits the network is computed from the tensor on.

    Args:
        network: the network with quantizers that the errors are of; left as it was.
        errors: what `expected_errors` returned.
        crops: LR crops (N, 3, h, w) in 0..1, of which a part of the first ones is used.
    """
    quantizers = dict(named_quantizers(network))
    with bypass_quantizers(network):
        kept, sample = _kept_pass(network, crops)
        # errors are those of a whole crop
        pixels = crops.shape[-2] * crops.shape[-1] / (sample.shape[-2] * sample.shape[-1])
        for name, found in errors.items():
            if found.role == "activation" and found.bounds:
                same = [quantizers[one] for one in (name, *found.same_input)]
                measured = {}
                for bits in MEASURED:
                    with _rounded(same, found.bounds[bits], bits):
                        difference = (kept.changed_at(same) - kept.output).double()
                    measured[bits] = float(difference.square().sum()) / len(sample) * pixels
                found.of_bits = _joined(found.of_bits, measured)


def _kept_pass(network: nn.Module, crops: Tensor) -> tuple[KeptPass, Tensor]:
    """Return a pass of small parts of crops, and these parts; larger ones where the network takes none so small."""
    multiple, device = size_multiple_of(network), next(network.parameters()).device
    side, whole = max(_SIDE // multiple, 1) * multiple, min(crops.shape[-2:])
    while True:
        sample = crops[:_CROPS, :, :side, :side].to(device)
        try:
            return KeptPass(network, sample), sample
        except RuntimeError:
            if side >= whole:
                raise
            side *= 2


@contextmanager
def _rounded(quantizers: Iterable[nn.Module], bounds: tuple[float, float], bits: int) -> Iterator[None]:
    """Let the inputs of some bypassed quantizers be rounded to a uniform grid."""

    def replace(_module: nn.Module, arguments: tuple[Tensor]) -> tuple[Tensor]:
        lower, upper = (arguments[0].new_tensor(bound) for bound in bounds)
        return (fake_quantize(arguments[0], lower, upper, bits),)

    with ExitStack() as hooks:
        for quantizer in quantizers:
            hooks.callback(quantizer.register_forward_pre_hook(replace).remove)
        yield


def _joined(expected: Mapping[int, float], measured: Mapping[int, float]) -> dict[int, float]:
    """Return measured errors, and for more bits the expected ones in the proportion of the last that was measured; none grows with bits."""
    last = max(measured)
    factor = measured[last] / expected[last] if expected[last] else 1.0
    errors = {bits: measured.get(bits, factor * error) for bits, error in expected.items()}
    largest = 0.0
    for bits in sorted(errors, reverse=True):
        largest = errors[bits] = max(errors[bits], largest)
    return errors
