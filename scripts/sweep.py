"""The command `basicsr-sweep` from a checkout, see basicsr/sweep/command.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from basicsr.sweep.command import main

if __name__ == "__main__":
    sys.exit(main())
