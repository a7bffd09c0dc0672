"""One logger for the package: to the terminal, and to a file of the run; silent in all but the main process."""

import logging
import sys
import time
from pathlib import Path

LOGGER_NAME = "basicsr"
_FORMAT = "%(asctime)s %(levelname)s: %(message)s"


def get_logger() -> logging.Logger:
    """Return the package's logger."""
    return logging.getLogger(LOGGER_NAME)


def configure_logger(file: Path | None, main_process: bool) -> logging.Logger:
    """Set up the package's logger for a run, replacing an earlier set-up.

    Args:
        file: log file to append to; None for the terminal only.
        main_process: whether this process reports; the others pass on errors only.
    """
    logger = get_logger()
    close_logger()
    logger.propagate = False
    logger.setLevel(logging.INFO if main_process else logging.ERROR)
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if file is not None and main_process:
        file.parent.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(file, encoding="utf-8"))
    for handler in handlers:
        handler.setFormatter(logging.Formatter(_FORMAT))
        logger.addHandler(handler)
    return logger


def run_log(folder: Path, kind: str, name: str) -> Path:
    """Return the file of a run's log, `<kind>_<name>_<time>.log`."""
    return folder / f"{kind}_{name}_{time.strftime('%Y%m%d_%H%M%S')}.log"


def close_logger() -> None:
    """Close the logger's files."""
    logger = get_logger()
    for handler in list(logger.handlers):
        handler.close()
        logger.removeHandler(handler)
