"""What all models that learn from the full-precision network have in common: losses between the two, and a step on them."""

from collections.abc import Mapping

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from basicsr.losses.base import total_of
from basicsr.models.quantized_model import QuantizedModel
from basicsr.quant.observe.capture import tap_outputs
from basicsr.training.not_finite import LossWatch
from basicsr.training.teacher import Teacher, TeacherAutocast, choose_feature_layers, computes_in_bfloat16
from basicsr.utils import dist
from basicsr.utils.errors import OptionsError
from basicsr.utils.options import Component, Options
from basicsr.utils.registry import LOSS_REGISTRY


class DistilledModel(QuantizedModel):
    """A full-precision network and its quantized copy, which share the weights; the first teaches the second.

    No HR image is used. A subclass sets `parameters`, `optimizer` and `scheduler`.

    Args:
        network: the full-precision network with its weights; frozen here.
        options: the options of the run, for coverage, bits, calibration and the length of training.
        device: where both networks live.
        pixel_loss: loss between the two outputs; None for none.
        feature_loss: loss between intermediate features; None for none.
        feature_layers: modules whose outputs are the features; by default those that the architecture names.
        feature_gradient: False lets the feature loss be reported without training anything.
        teacher_autocast: run the teacher in bfloat16: `auto` where the hardware is faster in it, `bf16` always,
            `off` never, see `Teacher`.
        autocast: the same for the quantized network. Grids of quantizers, gradients and losses stay float32, and the network is
            measured in float32.
        share_weights: see `QuantizedModel`.

    Attributes:
        parameters: what the next step trains.

    Raises:
        OptionsError: a component or a feature layer does not exist, or there is no loss to train with.
        QuantizationError: the coverage does not fit the network.
    """

    parameters: list[nn.Parameter]
    scheduler: LRScheduler

    def __init__(
        self,
        network: nn.Module,
        options: Options,
        device: torch.device,
        *,
        pixel_loss: Component | None,
        feature_loss: Component | None,
        feature_layers: list[str] | None,
        feature_gradient: bool = True,
        teacher_autocast: TeacherAutocast = "off",
        autocast: TeacherAutocast = "off",
        share_weights: bool = True,
    ) -> None:
        super().__init__(network, options, device, share_weights=share_weights)
        self.pixel_loss = LOSS_REGISTRY.build(pixel_loss, where="train:pixel_loss") if pixel_loss else None
        self.feature_loss = LOSS_REGISTRY.build(feature_loss, where="train:feature_loss") if feature_loss else None
        if self.pixel_loss is None and self.feature_loss is None:
            raise OptionsError("Options 'train:pixel_loss' and 'train:feature_loss' are both empty: give at least one.")
        if self.pixel_loss is None and not feature_gradient:
            raise OptionsError(
                "Option 'train:feature_gradient' is false and 'train:pixel_loss' is empty, so that nothing would be trained: "
                "give a pixel loss."
            )
        layers = choose_feature_layers(network, feature_layers) if self.feature_loss else []
        self.teacher = Teacher(self.full_precision, layers, teacher_autocast)
        self._bfloat16 = computes_in_bfloat16(autocast, device)
        self._feature_gradient = feature_gradient
        self._watch = LossWatch()

    @property
    def needs_originals(self) -> bool:
        """Whether batches must hold `gt`: the full-precision network alone is compared with."""
        return False

    def optimize_parameters(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Take one step of the optimiser on a batch of LR crops (`lq`: N, 3, h, w); return the losses, detached.

        Raises:
            TrainingError: a loss is not finite. The step is not taken: all parameters are still those of the last one.
        """
        self.optimizer.zero_grad(set_to_none=True)
        losses = self.accumulate_gradients(batch["lq"].to(self.device, non_blocking=True))
        dist.average_gradients(self.parameters)
        self.optimizer.step()
        self.scheduler.step()
        return losses

    def accumulate_gradients(self, lq: torch.Tensor) -> dict[str, torch.Tensor]:
        """Add the gradients of the losses on LR crops (N, 3, h, w), part by part; return the losses, detached."""
        sums: dict[str, torch.Tensor] = {}
        for part in lq.chunk(self.accumulation_steps):
            losses = self.distillation_losses(part)
            share = len(part) / len(lq)
            total = total_of(losses) * share
            losses = {name: loss.detach().clone() for name, loss in losses.items()}
            dist.average_tensors(list(losses.values()))  # all processes stop where one of them has to
            self._watch.start(losses)
            total.backward()
            self._watch.require_finite(self.network, part, self.remedy, gradients_follow=True)
            for name, loss in losses.items():
                sums[name] = sums.get(name, 0) + loss * share
        return sums

    def distillation_losses(self, lq: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the losses of the quantized network against the full-precision one on LR crops (N, 3, h, w)."""
        target, target_features = self.teacher(lq)
        with (
            tap_outputs(self.network, self.teacher.feature_layers) as features,
            torch.autocast(self.device.type, torch.bfloat16, enabled=self._bfloat16),
        ):
            output = self.network(lq)
        output, features = output.float(), {name: feature.float() for name, feature in features.items()}
        losses = {}
        if self.pixel_loss is not None:
            losses["l_pix"] = self.pixel_loss(output, target)
        if self.feature_loss is not None:
            if not self._feature_gradient:
                features = {name: feature.detach() for name, feature in features.items()}
            losses["l_feature"] = self.feature_loss(features, target_features)
        return losses
