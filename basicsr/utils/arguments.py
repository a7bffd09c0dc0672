"""Command lines: their parser, and types of their arguments."""

import argparse
import re
from collections.abc import Callable


def command_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser without arguments, whose `--help` shows the docstring of a command line by line as it is written."""
    return argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)


def integer_from(minimum: int) -> Callable[[str], int]:
    """Return a `type` for argparse that accepts integers from `minimum` (0 or more) on and says so otherwise."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"\d+", text) or int(text) < minimum:
            raise argparse.ArgumentTypeError(f"'{text}' is not an integer from {minimum} on")
        return int(text)

    return parse
