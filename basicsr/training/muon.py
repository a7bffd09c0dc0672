"""Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon): steps whose directions all have the same length."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic iteration, from the same source
_ITERATIONS = 5
# of a usual step of Adam, as a share of its learning rate (Liu et al. 2025, arXiv 2502.16982, equation 4)
_RMS_OF_ADAM = 0.2


class Muon(torch.optim.Optimizer):
    """Muon for weights of two dimensions or more, Adam for all others, such as biases and bounds of channels.

    The weight of a convolution is taken as a matrix with a row for each output channel; one row or column alone is none.
    Its average gradient U S V^T becomes about U V^T, so that a step goes as far along a rare direction as along a frequent one.
    The step is scaled to the size of one of Adam, so that a learning rate of Adam is a good start. Muon of torch takes matrices
    alone, and exists from 2.9 on.

    Args:
        params: parameters, or groups of them.
        lr: learning rate.
        momentum: of the average of gradients; the step looks one iteration ahead (Nesterov).
        betas: of Adam.
        eps: added to the denominator of Adam.

    Raises:
        ValueError: a value is out of its range.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        if lr < 0 or eps < 0:
            raise ValueError(f"Muon has lr={lr} and eps={eps}. Neither may be negative")
        if not all(0 <= share < 1 for share in (momentum, *betas)):
            raise ValueError(f"Muon has momentum={momentum} and betas={betas}. Choose them from 0 to below 1")
        super().__init__(params, {"lr": lr, "momentum": momentum, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Take one step with the gradients that there are; return what `closure` does, if it is given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                gradient = parameter.grad
                if gradient is not None:
                    step = self._of_matrix if _is_matrix(parameter) else self._of_adam
                    parameter.sub_(step(gradient, self.state[parameter], group), alpha=group["lr"])
        return loss

    @staticmethod
    def _of_matrix(gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
        if not state:
            state.update(average=torch.zeros_like(gradient))
        average = state["average"].lerp_(gradient, 1 - group["momentum"])
        ahead = torch.lerp(gradient, average, group["momentum"]).flatten(1)
        return orthogonal(ahead).mul_(_RMS_OF_ADAM * max(ahead.shape) ** 0.5).reshape(gradient.shape)

    @staticmethod
    def _of_adam(gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
        if not state:
            state.update(step=0, average=torch.zeros_like(gradient), square=torch.zeros_like(gradient))
        first, second = group["betas"]
        state["step"] += 1
        average = state["average"].lerp_(gradient, 1 - first) / (1 - first ** state["step"])
        square = state["square"].mul_(second).addcmul_(gradient, gradient, value=1 - second)
        return average / (square / (1 - second ** state["step"])).sqrt_().add_(group["eps"])


def _is_matrix(parameter: Tensor) -> bool:
    return parameter.ndim > 1 and 1 < parameter.shape[0] < parameter.numel()


def orthogonal(matrix: Tensor) -> Tensor:
    """Return about U V^T of the matrix U S V^T (rows, columns): its singular values are between 0.7 and 1.2.

    Values that are below a hundredth of the matrix' norm may stay lower. Zeros stay zeros.
    """
    a, b, c = _COEFFICIENTS
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    wide = wide / wide.norm().clamp_min(torch.finfo(wide.dtype).tiny)
    for _ in range(_ITERATIONS):
        squares = wide @ wide.T
        wide = a * wide + (b * squares + c * squares @ squares) @ wide
    return wide if matrix.shape[0] <= matrix.shape[1] else wide.T
