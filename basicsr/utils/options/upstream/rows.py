"""What a row of the table from the options of BasicSR and 2DQuant to those of this project is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

Given = Mapping[str, Any]
"""All options of a run as they were given, with overrides, as YAML takes them."""
Convert = Callable[[Any, Given], Any]
LEAVE_OUT: Final = object()
"""What a conversion or a default gives where no option is needed."""

SR_MODELS = ("SRModel", "SwinIRModel")
QUANT_MODELS = ("TDQuantModel",)


@dataclass(frozen=True)
class Row:
    """One option, or one value of an option, of BasicSR or 2DQuant.

    Attributes:
        old: its path; `*` stands for any key.
        new: the path of what replaces it; empty where nothing does.
        note: where it behaves otherwise here, or why it has no counterpart; a sentence.
        convert: from the old value to the new one; by default it stays.
        equals: values that the row is about; empty for all.
        models: values of `model_type` that it is about; empty for all.
        harmless: of an option without counterpart: values that change no result, so that it is left out. None for all values.
        beside: an option that a file must have as well.
    """

    old: str
    new: str = ""
    note: str = ""
    convert: Convert | None = None
    equals: tuple[Any, ...] = ()
    models: tuple[str, ...] = ()
    harmless: tuple[Any, ...] | None = ()
    beside: str = ""

    @property
    def is_refused(self) -> bool:
        """Whether there are values that stop a run."""
        return not self.new and self.harmless is not None

    def concerns(self, value: Any, model: Any) -> bool:
        """Whether the row is about a value, of a file with a `model_type`."""
        return (not self.models or model in self.models) and (not self.equals or value in self.equals)


@dataclass(frozen=True)
class Default:
    """What BasicSR or 2DQuant takes where a file says nothing, and this project would take something else.

    Attributes:
        path: the option, under its name here; `*` stands for a key of `needs`.
        value: what it is; or a function of the options as given and of the translated ones.
        note: what this project would take, or what the value means; a sentence.
        needs: an option, under its name here, without which the default is not taken.
        equals: values of that option that the default is about; empty for all.
        models: values of `model_type` that it is about.
    """

    path: str
    value: Any
    note: str
    needs: str
    equals: tuple[Any, ...] = ()
    models: tuple[str, ...] = ()


def renamed(old: str, new: str, note: str = "", **more: Any) -> Row:
    """Return the row of an option with another name here."""
    return Row(old, new, note, **more)


def left_out(old: str, note: str, **more: Any) -> Row:
    """Return the row of an option that changes no result."""
    return Row(old, "", note, harmless=None, **more)


def refused(old: str, note: str, **more: Any) -> Row:
    """Return the row of an option without counterpart, which stops a run."""
    return Row(old, "", note, **more)
