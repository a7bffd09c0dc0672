"""Which blocks of a quantized network are reconstructed, and in which order the network runs them."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from basicsr.archs.base import reconstruction_blocks_of
from basicsr.quant.insertion.insert import named_quantizers, quantized_weights
from basicsr.quant.modules.base import QModule
from basicsr.quant.observe.module_calls import ModuleCall, observe_calls
from basicsr.quant.quantizers.adaround_quantizer import AdaRoundQuantizer
from basicsr.quant.quantizers.base import Quantizer
from basicsr.quant.spec import QuantizationError
from basicsr.utils.errors import OptionsError, suggestion


def choose_blocks(network: nn.Module, names: Sequence[str] | None) -> list[str]:
    """Return the names of the blocks to reconstruct.

    Args:
        network: a quantized network.
        names: blocks to reconstruct, and no others; None for those that the architecture names as `reconstruction_blocks` and that
            hold quantizers, and each quantized layer outside of all of them as a block of its own.

    Raises:
        OptionsError: a name does not exist, is given twice or is a part of another one, or a block has no quantizer.
    """
    modules = dict(network.named_modules())
    quantized = [name for name, module in modules.items() if isinstance(module, QModule)]
    if names is None:
        blocks = [n for n in reconstruction_blocks_of(network) if any(_within(layer, n) for layer in quantized)]
        return blocks + [layer for layer in quantized if not any(_within(layer, block) for block in blocks)]
    for position, name in enumerate(names):
        if name not in modules:
            raise OptionsError(
                f"Option 'train:blocks' names '{name}', which the network has not. {suggestion(name, modules)}"
            )
        if not any(_within(layer, name) for layer in quantized):
            raise OptionsError(
                f"Option 'train:blocks' names '{name}', which has no quantizers. Name another block, or another coverage."
            )
        for other in names[:position]:
            if _within(name, other) or _within(other, name):
                raise OptionsError(
                    f"Option 'train:blocks' names '{other}' and '{name}', which share layers. Remove one of them."
                )
    return list(names)


def check_norms_inside(network: nn.Module, blocks: Sequence[str]) -> None:
    """Raise an OptionsError for a block that may begin between a folded norm and the layers behind it: linear layers without any norm.

    What it gets in the full-precision network would not be what it gets behind the folded norm.
    """
    if not _holds_norm(network):
        return
    for name in blocks:
        block = network.get_submodule(name)
        linear = any(w.dim() == 2 for w in quantized_weights(block).values())
        if linear and not _holds_norm(block):
            raise OptionsError(
                f"The block '{name}' holds no LayerNorm and would get inputs of the full-precision network, but with "
                "'calibration:fold_norms' its norm stands before it and is changed. Set 'calibration:fold_norms' to 0, or 'train:blocks' to "
                "blocks that hold their norms."
            )


def _holds_norm(module: nn.Module) -> bool:
    return any(isinstance(part, nn.LayerNorm) for part in module.modules())


def check_learnable(network: nn.Module, blocks: Sequence[str]) -> None:
    """Raise an OptionsError if the rounding of a weight in one of the blocks cannot be learned, what an activation quantizer
    learns has no quantization step to move by, or a block has nothing to learn.
    """
    weights = quantized_weights(network)
    for block in blocks:
        inside = {name: quantizer for name, quantizer in named_quantizers(network) if _within(name, block)}
        for name, quantizer in inside.items():
            if name not in weights:
                _require_units(quantizer)
            elif not isinstance(quantizer, AdaRoundQuantizer):
                raise OptionsError(
                    f"The weight quantizer '{name}' is a {type(quantizer).__name__}, whose rounding cannot be learned. Choose "
                    "'quantization:weight_quantizer' {type: AdaRound}."
                )
        if not any(name in weights or list(quantizer.parameters()) for name, quantizer in inside.items()):
            raise OptionsError(f"The block '{block}' has no weight and no bound that could be learned. Leave it out.")


@torch.no_grad()
def trial_calls(network: nn.Module, blocks: Sequence[str], crop: Tensor) -> dict[str, ModuleCall]:
    """Return how a network calls its blocks for one crop (1, 3, h, w), in the order of execution.

    Raises:
        OptionsError: it does not call a block exactly once.
    """
    calls: dict[str, ModuleCall] = {}
    counts = dict.fromkeys(blocks, 0)

    def keep(name: str, call: ModuleCall) -> None:
        counts[name] += 1
        calls[name] = call

    with observe_calls(network, blocks, keep):
        network(crop)
    for name, count in counts.items():
        if count != 1:
            raise OptionsError(
                f"The block '{name}' runs {count} times in a pass of the network, but must run once. Choose other blocks with "
                "'train:blocks'."
            )
    return calls


def _require_units(quantizer: Quantizer) -> None:
    try:
        quantizer.parameter_units()
    except QuantizationError as error:
        raise OptionsError(
            f"{error} Blocks learn bounds at rates that are shares of such a step: choose another 'quantization:activation_quantizer'."
        ) from error


def _within(name: str, block: str) -> bool:
    return name == block or name.startswith(f"{block}.")
