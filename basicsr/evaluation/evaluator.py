"""The metrics of a network on a dataset, image by image."""

import time
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from basicsr.evaluation.dataset_result import DatasetResult
from basicsr.evaluation.inference import device_of, upscale
from basicsr.evaluation.reference_outputs import ReferenceOutputs
from basicsr.metrics.base import MetricTraits, build_metrics
from basicsr.quant.insertion.insert import named_quantizers
from basicsr.quant.observe.capture import count_codes, observe_chosen_bits
from basicsr.quant.spec import QuantizationError
from basicsr.utils import dist
from basicsr.utils.errors import DataError, OptionsError, TrainingError
from basicsr.utils.image import tensor_to_image, write_image
from basicsr.utils.logger import get_logger
from basicsr.utils.options import ValOptions
from basicsr.utils.saved_images import FileOf

_PROBE_SIDE = 48
AVERAGE_BITS = "average_bits"
"""Beside the metrics: the mean bits of the activations whose quantizers choose their bits for each picture."""
_BITS = MetricTraits("activations", "bits", 2, higher_is_better=False, compares="full_precision", in_plots=False)


class Evaluator:
    """Evaluates networks on datasets under one protocol.

    The outputs of the full-precision network are kept, see `ReferenceOutputs`, since every later evaluation compares with them.

    Args:
        options: the protocol.
        scale: scale factor; also the border that is left out where the options name none.
        full_precision: network whose outputs fidelity compares with; None leaves out the metrics that do so.

    Attributes:
        metrics: those that are measured, by name.

    Raises:
        OptionsError: a metric cannot be used, see `build_metrics`.
    """

    def __init__(self, options: ValOptions, scale: int, full_precision: nn.Module | None) -> None:
        self._options = options
        metrics = build_metrics(options, scale)
        compares = full_precision is not None and any(m.traits.compares == "full_precision" for m in metrics.values())
        self.metrics = {k: m for k, m in metrics.items() if compares or m.traits.compares == "hr"}
        self._full_precision = full_precision
        self._references = ReferenceOutputs(full_precision, options) if compares and full_precision else None

    def require(self, name: str) -> None:
        """Refuse the metric that chooses the best iterate where it is not measured, with an OptionsError."""
        if name not in self.metrics:
            raise OptionsError(
                f"Option 'val:best_metric' is '{name}', which compares with the output of a full-precision network, but this run has "
                "none. Choose a metric that compares with HR, or set 'val:full_precision' to true where the run quantizes."
            )

    def evaluate(self, network: nn.Module, dataset: Any, file_of: FileOf | None = None) -> DatasetResult:
        """Evaluate a network on a dataset of pairs; several processes share the images.

        Args:
            network: in evaluation mode, on any device.
            dataset: items with `lq` (3, h, w), `gt` (3, scale h, scale w) in 0..1 and `name`. Without `gt` the metrics that compare
                with HR are left out.
            file_of: returns where the output for an image is saved, given its name; None saves nothing.

        Raises:
            TrainingError: the network's output is not finite.
        """
        started = time.monotonic()
        own: dict[str, dict[str, float | None]] = {}
        reasons: dict[str, str] = {}
        for names, lq, gt in self._batches(dataset):
            with observe_chosen_bits(network) as chosen:
                outputs = self._forward(network, lq)
            references = self._reference(dataset.name, names, lq, network, outputs)
            for index, name in enumerate(names):
                reference = None if references is None else references[index]
                own[name] = self._measure(name, outputs[index], gt[index], reference, reasons)
                if chosen:  # of each tile, and each turned picture
                    own[name][AVERAGE_BITS] = float(torch.stack([bits[index] for bits in chosen]).mean())
                if file_of is not None:
                    write_image(file_of(name), tensor_to_image(outputs[index]))
        gathered = dist.gather_objects((own, reasons))
        images = {k: v for part, _ in gathered for k, v in part.items()}
        traits = {name: metric.traits for name, metric in self.metrics.items()}
        if any(AVERAGE_BITS in values for values in images.values()):
            traits[AVERAGE_BITS] = _BITS
        result = DatasetResult(dataset.name, dict(sorted(images.items())), time.monotonic() - started, traits)
        _warn_of_gaps(result, {k: v for _, part in gathered for k, v in part.items()})
        return result

    def _batches(self, dataset: Any) -> Iterator[tuple[list[str], torch.Tensor, list[torch.Tensor | None]]]:
        """Yield runs of consecutive images of equal size, at most `batch_size` together."""
        pending: list[Mapping[str, Any]] = []
        for index in range(dist.rank(), len(dataset), dist.world_size()):
            item = dataset[index]
            if pending and (len(pending) == self._options.batch_size or item["lq"].shape != pending[0]["lq"].shape):
                yield _stack(pending)
                pending = []
            pending.append(item)
        if pending:
            yield _stack(pending)

    def _forward(self, network: nn.Module, lq: torch.Tensor) -> torch.Tensor:
        device = device_of(network)
        options = self._options
        return upscale(
            network,
            lq.to(device, non_blocking=True),
            pad=options.pad,
            tile=options.tile,
            tile_overlap=options.tile_overlap,
            self_ensemble=options.self_ensemble,
        ).float().cpu()  # fmt: skip

    def _reference(
        self, dataset: str, names: list[str], lq: torch.Tensor, network: nn.Module, outputs: torch.Tensor
    ) -> torch.Tensor | list[torch.Tensor] | None:
        if self._references is None or self._full_precision is None:
            return None
        known = self._references.find(dataset, names, lq)
        if known is not None:
            return known
        fresh = outputs if network is self._full_precision else self._forward(self._full_precision, lq)
        self._references.keep(dataset, names, lq, fresh)
        return fresh

    def _measure(
        self,
        name: str,
        output: torch.Tensor,
        gt: torch.Tensor | None,
        reference: torch.Tensor | None,
        reasons: dict[str, str],
    ) -> dict[str, float | None]:
        """Return the values of one image; puts into `reasons`, by metric, why one has none."""
        if not torch.isfinite(output).all():
            raise TrainingError(
                f"The output for the image '{name}' is not finite: the weights or bounds of the network are damaged."
            )
        image, truth = tensor_to_image(output), None if gt is None else tensor_to_image(gt)
        values: dict[str, float | None] = {}
        for key, metric in self.metrics.items():
            pair = (image, truth) if metric.traits.compares == "hr" else (output, reference)
            if pair[1] is None:
                continue
            try:
                values[key] = metric(*pair)
            except DataError as error:
                values[key] = None
                reasons.setdefault(key, f"'{name}', for one: {error}")
        return values


