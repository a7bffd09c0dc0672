"""Training of a full-precision network: the one model for all architectures."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from basicsr.models.base_model import Model
from basicsr.training.gradient_step import Compile, GradientStep
from basicsr.training.not_finite import LossWatch
from basicsr.training.optimizers import build_optimizer, build_scheduler
from basicsr.training.teacher import computes_in_bfloat16
from basicsr.utils import dist
from basicsr.utils.options import Component, Options
from basicsr.utils.registry import LOSS_REGISTRY, MODEL_REGISTRY
from basicsr.utils.signature import NOT_RECIPE
from basicsr.utils.weights import load_network_weights, load_weights_file

_REMEDY = "Lower the learning rate (train:optim_g:lr), or limit the gradients (train:clip_grad_norm)."


@MODEL_REGISTRY.register()
class SRModel(Model):
    """A network that learns to enlarge LR images to their HR originals, and the moving average of its weights.

    The average (EMA) is what is evaluated. With t steps taken, a step moves it by 1 - min(ema_decay, (1 + t) / (10 + t))
    towards the weights, so that it forgets the first, random ones.

    On the CPU a run that is stopped and continued ends with the bits of one that was not, unless its schedule runs over
    time (`CosineOverTime`). On a GPU some sums depend on the order in which threads end, so that two runs differ by rounding.

    Args:
        network: the network to train, with its initial weights.
        options: the options of the run, for the length of training and the size of batches.
        device: where the networks live.
        optim_g: optimiser.
        scheduler: learning-rate schedule: `CosineAnnealingLR`, `MultiStepLR`, or `CosineOverTime` with `minutes` of
            training, validation included, at whose end training ends too. Each takes `warmup_iter`.
        pixel_loss: loss between output and HR image.
        ema_decay: of the moving average; 0 does without.
        clip_grad_norm: scale gradients down to this L2 norm where theirs is larger.
        check_losses: look at the losses of every iteration before its step, so that one that is not finite changes nothing and
            the first tensor that is not finite is named. `auto` does so on the CPU; a GPU would stand still while the host
            waits for its losses, so that they are looked at when they are logged.
        autocast: run the network in bfloat16: `auto` where the hardware is faster in it, `bf16` always, `off` never.
            Weights, gradients and losses stay float32.
        channels_last: keep weights and images in this layout, which convolutions on tensor cores need.
        compile: mode of torch.compile; see `GradientStep`, as for the following.
        cuda_graphs: record a step once and replay it.
        cudnn_benchmark: let cuDNN choose its fastest algorithms.

    Attributes:
        gradients: its forward and backward pass.

    Raises:
        OptionsError: a component does not exist or does not take an option.
    """

    network_name: ClassVar[str] = "net_g"
    one_schedule: ClassVar[bool] = True
    scheduler: LRScheduler

    def __init__(
        self,
        network: nn.Module,
        options: Options,
        device: torch.device,
        /,
        *,
        optim_g: Component = {"type": "Adam", "lr": 2e-4},  # noqa: B006 -- never changed
        scheduler: Component = {"type": "CosineAnnealingLR"},  # noqa: B006
        pixel_loss: Component = {"type": "L1Loss"},  # noqa: B006
        ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.999,
        clip_grad_norm: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None,
        check_losses: Annotated[bool | Literal["auto"], NOT_RECIPE] = "auto",
        autocast: Literal["auto", "bf16", "off"] = "off",
        channels_last: bool = False,
        compile: Annotated[Compile, NOT_RECIPE] = "none",
        cuda_graphs: Annotated[bool, NOT_RECIPE] = False,
        cudnn_benchmark: bool = False,
    ) -> None:
        train = options.required_train()
        self.device = device
        layout = torch.channels_last if channels_last else torch.preserve_format
        # the types of torch know `memory_format` only without a device
        self.network = network.to(device).to(memory_format=layout).requires_grad_(True).train()  # type: ignore[call-overload]
        self._averaged = copy.deepcopy(self.network).requires_grad_(False).eval() if ema_decay else None
        self._ema_decay = ema_decay
        self._clip_grad_norm = clip_grad_norm
        checks = device.type == "cpu" if check_losses == "auto" else check_losses
        self._watch = LossWatch() if checks else None
        self.remedy = _REMEDY if checks else f"{_REMEDY} With train:check_losses=true the first such tensor is named."
        self._pixel_loss = LOSS_REGISTRY.build(pixel_loss, where="train:pixel_loss")
        self._parameters: list[Tensor] = list(self.network.parameters())
        self._averages: list[Tensor] = [] if self._averaged is None else list(self._averaged.parameters())
        self.gradients = GradientStep(
            self.network,
            lambda output, gt: {"l_pix": self._pixel_loss(output, gt)},
            accumulation_steps=train.accumulation_steps,
            bfloat16=computes_in_bfloat16(autocast, device),
            channels_last=channels_last,
            compile=compile,
            cuda_graphs=cuda_graphs,
            cudnn_benchmark=cudnn_benchmark,
        )
        self.optimizer = build_optimizer(optim_g, self._parameters, "train:optim_g")
        self.scheduler = build_scheduler(scheduler, self.optimizer, train.total_iter, "train:scheduler")

    def optimize_parameters(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Take one step on LR crops (`lq`: N, 3, h, w) and their originals (`gt`); return the losses, detached.

        Raises:
            TrainingError: the memory of the GPU does not suffice for a single crop; or a loss is not finite, if losses are
                checked. The step is not taken then: all parameters are still those of the last one.
        """
        if not self.network.training:
            self.network.train()
        losses = self.gradients(batch["lq"], batch["gt"])
        if self._watch is not None:
            dist.average_tensors(list(losses.values()))  # all processes stop where one of them has to
            self._watch.start(losses)
            self._watch.require_finite(self.network, batch["lq"].to(self.device), self.remedy, gradients_follow=True)
        dist.average_gradients(self._parameters)
        if self._clip_grad_norm is not None:
            nn.utils.clip_grad_norm_(self._parameters, self._clip_grad_norm)
        self.optimizer.step()
        if self._averaged is not None:
            self._update_average()
        self.scheduler.step()
        return losses

    @torch.no_grad()
    def _update_average(self) -> None:
        steps = self.scheduler.last_epoch
        decay = min(self._ema_decay, (1 + steps) / (10 + steps))
        torch._foreach_lerp_(self._averages, self._parameters, 1 - decay)

    def network_for_evaluation(self) -> nn.Module:
        """Return the network to measure, in evaluation mode: the average of the weights where there is one."""
        return self.network.eval() if self._averaged is None else self._averaged

    def checkpoint(self) -> dict[str, dict[str, Tensor]]:
        """Return what a network file holds: `params`, and `params_ema` where an average is kept."""
        averaged = {} if self._averaged is None else {"params_ema": self._averaged.state_dict()}
        return {"params": self.network.state_dict(), **averaged}

    def training_state(self) -> dict[str, Any]:
        """Return the state of optimiser and schedule, and into how many parts batches are split by now."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "accumulation_steps": self.gradients.accumulation_steps,
        }

    def load(self, network_file: Path, state: Mapping[str, Any]) -> None:
        """Restore the networks and what `training_state` returned."""
        load_network_weights(self.network, load_weights_file(network_file, "params"), network_file)
        if self._averaged is not None:
            load_network_weights(self._averaged, load_weights_file(network_file, "params_ema"), network_file)
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.gradients.accumulation_steps = state["accumulation_steps"]
