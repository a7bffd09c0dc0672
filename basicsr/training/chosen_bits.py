"""Options whose quantizers get their bits under an average: chosen by what errors do to the output, or as a run chose them before."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from basicsr.networks.quantized import quantized_copy, with_bits_of_file, with_overrides
from basicsr.quant.spec import MIN_BITS
from basicsr.training.bit_choice import (
    ExpectedErrors,
    as_overrides,
    choose_bits,
    expected_errors,
    quantizers_with_bits,
)
from basicsr.training.calibration.input_scaling import scale_inputs
from basicsr.training.measured_errors import measure_errors
from basicsr.utils import dist
from basicsr.utils.errors import CheckpointError, OptionsError
from basicsr.utils.logger import get_logger
from basicsr.utils.options import Options
from basicsr.utils.training_states import states_in

CROPS = 16
"""Crops whose derivatives are looked at."""


def with_chosen_bits(network: nn.Module, options: Options, crops: Tensor, before: Path | None = None) -> Options:
    """Return options in which every quantizer has the bits that were chosen for it; the same options without `quantization:average_bits`.

    The bits are those of the quantized network that training starts from (`path:pretrain_network_Q`), or those that an earlier piece of
    the run chose, or else they are chosen now; see `bit_choice`.

    Args:
        network: the full-precision network.
        options: of the run.
        crops: LR calibration crops (N, 3, h, w) in 0..1, of which the first 16 are used.
        before: folder of the earlier piece of a run that is continued; None for a new run.

    Raises:
        OptionsError: the average is out of reach, there is no quantizer to choose for, or scipy is missing.
        CheckpointError: the network that training starts from states no bits.
    """
    if options.average_bits is None:
        return options
    if options.path.pretrain_network_Q is not None:
        get_logger().info(
            "Quantizers have the bits of '%s', from which the run starts.", options.path.pretrain_network_Q
        )
        return with_bits_of_file(options, options.path.pretrain_network_Q)
    for file in () if before is None else _networks_in(before):
        try:
            return with_bits_of_file(options, file)
        except CheckpointError:  # one that is damaged, or gone
            continue
    return with_overrides(options, dist.broadcast_object(_choose(network, options, crops) if dist.is_main() else None))


def _networks_in(folder: Path) -> list[Path]:
    """Return the networks that belong to the training states of a run, that of the highest iteration first."""
    return [folder / "models" / f"net_Q_{state.stem}.pth" for state in states_in(folder / "training_states")]


def _choose(network: nn.Module, options: Options, crops: Tensor) -> list[dict[str, Any]]:
    """Return the overrides of the options, and those that give the other quantizers their bits."""
    average = options.average_bits
    assert options.quantization is not None and average is not None
    quantized, _ = quantized_copy(network, options, share_weights=False)
    names = quantizers_with_bits(quantized, *options.required_bits())
    if not names:
        raise OptionsError(
            "Option 'quantization:average_bits' finds nothing to choose: all quantizers have bits of their own, by "
            "'quantization:overrides' or coverage. Leave it out."
        )
    before = [one.model_dump(exclude_none=True) for one in options.quantization.overrides]
    if average == MIN_BITS:
        get_logger().info("All quantizers have %d bits, for none can have fewer than the average.", MIN_BITS)
        return before
    scale_inputs(quantized, crops[:CROPS], options.calibration)
    errors = expected_errors(quantized, names, crops[:CROPS])
    measure_errors(quantized, errors, crops)
    bits = choose_bits(errors, average)
    for role in ("weight", "activation"):
        of_role = {name: found for name, found in errors.items() if found.role == role}
        if of_role:
            get_logger().info("%s", summary(of_role, bits, int(average)))
    return [*before, *as_overrides(errors, bits)]


def summary(errors: Mapping[str, ExpectedErrors], bits: Mapping[str, int], alike: int) -> str:
    """Return a sentence on the bits of quantizers of one role, and on their expected error against that with `alike` bits for all."""
    size = sum(found.size for found in errors.values())
    mean = sum(bits[name] * found.size for name, found in errors.items()) / size
    numbers = ", ".join(f"{count} with {b}" for b, count in sorted(Counter(bits[name] for name in errors).items()))
    before = sum(found.of_bits[alike] for found in errors.values())
    share = sum(found.of_bits[bits[name]] for name, found in errors.items()) / before if before else 1.0
    role = next(iter(errors.values())).role
    return (
        f"Bits of the {'weights' if role == 'weight' else 'activations'}: {mean:.2f} on average over {size} elements ({numbers}). "
        f"The expected error is {100 * share:.0f}% of that with {alike} bits for all."
    )
