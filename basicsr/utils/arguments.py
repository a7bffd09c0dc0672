"""Types of command-line arguments, for the scripts."""

import argparse
import re
from collections.abc import Callable


def integer_from(minimum: int) -> Callable[[str], int]:
    """Return a `type` for argparse that accepts integers from `minimum` (0 or more) on and says so otherwise."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"\d+", text) or int(text) < minimum:
            raise argparse.ArgumentTypeError(f"'{text}' is not an integer from {minimum} on")
        return int(text)

    return parse
