"""What quantizers add to the losses of a training."""

import torch
from torch import Tensor, nn

from basicsr.quant.insertion.insert import named_quantizers
from basicsr.quant.quantizers.base import Quantizer


def take_penalties(network: nn.Module) -> Tensor | None:
    """Return what the quantizers of a network add to the losses of its last forward pass, with its gradients; None for nothing."""
    penalties: dict[type[Quantizer], tuple[list[Tensor], list[Quantizer]]] = {}
    for _, quantizer in named_quantizers(network):
        penalty = quantizer.take_penalty()
        if penalty is not None:
            values, quantizers = penalties.setdefault(type(quantizer), ([], []))
            values.append(penalty)
            quantizers.append(quantizer)
    joined = [kind.join_penalties(*of_kind) for kind, of_kind in penalties.items()]
    return torch.stack(joined).sum() if joined else None


def note_step(network: nn.Module) -> None:
    """Tell the quantizers of a network that training has taken a step."""
    for _, quantizer in named_quantizers(network):
        quantizer.step_taken()
