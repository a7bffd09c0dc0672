"""Which process of how many: what torchrun sets, and what Slurm does."""

import os

import pytest

from basicsr.utils import dist, launchers
from basicsr.utils.errors import OptionsError

RESULT = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture
def slurm(monkeypatch):
    """Set the variables of a task of Slurm, and none of torchrun."""
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    for name in RESULT:
        monkeypatch.setenv(name, "")  # so that what the code sets is undone
        monkeypatch.delenv(name)

    def set_variables(**variables):
        for name, value in variables.items():
            monkeypatch.setenv(f"SLURM_{name}", value)

    return set_variables


@pytest.mark.parametrize(
    ("nodes", "host"),
    [
        ("gpu7", "gpu7"),
        ("node[03-05,11],login", "node03"),
        ("node[7,9]", "node7"),
        ("rack1-gpu2,rack1-gpu3", "rack1-gpu2"),
        ("r[1-2]n[04-08]-ib", "r1n04-ib"),
        ("login,node[1-4]", "login"),
    ],
)
def test_the_first_host_of_a_list(nodes, host):
    assert launchers.first_host(nodes) == host


def test_a_task_of_slurm(slurm):
    slurm(PROCID="5", NTASKS="8", LOCALID="1", NODELIST="node[03-04]", JOB_ID="1234567", STEP_TASKS_PER_NODE="4(x2)")
    launchers.read_launcher("slurm")
    assert [os.environ[name] for name in RESULT] == ["5", "8", "1", "4", "node03", str(15000 + 1234567 % 20000)]
    assert dist.local_rank() == 1


def test_a_master_that_is_set_stays(slurm, monkeypatch):
    slurm(PROCID="0", NTASKS="1", LOCALID="0", NODELIST="node1")
    monkeypatch.setenv("MASTER_ADDR", "10.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "29500")
    launchers.read_launcher("slurm")
    assert [os.environ[name] for name in RESULT] == ["0", "1", "0", "1", "10.0.0.1", "29500"]


def test_what_is_missing_is_told(slurm):
    slurm(PROCID="0", NTASKS="1")
    with pytest.raises(OptionsError, match="SLURM_LOCALID, SLURM_NODELIST is not set.*srun"):
        launchers.read_launcher("slurm")
    with pytest.raises(OptionsError, match="torchrun"):
        launchers.read_launcher("pytorch")
