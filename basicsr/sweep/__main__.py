"""Run a sweep: `python basicsr/sweep -grid options/sweep/demo_ptq.yml`, `python -m basicsr.sweep` or `basicsr-sweep`."""

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a folder or a file of a checkout: import the package around it
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from basicsr.sweep.command import main

if __name__ == "__main__":
    sys.exit(main())
