"""The same graphs in OpenVINO with the instructions that other processors have: each set in a process of its own.

oneDNN, which computes OpenVINO's convolutions and linear layers, reads its limit from the environment when it is loaded. What OpenVINO
compiles by itself, such as attention and pixel shuffles, keeps to the processor's own instructions.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from basicsr.utils.hardware import INFORMATION, processor_flags

REPOSITORY = Path(__file__).resolve().parents[2]
LIMIT = "ONEDNN_MAX_CPU_ISA"
FLAGS = {
    "AVX2": "avx2",
    "AVX512_CORE": "avx512bw",
    "AVX512_CORE_VNNI": "avx512_vnni",
    "AVX512_CORE_AMX": "amx_int8",
}
"""Values of the limit, from few to many instructions, with the flag of a processor that has them."""


def instruction_sets(information: Path = INFORMATION) -> list[str]:
    """Return the sets that this processor has; none where it does not tell."""
    flags = processor_flags(information)
    return [name for name, flag in FLAGS.items() if flag in flags]


def limited_latencies(instructions: str, graphs: Mapping[str, Path], threads: int) -> dict[str, float] | None:
    """Time graphs in OpenVINO, in turns, with products limited to a set of instructions.

    Args:
        instructions: one of `FLAGS`.
        graphs: files of `save_onnx`, by name.
        threads: number of threads.

    Returns:
        Median milliseconds by name, for the picture that `verification.timed_picture` gives; None where OpenVINO crashes,
        since its attention and oneDNN's products then disagree about the instructions, as with AVX2 on a processor with AMX.

    Raises:
        CalledProcessError: the process has failed in another way.
    """
    request = json.dumps({"graphs": {name: str(file) for name, file in graphs.items()}, "threads": threads})
    path = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, LIMIT: instructions, "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, str(Path(__file__).resolve())],
        input=request, stdout=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    if done.returncode == -signal.SIGSEGV:
        return None
    done.check_returncode()
    return json.loads(done.stdout)


def main() -> None:
    """Answer the request of `limited_latencies` on the standard input."""
    from basicsr.deploy.runtimes import RuntimeNetwork  # noqa: PLC0415 -- loads OpenVINO, which the calling process does with its own limit
    from basicsr.deploy.verification import latencies, timed_picture  # noqa: PLC0415

    request = json.load(sys.stdin)
    networks = {
        name: RuntimeNetwork(file, "openvino", threads=request["threads"]) for name, file in request["graphs"].items()
    }
    json.dump(latencies(networks, timed_picture()), sys.stdout)


if __name__ == "__main__":
    main()
