"""Command lines: their parser, and types of their arguments."""

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

from basicsr.utils.errors import suggestion

_OVERRIDES = "--force_yml"


def command_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser without arguments, whose `--help` shows the docstring of a command line by line as it is written.

    An argument that it does not know ends the command with the nearest that it knows, or with where an override belongs.
    """
    return _Parser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)


class _Parser(argparse.ArgumentParser):
    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        words = sys.argv[1:] if args is None else list(args)
        for word in words:
            if self._is_unknown(word):
                name = word.partition("=")[0]
                self.error(f"There is no argument '{name}'. {suggestion(name, self._option_string_actions)}")
        known, left = self.parse_known_args(words, namespace)
        if left and _OVERRIDES in self._option_string_actions and all("=" in word for word in left):
            self.error(f"Nothing takes '{' '.join(left)}'. Overrides of options follow {_OVERRIDES}, all behind one.")
        if left:
            self.error(f"Nothing takes '{' '.join(left)}'. The line above has all arguments.")
        return known

    def _is_unknown(self, word: str) -> bool:
        """Whether a word is a flag that the parser has neither in full, nor abbreviated, nor with its value behind it."""
        if not re.match(r"-{1,2}[A-Za-z]", word) or " " in word:
            return False
        name = word.partition("=")[0]
        short = {flag for flag in self._option_string_actions if len(flag) == 2}
        return name[:2] not in short and not any(flag.startswith(name) for flag in self._option_string_actions)


def integer_from(minimum: int) -> Callable[[str], int]:
    """Return a `type` for argparse that accepts integers from `minimum` (0 or more) on and says so otherwise."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"\d+", text) or int(text) < minimum:
            raise argparse.ArgumentTypeError(f"'{text}' is not an integer from {minimum} on")
        return int(text)

    return parse
