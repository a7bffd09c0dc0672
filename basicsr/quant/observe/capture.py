"""Look into a network while it runs. Every context manager removes its hooks when it ends, also after an error."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from basicsr.quant.insertion.insert import named_quantizers, quantized_weights
from basicsr.quant.quantizers.base import Quantizer
from basicsr.quant.spec import MAX_BITS, QuantizationError
from basicsr.utils.errors import suggestion

COUNT_LIMIT = 2 * 2**MAX_BITS
"""`count_codes` stops telling values apart here: what it reports as this number is this many or more."""


@contextmanager
def bypass_quantizers(network: nn.Module, *, activations_only: bool = False) -> Iterator[None]:
    """Let the network compute in full precision: every quantizer returns its input.

    Args:
        network: a network with quantizers, or a part of one.
        activations_only: weights stay quantized.
    """
    weights = quantized_weights(network) if activations_only else {}
    quantizers = [quantizer for name, quantizer in named_quantizers(network) if name not in weights]
    before = [quantizer.bypass for quantizer in quantizers]
    for quantizer in quantizers:
        quantizer.bypass = True
    try:
        yield
    finally:
        for quantizer, bypass in zip(quantizers, before, strict=True):
            quantizer.bypass = bypass


@contextmanager
def drop_quantization(network: nn.Module, probability: float) -> Iterator[None]:
    """Let each element of an activation pass its quantizer as it is with a probability (QDrop, arXiv 2203.05740, section 4.3).

    Which elements do is drawn anew in every forward pass, from torch's global generator of the device.

    Args:
        network: a network with quantizers, or a part of one; those of weights are left alone.
        probability: 0 to 1; with 0 nothing is drawn.
    """
    weights = quantized_weights(network) if probability else {}
    with ExitStack() as hooks:
        for name, quantizer in named_quantizers(network) if probability else ():

            def mix(_module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
                return torch.where(torch.rand_like(output) < probability, inputs[0], output)

            if name not in weights:
                hooks.callback(quantizer.register_forward_hook(mix).remove)
        yield


@contextmanager
def observe_quantizer_inputs(network: nn.Module, callbacks: Mapping[str, Callable[[Tensor], None]]) -> Iterator[None]:
    """Hand the full-precision input of quantizers to callbacks while the network computes in full precision.

    Every quantizer is bypassed, the observed ones and the others, calibrated or not.

    Args:
        network: a network with quantizers.
        callbacks: by the full name of a quantizer; each is called in every forward pass with the tensor that the quantizer
            would quantize, detached. It must not change it.

    Raises:
        QuantizationError: there is no quantizer of that name.
    """
    quantizers = dict(named_quantizers(network))
    with bypass_quantizers(network), ExitStack() as hooks:
        for name, callback in callbacks.items():
            quantizer = _find(quantizers, name, "quantizer")

            def observe(
                _module: nn.Module, inputs: tuple[Tensor], callback: Callable[[Tensor], None] = callback
            ) -> None:
                callback(inputs[0].detach())

            hooks.callback(quantizer.register_forward_pre_hook(observe).remove)
        yield


@contextmanager
def tap_outputs(network: nn.Module, module_names: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Keep the outputs of modules, with their gradients, for losses on features.

    Args:
        network: any network.
        module_names: full names of modules.

    Yields:
        A dictionary that each forward pass fills anew, by module name. Outputs are not detached.

    Raises:
        QuantizationError: there is no module of that name.
    """
    modules = dict(network.named_modules())
    outputs: dict[str, Any] = {}
    with ExitStack() as hooks:
        for name in module_names:

            def keep(_module: nn.Module, _inputs: Any, output: Any, name: str = name) -> None:
                outputs[name] = output

            hooks.callback(_find(modules, name, "module").register_forward_hook(keep).remove)
        yield outputs


@contextmanager
def tap_activations(network: nn.Module) -> Iterator[dict[str, tuple[Tensor, Tensor]]]:
    """Keep what each activation quantizer gets and what it gives, with their gradients, for losses on both.

    Costs no memory in training: the backward pass of the network needs these tensors anyway.

    Args:
        network: a network with quantizers.

    Yields:
        A dictionary that each forward pass fills anew: input and output, of equal shape, by the full name of the quantizer.
    """
    pairs: dict[str, tuple[Tensor, Tensor]] = {}
    with ExitStack() as hooks:
        for name, quantizer in named_quantizers(network, "activation"):

            def keep(_module: nn.Module, inputs: tuple[Tensor], output: Tensor, name: str = name) -> None:
                pairs[name] = (inputs[0], output)

            hooks.callback(quantizer.register_forward_hook(keep).remove)
        yield pairs


@contextmanager
def observe_activations(network: nn.Module, callback: Callable[[str, Tensor, Tensor], None]) -> Iterator[None]:
    """Hand what each activation quantizer gets and gives to a callback, one by one, so that nothing is kept.

    Args:
        network: a network with quantizers.
        callback: gets the full name of the quantizer, its input and its output, of equal shape and detached.
    """
    with ExitStack() as hooks:
        for name, quantizer in named_quantizers(network, "activation"):

            def report(_module: nn.Module, inputs: tuple[Tensor], output: Tensor, name: str = name) -> None:
                callback(name, inputs[0].detach(), output.detach())

            hooks.callback(quantizer.register_forward_hook(report).remove)
        yield


