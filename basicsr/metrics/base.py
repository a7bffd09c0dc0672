"""The contract of a metric: what it states of itself, and how `val:metrics` configures it.

A metric is a function of two positional parameters with keyword options, registered and declared:

    @METRIC_REGISTRY.register()
    @declare(label="MAE", unit="", decimals=2, higher_is_better=False, compares="hr")
    def calculate_mae(img: np.ndarray, img2: np.ndarray, /, *, crop_border: int) -> float: ...

One that compares with HR gets both as they are saved, uint8 (h, w, 3) in RGB. One that compares with the full-precision output gets
both outputs of networks as they come, not rounded, tensors (3, h, w) that are in 0..1 but for overshoots. It raises a DataError
for pictures that it has no value for. Options `crop_border` and `test_y_channel` are those of section `val` where they are not set.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeVar

from basicsr.utils.errors import OptionsError
from basicsr.utils.options import ValOptions, metric_arguments
from basicsr.utils.registry import METRIC_REGISTRY

Compares = Literal["hr", "full_precision"]
Function = TypeVar("Function", bound=Callable[..., float])


@dataclass(frozen=True)
class MetricTraits:
    """What a metric states of itself.

    Attributes:
        label: what tables call it.
        unit: of its values; empty where they have none.
        decimals: shown in tables.
        higher_is_better: which of two values is the better one.
        compares: what the output of the network is compared with, the HR image or the output of the full-precision network.
        in_plots: whether plots and comparisons of methods, which have room for few metrics, show it.
    """

    label: str
    unit: str
    decimals: int
    higher_is_better: bool
    compares: Compares
    in_plots: bool = True

    @property
    def heading(self) -> str:
        """Label with unit, for the heads of tables: `PSNR (dB)`."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    def text(self, value: float | None, decimals: int | None = None) -> str:
        """Return a value with its unit, `31.77 dB`; `-` where there is none."""
        if value is None:
            return "-"
        return f"{value:.{self.decimals if decimals is None else decimals}f}" + (f" {self.unit}" if self.unit else "")

    def is_better(self, value: float, other: float) -> bool:
        """Return whether a value is better than another one."""
        return value > other if self.higher_is_better else value < other

    def best(self, values: list[float]) -> float:
        """Return the best of values."""
        return max(values) if self.higher_is_better else min(values)

    def as_dict(self) -> dict[str, Any]:
        """Return all attributes, for JSON files; `MetricTraits(**...)` reads them."""
        return asdict(self)


def compares_with_hr(traits: Mapping[str, MetricTraits], names: Iterable[str]) -> bool:
    """Return whether one of the named metrics compares with HR; those that state nothing are passed over."""
    return any(traits[name].compares == "hr" for name in names if name in traits)


def declare(
    *, label: str, unit: str, decimals: int, higher_is_better: bool, compares: Compares, in_plots: bool = True
) -> Callable[[Function], Function]:
    """Return a decorator that states the traits of a metric, see `MetricTraits`."""
    traits = MetricTraits(label, unit, decimals, higher_is_better, compares, in_plots)

    def decorator(function: Function) -> Function:
        function.traits = traits  # type: ignore[attr-defined]  # functions take attributes
        return function

    return decorator


@dataclass(frozen=True)
class Metric:
    """A metric as `val:metrics` configures it.

    Attributes:
        function: takes the output, and what it is compared with.
        arguments: its options.
        traits: what it states of itself.
    """

    function: Callable[..., float]
    arguments: Mapping[str, Any]
    traits: MetricTraits

    def __call__(self, output: Any, other: Any) -> float:
        """Return the value for one picture, see the head of this file.

        Raises:
            DataError: there is no value for it.
        """
        return self.function(output, other, **self.arguments)


def build_metrics(options: ValOptions, scale: int) -> dict[str, Metric]:
    """Return the metrics that `val:metrics` names, by these names.

    Args:
        options: section `val`.
        scale: scale factor; also the border that is left out where the options name none.

    Raises:
        OptionsError: a metric does not exist, does not know an option, or does not declare itself.
    """
    metrics = {}
    for name in options.metrics:
        arguments = metric_arguments(options, scale, name)
        function = METRIC_REGISTRY.get(options.metrics[name]["type"], f"val:metrics:{name}:type")
        traits = getattr(function, "traits", None)
        if not isinstance(traits, MetricTraits):
            raise OptionsError(
                f"Option 'val:metrics:{name}' names the metric '{options.metrics[name]['type']}', which does not state its label, "
                "unit, direction and what it compares. Decorate it with `declare` of basicsr/metrics/base.py."
            )
        metrics[name] = Metric(function, arguments, traits)
    return metrics
