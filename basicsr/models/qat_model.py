"""Quantization-aware training: weights and quantizers learn together, from the full-precision weights."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from basicsr.losses.base import total_of
from basicsr.losses.mismatch_loss import MismatchLoss
from basicsr.models.quantized_model import QuantizedModel
from basicsr.quant.insertion.insert import named_quantizers, quantizer_parameters
from basicsr.quant.modules.base import Role
from basicsr.quant.observe.capture import tap_activations, tap_outputs
from basicsr.training.depths import Depths
from basicsr.training.diagnostics import Diagnostics
from basicsr.training.gradient_rules.pair import GradientPair
from basicsr.training.grouped_optimizer import grouped_optimizer
from basicsr.training.not_finite import LossWatch
from basicsr.training.optimizers import build_scheduler
from basicsr.training.quantizer_penalties import note_step, take_penalties
from basicsr.training.relative_steps import RelativeSteps, Units, checked_units, weight_units
from basicsr.training.teacher import Teacher, TeacherAutocast, choose_feature_layers, computes_in_bfloat16
from basicsr.utils import dist
from basicsr.utils.errors import OptionsError
from basicsr.utils.options import Component, Options
from basicsr.utils.registry import GRADIENT_RULE_REGISTRY, LOSS_REGISTRY, MODEL_REGISTRY

Ratio = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Depth = Annotated[float, Field(gt=0, le=1)]


@MODEL_REGISTRY.register()
class QATModel(QuantizedModel):
    """Trains weights, biases and all that is learned of the quantizers, against the ground truth.

    The main loss is the sum of `pixel_loss`, `distillation_loss` and `feature_loss`. With a `mismatch_loss` the model is
    ODM (arXiv 2307.13337v2): that loss looks at inputs and outputs of all activation quantizers of the same forward pass, its
    gradient is computed apart, and `gradient_rule` says how it joins the main one. This costs a second backward pass
    through the layers with quantizers, and no second forward pass: an iteration of EDSR takes about 1.6 times as long.

    Args:
        network: the full-precision network with its weights; it stays as it is, and is the teacher where there is one.
        options: the options of the run, for coverage, bits, calibration and the length of training.
        device: where the networks live.
        optim_g: optimiser; its `lr` is that of weights and biases.
        quantizer_lr_ratio: learning rate of what activation quantizers learn, as a multiple of `lr`; 10 in ODM.
        weight_quantizer_lr_ratio: the same for weight quantizers.
        quantizer_lr_ratios: the same for some of what quantizers learn, by globs on their names, such as `{"*.gate.*": 1.0}`;
            later ones win.
        relative_quantizer_lr: take the learning rates of what quantizers learn as shares of a quantization step, see
            `RelativeSteps`, whatever the range of the network and the number of bits. In the papers they are absolute.
        relative_weight_lr: learning rate of the weights that are quantized, as a share of their quantization step; by default they
            learn at `lr`, as all others do. They have no weight decay then.
        weight_lr_inputs: number of inputs of an output (channels x taps of a convolution) that `relative_weight_lr` is meant for. Weights of
            more inputs have a rate that is smaller by the root of the ratio, see `weight_units`. None for one rate for all.
        scheduler: learning-rate schedule, common to all.
        pixel_loss: loss between output and ground truth; None for none.
        distillation_loss: loss between output and the teacher's output.
        feature_loss: loss between intermediate features of the network and those of the teacher.
        feature_layers: modules whose outputs are the features; by default those that the architecture names.
        teacher_autocast: run the teacher in bfloat16: `auto`, `bf16` or `off`, see `Teacher`.
        autocast: the same for the network that is trained. Weights, gradients, losses and the grids of quantizers stay float32, and it is
            always measured in float32. For 4 bits and fewer, as with the teacher.
        channels_last: keep weights and images in this layout, in which convolutions are faster on most processors.
        mismatch_loss: the mismatch regularisation, `{type: MismatchLoss, loss_weight: lambda_M}`.
        gradient_rule: how its gradient joins: `CosineGate` (ODM), `SignGate` (first version of ODM) or `Sum` (without a gate).
        mismatch_trains_bounds: let what activation quantizers learn receive the gradient of the mismatch too. The paper does
            not say; by default the activations come to the bounds, not the bounds to the activations. What weight
            quantizers learn never receives it, as in the paper.
        depths: shares of the blocks that a step trains the network with, one after the other, each with an equal share of the loss: 1, 1/2 and
            1/4 in QuantSR. Which blocks are left out follows from the learned factors of their skip connections, see `blocks_beyond`. Evaluated is
            the network of `quantization:depth`. None for the whole network alone.
        diagnostics_freq: every so many iterations, record agreement of gradients, mismatch and bounds, see `Diagnostics`;
            0 for never.

    Raises:
        OptionsError: a component or a feature layer does not exist, there is no loss, or a glob matches nothing.
        QuantizationError: the coverage does not fit the network, or weights whose rate is to be a share of their quantization step
            have none.
    """

    one_schedule: ClassVar[bool] = True
    scheduler: LRScheduler
    remedy = "Lower the learning rate (train:optim_g:lr, train:quantizer_lr_ratio), or look at the calibration report."

    def __init__(
        self,
        network: nn.Module,
        options: Options,
        device: torch.device,
        /,
        *,
        optim_g: Component = {"type": "Adam", "lr": 1e-4},  # noqa: B006 -- never changed
        quantizer_lr_ratio: Ratio = 1.0,
        weight_quantizer_lr_ratio: Ratio = 1.0,
        quantizer_lr_ratios: dict[str, Ratio] | None = None,
        relative_quantizer_lr: bool = False,
        relative_weight_lr: Ratio | None = None,
        weight_lr_inputs: Annotated[int, Field(ge=1)] | None = None,
        scheduler: Component = {"type": "CosineAnnealingLR"},  # noqa: B006
        pixel_loss: Component | None = {"type": "L1Loss"},  # noqa: B006
        distillation_loss: Component | None = None,
        feature_loss: Component | None = None,
        feature_layers: list[str] | None = None,
        teacher_autocast: TeacherAutocast = "off",
        autocast: TeacherAutocast = "off",
        channels_last: bool = False,
        mismatch_loss: Component | None = None,
        gradient_rule: Component = {"type": "Sum"},  # noqa: B006
        mismatch_trains_bounds: bool = False,
        depths: list[Depth] | None = None,
        diagnostics_freq: Annotated[int, Field(ge=0)] = 0,
    ) -> None:
        super().__init__(network, options, device, share_weights=False)
        self.network.requires_grad_(True)
        self._bfloat16, self._layout = computes_in_bfloat16(autocast, device), self._lay_out(channels_last)
        self.pixel_loss = _loss(pixel_loss, "train:pixel_loss")
        self.distillation_loss = _loss(distillation_loss, "train:distillation_loss")
        self.feature_loss = _loss(feature_loss, "train:feature_loss")
        self._require_a_loss()
        layers = choose_feature_layers(network, feature_layers) if self.feature_loss else []
        needs_teacher = self.distillation_loss or self.feature_loss
        self.teacher = Teacher(self.full_precision, layers, teacher_autocast) if needs_teacher else None
        self.mismatch_loss = _loss(mismatch_loss, "train:mismatch_loss")
        self._require_activations()
        self.gradient_rule = GRADIENT_RULE_REGISTRY.build(gradient_rule, where="train:gradient_rule")
        self._gradients, self._depths = GradientPair(self.network), Depths(self.network, depths, options)
        self._reached = self._reached_by_mismatch(mismatch_trains_bounds)
        self._statistics, self._watch = _running_statistics(self.network), LossWatch()
        self.diagnostics = Diagnostics(self.network, diagnostics_freq) if diagnostics_freq else None
        ratios: dict[Role, float] = {"activation": quantizer_lr_ratio, "weight": weight_quantizer_lr_ratio}
        units = self._units(relative_quantizer_lr, relative_weight_lr is not None, weight_lr_inputs)
        self.optimizer = grouped_optimizer(self.network, optim_g, ratios, quantizer_lr_ratios or {}, relative_weight_lr)
        self._relative_steps = RelativeSteps(self.optimizer, *units) if units else None
        self.scheduler = build_scheduler(scheduler, self.optimizer, self.total_iter, "train:scheduler")

    @property
    def needs_originals(self) -> bool:
        """Whether a loss compares with the originals; otherwise batches need not hold them."""
        return self.pixel_loss is not None

    def _lay_out(self, channels_last: bool) -> torch.memory_format:
        """Bring the weights into the layout that images get, too, and return it."""
        if not channels_last:
            return torch.contiguous_format
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # whose types know it only with a device
        return torch.channels_last

    def _require_a_loss(self) -> None:
        if not (self.pixel_loss or self.distillation_loss or self.feature_loss):
            raise OptionsError(
                "Options 'train:pixel_loss', 'train:distillation_loss' and 'train:feature_loss' are all empty: give at "
                "least one."
            )

    def _require_activations(self) -> None:
        if self.mismatch_loss is not None and not dict(named_quantizers(self.network, "activation")):
            raise OptionsError(
                "Option 'train:mismatch_loss' regularises quantized activations, but this run quantizes weights alone. Set it to null."
            )

    def _reached_by_mismatch(self, trains_bounds: bool) -> list[int]:
        """Return the numbers of the parameters that the mismatch loss trains."""
        out_of_reach = quantizer_parameters(self.network, "weight" if trains_bounds else None)
        excluded = {id(parameter) for parameter in out_of_reach}
        return [i for i, p in enumerate(self._gradients.parameters) if id(p) not in excluded]

    def _units(self, of_quantizers: bool, of_weights: bool, inputs: int | None) -> list[Callable[[], Units]]:
        """Return what gives the units of the parameters whose learning rates are relative.

        Raises:
            OptionsError: rates of weights follow from their inputs, but are not relative.
        """
        if inputs is not None and not of_weights:
            raise OptionsError(
                f"Option 'train:weight_lr_inputs' is {inputs}, the inputs that 'train:relative_weight_lr' is meant for, which is not given. "
                "Give it, or set 'train:weight_lr_inputs' to null."
            )
        units: list[Callable[[], Units]] = []
        if of_quantizers:
            units.append(checked_units("train:relative_quantizer_lr", self.network))
        if of_weights:
            units.append(partial(weight_units, self.network, inputs))
        return units

    def optimize_parameters(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Take one step on LR crops (`lq`: N, 3, h, w) and their originals (`gt`); return the losses, detached.

        The network is in training mode meanwhile, and in evaluation mode before and after.

        Raises:
            TrainingError: a loss is not finite. The step is not taken: all parameters are still those of the last one.
        """
        iteration = self.scheduler.last_epoch + 1
        if self.diagnostics is not None and iteration == 1:
            self.diagnostics.before_training(self.network, batch["lq"])
        diagnostics = self.diagnostics if self.diagnostics is not None and self.diagnostics.is_due(iteration) else None
        self.network.train()
        self._gradients.clear()
        sums: dict[str, Tensor] = {}
        lq_parts, gt_parts = (
            batch[key].to(self.device, non_blocking=True, memory_format=self._layout).chunk(self.accumulation_steps)
            for key in ("lq", "gt" if self.needs_originals else "lq")
        )
        for lq, gt in zip(lq_parts, gt_parts, strict=True):
            share = len(lq) / len(batch["lq"])
            for part in self._depths.each():
                losses = self._add_gradients(lq, gt, share * part, diagnostics)
                sums |= {name: sums.get(name, 0) + loss * share * part for name, loss in losses.items()}
        self._gradients.average()
        if diagnostics is not None:
            diagnostics.record(iteration, *self._gradients.common())
        self._gradients.hand_over(self.gradient_rule if self.mismatch_loss is not None else None)
        self.optimizer.step()
        self.scheduler.step()
        note_step(self.network)
        dist.broadcast_tensors(self._statistics)
        self.network.eval()
        return sums

    def _add_gradients(
        self, lq: Tensor, gt: Tensor, share: float, diagnostics: Diagnostics | None
    ) -> dict[str, Tensor]:
        """Add the gradients of a part of the batch, weighted by its share; return its losses, detached."""
        auxiliary = self.mismatch_loss if self.mismatch_loss is not None or diagnostics is None else MismatchLoss()
        feature_layers = self.teacher.feature_layers if self.teacher is not None else ()
        tapped: AbstractContextManager[dict[str, tuple[Tensor, Tensor]]] = (
            nullcontext({}) if auxiliary is None else tap_activations(self.network)
        )
        with (
            tapped as pairs,
            tap_outputs(self.network, feature_layers) as features,
            torch.autocast(self.device.type, torch.bfloat16, enabled=self._bfloat16),
        ):
            output = self.network(lq)
        losses = self._main_losses(lq, gt, output.float(), {name: value.float() for name, value in features.items()})
        penalty = take_penalties(self.network)
        if penalty is not None:
            losses["l_quantizer"] = penalty
        main = total_of(losses) * share
        mismatch = None if auxiliary is None else auxiliary(pairs)
        if self.mismatch_loss is not None and mismatch is not None:
            losses["l_mismatch"] = mismatch
        losses = {name: loss.detach().clone() for name, loss in losses.items()}
        dist.average_tensors(list(losses.values()))  # all processes stop where one of them has to
        if diagnostics is not None:
            diagnostics.look_at(pairs)
        self._watch.start(losses)
        self._gradients.add(main, None if mismatch is None else mismatch * share, self._reached)
        self._watch.require_finite(self.network, lq, self.remedy, gradients_follow=False)
        return losses

    def _main_losses(self, lq: Tensor, gt: Tensor, output: Tensor, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        losses = {}
        if self.pixel_loss is not None:
            losses["l_pix"] = self.pixel_loss(output, gt)
        if self.teacher is not None:
            target, target_features = self.teacher(lq)
            if self.distillation_loss is not None:
                losses["l_distill"] = self.distillation_loss(output, target)
            if self.feature_loss is not None:
                losses["l_feature"] = self.feature_loss(features, target_features)
        return losses

    def network_for_evaluation(self) -> nn.Module:
        """Return the network to measure, in evaluation mode, of as many blocks as `quantization:depth` says."""
        self._depths.for_evaluation()
        return super().network_for_evaluation()

    def training_state(self) -> dict[str, Any]:
        """Return the state of optimiser, schedule, relative steps and diagnostics; all that is learned is in the network."""
        state = super().training_state()
        if self.diagnostics is not None:
            state["diagnostics"] = self.diagnostics.state_dict()
        return state

    def load(self, network_file: Path, state: Mapping[str, Any]) -> None:
        """Restore the network and what `training_state` returned."""
        super().load(network_file, state)
        if self.diagnostics is not None:
            self.diagnostics.load_state_dict(state["diagnostics"])


def _running_statistics(network: nn.Module) -> list[Tensor]:
    """Return means and variances inside of quantizers, which follow the samples, and so differ from process to process."""
    buffers = (b for _, quantizer in named_quantizers(network) for b in quantizer.buffers())
    return [buffer for buffer in buffers if buffer.is_floating_point()]


def _loss(options: Component | None, where: str) -> nn.Module | None:
    return LOSS_REGISTRY.build(options, where=where) if options else None
