"""What an evaluation of one dataset gives: the values of each image, and their means."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from basicsr.metrics.base import MetricTraits, compares_with_hr

_LOG_DECIMALS = 4


@dataclass
class DatasetResult:
    """Means over a dataset, and the values of each image.

    Attributes:
        name: name of the dataset.
        images: for each image the values of metrics, by name; None where a metric has no value for an image. Metrics that compare
            with the full-precision output are there only where one was at hand, those that compare with HR only where there is HR.
        seconds: wall time of the evaluation.
        traits: what the metrics state of themselves, by name.
    """

    name: str
    images: dict[str, dict[str, float | None]] = field(default_factory=dict)
    seconds: float = 0.0
    traits: Mapping[str, MetricTraits] = field(default_factory=dict)

    @property
    def means(self) -> dict[str, float | None]:
        """Mean of each metric over the images that have a value; None where none has."""
        return {metric: sum(values) / len(values) if values else None for metric, values in self._values().items()}

    @property
    def counted(self) -> dict[str, int]:
        """Number of images in the mean, of the metrics that some image has no value of."""
        values = self._values()
        return {metric: len(known) for metric, known in values.items() if len(known) < len(self.images)}

    def _values(self) -> dict[str, list[float]]:
        metrics = next(iter(self.images.values()))
        return {
            metric: [value for image in self.images.values() if (value := image[metric]) is not None]
            for metric in metrics
        }

    @property
    def without_hr(self) -> bool:
        """Whether there were no HR images, so that metrics that compare with them are left out."""
        return compares_with_hr(self.traits, self.traits) and not compares_with_hr(self.traits, self.means)

    def describe(self) -> str:
        """Return one line for the log."""
        if self.without_hr:
            others = "".join(
                f", {key} {self.traits[key].text(value, _LOG_DECIMALS)}" for key, value in self.means.items()
            )
            return f"{self.name}: {len(self.images)} images enlarged, without HR to compare with{others}"
        counted = self.counted
        parts = []
        for metric, mean in self.means.items():
            some = f" ({counted[metric]} of {len(self.images)} images)" if metric in counted else ""
            parts.append(f"{metric} {self.traits[metric].text(mean, _LOG_DECIMALS)}{some}")
        return f"{self.name}: {', '.join(parts)}"
