"""Measure a full-precision or quantized network on the benchmarks.

    python basicsr/test.py -opt options/test/test_2DQuant_x4.yml --force_yml bit=4 name=test_2DQuant_x4_bit4 \\
        path:pretrain_network_Q=experiments/train_2DQuant_x4_bit4/models/net_Q_3200.pth
"""

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a file from a checkout: import the package beside it, not modules inside it
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from basicsr import pipeline
from basicsr.utils.command_line import run


def main(argv: list[str] | None = None) -> int:
    """Run one evaluation; return the exit code."""
    return run(
        argv,
        __doc__,
        lambda options, root, device, _arguments: pipeline.test(options, root, device),
    )


if __name__ == "__main__":
    sys.exit(main())
