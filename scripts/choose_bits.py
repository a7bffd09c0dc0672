"""Choose the bits of each quantizer of a run under an average, and write an options file with them, which runs as the first one does.

    python scripts/choose_bits.py -opt options/train/demo_QAD.yml --average_bits 4 --output mixed.yml --force_yml network=edsr_baseline bit=4
    python basicsr/train.py -opt mixed.yml --force_yml network=edsr_baseline bit=4 name=mixed

For each quantizer the error of the network's output is estimated with 2 to 8 bits, from its derivatives on some calibration crops. Bits are
then given so that the sum is smallest. The average holds for all weights together, and for the elements of all activations together.
Quantizers to which coverage or overrides give bits of their own, such as 8 at both ends of `coverage: full`, keep them and do not count.
"""

import argparse
import os
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import yaml

from basicsr.networks.build import full_precision_network
from basicsr.networks.quantized import quantized_copy
from basicsr.pipeline import calibration_set
from basicsr.training.bit_choice import (
    ExpectedErrors,
    as_overrides,
    check_average,
    choose_bits,
    expected_errors,
    quantizers_with_bits,
)
from basicsr.training.calibration.input_scaling import scale_inputs
from basicsr.utils.arguments import command_parser, integer_from
from basicsr.utils.errors import OptionsError, UserError
from basicsr.utils.files import atomic_path
from basicsr.utils.options import Options, load_options


def main(argv: list[str] | None = None) -> int:
    """Choose bits; return the exit code."""
    arguments = _parse(argv)
    try:
        alike = check_average(arguments.average_bits)
        options = load_options(arguments.opt, arguments.force_yml)
        errors = _errors(options, arguments.crops)
        bits = choose_bits(errors, arguments.average_bits)
        _write(arguments.output, arguments.opt, options, as_overrides(errors, bits))
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    for role, plural in (("weight", "weights"), ("activation", "activations")):
        of_role = {n: e for n, e in errors.items() if e.role == role}
        print(_summary(plural, of_role, bits, alike))
    print(f"Written to '{arguments.output}'.")
    return 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument("-opt", required=True, type=Path, metavar="FILE", help="options of the run")
    parser.add_argument("--average_bits", required=True, type=float, metavar="BITS", help="such as 4 or 3.5")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help="the options file to write")
    parser.add_argument("--crops", type=integer_from(1), default=16, help="calibration crops to look at, by default 16")
    parser.add_argument("--force_yml", nargs="+", default=[], metavar="KEY=VALUE", help="as for basicsr/train.py")
    return parser.parse_args(argv)


def _errors(options: Options, number: int) -> dict[str, ExpectedErrors]:
    """Return what the quantizers whose bits are those of the run are expected to do."""
    network, _ = quantized_copy(full_precision_network(options), options, share_weights=False)
    crops = calibration_set(options).lq[:number]
    scale_inputs(network, crops, options.calibration)
    names = quantizers_with_bits(network, *options.required_bits())
    if not names:
        raise OptionsError(
            "All quantizers have bits of their own, by 'quantization:overrides' or coverage: there is nothing to choose."
        )
    return expected_errors(network, names, crops)


def _write(file: Path, base: Path, options: Options, chosen: list[dict[str, object]]) -> None:
    before = [o.model_dump(exclude_none=True) for o in options.quantization.overrides] if options.quantization else []
    text = yaml.safe_dump([*before, *chosen], default_flow_style=None, width=200, sort_keys=False)
    inherited = os.path.relpath(base.resolve(), file.resolve().parent)
    with atomic_path(file) as path:
        path.write_text(
            f"base: {yaml.safe_dump(inherited).splitlines()[0]}\n\nquantization:\n  overrides:\n"
            + "".join(f"    {line}\n" for line in text.splitlines()),
            encoding="utf-8",
        )


def _summary(plural: str, errors: dict[str, ExpectedErrors], bits: dict[str, int], alike: int) -> str:
    """Return a sentence on the bits of one role, and on the expected error against that with as many for all as the average allows."""
    if not errors:
        return f"No {plural} are quantized with the bits of the run."
    size = sum(found.size for found in errors.values())
    mean = sum(bits[name] * found.size for name, found in errors.items()) / size
    numbers = ", ".join(f"{count} with {b}" for b, count in sorted(Counter(bits[name] for name in errors).items()))
    before = sum(found.of_bits[alike] for found in errors.values())
    share = sum(found.of_bits[bits[name]] for name, found in errors.items()) / before if before else 1.0
    return (
        f"{plural.capitalize()}: {mean:.2f} bits on average over {size} elements ({numbers}). The expected error is "
        f"{100 * share:.0f}% of that with {alike} bits for all."
    )


if __name__ == "__main__":
    sys.exit(main())
