"""What several processes started by torchrun or Slurm need: rank, size, and a few collectives that do nothing in one process."""

import datetime
import os
import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
import torch.distributed as torch_dist

from basicsr.utils.errors import OptionsError

Launcher = Literal["none", "pytorch", "slurm"]
_FIRST_PORT, _PORTS = 15000, 20000


def read_launcher(launcher: Launcher) -> None:
    """Find out which process of how many this is: by what torchrun has set, or from Slurm's variables, which are put in the same place.

    Slurm's tasks are the processes. The first host of the job is the master, and its port follows from the number of the job, so that
    jobs on one host do not meet; MASTER_ADDR and MASTER_PORT that are set already stay.

    Raises:
        OptionsError: the variables are absent.
    """
    if launcher == "pytorch" and any(
        name not in os.environ for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    ):
        raise OptionsError(
            "--launcher pytorch needs the environment that torchrun sets: start with "
            "`torchrun --nproc_per_node=N basicsr/train.py -opt ... --launcher pytorch`."
        )
    if launcher == "slurm":
        _read_slurm()


def _read_slurm() -> None:
    nodes = (
        os.environ.get("SLURM_STEP_NODELIST")
        or os.environ.get("SLURM_NODELIST")
        or os.environ.get("SLURM_JOB_NODELIST")
    )
    missing = [name for name in ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID") if name not in os.environ]
    missing += [] if nodes else ["SLURM_NODELIST"]
    if missing or not nodes:
        raise OptionsError(
            f"--launcher slurm needs what srun sets for each task, but {', '.join(missing)} is not set. Start inside of a job with "
            "`srun --ntasks=N --gres=gpu:N python basicsr/train.py -opt ... --launcher slurm`."
        )
    for name, value in (
        ("RANK", os.environ["SLURM_PROCID"]),
        ("WORLD_SIZE", os.environ["SLURM_NTASKS"]),
        ("LOCAL_RANK", os.environ["SLURM_LOCALID"]),
        (
            "LOCAL_WORLD_SIZE",
            _number_at_the_start(os.environ.get("SLURM_STEP_TASKS_PER_NODE", os.environ["SLURM_NTASKS"])),
        ),
    ):
        os.environ[name] = value
    os.environ.setdefault("MASTER_ADDR", first_host(nodes))
    job = int(os.environ.get("SLURM_JOB_ID", 0))
    os.environ.setdefault("MASTER_PORT", str(_FIRST_PORT + job % _PORTS))


def _number_at_the_start(text: str) -> str:
    """Return the number of tasks of the first host, of `2(x3),1` the 2."""
    found = re.match(r"\d+", text)
    return found.group() if found else "1"


def first_host(nodes: str) -> str:
    """Return the first host of a list of Slurm's, such as `node[03-05,11],login` or `rack1-gpu2`."""
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])*", nodes)
    return re.sub(r"\[([^\],-]+)[^\]]*\]", r"\1", first.group() if first else nodes)


def init_distributed(launcher: Launcher, device: torch.device) -> None:
    """Join the process group that `read_launcher` found out about, or do nothing where there is one process (`none`)."""
    if launcher == "none":
        return
    backend = "nccl" if device.type == "cuda" else "gloo"
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


def barrier() -> None:
    """Wait for all processes."""
    if world_size() > 1:
        torch_dist.barrier()


def broadcast_tensors(tensors: Iterable[torch.Tensor]) -> None:
    """Give every process the values that the main process has, in place."""
    if world_size() > 1:
        for tensor in tensors:
            torch_dist.broadcast(tensor, src=0)


def broadcast_object(value: Any) -> Any:
    """Return the main process's value in every process."""
    if world_size() == 1:
        return value
    holder = [value]
    torch_dist.broadcast_object_list(holder, src=0)
    return holder[0]


def gather_objects(value: Any) -> list[Any]:
    """Return the values of all processes in the order of their ranks, in every process."""
    if world_size() == 1:
        return [value]
    gathered: list[Any] = [None] * world_size()
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
    torch_dist.all_reduce(flat)
    flat /= world_size()
    for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))


def any_process(flag: bool) -> bool:
    """Whether the flag is set in any process."""
    return any(gather_objects(flag))
