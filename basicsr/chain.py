"""A run and those that come before it (`after`): one after the other, each in its own folder, each from the network of the one before."""

import json
from pathlib import Path

import torch

from basicsr import pipeline
from basicsr.utils.errors import OptionsError
from basicsr.utils.logger import get_logger
from basicsr.utils.options import Options, first_of_chain
from basicsr.utils.process import prepare_process
from basicsr.utils.recipe import was_begun_with


def train(options: Options, root: Path, device: torch.device, auto_resume: bool = False) -> None:
    """Run one experiment, see `pipeline.train`, and before it those that it comes after.

    With `auto_resume`, a run before it that has reached its end with the same recipe is not made again.

    Args:
        options: the options of the last run.
        root: folder that holds `experiments/`.
        device: where networks run.
        auto_resume: continue what was begun.

    Raises:
        UserError: something that the user gave cannot be used.
        Interrupted: a run was asked to stop.
    """
    first = first_of_chain(options)
    if first is not None:
        if options.path.pretrain_network_Q not in (None, str(_network(first, root))):
            raise OptionsError(
                "Options 'after' and 'path:pretrain_network_Q' both say which network the run starts from. Leave one of them out."
            )
        if auto_resume and _is_finished(first, root):
            get_logger().info("'%s' has reached its end already.", first.name)
        else:
            get_logger().info("'%s' comes first: %s.", first.name, first.method_name)
            train(first, root, device, auto_resume)
        options = options.model_copy(deep=True)
        options.path.pretrain_network_Q = str(_network(first, root))
        prepare_process(options, device)  # as if it ran alone
    pipeline.train(options, root, device, auto_resume)


def _network(options: Options, root: Path) -> Path:
    return root / "experiments" / options.name / "models" / "net_Q_latest.pth"


def _is_finished(options: Options, root: Path) -> bool:
    """Whether a run has left its last network and results, with the recipe that is asked for now."""
    folder = root / "experiments" / options.name
    try:
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        ended = any(line["stage"] == "final" and line["iter"] == options.required_train().total_iter for line in lines)
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return ended and was_begun_with(folder, options) and _network(options, root).is_file()
