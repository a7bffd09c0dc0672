"""What all models that train a quantized network have in common: a full-precision network and its quantized copy."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from basicsr.models.base_model import Model
from basicsr.networks.quantized import load_quantized, quantized_copy
from basicsr.networks.starting import load_weights_of, start_network
from basicsr.networks.stated_quantizers import stated_quantizers
from basicsr.quant.insertion.translation import Translation, translate_quantizers
from basicsr.training.calibration.network_calibration import CalibratedQuantizer, calibrate_network, check_calibrators
from basicsr.training.relative_steps import RelativeSteps
from basicsr.utils import dist
from basicsr.utils.options import Options
from basicsr.utils.stated_network import QUANTIZERS_ENTRY


class QuantizedModel(Model):
    """A full-precision network, frozen, and its quantized copy.

    A subclass defines `optimize_parameters`, and sets `optimizer` and `scheduler` in its constructor.

    Args:
        network: the full-precision network with its weights; frozen here.
        options: the options of the run, for coverage, bits, calibration and the length of training.
        device: where both networks live.
        share_weights: let the copy use the same weights, where training does not change them and `path:pretrain_network_Q` does
            not bring others, and calibration does not change them.

    Attributes:
        options: the options of the run.
        full_precision: the full-precision network.
        network: the quantized network.
        quantization_map: the record of its quantizers.
        total_iter: iterations of the whole training; 0 where the options have no section `train`, as in a test.
        accumulation_steps: parts that a batch goes through the network in.

    Raises:
        OptionsError: the section `quantization` is missing, or a calibrator does not go with a quantizer.
        QuantizationError: the coverage does not fit the network.
    """

    network_name: ClassVar[str] = "net_Q"
    remedy = "Lower the learning rate, or look at the calibration report."
    _relative_steps: RelativeSteps | None = None

    def __init__(self, network: nn.Module, options: Options, device: torch.device, *, share_weights: bool) -> None:
        self.options = options
        self.device = device
        self.full_precision = network.to(device).eval().requires_grad_(False)
        section = options.quantization
        changes_inputs = section is not None and (section.input_scales or section.rotate_inputs)
        changes_weights = changes_inputs or options.calibration.changes_weights
        shares = share_weights and options.path.pretrain_network_Q is None and not changes_weights
        self.network, self.quantization_map = quantized_copy(self.full_precision, options, share_weights=shares)
        self.total_iter = options.train.total_iter if options.train else 0
        self.accumulation_steps = options.train.accumulation_steps if options.train else 1
        check_calibrators(self.network, options.calibration)

    def calibrate(self, crops: torch.Tensor) -> list[CalibratedQuantizer]:
        """Set up all quantizers; see `calibrate_network`.

        Args:
            crops: LR calibration crops (N, 3, h, w) in 0..1.
        """
        report = calibrate_network(self.network, crops, self.options.calibration)
        dist.broadcast_tensors(self.network.state_dict().values())
        return report

    def start_from(self, file: Path, crops: torch.Tensor) -> tuple[Translation, list[CalibratedQuantizer]]:
        """Take over weights and quantizers of another quantized network, possibly of other kinds of quantizers.

        Args:
            file: its checkpoint, see `start_network`.
            crops: LR calibration crops (N, 3, h, w) in 0..1, for what is calibrated anew.

        Returns:
            How the quantizers started, and what was calibrated.

        Raises:
            CheckpointError: file or record cannot be used.
            QuantizationError: a quantizer cannot start from the one in its place.
        """
        start, of_start = start_network(self.full_precision, file, self.quantization_map)
        load_weights_of(self.network, start)
        translation = translate_quantizers(self.network, self.quantization_map, start, of_start)
        report: list[CalibratedQuantizer] = []
        if translation.needs_data:
            report = [row for row in self.calibrate(crops) if row.name in translation.needs_data]
            load_weights_of(self.network, start)  # which calibration may have changed
            translation = translate_quantizers(self.network, self.quantization_map, start, of_start)
        dist.broadcast_tensors(self.network.state_dict().values())
        return translation, report

    def network_for_evaluation(self) -> nn.Module:
        """Return the network to measure, in evaluation mode."""
        return self.network.eval()

    def checkpoint(self) -> dict[str, dict[str, torch.Tensor]]:
        """Return what a network file holds."""
        return {"params": self.network.state_dict()}

    def stated(self) -> dict[str, dict[str, Any]]:
        """Return what a network file says of its quantizers; see `stated_quantizers`."""
        return {QUANTIZERS_ENTRY: stated_quantizers(self.network)}

    def training_state(self) -> dict[str, Any]:
        """Return the state of optimiser and schedule, and of relative steps; all that is learned is in the network."""
        state: dict[str, Any] = {"optimizer": self.optimizer.state_dict()}
        if self.scheduler is not None:
            state["scheduler"] = self.scheduler.state_dict()
        if self._relative_steps is not None:
            state["quantization_steps"] = self._relative_steps.state_dict()
        return state

    def load(self, network_file: Path, state: Mapping[str, Any]) -> None:
        """Restore the network and what `training_state` returned."""
        load_quantized(self.network, network_file)
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        if self._relative_steps is not None:
            self._relative_steps.load_state_dict(state["quantization_steps"])
