"""What several processes started by torchrun or Slurm need: rank, size, and a few collectives that do nothing in one process."""

import contextlib
import datetime
import importlib
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
import torch.distributed as torch_dist

from basicsr.utils.errors import TrainingError
from basicsr.utils.launchers import Launcher


def init_distributed(launcher: Launcher, device: torch.device) -> None:
    """Join the process group that `read_launcher` found out about, or do nothing where there is one process (`none`)."""
    if launcher == "none":
        return
    # Its functions take the group of the moment of their import as a default. The optimizer would import it later, and the group,
    # held by them, would outlive close_distributed: its threads then end the interpreter with an abort, now and then.
    importlib.import_module("torch.distributed.nn.functional")
    backend = "nccl" if device.type == "cuda" else "gloo"
    with _together():
        torch_dist.init_process_group(backend, timeout=datetime.timedelta(minutes=60))


def close_distributed() -> None:
    """Leave the process group, if there is one."""
    if torch_dist.is_initialized():
        torch_dist.destroy_process_group()


def rank() -> int:
    """Number of this process, 0 where there is only one."""
    return torch_dist.get_rank() if torch_dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes."""
    return torch_dist.get_world_size() if torch_dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this process writes files and logs."""
    return rank() == 0


def local_rank() -> int:
    """Number of this process on its machine, which is the number of its GPU."""
    return int(os.environ.get("LOCAL_RANK", 0))


@contextlib.contextmanager
def _together() -> Iterator[None]:
    """Tell in a sentence that another process is gone, on which a collective of torch raises an error of its own."""
    try:
        yield
    except torch.cuda.OutOfMemoryError:
        raise
    except RuntimeError as error:
        reason = str(error).strip().partition("\n")[0]
        raise TrainingError(
            f"Another process of this run has ended or cannot be reached ({reason}). What it said tells why; then start all of them "
            "again with --auto_resume."
        ) from error


def barrier() -> None:
    """Wait for all processes.

    Raises:
        TrainingError: another one has ended, as in all that processes do together.
    """
    if world_size() > 1:
        with _together():
            torch_dist.barrier()


def broadcast_tensors(tensors: Iterable[torch.Tensor]) -> None:
    """Give every process the values that the main process has, in place."""
    if world_size() == 1:
        return
    with _together():
        for tensor in tensors:
            torch_dist.broadcast(tensor, src=0)


def broadcast_object(value: Any) -> Any:
    """Return the main process's value in every process."""
    if world_size() == 1:
        return value
    holder = [value]
    with _together():
        torch_dist.broadcast_object_list(holder, src=0)
    return holder[0]


def gather_objects(value: Any) -> list[Any]:
    """Return the values of all processes in the order of their ranks, in every process."""
    if world_size() == 1:
        return [value]
    gathered: list[Any] = [None] * world_size()
    with _together():
        torch_dist.all_gather_object(gathered, value)
    return gathered


def average_gradients(parameters: Iterable[torch.Tensor]) -> None:
    """Replace each gradient by its mean over the processes, in one collective for all of them.

    A parameter without a gradient counts as zero, so that the processes agree on the length of the message.
    """
    if world_size() == 1:
        return
    parameters = [p for p in parameters if p.requires_grad]
    gradients = []
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        gradients.append(parameter.grad)
    average_tensors(gradients)


def average_tensors(tensors: Sequence[torch.Tensor]) -> None:
    """Replace each tensor by its mean over the processes, in place, in one collective for all of them."""
    if world_size() == 1:
        return
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    with _together():
        torch_dist.all_reduce(flat)
    flat /= world_size()
    for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))


def any_process(flag: bool) -> bool:
    """Whether the flag is set in any process."""
    return any(gather_objects(flag))
