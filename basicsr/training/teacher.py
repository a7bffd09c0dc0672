"""The full-precision network as a teacher: its output and its features, without gradients."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from basicsr.archs.base import feature_layers_of
from basicsr.quant.observe.capture import tap_outputs
from basicsr.utils import hardware
from basicsr.utils.errors import OptionsError, suggestion

TeacherAutocast = Literal["auto", "bf16", "off"]


class Teacher:
    """Runs a frozen network for a student of the same architecture.

    Args:
        network: the full-precision network, frozen and in evaluation mode.
        feature_layers: modules whose outputs are the features.
        autocast: run in bfloat16: `auto` where the hardware is faster in it, `bf16` always, `off` never. Activations
            then carry 8 significant bits, which is coarser than the differences that an 8-bit student makes, so it is for
            4 bits and fewer.

    Raises:
        OptionsError: the network has no module of a name in `feature_layers`.
    """

    def __init__(self, network: nn.Module, feature_layers: Sequence[str], autocast: TeacherAutocast) -> None:
        names = dict(network.named_modules())
        for layer in feature_layers:
            if layer not in names:
                raise OptionsError(
                    f"Option 'train:feature_layers' names '{layer}', which the network has not. {suggestion(layer, names)}"
                )
        self._network = network
        self.feature_layers = list(feature_layers)
        self._device_type = next(network.parameters()).device.type
        self._autocast = computes_in_bfloat16(autocast, next(network.parameters()).device)

    @torch.no_grad()
    def __call__(self, lq: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the output for LR crops (N, 3, h, w) and the features by the name of their layer, in float32."""
        with (
            torch.autocast(self._device_type, torch.bfloat16, enabled=self._autocast),
            tap_outputs(self._network, self.feature_layers) as features,
        ):
            output = self._network(lq)
        return output.float(), {name: feature.float() for name, feature in features.items()}


def choose_feature_layers(network: nn.Module, named: Sequence[str] | None) -> list[str]:
    """Return the modules whose outputs a feature loss compares.

    Args:
        network: the full-precision network; its attribute `feature_layers`, if it has one, names them by default.
        named: names that the options give; None or empty for the default.

    Raises:
        OptionsError: neither names any.
    """
    layers = list(named or feature_layers_of(network))
    if not layers:
        raise OptionsError(
            f"Option 'train:feature_loss' compares features, but the network {type(network).__name__} does not say which: it has no "
            "attribute 'feature_layers'. Name modules with 'train:feature_layers', or do without with 'train:feature_loss=null'."
        )
    return layers


def computes_in_bfloat16(autocast: TeacherAutocast, device: torch.device) -> bool:
    """Whether `auto`, `bf16` or `off` means bfloat16 on a device."""
    return autocast == "bf16" or (autocast == "auto" and gains_from_bfloat16(device))


def gains_from_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies matrices faster in bfloat16 than in float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and hardware.gains_from_bfloat16()
