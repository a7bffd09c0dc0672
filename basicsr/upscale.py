"""Enlarge pictures with a packed quantized network or full-precision weights.

python basicsr/upscale.py -i PICTURE_OR_FOLDER -o FOLDER --model NETWORK.safetensors
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, get_args

if __package__ in (None, ""):  # run as a file from a checkout: import the package beside it, not modules inside it
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from basicsr.deploy.runtime_names import ONNX_SUFFIX, Precision, RuntimeName
from basicsr.utils.arguments import command_parser
from basicsr.utils.command_line import guarded
from basicsr.utils.device_names import KNOWN_DEVICES, is_device_name
from basicsr.utils.errors import OptionsError
from basicsr.utils.files import require_weights
from basicsr.utils.options import load_network_options

if TYPE_CHECKING:
    import torch
    from torch import nn

FAILED_PICTURES = 3


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = command_parser(__doc__)
    parser.add_argument(
        "-i", "--input", required=True, type=Path, metavar="PATH", help="a picture or a folder of pictures"
    )
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="FOLDER", help="where <name>_x<scale> goes")
    parser.add_argument(
        "--recursive", action="store_true", help="take the pictures in subfolders, too, and keep the tree of folders"
    )
    parser.add_argument(
        "--skip_existing", action="store_true", help="leave out pictures whose enlargement is there already"
    )
    parser.add_argument(
        "-opt",
        metavar="FILE",
        help="options file: its network_g is what full-precision weights belong to, its plugins are loaded",
    )
    parser.add_argument(
        "--force_yml", nargs="+", default=[], metavar="KEY=VALUE", help="overrides of that file, such as scale=2"
    )
    parser.add_argument(
        "--model",
        required=True,
        type=Path,
        metavar="FILE",
        help="packed network, full-precision weights, or with a runtime an ONNX graph",
    )
    parser.add_argument(
        "--param_key",
        metavar="NAME",
        help="entry of the file that holds full-precision weights, a.b for entry b of entry a; by default a usual one",
    )
    _add_ways_to_compute(parser)
    return parser.parse_args(argv)


def _add_ways_to_compute(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say how, not what, is computed."""
    parser.add_argument(
        "--tile", type=int, default=256, help="side of the tiles in LR pixels, bounds memory; 0 for none"
    )
    parser.add_argument(
        "--tile_overlap",
        type=int,
        help="LR pixels that neighbouring tiles share; by default 48, or half of a small tile",
    )
    parser.add_argument(
        "--runtime",
        choices=("torch", *get_args(RuntimeName)),
        default="torch",
        help="what runs the network; runtimes other than torch run on the CPU and take .onnx files, too",
    )
    parser.add_argument(
        "--precision",
        choices=get_args(Precision),
        default="f32",
        help="of what does not multiply integers; bf16 needs --runtime openvino and a processor that has it",
    )
    parser.add_argument("--device", default="auto", metavar="NAME", help=f"with --runtime torch: {KNOWN_DEVICES}")


def _check(arguments: argparse.Namespace) -> None:
    """Find what is wrong with the arguments, before anything is waited for."""
    if arguments.runtime != "openvino" and arguments.precision != "f32":
        raise OptionsError(f"--precision {arguments.precision} needs --runtime openvino.")
    if not is_device_name(arguments.device):
        raise OptionsError(f"--device is '{arguments.device}', but must be {KNOWN_DEVICES}.")
    if arguments.opt is not None:
        load_network_options(arguments.opt, arguments.force_yml, tell=False)
    if arguments.model.suffix.lower() != ONNX_SUFFIX:
        require_weights(arguments.model)


def _load(arguments: argparse.Namespace) -> "tuple[nn.Module, torch.device]":
    import torch

    from basicsr.deploy.upscaling import load_for_runtime, load_model
    from basicsr.utils.devices import select_device

    if arguments.runtime == "torch":
        device = select_device(arguments.device, "--device")
        return load_model(arguments.model, arguments.opt, arguments.force_yml, arguments.param_key), device
    network = load_for_runtime(
        arguments.model,
        arguments.runtime,
        arguments.opt,
        arguments.force_yml,
        precision=arguments.precision,
        param_key=arguments.param_key,
    )
    return network, torch.device("cpu")


def main(argv: list[str] | None = None) -> int:
    """Enlarge the pictures; return 0, 2 for an error that the user can mend, 3 if some of the pictures failed."""
    arguments = parse_arguments(argv)

    def work() -> int:
        _check(arguments)
        from basicsr.archs.base import scale_of  # these import torch
        from basicsr.deploy.folders import find_pictures, upscale_pictures
        from basicsr.deploy.upscaling import enlarger

        pictures = find_pictures(arguments.input, arguments.output, recursive=arguments.recursive)
        network, device = _load(arguments)
        enlarge = enlarger(network, device, arguments.tile or None, arguments.tile_overlap)
        outcome = upscale_pictures(pictures, enlarge, scale_of(network), skip_existing=arguments.skip_existing)
        return FAILED_PICTURES if outcome.failed else 0

    return guarded(work)


if __name__ == "__main__":
    sys.exit(main())
