"""Whether the quantizers of a training run as compiled loops."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Literal

import torch

from basicsr.quant.kernels.fused import fused_quantizers
from basicsr.utils.compiling import NotCompiledError
from basicsr.utils.errors import OptionsError
from basicsr.utils.logger import get_logger

Fusing = bool | Literal["auto"]


@contextmanager
def compiled_quantizers(wanted: Fusing, device: torch.device) -> Iterator[None]:
    """Let quantizers on the CPU run as compiled loops within this block: `auto` where there is a C compiler, which takes a second.

    Raises:
        OptionsError: they are wanted for certain, and cannot be compiled.
    """
    with ExitStack() as loops:
        if wanted and device.type == "cpu":
            _enter(loops, wanted)
        yield


def _enter(loops: ExitStack, wanted: Fusing) -> None:
    try:
        loops.enter_context(fused_quantizers())
    except NotCompiledError as error:
        if wanted is True:
            raise OptionsError(
                f"Option 'train:fused_quantizers' is true, but the loops cannot be compiled. {error} Install a C compiler, or set it to auto."
            ) from error
        get_logger().info("Quantizers run as operators of torch, which takes a third longer. %s", error)
