"""Post-training quantization: bounds are calibrated, then distilled from the full-precision network."""

from typing import ClassVar

import torch
from torch import nn

from basicsr.models.distilled_model import DistilledModel
from basicsr.quant.insertion.insert import quantizer_parameters
from basicsr.training.optimizers import build_optimizer, build_scheduler
from basicsr.training.relative_steps import RelativeSteps, checked_units
from basicsr.training.teacher import TeacherAutocast
from basicsr.utils.options import Component, Options
from basicsr.utils.registry import MODEL_REGISTRY


@MODEL_REGISTRY.register()
class PTQModel(DistilledModel):
    """A full-precision network and its quantized copy, which share the weights; all bounds are trained together.

    With the losses of 2DQuant (arXiv 2406.06649, section 3.3) training is its DQC stage.

    Args:
        network: the full-precision network with its weights; frozen here.
        options: the options of the run, for coverage, bits, calibration and the length of training.
        device: where both networks live.
        optim_bound: optimiser of the bounds.
        relative_lr: take the learning rate as a share of each quantizer's quantization step, see `RelativeSteps`: ranges differ
            a thousandfold in networks that compute in 0..255.
        scheduler: its learning-rate schedule.
        pixel_loss: see `DistilledModel`, as for the following.
        feature_loss: loss between intermediate features.
        feature_layers: modules whose outputs are the features.
        teacher_autocast: run the teacher in bfloat16.
        autocast: run the quantized network in bfloat16.

    Raises:
        OptionsError: a component or a feature layer does not exist, or there is no loss.
        QuantizationError: the coverage does not fit the network.
    """

    one_schedule: ClassVar[bool] = True

    def __init__(
        self,
        network: nn.Module,
        options: Options,
        device: torch.device,
        /,
        *,
        optim_bound: Component = {"type": "Adam", "lr": 1e-2},  # noqa: B006 -- never changed
        relative_lr: bool = False,
        scheduler: Component = {"type": "CosineAnnealingLR"},  # noqa: B006
        pixel_loss: Component | None = {"type": "L1Loss"},  # noqa: B006
        feature_loss: Component | None = None,
        feature_layers: list[str] | None = None,
        teacher_autocast: TeacherAutocast = "off",
        autocast: TeacherAutocast = "off",
    ) -> None:
        super().__init__(
            network,
            options,
            device,
            pixel_loss=pixel_loss,
            feature_loss=feature_loss,
            feature_layers=feature_layers,
            teacher_autocast=teacher_autocast,
            autocast=autocast,
        )
        self.parameters = quantizer_parameters(self.network)
        self.optimizer = build_optimizer(optim_bound, self.parameters, "train:optim_bound")
        self.scheduler = build_scheduler(scheduler, self.optimizer, self.total_iter, "train:scheduler")
        if relative_lr:
            self._relative_steps = RelativeSteps(self.optimizer, checked_units("train:relative_lr", self.network))
