"""Which layers to show of what activations.json holds, and what each method does with their input."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from basicsr.reporting.tables import Row
from basicsr.utils.errors import DataError

MOST_LAYERS = 6
_MOST_LINES = 4
"""Of more methods only the bounds are drawn, not the distribution in each quantized network."""


@dataclass(frozen=True)
class Seen:
    """What one method does with the input of a layer.

    Attributes:
        outermost: the lowest and the highest value that its quantizer gives: its bounds, or where it has none, what it gave
            on the pictures that were looked at.
        levels: values that its quantizer can give.
        error: squared error of its quantizer divided by the sum of the squared values, in full precision.
        kind: registered name of the quantizer.
        dynamic: it has no bounds but takes its range from each sample.
        per_channel: each channel has bounds of its own; `outermost` spans all of them.
        counts: how the values are distributed in the quantized network, in the bins of the layer; None where it is not known.
    """

    outermost: tuple[float, float]
    levels: int
    error: float
    kind: str
    dynamic: bool
    per_channel: bool
    counts: Sequence[float] | None


@dataclass(frozen=True)
class Layer:
    """The input of one quantizer of activations.

    Attributes:
        name: full name of the quantizer.
        range: lowest and highest value in full precision.
        counts: number of values in bins of equal width between them.
        seen: what each method does with it, by label.
    """

    name: str
    range: tuple[float, float]
    counts: Sequence[float]
    seen: Mapping[str, Seen]


def layers_of(rows: Sequence[Row]) -> list[Layer]:
    """Return the layers in which a method has the largest relative error, the largest first.

    Args:
        rows: of one network, at equal bits.

    Raises:
        DataError: an activations.json is not what this program writes.
    """
    known = [row for row in rows if row.entry.activations]
    try:
        return _layers(known)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        folders = ", ".join(str(row.entry.folder) for row in known)
        raise DataError(
            f"An activations.json of {folders} is not what basicsr/test.py writes: {type(error).__name__} {error}. Evaluate again."
        ) from error


def _layers(rows: Sequence[Row]) -> list[Layer]:
    errors: dict[str, float] = {}
    drawn: dict[str, Mapping] = {}
    for row in rows:
        content = _content_of(row)
        drawn = {**content["histograms"], **drawn}
        for quantizer in content["quantizers"]:
            if quantizer["name"] in content["histograms"]:
                errors[quantizer["name"]] = max(errors.get(quantizer["name"], 0.0), quantizer["error"])
    names = sorted(errors, key=lambda name: (-errors[name], name))[:MOST_LAYERS]
    return [
        Layer(
            name=name,
            range=tuple(drawn[name]["range"]),
            counts=drawn[name]["full_precision"],
            seen={
                row.label: seen
                for row in rows
                if (seen := _seen(row, name, drawn[name]["range"], len(rows) <= _MOST_LINES))
            },
        )
        for name in names
    ]


def _content_of(row: Row) -> Mapping[str, Any]:
    assert row.entry.activations is not None  # rows without are left out
    return row.entry.activations


def _seen(row: Row, name: str, span: Sequence[float], with_counts: bool) -> Seen | None:
    """Return what a method does with the input of a layer; None where the layer has no such quantizer in it."""
    content = _content_of(row)
    quantizer = next((one for one in content["quantizers"] if one["name"] == name), None)
    if quantizer is None:
        return None
    histogram = content["histograms"].get(name)
    # bins compare only where they are the same, that is where both looked at the same full-precision network and pictures
    same = histogram is not None and list(histogram["range"]) == list(span)
    return Seen(
        outermost=tuple(quantizer["bounds"] or quantizer["gives"]),
        levels=2 ** quantizer["bits"],
        error=quantizer["error"],
        kind=quantizer["type"],
        dynamic=quantizer["bounds"] is None,
        per_channel=quantizer["per_channel"],
        counts=histogram["quantized"] if same and with_counts else None,
    )
