"""What the command lines share: arguments, options, log, and the exit code. Torch is imported when the options are known to be good."""

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from basicsr.utils.arguments import command_parser
from basicsr.utils.errors import UserError
from basicsr.utils.files import require_weights
from basicsr.utils.launchers import Launcher, read_launcher
from basicsr.utils.logger import close_logger, configure_logger, get_logger
from basicsr.utils.memory import keep_freed_memory
from basicsr.utils.options import Options, first_of_chain, load_options
from basicsr.utils.signals import Interrupted, raise_on_signals

if TYPE_CHECKING:
    import torch

USER_ERROR, FAILURE = 2, 1
AddArguments = Callable[[argparse.ArgumentParser], None]
Work = Callable[[Options, Path, "torch.device", argparse.Namespace], None]


def parse_arguments(
    argv: Sequence[str] | None, description: str, trains: bool, add_arguments: AddArguments | None = None
) -> argparse.Namespace:
    """Parse the arguments of train.py (`trains`), test.py and others that work on an options file."""
    parser = command_parser(description)
    parser.add_argument("-opt", required=True, metavar="FILE", help="options file (YAML)")
    parser.add_argument(
        "--force_yml", nargs="+", default=[], metavar="KEY=VALUE", help="overrides such as bit=4 train:total_iter=100"
    )
    parser.add_argument(
        "--launcher",
        choices=get_args(Launcher),
        default="none",
        help="pytorch: started by torchrun; slurm: by srun",
    )
    if trains:
        parser.add_argument(
            "--auto_resume", action="store_true", help="continue from the latest training state of this run"
        )
    parser.add_argument("--debug", action="store_true", help="a quick look: few iterations, everything logged")
    parser.add_argument("--root", default=".", metavar="FOLDER", help="where experiments/ and results/ are made")
    if add_arguments is not None:
        add_arguments(parser)
    return parser.parse_args(argv)


def debug_overrides(options: Options) -> list[str]:
    """Return the overrides of `--debug`."""
    overrides = ["debug=true", f"name=debug_{options.name}", "val:val_freq=2"]
    overrides += ["logger:print_freq=1", "logger:save_checkpoint_freq=2", "logger:wandb=null"]
    if options.train is not None:
        overrides.append(f"train:total_iter={min(options.train.total_iter, 4)}")
    first = first_of_chain(options)
    if first is not None and first.train is not None:
        overrides.append(f"after:train:total_iter={min(first.train.total_iter, 4)}")
    return overrides


def run(
    argv: Sequence[str] | None,
    description: str,
    work: Work,
    trains: bool = False,
    add_arguments: AddArguments | None = None,
    reads_weights: bool = True,
) -> int:
    """Parse, prepare the process, work, and turn what went wrong into a message and an exit code.

    Args:
        argv: arguments; None for those of the process.
        description: text of `--help`.
        work: what to do with the options, the root folder, the device and the arguments.
        trains: whether a run can be continued with `--auto_resume`.
        add_arguments: adds the arguments that only this command has.
        reads_weights: whether the work begins with the weights that the options name; these must be there then.

    Returns:
        The exit code, see `guarded`; 0 if all is well.
    """
    arguments = parse_arguments(argv, description, trains, add_arguments)

    def prepared() -> int:
        read_launcher(arguments.launcher)
        configure_logger(None, main_process=_is_first())
        options = load_options(arguments.opt, arguments.force_yml, tell=not arguments.debug)
        if arguments.debug:
            options = load_options(arguments.opt, [*arguments.force_yml, *debug_overrides(options)])
        if reads_weights:
            _require_weights(options)
        from basicsr.utils.process import (
            join,  # imports torch, which takes longer than all that can be wrong until here
        )

        work(options, Path(arguments.root), join(options, arguments.launcher), arguments)
        return 0

    return guarded(prepared)


def _require_weights(options: Options) -> None:
    """Refuse options that name starting weights which are not there, before anything is waited for.

    Raises:
        CheckpointError: there is no such file.
    """
    measures = options.train is None
    if options.quantization is not None:
        needed = ["pretrain_network_FP", *(["pretrain_network_Q"] if measures else [])]
    elif options.path.pretrain_network_g is None and measures:
        needed = ["pretrain_network_FP"]
    else:
        needed = ["pretrain_network_g"]
    for option in needed:
        file = getattr(options.path, option)
        if file is not None:
            require_weights(file, f"path:{option}")


def guarded(work: Callable[[], int]) -> int:
    """Do the work of a command line and turn what goes wrong into a message and an exit code.

    Args:
        work: returns the exit code.

    Returns:
        What `work` returns; 2 for an error that the user can mend, or one of the system with a file; 130 or 143 after SIGINT or SIGTERM; 1 for anything else.
    """
    configure_logger(None, main_process=_is_first())
    keep_freed_memory()
    try:
        raise_on_signals()
        return work()
    except Interrupted as interrupt:
        get_logger().warning("Stopped by %s.", interrupt)
        return interrupt.exit_code
    except UserError as error:
        get_logger().error("%s", error)
        return USER_ERROR
    except OSError as error:  # what nobody foresaw of disks, permissions and names is still the user's to mend
        named = f" '{error.filename}'" if error.filename is not None else ""
        get_logger().error(
            "The system refused a file or folder%s: %s. Check path, permissions and space.",
            named,
            error.strerror or error,
        )
        get_logger().debug("It was asked for here:", exc_info=True)
        return USER_ERROR
    except Exception:
        get_logger().error("The run failed:\n%s", traceback.format_exc())
        return FAILURE
    finally:
        _leave_process_group()
        close_logger()


def _leave_process_group() -> None:
    dist = sys.modules.get("basicsr.utils.dist")  # without it there is no group, and nobody has waited for torch
    if dist is not None:
        dist.close_distributed()


def _is_first() -> bool:
    """Whether this is the process that reports, as far as the environment tells before processes have joined."""
    return int(os.environ.get("RANK", 0)) == 0
