"""Pixel-aware calibration (Pac): the bounds of the activations are trained first, then those of the weights."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from basicsr.models.distilled_model import DistilledModel
from basicsr.networks.quantized import load_quantized
from basicsr.quant.insertion.insert import named_quantizers, quantized_weights
from basicsr.quant.modules.base import Role
from basicsr.quant.observe.capture import count_quantized_elements
from basicsr.quant.quantizers.base import Quantizer
from basicsr.training.optimizers import build_optimizer, build_scheduler
from basicsr.training.teacher import TeacherAutocast
from basicsr.utils import dist
from basicsr.utils.errors import OptionsError
from basicsr.utils.options import Component, Options
from basicsr.utils.registry import MODEL_REGISTRY


@dataclass(frozen=True)
class Stage:
    """One of the two stages of Pac: which quantizers are trained, and for how many iterations."""

    role: Role
    length: int
    quantizers: dict[str, Quantizer]
    parameters: list[nn.Parameter]
    optimizer: torch.optim.Optimizer
    scheduler: LRScheduler

    @property
    def is_over(self) -> bool:
        """Whether all iterations of the stage have been made."""
        return self.scheduler.last_epoch >= self.length


@MODEL_REGISTRY.register()
class PacModel(DistilledModel):
    """Calibration of the bounds in two stages, with the full-precision network as the teacher (Tu et al., CVPR 2023, section 3.3).

    Args:
        network: the full-precision network with its weights; frozen here.
        options: the options of the run, for coverage, bits, calibration and the length of training.
        device: where both networks live.
        activation_share: share of the iterations that train the bounds of the activations; those of the weights get the rest.
        optim_activation: optimiser of the bounds of the activations.
        optim_weight: optimiser of the bounds of the weights.
        scheduler_activation: learning-rate schedule of the first stage.
        scheduler_weight: learning-rate schedule of the second stage.
        gradient_scale: divide the gradient of each bound by sqrt(elements * (2**(bits - 1) - 1)), with the number of elements of
            the weight, or of the activation for the whole batch (LSQ, arXiv 1902.08153, section 2.2). Adam undoes this, except
            that it moves bounds less whose gradients so come below its `eps`.
        pixel_loss: see `DistilledModel`, as for the following.
        feature_loss: loss between intermediate features.
        feature_layers: modules whose outputs are the features.
        feature_gradient: False lets the feature loss train nothing, as in the released code, which detaches the features.
        teacher_autocast: run the teacher in bfloat16.
        autocast: run the quantized network in bfloat16.

    Raises:
        OptionsError: a component or a feature layer does not exist, there is no loss to train with, or there are no
            bounds that a stage could train.
        QuantizationError: the coverage does not fit the network.
    """

    def __init__(
        self,
        network: nn.Module,
        options: Options,
        device: torch.device,
        /,
        *,
        activation_share: Annotated[float, Field(ge=0, le=1)] = 0.5,
        optim_activation: Component = {"type": "Adam", "lr": 5e-3},  # noqa: B006 -- never changed
        optim_weight: Component = {"type": "Adam", "lr": 5e-6},  # noqa: B006
        scheduler_activation: Component = {"type": "CosineAnnealingLR", "eta_min": 2e-3},  # noqa: B006
        scheduler_weight: Component = {"type": "CosineAnnealingLR", "eta_min": 2e-6},  # noqa: B006
        gradient_scale: bool = True,
        pixel_loss: Component | None = {"type": "L1Loss"},  # noqa: B006
        feature_loss: Component | None = {"type": "AttentionTransferLoss", "loss_weight": 5.0},  # noqa: B006
        feature_layers: list[str] | None = None,
        feature_gradient: bool = True,
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
            feature_gradient=feature_gradient,
            teacher_autocast=teacher_autocast,
            autocast=autocast,
        )
        self.gradient_scale = gradient_scale
        first = round(activation_share * self.total_iter)
        self.stages = (
            self._stage("activation", first, optim_activation, scheduler_activation),
            self._stage("weight", self.total_iter - first, optim_weight, scheduler_weight),
        )
        self._enter_stage()

    def _stage(self, role: Role, length: int, optimizer: Component, scheduler: Component) -> Stage:
        quantizers = dict(named_quantizers(self.network, role))
        parameters = [parameter for quantizer in quantizers.values() for parameter in quantizer.parameters()]
        if not parameters:
            raise OptionsError(
                f"Model type 'PacModel' trains bounds, but the {role} quantizers of this network have none. Change "
                f"'quantization:coverage' or 'quantization:{role}_quantizer'."
            )
        built = build_optimizer(optimizer, parameters, f"train:optim_{role}")
        schedule = build_scheduler(scheduler, built, length, f"train:scheduler_{role}")
        return Stage(role, length, quantizers, parameters, built, schedule)

    @property
    def stage(self) -> Stage:
        """The stage that the next iteration belongs to; after the last iteration, the last one."""
        return next((stage for stage in self.stages if not stage.is_over), self.stages[-1])

    def _enter_stage(self) -> None:
        """Take bounds, optimiser and schedule of the stage that the next iteration belongs to."""
        stage = self.stage
        self.parameters, self.optimizer, self.scheduler = stage.parameters, stage.optimizer, stage.scheduler

    def optimize_parameters(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Take one step in the present stage, see `DistilledModel.optimize_parameters`."""
        losses = super().optimize_parameters(batch)
        self._enter_stage()
        return losses

    def accumulate_gradients(self, lq: torch.Tensor) -> dict[str, torch.Tensor]:
        """Add the gradients of the losses to the bounds of the current stage alone; return the losses, detached."""
        current = self.stage
        for stage in self.stages:
            for parameter in stage.parameters:
                parameter.requires_grad_(stage is current)
        if not self.gradient_scale:
            return super().accumulate_gradients(lq)
        with count_quantized_elements(self.network, current.quantizers) as elements:
            losses = super().accumulate_gradients(lq)
        if current.role == "weight":  # counted in each part of the batch
            elements = {name: weight.numel() for name, weight in quantized_weights(self.network).items()}
        else:
            elements = {name: number * dist.world_size() for name, number in elements.items()}
        for name, quantizer in current.quantizers.items():
            for parameter in quantizer.parameters():
                if parameter.grad is not None:
                    parameter.grad /= math.sqrt(elements[name] * (2 ** (quantizer.spec.bits - 1) - 1))
        return losses

    def training_state(self) -> dict[str, Any]:
        """Return the state of optimiser and schedule of both stages; how far they are is in the schedules."""
        return {
            stage.role: {"optimizer": stage.optimizer.state_dict(), "scheduler": stage.scheduler.state_dict()}
            for stage in self.stages
        }

    def load(self, network_file: Path, state: Mapping[str, Any]) -> None:
        """Restore the network and what `training_state` returned."""
        load_quantized(self.network, network_file)
        for stage in self.stages:
            stage.optimizer.load_state_dict(state[stage.role]["optimizer"])
            stage.scheduler.load_state_dict(state[stage.role]["scheduler"])
        self._enter_stage()
