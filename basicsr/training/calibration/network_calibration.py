"""Calibration of all quantizers of a network: weights directly, activations from as many passes as their calibrators ask for."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from basicsr.quant.calibration import CalibrationResult
from basicsr.quant.calibrators.base import calibrate_tensor
from basicsr.quant.insertion.insert import named_quantizers, quantized_weights, quantizers_with_same_input
from basicsr.quant.insertion.sharing import sharing_quantizers
from basicsr.quant.quantizers.base import Quantizer
from basicsr.training.calibration.gradient_calibration import calibrate_by_gradient, check_by_gradient
from basicsr.training.calibration.input_scaling import scale_inputs
from basicsr.training.calibration.norm_folding import check_norm_folding, fold_norms
from basicsr.training.calibration.observing import (
    build_calibrator,
    calibrate_inputs,
    calibrator_options,
    naming_quantizer,
)
from basicsr.training.calibration.output_calibration import calibrate_by_output, quantizers_by_output
from basicsr.training.calibration.weight_conditioning import condition_weights
from basicsr.training.calibration.weight_fitting import check_weight_fit, fit_weights
from basicsr.utils.errors import OptionsError
from basicsr.utils.logger import get_logger
from basicsr.utils.options import CalibrationOptions
from basicsr.utils.registry import CALIBRATOR_REGISTRY


@dataclass(frozen=True)
class CalibratedQuantizer:
    """A line of the calibration report: the quantizer, and what its calibrator found."""

    name: str
    result: CalibrationResult

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for a JSON file."""
        return {"name": self.name, **self.result.as_dict()}


def check_calibrators(network: nn.Module, options: CalibrationOptions) -> None:
    """Refuse calibrators that do not go with the quantizers that they are meant for, before any data are read.

    Raises:
        OptionsError: a calibrator finds something that a quantizer cannot take, or `by_output` names what has no bounds to choose.
        QuantizationError: a calibrator cannot work for a quantizer, for instance because of its bits.
    """
    quantizers_by_output(network, options.by_output)
    check_by_gradient(network, options)
    check_norm_folding(network, options)
    check_weight_fit(network, options)
    weights = quantized_weights(network)
    seen = set()
    for name, quantizer in named_quantizers(network):
        role = "weights" if name in weights else "activations"
        calibrator = calibrator_options(quantizer, getattr(options, role))
        gives = CALIBRATOR_REGISTRY.get(calibrator["type"], f"calibration:{role}:type").gives
        if not issubclass(gives, quantizer.takes):
            raise OptionsError(
                f"Option 'calibration:{role}' is {calibrator['type']}, which finds {_in_words(gives)}, but the quantizer "
                f"'{name}' is a {type(quantizer).__name__} and needs {_in_words(quantizer.takes)}. Change 'calibration:{role}' "
                f"or 'quantization:{role.removesuffix('s')}_quantizer'."
            )
        if (calibrator["type"], role, quantizer.spec) not in seen:
            seen.add((calibrator["type"], role, quantizer.spec))
            with naming_quantizer(name):
                build_calibrator(quantizer, getattr(options, role), f"calibration:{role}")


def _in_words(result: type[CalibrationResult]) -> str:
    """Return the name of a kind of result as it reads in a sentence: `subset points` for SubsetPoints."""
    return re.sub(r"(?<!^)(?=[A-Z])", " ", result.__name__).lower()


def calibrate_network(
    network: nn.Module, crops: torch.Tensor, options: CalibrationOptions
) -> list[CalibratedQuantizer]:
    """Set up all quantizers of a network from its weights and its full-precision activations.

    While activations are observed, all quantizers pass their input through, so every statistic is one of the
    full-precision network, as in the released 2DQuant. What changes weights and hardly or not at all what the network computes in
    full precision comes first: weights are conditioned, norms are folded, factors of inputs are chosen. Bounds depend on `batch_size` only where a calibrator averages over batches.

    Args:
        network: a network with quantizers.
        crops: LR crops (N, 3, h, w) in 0..1.
        options: the calibrators, and how many crops go through the network together.

    Returns:
        One entry for each quantizer, in the order of the network.

    Raises:
        QuantizationError: weights or activations are not finite, or give no result; names the quantizer.
    """
    condition_weights(network, crops, options)
    fold_norms(network, crops, options)
    scale_inputs(network, crops, options)
    weights = quantized_weights(network)
    leaders = {**quantizers_with_same_input(network), **sharing_quantizers(network)}
    calibrators = {
        name: build_calibrator(quantizer, options.activations, "calibration:activations")
        for name, quantizer in named_quantizers(network)
        if name not in weights and name not in leaders
    }
    found = calibrate_inputs(network, crops, calibrators, options.batch_size)
    report = []
    for name, quantizer in named_quantizers(network):
        if name in weights:
            with naming_quantizer(name):
                calibrator = build_calibrator(quantizer, options.weights, "calibration:weights")
                result = calibrate_tensor(calibrator, weights[name])
        else:
            result = found[leaders.get(name, name)]
        quantizer.load_calibration(result)
        report.append(CalibratedQuantizer(name, result))
        if result.constant:
            get_logger().warning("The values at '%s' are constant, at least in one channel.", name)
    _settle(network)
    later: dict[str, CalibrationResult] = {}
    for change in (calibrate_by_output, calibrate_by_gradient, fit_weights):
        later.update(change(network, crops, options))
    return [CalibratedQuantizer(row.name, later.get(row.name, row.result)) for row in report]


def _settle(network: nn.Module) -> None:
    """Let the quantizers of each class decide what they have to decide together."""
    by_class: dict[type[Quantizer], list[Quantizer]] = {}
    for _, quantizer in named_quantizers(network):
        by_class.setdefault(type(quantizer), []).append(quantizer)
    for kind, quantizers in by_class.items():
        kind.settle(quantizers)


def describe_errors(report: Sequence[CalibratedQuantizer]) -> str:
    """Return a sentence on the squared errors, with their geometric mean and of how many quantizers it is.

    Calibrators that do not choose bounds by the squared error, such as MinMax, do not measure it. Errors of 0, which have no logarithm, are left out.
    """
    known = [row.result.mean_squared_error for row in report if row.result.mean_squared_error is not None]
    errors = [error for error in known if error > 0]
    if not known:
        return "Their calibrators do not measure squared errors."
    if not errors:
        return "All squared errors that were measured are 0."
    mean = math.exp(sum(map(math.log, errors)) / len(errors))
    some = "" if len(errors) == len(report) else f" of {len(errors)} of them"
    return f"The geometric mean of the squared errors{some} is {mean:.3e}."
