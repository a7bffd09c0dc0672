"""The small network that adapts the bounds of DDTB to a sample."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from basicsr.quant.ops.functional import MINIMAL_WIDTH, fake_quantize
from basicsr.quant.ops.step_functional import straight_through
from basicsr.quant.spec import QuantizationError, QuantSpec


class RangeGate(nn.Module):
    """Two factors from 0 to 2 for each sample: 2 sigmoid(W2 relu(batch_norm(W1 mean(x)))) (DDTB, arXiv 2203.03844).

    W2 starts at 0, so that both factors start at 1, or at random, as in the released code, which pulls the factors to 1 before it lets
    them act. Both layers have quantized inputs and weights: inputs between the smallest and largest value of a sample
    (of the batch in the released code, which makes the output of a picture depend on its neighbours), weights in whole
    multiples of their largest magnitude. All of it is trained; in the released code the inner quantizer stops the gradient at W2.

    Args:
        channels: number of channels of x.
        hidden: number of channels in between.
        bits: of inputs and weights; None for full precision.
        starts_at_one: W2 starts at 0, otherwise at random.
    """

    def __init__(self, channels: int, hidden: int, bits: int | None, *, starts_at_one: bool = True) -> None:
        super().__init__()
        if bits is not None:
            QuantSpec(bits)  # refuses bits out of range
        self._bits = bits
        self.squeeze = nn.Linear(channels, hidden, bias=False)
        self.norm = nn.BatchNorm1d(hidden)
        self.excite = nn.Linear(hidden, 2, bias=False)
        if starts_at_one:
            nn.init.zeros_(self.excite.weight)

    def forward(self, means: Tensor) -> Tensor:
        """Return the factors (N, 2), for the upper and the lower bound, from the means of the channels (N, channels)."""
        return 2 * torch.sigmoid(self.logits(means))

    def logits(self, means: Tensor) -> Tensor:
        """Return what the sigmoid is taken of, (N, 2); 0 stands for the factor 1.

        Raises:
            QuantizationError: training with a single sample, which has no statistics.
        """
        if self.training and len(means) == 1:
            raise QuantizationError(
                "The gates of DDTB normalise over the samples of a batch and cannot be trained with a single one: raise "
                "'train:batch_size', or lower 'train:accumulation_steps' or the number of processes."
            )
        hidden = F.relu(self.norm(F.linear(self._quantized_input(means), self._quantized_weight(self.squeeze.weight))))
        return F.linear(self._quantized_input(hidden), self._quantized_weight(self.excite.weight))

    def _quantized_input(self, x: Tensor) -> Tensor:
        if self._bits is None:
            return x
        lower, upper = x.detach().aminmax(dim=1)  # N
        return fake_quantize(x, lower, upper, self._bits, 0)

    def _quantized_weight(self, weight: Tensor) -> Tensor:
        if self._bits is None:
            return weight
        step = weight.detach().abs().amax().clamp_min(MINIMAL_WIDTH) / (2 ** (self._bits - 1) - 1)
        return straight_through(weight, (weight.detach() / step).round() * step)
