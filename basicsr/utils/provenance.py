"""Where results come from: the versions, the command and the options that made them."""

import subprocess
import sys
import time
from pathlib import Path

import torch
import yaml

import basicsr
from basicsr.utils.files import atomic_path
from basicsr.utils.hardware import processor
from basicsr.utils.options import Options


def write_options(options: Options, folder: Path) -> None:
    """Write `options.yml` into a folder: the resolved options with their provenance.

    Raises:
        OSError: see `atomic_path`.
    """
    with atomic_path(folder / "options.yml") as temporary:
        content = {"provenance": provenance(), **options.model_dump(mode="json")}
        temporary.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


def provenance() -> dict[str, str]:
    """Return what a reader needs to repeat a run and to understand its times: versions, git commit, command, processor, threads."""
    try:
        folder = Path(__file__).resolve().parents[2]
        commit = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--dirty"],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        commit = "unknown"
    return {
        "version": basicsr.__version__,
        "commit": commit,
        "command": " ".join(sys.argv),
        "python": sys.version.split()[0],
        "torch": str(torch.__version__),
        "processor": processor(),
        "threads": str(torch.get_num_threads()),
        **({"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}),
        "started": time.strftime("%Y-%m-%d %H:%M:%S"),
    }
