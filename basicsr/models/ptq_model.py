"""Post-training quantization: bounds are calibrated, then distilled from the full-precision network."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import nn

from basicsr.models.optimizers import Positive, build_optimizer, build_scheduler
from basicsr.models.quantized_model import QuantizedModel
from basicsr.quant.capture import tap_outputs
from basicsr.quant.insertion import named_quantizers, quantized_weights, quantizer_parameters
from basicsr.utils import dist
from basicsr.utils.errors import OptionsError
from basicsr.utils.options import Component, Options
from basicsr.utils.registry import LOSS_REGISTRY, MODEL_REGISTRY
from basicsr.utils.signature import suggestion


@MODEL_REGISTRY.register()
class PTQModel(QuantizedModel):
    """A full-precision network and its quantized copy, which share the weights; only the bounds are trained.

    With the losses of 2DQuant (arXiv 2406.06649, section 3.3) training is its DQC stage: no HR image is used, the
    full-precision network is the teacher.

    Args:
        network: the full-precision network with its weights; frozen here.
        options: the options of the run, for coverage, bits, calibration and the length of training.
        device: where both networks live.
        optim_bound: optimiser of the bounds.
        activation_lr: learning rate of the bounds of activations, for networks that compute in 0..255, where these bounds are
            a thousand times those of weights; None for that of `optim_bound`.
        scheduler: its learning-rate schedule.
        pixel_loss: loss between the two outputs; None for none.
        feature_loss: loss between intermediate features; None for none.
        feature_layers: modules whose outputs are the features; by default those that the architecture names.
        teacher_autocast: run the teacher in bfloat16: `auto` where the hardware computes it natively, `bf16` always,
            `off` never. Activations then carry 8 significant bits, which is coarser than the differences that an 8-bit student
            makes, so it is for 4 bits and fewer.

    Raises:
        OptionsError: a component or a feature layer does not exist, or there is no loss.
        QuantizationError: the coverage does not fit the network.
    """

    def __init__(
        self,
        network: nn.Module,
        options: Options,
        device: torch.device,
        /,
        *,
        optim_bound: Component = {"type": "Adam", "lr": 1e-2},  # noqa: B006 -- never changed
        activation_lr: Positive | None = None,
        scheduler: Component = {"type": "CosineAnnealingLR"},  # noqa: B006
        pixel_loss: Component | None = {"type": "L1Loss"},  # noqa: B006
        feature_loss: Component | None = None,
        feature_layers: list[str] | None = None,
        teacher_autocast: Literal["auto", "bf16", "off"] = "off",
    ) -> None:
        super().__init__(network, options, device, share_weights=True)
        self.pixel_loss = LOSS_REGISTRY.build(pixel_loss, where="train:pixel_loss") if pixel_loss else None
        self.feature_loss = LOSS_REGISTRY.build(feature_loss, where="train:feature_loss") if feature_loss else None
        if self.pixel_loss is None and self.feature_loss is None:
            raise OptionsError("Options 'train:pixel_loss' and 'train:feature_loss' are both empty: give at least one.")
        self.feature_layers = (
            self._existing(feature_layers or list(network.feature_layers)) if self.feature_loss else []
        )
        self._teacher_autocast = teacher_autocast == "bf16" or (
            teacher_autocast == "auto" and has_native_bfloat16(device)
        )
        self.parameters = list(quantizer_parameters(self.network))
        train = options.train
        self.accumulation_steps = train.accumulation_steps if train else 1
        self.optimizer = build_optimizer(optim_bound, self._bounds(activation_lr), "train:optim_bound")
        self.scheduler = build_scheduler(scheduler, self.optimizer, train.total_iter if train else 0, "train:scheduler")

    def _bounds(self, activation_lr: float | None) -> list[nn.Parameter] | list[dict[str, Any]]:
        if activation_lr is None:
            return self.parameters
        weights = quantized_weights(self.network)
        of_weights, of_activations = [], []
        for name, quantizer in named_quantizers(self.network):
            (of_weights if name in weights else of_activations).extend(quantizer.parameters())
        return [{"params": of_weights}, {"params": of_activations, "lr": activation_lr}]

    def _existing(self, layers: list[str]) -> list[str]:
        names = dict(self.full_precision.named_modules())
        for layer in layers:
            if layer not in names:
                raise OptionsError(
                    f"Option 'train:feature_layers' names '{layer}', which the network has not. {suggestion(layer, names)}"
                )
        return layers

    def optimize_parameters(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Take one step of the optimiser on a batch of LR crops (`lq`: N, 3, h, w); return the losses, detached."""
        self.optimizer.zero_grad(set_to_none=True)
        parts = batch["lq"].to(self.device).chunk(self.accumulation_steps)
        sums: dict[str, torch.Tensor] = {}
        for part in parts:
            losses = self.distillation_losses(part)
            share = len(part) / len(batch["lq"])
            (sum(losses.values()) * share).backward()
            for name, loss in losses.items():
                sums[name] = sums.get(name, 0) + loss.detach() * share
        dist.average_gradients(self.parameters)
        self.optimizer.step()
        self.scheduler.step()
        return sums

    def distillation_losses(self, lq: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the losses of the quantized network against the full-precision one on LR crops (N, 3, h, w)."""
        with (
            torch.no_grad(),
            self._autocast(),
            tap_outputs(self.full_precision, self.feature_layers) as target_features,
        ):
            target = self.full_precision(lq)
        with tap_outputs(self.network, self.feature_layers) as features:
            output = self.network(lq)
        losses = {}
        if self.pixel_loss is not None:
            losses["l_pix"] = self.pixel_loss(output, target.float())
        if self.feature_loss is not None:
            losses["l_feature"] = self.feature_loss(features, {k: v.float() for k, v in target_features.items()})
        return losses

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, torch.bfloat16) if self._teacher_autocast else nullcontext()


def has_native_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 matrices natively; elsewhere it is emulated and slow."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", bool)())
