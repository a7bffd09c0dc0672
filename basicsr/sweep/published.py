"""Published results beside which ours can be put: the same architecture, scale, bits, dataset, coverage and activation ranges."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from basicsr.sweep.plan import FULL_PRECISION, REPOSITORY

FILE = REPOSITORY / "docs" / "results" / "published_results.json"


@dataclass(frozen=True)
class PublishedValue:
    """A published PSNR, and the change from the full-precision network of the same publication.

    Attributes:
        psnr: in dB.
        change: psnr less that of the publication's full-precision network, in dB.
        source: publication and table.
    """

    psnr: float
    change: float
    source: str


class PublishedResults:
    """Finds the published counterpart of a row.

    Args:
        content: protocols and rows, as in docs/results/published_results.json.
    """

    def __init__(self, content: Mapping[str, Any]) -> None:
        self._protocols = content["protocols"]
        self._rows = {
            (row["protocol"], row["arch"], row["scale"], row["method"], row["w_bits"], row["a_bits"]): row
            for row in content["results"]
        }

    @classmethod
    def load(cls, file: Path = FILE) -> "PublishedResults":
        """Read the file that the repository carries."""
        return cls(json.loads(file.read_text(encoding="utf-8")))

    def find(self, row: Mapping[str, Any]) -> PublishedValue | None:
        """Return the published value for a row of the tables, None where there is none under the same protocol."""
        for name, protocol in self._protocols.items():
            if not self._comparable(row, protocol):
                continue
            place = (name, row["arch"], row["scale"])
            found = self._rows.get((*place, row["published"], row["w_bits"], row["a_bits"]))
            full = self._rows.get((*place, FULL_PRECISION, 32, 32))
            if found and full and row["dataset"] in found["datasets"] and row["dataset"] in full["datasets"]:
                psnr = found["datasets"][row["dataset"]][0]
                return PublishedValue(psnr, psnr - full["datasets"][row["dataset"]][0], found["source"])
        return None

    @staticmethod
    def _comparable(row: Mapping[str, Any], protocol: Mapping[str, Any]) -> bool:
        if row["arch"] not in protocol.get("architectures", ()) or not row["on_y"] or row["self_ensemble"]:
            return False
        if row["crop_border"] not in (None, row["scale"]):
            return False
        if row["method"] == FULL_PRECISION:
            return True
        ranges = "dynamic" if row["published"] in protocol["dynamic"] else "static"
        return row["coverage"] == protocol["coverage"] and row["activation_ranges"] == ranges