def _warn_of_gaps(result: DatasetResult, reasons: Mapping[str, str]) -> None:
    for metric, number in result.counted.items():
        get_logger().warning(
            "The metric '%s' has no value on %d of %d images of %s, which its mean leaves out. The image %s",
            metric, len(result.images) - number, len(result.images), result.name, reasons[metric],
        )  # fmt: skip


def _stack(items: list[Mapping[str, Any]]) -> tuple[list[str], torch.Tensor, list[torch.Tensor | None]]:
    names = [item["name"] for item in items]
    return names, torch.stack([item["lq"] for item in items]), [item.get("gt") for item in items]


def check_levels(network: nn.Module, lq: torch.Tensor) -> int:
    """Count the distinct values that every quantizer of a network produces on a real picture.

    Quantizers that give a single value are named in the log: training has driven their bounds together or past each other, or what
    they quantize is constant.

    Args:
        network: a calibrated quantized network.
        lq: an LR image (3, h, w); its middle, at most 48 x 48 pixels, is used.

    Returns:
        The largest number of distinct values of any quantizer.

    Raises:
        QuantizationError: a quantizer produces more than 2**bits values.
    """
    top, left = (max(side - _PROBE_SIDE, 0) // 2 for side in lq.shape[1:])
    probe = lq[None, :, top : top + _PROBE_SIDE, left : left + _PROBE_SIDE].to(device_of(network))
    with torch.no_grad(), count_codes(network) as counts:
        network(probe)
    allowed = {name: quantizer.spec.num_levels for name, quantizer in named_quantizers(network)}
    for name, count in counts.items():
        if count > allowed[name]:
            raise QuantizationError(
                f"The quantizer '{name}' produced {count} distinct values, but has {allowed[name]} levels."
            )
    single = [name for name, count in counts.items() if count == 1]
    if single:
        get_logger().warning(
            "%d of %d quantizers give a single value, '%s' the first: their bounds have met or crossed in training, which a lower "
            "learning rate of the quantizers prevents, or what they quantize is constant.",
            len(single), len(counts), single[0],
        )  # fmt: skip
    return max(counts.values(), default=0)


def report_levels(network: nn.Module, lq: torch.Tensor) -> None:
    """Count the levels of all quantizers on an LR image (3, h, w) and log the largest number; see `check_levels`."""
    get_logger().info("No quantizer gives more than %d distinct values.", check_levels(network, lq))
