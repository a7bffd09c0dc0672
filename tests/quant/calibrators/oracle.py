"""The exhaustive search in float64, and tensors of the kinds that quantizers meet."""

import numpy as np
import torch
import torch.nn.functional as F


def squared_error(values: np.ndarray, bits: int, lower: float, upper: float) -> float:
    """Sum of squared quantization errors with these bounds."""
    scale = (upper - lower) / (2**bits - 1)
    codes = np.rint((np.clip(values, lower, upper) - lower) / scale)
    return float(np.square(values - (codes * scale + lower)).sum())


def squared_errors(values: torch.Tensor, bits: int, shares: torch.Tensor, symmetric_bounds: bool = False) -> np.ndarray:
    """Errors of candidates that move the bounds inward by these shares (candidates, 2) of the range."""
    values = values.detach().double().flatten().numpy()
    lowest, highest = values.min(), values.max()
    if symmetric_bounds:
        highest = max(-lowest, highest)
        lowest = -highest
    extent = highest - lowest
    values = values - lowest  # the search is invariant to shifts; float64 resolves data far from zero better so
    return np.array([squared_error(values, bits, a * extent, extent - b * extent) for a, b in shares.tolist()])


def tensors(num_elements: int = 4096) -> dict[str, torch.Tensor]:
    """One tensor of each kind."""
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(num_elements, generator=generator)
    spread = torch.randn(num_elements, generator=generator).mul(0.5).exp()
    return {
        "gaussian": normal,
        "long_tailed": normal * spread,
        "uniform": torch.rand(num_elements, generator=generator) * 3 - 1,
        "softmax": (normal.view(-1, 64) * 2).softmax(dim=1),
        "gelu": F.gelu(normal),
        "relu_sparse": F.relu(normal - 0.8),
        "negative_only": -normal.abs() - 0.1,
        "far_from_zero": normal * 1e-4 + 1.5,
        "integers": normal.mul(40).round(),
        "huge_range": torch.cat([normal * 1e-30, normal[:50] * 1e30, torch.tensor([-1e-38, 0.0, 1e-45])]),
        "denormal": normal * 1e-41,
        "seven": torch.tensor([-0.9, 2.2, 0.31, 0.3, -0.2, 1.1, 0.31]),
        "two_neighbours": torch.tensor([1.5, 1.5 + 2.0**-23]),
        "one_outlier": torch.cat([normal, torch.tensor([300.0])]),
    }
