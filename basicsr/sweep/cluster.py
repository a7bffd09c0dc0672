"""The same runs as an array job of Slurm, through submitit: each task is `sweep.py --only <run>` on a node."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from basicsr.sweep.execution import Report, Summary
from basicsr.sweep.grid import SlurmOptions
from basicsr.sweep.plan import Run
from basicsr.utils.errors import OptionsError
from basicsr.utils.extras import require

PACKAGES = ("cloudpickle", "submitit")
# Slurm sends its warning before the end of the time (SIGUSR2) to all processes of a task; only submitit's is meant
_IGNORING_WARNING = ["/bin/sh", "-c", 'trap "" USR2; exec "$@"', "sh"]


class SweepTask:
    """What submitit runs on a node. Before the time is up the run saves, and the task is queued again to continue it.

    Args:
        command: the command line.
        folder: the working directory.
    """

    def __init__(self, command: list[str], folder: str) -> None:
        self.command, self.folder = command, folder

    def __call__(self) -> None:
        """Run the command; raise a RuntimeError if it fails, so that the task is marked as failed."""
        self._start()
        self._await_end()
        status = self._process.wait()
        if status != 0:
            raise RuntimeError(f"'{' '.join(self.command)}' ended with status {status}.")

    def checkpoint(self) -> Any:
        """Stop the command, called by submitit's handler of the warning; return what is to be queued."""
        from submitit.helpers import DelayedSubmission

        self._process.terminate()
        self._await_end()
        return DelayedSubmission(SweepTask(self.command, self.folder))

    def _start(self) -> None:
        """Start the command; a warning that comes meanwhile waits until there is a process to stop."""
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
        try:
            self._process = subprocess.Popen([*_IGNORING_WARNING, *self.command], cwd=self.folder)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _await_end(self) -> None:
        """Wait without reaping: the handler may come while `__call__` waits, and Popen.wait would lock itself out."""
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)


def submit(
    runs: Sequence[Run],
    command: list[str],
    options: SlurmOptions,
    folder: Path,
    cluster: str,
    name: str,
    report: Report,
) -> Summary:
    """Submit runs as an array job, or one after another with submitit's local executor, which needs no cluster.

    Args:
        runs: the runs to do.
        command: the command line of the sweep without a selection; `--only <run>` is added for each task.
        options: what each task asks for.
        folder: where submitit keeps its files and the logs of the tasks.
        cluster: `slurm`, or `local` to try it on one machine.
        name: name of the array job.
        report: takes lines for the user.

    Returns:
        What became of the runs; for `slurm` nothing is known yet.

    Raises:
        OptionsError: submitit is not installed, or there is no Slurm.
    """
    cloudpickle, submitit = (require(package) for package in PACKAGES)
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the nodes need not have this folder on their path
    tasks = [SweepTask([*command, "--only", run.name], str(Path.cwd())) for run in runs]
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
    except RuntimeError as error:
        raise OptionsError(f"The launcher '{cluster}' cannot be used: {error} Call it where sbatch is.") from error
    executor.update_parameters(**_parameters(options, name))
    if cluster == "local":
        return _one_after_another(runs, tasks, executor, report)
    with executor.batch():
        jobs = [executor.submit(task) for task in tasks]
    report(
        f"Submitted {len(jobs)} runs as the array job {jobs[0].job_id.partition('_')[0]}; logs of the tasks: {folder}."
    )
    return Summary()


def _parameters(options: SlurmOptions, name: str) -> dict[str, Any]:
    return {
        "name": name,
        "timeout_min": options.minutes,
        "gpus_per_node": options.gpus,
        "cpus_per_task": options.cpus,
        "mem_gb": options.memory_gb,
        "slurm_array_parallelism": options.max_parallel,
        "slurm_setup": options.setup,
        "slurm_additional_parameters": options.additional,
        **({"slurm_partition": options.partition} if options.partition else {}),
    }


def _one_after_another(runs: Sequence[Run], tasks: Sequence[SweepTask], executor: Any, report: Report) -> Summary:
    summary = Summary()
    for number, (run, task) in enumerate(zip(runs, tasks, strict=True), 1):
        job = executor.submit(task)
        report(f"[{number}/{len(runs)}] {run.name} is job {job.job_id}, log {job.paths.stdout}")
        ended_well = job.exception() is None
        (summary.finished if ended_well else summary.failed).append(run.name)
        report(f"{run.name} {'finished' if ended_well else f'failed, see {job.paths.stderr}'}.")
    return summary
