"""Calibrators that look on while crops go through a network in full precision, and say at which quantizer they failed."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from basicsr.quant.calibration import CalibrationResult
from basicsr.quant.calibrators.base import Calibrator
from basicsr.quant.observe.capture import observe_quantizer_inputs
from basicsr.quant.quantizers.base import Quantizer
from basicsr.quant.spec import QuantizationError
from basicsr.utils import dist
from basicsr.utils.memory import release_freed_memory
from basicsr.utils.options import Component
from basicsr.utils.registry import CALIBRATOR_REGISTRY


def calibrator_options(quantizer: Quantizer, of_role: Component) -> Component:
    """Return what calibrates a quantizer: its own calibrator where its class has one, or that of the options for its role."""
    return of_role if quantizer.own_calibrator is None else {"type": quantizer.own_calibrator}


def build_calibrator(quantizer: Quantizer, of_role: Component, where: str) -> Calibrator[Any]:
    """Return the calibrator of a quantizer.

    Args:
        quantizer: the quantizer; see `calibrator_options`.
        of_role: the calibrator of weights or of activations.
        where: path of this option.
    """
    return CALIBRATOR_REGISTRY.build(calibrator_options(quantizer, of_role), quantizer.spec, where=where)


def calibrate_inputs(
    network: nn.Module, crops: torch.Tensor, calibrators: Mapping[str, Calibrator[Any]], batch_size: int
) -> dict[str, CalibrationResult]:
    """Show calibrators what quantizers get in the network in full precision, in as many passes as they ask for.

    Args:
        network: a network with quantizers, all of which are bypassed meanwhile.
        crops: LR crops (N, 3, h, w) in 0..1.
        calibrators: by the name of the quantizer whose input they look at.
        batch_size: crops that go through the network together.

    Returns:
        What they found, by the same names.

    Raises:
        QuantizationError: a calibrator cannot use what it sees; names the quantizer.
    """
    device = next(network.parameters()).device
    pending = dict(calibrators)
    number = 0
    while pending:
        number += 1
        batches = tqdm(
            crops.split(batch_size), desc=f"calibration pass {number}", disable=None if dist.is_main() else True
        )
        passes = _Passes({name: partial(_update, name, calibrator) for name, calibrator in pending.items()})
        with torch.no_grad(), observe_quantizer_inputs(network, passes.looks):
            for batch in batches:
                passes.run(network, batch.to(device))
        pending = {name: calibrator for name, calibrator in pending.items() if _end_pass(name, calibrator)}
        release_freed_memory()
    return {name: _finish(name, calibrator) for name, calibrator in calibrators.items()}


class _Passes:
    """Forward passes that end when all has been looked at: what comes behind, such as the upsampling of EDSR, is a third of a network.

    The first pass that comes to every quantizer goes to its end and counts the looks. A later one that has fewer goes to its end as well.
    """

    def __init__(self, looks: Mapping[str, Callable[[torch.Tensor], None]]) -> None:
        self.looks = {name: self._counting(name, look) for name, look in looks.items()}
        self._done: list[str] = []
        self._enough: int | None = None

    def run(self, network: nn.Module, batch: torch.Tensor) -> None:
        self._done.clear()
        with suppress(_AllSeenError):
            network(batch)
        if self._enough is None and set(self._done) == set(self.looks):
            self._enough = len(self._done)

    def _counting(self, name: str, look: Callable[[torch.Tensor], None]) -> Callable[[torch.Tensor], None]:
        def counted(tensor: torch.Tensor) -> None:
            look(tensor)
            self._done.append(name)
            if len(self._done) == self._enough:
                raise _AllSeenError

        return counted


class _AllSeenError(Exception):
    """Ends a forward pass."""


@contextmanager
def naming_quantizer(name: str) -> Iterator[None]:
    """Say at which quantizer a calibration failed."""
    try:
        yield
    except QuantizationError as error:
        raise QuantizationError(f"The quantizer '{name}' cannot be calibrated. {error}") from error


def _update(name: str, calibrator: Calibrator[Any], tensor: torch.Tensor) -> None:
    with naming_quantizer(name):
        calibrator.update(tensor)


def _end_pass(name: str, calibrator: Calibrator[Any]) -> bool:
    with naming_quantizer(name):
        return calibrator.end_pass()


def _finish(name: str, calibrator: Calibrator[Any]) -> CalibrationResult:
    with naming_quantizer(name):
        return calibrator.finish()
