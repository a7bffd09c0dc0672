"""Post-training quantization: bounds are calibrated, then distilled from the full-precision network."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import nn

from basicsr.models.distilled_model import DistilledModel
from basicsr.quant.insertion.insert import quantizer_parameters
from basicsr.training.low_rank import LowRankCorrections
from basicsr.training.optimizers import build_optimizer, build_scheduler
from basicsr.training.parameter_turns import ParameterTurns
from basicsr.training.relative_steps import RelativeSteps, checked_units
from basicsr.training.teacher import TeacherAutocast
from basicsr.utils.errors import OptionsError
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
        correction_rank: learn a correction of this rank for each quantized weight, too, see `LowRankCorrections`; 0 for none.
        correction_lr_ratio: rate of the corrections, as a multiple of that of the bounds.
        parameter_turns: globs on the names of what is trained, a group each, which are trained in turns, see `ParameterTurns`. By
            default all bounds are trained together.
        turns: in the whole training.

    Raises:
        OptionsError: a component or a feature layer does not exist, there is no loss, rates of corrections are not relative, or groups
            do not fit what is trained.
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
        correction_rank: Annotated[int, Field(ge=0)] = 0,
        correction_lr_ratio: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.3,
        parameter_turns: list[str] | None = None,
        turns: Annotated[int, Field(gt=0)] = 9,
    ) -> None:
        if correction_rank and not relative_lr:
            raise OptionsError(
                "Option 'train:correction_rank' learns weights at a rate in quantization steps: set 'train:relative_lr' to true, with a "
                "rate of the bounds to match, such as 0.06."
            )
        super().__init__(
            network,
            options,
            device,
            pixel_loss=pixel_loss,
            feature_loss=feature_loss,
            feature_layers=feature_layers,
            teacher_autocast=teacher_autocast,
            autocast=autocast,
            share_weights=not correction_rank,
        )
        self.parameters = quantizer_parameters(self.network)
        self.optimizer = build_optimizer(optim_bound, self.parameters, "train:optim_bound")
        units = [checked_units("train:relative_lr", self.network)] if relative_lr else []
        self._corrections = None
        if correction_rank:
            self._corrections = LowRankCorrections(self.network, correction_rank, options.manual_seed)
            factors, rate = self._corrections.parameters, correction_lr_ratio * self.optimizer.defaults["lr"]
            self.optimizer.add_param_group({"params": factors, "lr": rate})
            self.parameters = [*self.parameters, *factors]
            units.append(self._corrections.units)
        self._turns = self._build_turns(parameter_turns, turns) if parameter_turns else None
        self.scheduler = build_scheduler(scheduler, self.optimizer, self.total_iter, "train:scheduler")
        if relative_lr:
            self._relative_steps = RelativeSteps(self.optimizer, *units)

    def _build_turns(self, groups: list[str], turns: int) -> ParameterTurns:
        learned = {id(parameter) for parameter in self.parameters}
        trained = {name: parameter for name, parameter in self.network.named_parameters() if id(parameter) in learned}
        return ParameterTurns(trained, groups, turns, self.total_iter)

    def optimize_parameters(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Take one step, see `DistilledModel.optimize_parameters`; the weights then hold their corrections."""
        if self._turns is not None:
            self._turns.begin(self.scheduler.last_epoch)
        if self._corrections is None:
            return super().optimize_parameters(batch)
        self._corrections.begin()
        losses = super().optimize_parameters(batch)
        self._corrections.merge()
        return losses

    def accumulate_gradients(self, lq: torch.Tensor) -> dict[str, torch.Tensor]:
        """Add the gradients of the losses on LR crops (N, 3, h, w), part by part; return the losses, detached."""
        losses = super().accumulate_gradients(lq)
        if self._corrections is not None:
            self._corrections.take_gradients()
        return losses

    def training_state(self) -> dict[str, Any]:
        """Return the state of optimiser and schedule, of relative steps and of corrections."""
        corrections = {} if self._corrections is None else {"corrections": self._corrections.state_dict()}
        return {**super().training_state(), **corrections}

    def load(self, network_file: Path, state: Mapping[str, Any]) -> None:
        """Restore the network and what `training_state` returned."""
        super().load(network_file, state)
        if self._corrections is not None:
            self._corrections.load_state_dict(state["corrections"])
