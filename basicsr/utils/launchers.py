"""What started this process among others: torchrun or Slurm, and where they say which of how many it is."""

import os
import re
from typing import Literal

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
