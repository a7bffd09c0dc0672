"""One logger for the package: to the terminal, and to a file of the run; silent in all but the main process."""

import contextlib
import functools
import logging
import sys
import time
from pathlib import Path

LOGGER_NAME = "basicsr"
_MOST_EARLY = 1000
_FORMAT = "%(asctime)s %(levelname)s: %(message)s"


def get_logger() -> logging.Logger:
    """Return the package's logger."""
    return logging.getLogger(LOGGER_NAME)


@functools.lru_cache(maxsize=4096)
def warn_once(message: str) -> None:
    """Log a warning the first time that this process has it to say."""
    get_logger().warning("%s", message)


class _RunLog(logging.FileHandler):
    """A log file that is given up, with one warning, when it cannot be written any more, such as on a full disk."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 -- the name is logging's
        """Remove this handler instead of printing a traceback for every record."""
        if isinstance(sys.exc_info()[1], OSError):
            get_logger().removeHandler(self)
            get_logger().warning("The log '%s' cannot be written any more: %s.", self.baseFilename, sys.exc_info()[1])
        else:
            super().handleError(record)


class _Early(logging.Handler):
    """Keeps what is said before a run has its log file, such as how its options were read."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record."""
        if len(self.records) < _MOST_EARLY:
            self.records.append(record)


def configure_logger(file: Path | None, main_process: bool) -> logging.Logger:
    """Set up the package's logger for a run, replacing an earlier set-up. What was said since one without a file is in the file, too.

    Args:
        file: log file to append to, which also gets what is too long for a terminal (debug); None for the terminal only.
        main_process: whether this process reports; the others pass on errors only.

    Raises:
        OSError: the log file cannot be made; the terminal is set up all the same.
    """
    logger = get_logger()
    early = [record for handler in logger.handlers if isinstance(handler, _Early) for record in handler.records]
    close_logger()
    logger.propagate = False
    logger.setLevel(logging.DEBUG if main_process else logging.ERROR)
    _add_handler(logging.StreamHandler(sys.stderr), logging.INFO)
    if file is None:
        _add_handler(_Early(), logging.DEBUG)
    elif main_process:
        file.parent.mkdir(parents=True, exist_ok=True)
        log = _RunLog(file, encoding="utf-8")
        _add_handler(log, logging.DEBUG)
        for record in early:
            if log in logger.handlers:  # it is given up on a full disk
                log.handle(record)
    return logger


def _add_handler(handler: logging.Handler, level: int) -> None:
    handler.setLevel(level)
    handler.setFormatter(logging.Formatter(_FORMAT))
    get_logger().addHandler(handler)


def run_log(folder: Path, kind: str, name: str) -> Path:
    """Return the file of a run's log, `<kind>_<name>_<time>.log`."""
    return folder / f"{kind}_{name}_{time.strftime('%Y%m%d_%H%M%S')}.log"


def close_logger() -> None:
    """Close the logger's files."""
    logger = get_logger()
    for handler in list(logger.handlers):
        with contextlib.suppress(OSError):  # what was buffered does not fit on a full disk
            handler.close()
        logger.removeHandler(handler)