@contextmanager
def count_quantized_elements(network: nn.Module, names: Iterable[str]) -> Iterator[dict[str, int]]:
    """Count the elements that quantizers are given.

    Args:
        network: a network with quantizers.
        names: full names of quantizers.

    Yields:
        The number of elements over all forward passes so far, by the full name of the quantizer.

    Raises:
        QuantizationError: there is no quantizer of that name.
    """
    quantizers = dict(named_quantizers(network))
    elements = dict.fromkeys(names, 0)
    with ExitStack() as hooks:
        for name in elements:

            def count(_module: nn.Module, inputs: tuple[Tensor], name: str = name) -> None:
                elements[name] += inputs[0].numel()

            hooks.callback(_find(quantizers, name, "quantizer").register_forward_pre_hook(count).remove)
        yield elements


@contextmanager
def count_codes(network: nn.Module) -> Iterator[dict[str, int]]:
    """Count the distinct values that each quantizer puts out, whatever codes it claims to have.

    Values accumulate over all forward passes in the context, except for a dynamic quantizer, whose values are counted in each
    sample apart. For a per-channel quantizer the channel with the most values counts. At most `COUNT_LIMIT` values are remembered for each quantizer.

    Yields:
        The number of distinct values so far, by the full name of the quantizer; at most 2**bits if all is well.
    """
    counts: dict[str, int] = {}
    with ExitStack() as hooks:
        for name, quantizer in named_quantizers(network):
            seen: dict[int, Tensor] = {}

            def count(
                module: Quantizer, _inputs: Any, output: Tensor, name: str = name, seen: dict[int, Tensor] = seen
            ) -> None:
                if module.dynamic:
                    counts[name] = max(
                        counts.get(name, 0), _most_distinct_in_a_sample(output, module.spec.channel_axis)
                    )
                    return
                for channel, values in enumerate(_channels(output.detach().float(), module.spec.channel_axis)):
                    seen[channel] = _merge_distinct(seen.get(channel), values)
                counts[name] = max(known.numel() for known in seen.values())

            hooks.callback(quantizer.register_forward_hook(count).remove)
        yield counts


@contextmanager
def observe_chosen_bits(network: nn.Module) -> Iterator[list[Tensor]]:
    """Keep the bits that quantizers with a choice take in each forward pass.

    Args:
        network: a network; where no quantizer chooses its bits, nothing is kept.

    Yields:
        One entry for each forward pass: the mean bits over these quantizers for each of the pass's pictures, float64 (N,), on the CPU.
    """
    means: list[Tensor] = []
    choosing = [q for _, q in named_quantizers(network) if hasattr(q, "chosen_bits")]

    def keep(_module: nn.Module, _inputs: Any, _output: Any) -> None:
        chosen = [q.chosen_bits for q in choosing if isinstance(q.chosen_bits, Tensor)]
        means.append(torch.stack(chosen).double().mean(dim=0).cpu())

    handle = network.register_forward_hook(keep) if choosing else None
    try:
        yield means
    finally:
        if handle is not None:
            handle.remove()


def _find(known: Mapping[str, nn.Module], name: str, kind: str) -> nn.Module:
    if name not in known:
        raise QuantizationError(f"The network has no {kind} '{name}'. {suggestion(name, known)}")
    return known[name]


def _channels(output: Tensor, channel_axis: int | None) -> Iterable[Tensor]:
    if channel_axis is None:
        return [output.flatten()]
    return output.movedim(channel_axis, 0).flatten(1).contiguous()  # C, all the rest


def _most_distinct_in_a_sample(output: Tensor, channel_axis: int | None) -> int:
    """Return the largest number of distinct values in a sample (index of axis 0), or in one of its channels."""
    samples = output.detach().float()
    if channel_axis is not None:
        samples = samples.movedim(channel_axis, 1).flatten(0, 1)  # samples * C, all the rest
    rows = samples.flatten(1)
    ordered = rows.sort(dim=1).values
    return int((ordered[:, 1:] != ordered[:, :-1]).sum(dim=1).max()) + 1


def _merge_distinct(known: Tensor | None, values: Tensor) -> Tensor:
    """Return the distinct numbers of `known` (sorted) and `values` together, sorted, at most `COUNT_LIMIT` of them."""
    if known is None:
        known = values[:: max(1, values.numel() // 4096)].unique()[:COUNT_LIMIT]
    if known.numel() == COUNT_LIMIT:
        return known
    # looking up the few known values is far cheaper than sorting the tensor; mostly nothing is left to sort
    nearest_above = torch.searchsorted(known, values).clamp_(max=known.numel() - 1)
    unknown = values[known[nearest_above] != values].unique()
    return torch.cat([known, unknown]).sort().values[:COUNT_LIMIT]
