"""How much the output of a network changes with each element of what its quantizers quantize."""

from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from basicsr.quant.insertion.insert import named_quantizers, quantizers_with_same_input
from basicsr.quant.observe.capture import bypass_quantizers


def squared_gradients(
    network: nn.Module, names: Collection[str], image: Tensor, generator: torch.Generator
) -> list[tuple[str, Tensor, Tensor]]:
    """Return the inputs x of quantizers in full precision, and for each element the squared derivative of the network's output by it.

    Small errors e of x change the output by J e, with the Jacobian J. If they are not correlated, the expected squared change is
    sum_i e_i**2 (J' J)_ii. The diagonal is E[(v' J)_i**2] over random signs v (Bekas et al. 2007, An estimator for the diagonal of a
    matrix), of which one draw is taken: whoever sums over many elements averages over draws, too. It is the Fisher diagonal of BRECQ
    (arXiv 2102.05426, eq. 10), for the squared error of the output as the loss.

    Args:
        network: a network with quantizers, all of which are bypassed meanwhile. Its parameters get no gradients.
        names: of quantizers. One that has followers, see `quantizers_with_same_input`, stands for them: the derivative is that by the
            input of all of them.
        image: (N, 3, h, w).
        generator: of the signs; on the CPU, so that they are the same on all devices.

    Returns:
        For each call of a quantizer its name, x and the squared derivatives, of equal shape and detached. Derivatives by what does not
        reach the output are 0.
    """
    leaders = quantizers_with_same_input(network)
    tapped = {n: leaders.get(n, n) for n, _ in named_quantizers(network) if leaders.get(n, n) in names}
    calls: dict[str, list[Tensor]] = {name: [] for name in tapped}
    quantizers = dict(named_quantizers(network))
    with torch.enable_grad(), bypass_quantizers(network), without_gradients(network), ExitStack() as hooks:
        for name in tapped:

            def tap(_module: nn.Module, arguments: tuple[Tensor], name: str = name) -> tuple[Tensor]:
                x = arguments[0]
                # a view: what leads to it from the inputs of earlier quantizers stays in the graph
                calls[name].append(x.view_as(x) if x.requires_grad else x.detach().requires_grad_())
                return (calls[name][-1],)

            hooks.callback(quantizers[name].register_forward_pre_hook(tap).remove)
        output = network(image)
        signs = torch.randint(0, 2, output.shape, generator=generator).to(output) * 2 - 1
        inputs = [x for name in tapped for x in calls[name]]
        reaches = bool(inputs) and output.requires_grad
        gradients = torch.autograd.grad(output, inputs, signs, allow_unused=True) if reaches else [None] * len(inputs)
    of_inputs = iter(gradients)
    total: dict[tuple[str, int], tuple[Tensor, Tensor]] = {}
    for name, leader in tapped.items():
        for number, x in enumerate(calls[name]):
            gradient = next(of_inputs)
            first, sum_before = total.get((leader, number), (x.detach(), torch.zeros_like(x)))
            total[leader, number] = first, sum_before if gradient is None else sum_before + gradient
    return [(name, x, gradient.square()) for (name, _), (x, gradient) in total.items()]


@contextmanager
def without_gradients(network: nn.Module) -> Iterator[None]:
    """Let the parameters of a network get no gradients."""
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
