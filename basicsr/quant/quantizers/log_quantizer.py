"""Quantizer to powers of the root of 1/2, for softmax maps."""

import torch
from torch import Tensor, nn

from basicsr.quant.calibration import Bounds
from basicsr.quant.quantizers.base import Quantizer, require_per_tensor, require_symmetry
from basicsr.quant.spec import QuantizationError, QuantSpec
from basicsr.utils.registry import QUANTIZER_REGISTRY


@QUANTIZER_REGISTRY.register("LogSqrt2")
class LogSqrt2Quantizer(Quantizer[Bounds]):
    """Values s 2**(-c / 2) of the codes c = 0 .. 2**bits - 2, and 0 (RepQ-ViT, arXiv 2212.08254, section 3.3); for softmax maps.

    The code of x is round(-2 log2(x / s)), at least 0. From 2**bits - 1 on it stands for 0, as does all that is not above 0. So there are
    2**bits values; a zero beside 2**bits powers, as in the released code, would be one more. The parameter `scale`, float32 (), is s:
    the upper bound that calibration found. The range is static, but the grid is not uniform: graphs have a table of it, and it
    cannot be frozen or handed on.

    Args:
        spec: bits; neither symmetric nor per channel.

    Raises:
        QuantizationError: a symmetric or a per-channel quantizer is asked for.
    """

    takes = Bounds
    roles = ("activation",)
    own_calibrator = "LogScale"

    def __init__(self, spec: QuantSpec, num_channels: int | None = None, /) -> None:
        super().__init__(spec, num_channels)
        require_symmetry(spec, False, "LogSqrt2")
        require_per_tensor(spec, "LogSqrt2 has one scale for a tensor")
        self.scale = nn.Parameter(torch.tensor(1.0))

    def fake_quantize(self, x: Tensor) -> Tensor:
        """Return the values that the codes of `x` stand for; a gradient passes to `x` from 0 to the scale, and to the scale."""
        codes = self._codes(x)
        shares = torch.where(codes < self.spec.max_code, torch.exp2(-codes / 2), 0)  # of the scale
        clipped = x.float().clamp_min(0).minimum(self.scale.detach())
        return (self.scale * shares + (clipped - clipped.detach())).to(x.dtype)

    def codes(self, x: Tensor) -> Tensor:
        """Return the codes of `x`: uint8 from 0, the scale, to 2**bits - 1, which stands for 0, in the shape of `x`."""
        self.require_calibrated()
        return self._codes(x).to(torch.uint8)

    @torch.no_grad()
    def _codes(self, x: Tensor) -> Tensor:
        tiny = torch.finfo(torch.float32).tiny
        position = (x.float() / self.scale.clamp_min(tiny)).clamp_min_(tiny).log2_().mul_(-2)
        return position.round_().clamp_(0, self.spec.max_code)

    def uneven_points(self) -> Tensor:
        """Return 0 and the powers in ascending order, float32 (2**bits,)."""
        self.require_calibrated()
        powers = torch.exp2(-torch.arange(self.spec.max_code, device=self.scale.device) / 2)
        return torch.nn.functional.pad(self.scale.detach() * powers, (0, 1)).flip(0)

    @torch.no_grad()
    def parameter_units(self) -> dict[str, Tensor]:
        """Return the distance of the two largest values, the largest step."""
        return {"scale": self.scale * (1 - 0.5**0.5)}

    @torch.no_grad()
    def load_calibration(self, result: Bounds) -> None:
        """Take the upper bound for the scale.

        Raises:
            QuantizationError: it is not one finite number above 0.
        """
        scale = result.upper_bound.float()
        if scale.shape != () or not bool(scale.isfinite()) or float(scale) <= 0:
            raise QuantizationError(
                f"The upper bound {scale.tolist()} for the quantizer '{self.name}' cannot be its scale: that must be one finite number "
                "above 0. LogSqrt2 is for softmax maps and other values that are not negative."
            )
        self.scale.copy_(scale)
        self.mark_calibrated()
