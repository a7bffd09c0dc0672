"""Quantized Swin layers computed by a kernel of this project, in PyTorch and in graphs for OpenVINO.

The kernel computes a layer window by window on the codes of its quantizers: norms, products in integers, softmax and GELU of 64 tokens
stay in the cache of the processor. It has no matter of the layer left out, so that the result is that of the trained network but for
codes that flip where sums are rounded.
"""

import copy
import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from basicsr.archs.swin_layers import SwinLayers
from basicsr.deploy.native_library import native_library
from basicsr.deploy.swin_parameters import BLOCK, SwinParameters, swin_parameters
from basicsr.quant.integers.operators import NAMESPACE
from basicsr.utils.errors import OptionsError

OPERATOR = "SwinLayer"
WINDOW = 8


class KernelSwinLayers(nn.Module):
    """`SwinLayers` computed by the kernel; takes and returns tokens (n, h * w, dim) in the order of the image.

    Args:
        layers: the parameters of each layer.
    """

    def __init__(self, layers: Sequence[SwinParameters]) -> None:
        super().__init__()
        self._sizes = [layer.sizes for layer in layers]
        for index, layer in enumerate(layers):
            self.register_buffer(f"numbers_{index}", layer.numbers)
            self.register_buffer(f"codes_{index}", layer.codes)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        x = x.unflatten(1, size)  # n, h, w, dim
        for index, sizes in enumerate(self._sizes):
            numbers, codes = self.get_buffer(f"numbers_{index}"), self.get_buffer(f"codes_{index}")
            x = swin_layer(x, numbers, codes, list(sizes))
        return x.flatten(1, 2)


def with_kernels(network: nn.Module) -> nn.Module:
    """Return a copy of a calibrated quantized network whose Swin layers the kernel computes, all but those that it has no form for.

    Without the library, see `native_library`, no layer is replaced.
    """
    network = copy.deepcopy(network).eval().requires_grad_(False)
    if native_library() is None:
        return network
    for name, module in list(network.named_modules()):
        if isinstance(module, SwinLayers):
            layers = [swin_parameters(block) for block in module.blocks]
            known = [layer for layer in layers if layer is not None]
            if len(known) == len(layers):
                parent, _, child = name.rpartition(".")
                setattr(network.get_submodule(parent), child, KernelSwinLayers(known))
    return network


@torch.library.custom_op(f"{NAMESPACE}::swin_layer", mutates_args=(), device_types="cpu")
def swin_layer(x: Tensor, numbers: Tensor, codes: Tensor, sizes: list[int]) -> Tensor:
    """Compute a layer on maps (n, h, w, dim), float32, h and w multiples of 8; see `SwinParameters` for the others."""
    x = x.contiguous()
    y = torch.empty_like(x)
    for source, result in zip(x, y, strict=True):
        pointers = Addresses(source.data_ptr(), result.data_ptr(), numbers.data_ptr(), codes.data_ptr())
        check_sizes(tuple(source.shape), sizes, numbers.numel(), codes.numel())
        run_kernel(pointers, tuple(source.shape), sizes, torch.get_num_threads())
    return y


@swin_layer.register_fake
def _(x: Tensor, numbers: Tensor, codes: Tensor, sizes: list[int]) -> Tensor:  # noqa: ARG001
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


class Addresses:
    """Where the kernel reads and writes.

    Args:
        x, y: the map and the result, float32.
        numbers, codes: of `SwinParameters`.
    """

    def __init__(self, x: int, y: int, numbers: int, codes: int) -> None:
        self.x, self.y, self.numbers, self.codes = (ctypes.c_void_p(place) for place in (x, y, numbers, codes))


def run_kernel(addresses: Addresses, shape: Sequence[int], sizes: Sequence[int], threads: int) -> None:
    """Run the kernel on a map of the shape (h, w, dim), all contiguous and of the sizes that `check_sizes` asks for."""
    library = native_library()
    if library is None:
        raise OptionsError("The network needs the project's own kernels, which cannot be used here. Load it again.")
    height, width, _ = shape
    library.basicsr_swin_layer(
        addresses.x, addresses.y, ctypes.c_int64(height), ctypes.c_int64(width), (ctypes.c_int64 * 4)(*sizes),
        addresses.numbers, addresses.codes, ctypes.c_int32(threads),
    )  # fmt: skip


def check_sizes(shape: Sequence[int], sizes: Sequence[int], numbers: int, codes: int) -> None:
    """Refuse what would make the kernel read or write beyond its memory.

    Args:
        shape: (h, w, dim) of the map.
        sizes: of `SwinParameters`.
        numbers: how many there are.
        codes: how many there are.

    Raises:
        OptionsError: something does not fit; says what.
    """
    if len(sizes) != 4 or min(sizes[:3]) < 1 or sizes[0] % sizes[2] or not 1 <= sizes[0] // sizes[2] < BLOCK // 2:
        raise OptionsError(f"A Swin layer cannot have the sizes {list(sizes)}. Export the network again.")
    if expected_lengths(sizes) != (numbers, codes):
        raise OptionsError(
            f"A Swin layer of the sizes {list(sizes)} has {expected_lengths(sizes)} numbers and codes, not {(numbers, codes)}. "
            "Export the network again."
        )
    if len(shape) != 3 or shape[2] != sizes[0] or min(shape) < 1 or shape[0] % WINDOW or shape[1] % WINDOW:
        raise OptionsError(
            f"A Swin layer of {sizes[0]} channels takes maps whose sides are multiples of {WINDOW}, not {tuple(shape)}."
        )


def expected_lengths(sizes: Sequence[int]) -> tuple[int, int]:
    """Return how many numbers and codes a layer of some sizes has."""
    dim, hidden, heads, _ = sizes
    inputs, hidden_inputs = (-(-channels // 4) * 4 for channels in (dim, hidden))
    width, hidden_width = (-(-channels // BLOCK) * BLOCK for channels in (dim, hidden))
    numbers = 25 * width + 5 * hidden_width + heads * BLOCK**2 + 26
    codes = 4 * inputs * width + inputs * hidden_width + hidden_inputs * width
    return numbers, codes
