"""Outputs of the full-precision network, which every evaluation of a quantized one compares with."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from basicsr.evaluation.inference import device_of
from basicsr.utils.errors import CheckpointError, explained
from basicsr.utils.files import atomic_path
from basicsr.utils.logger import get_logger
from basicsr.utils.options import ValOptions

_MEMORY_BYTES = 1 << 30
_PROBE_SIDE = 24
_WHAT_DECIDES = ("pad", "tile", "tile_overlap", "self_ensemble")


class ReferenceOutputs:
    """Keeps outputs for later evaluations: up to 1 GiB in memory, and in `val:reference_folder` for later runs.

    A file there is found by a digest of the network, the image, the way the image goes through the network, the device and the
    version of torch, so that nothing stale is ever read. Files are never deleted.

    Args:
        network: the full-precision network.
        options: names the folder, if there is one.
    """

    def __init__(self, network: nn.Module, options: ValOptions) -> None:
        self._network, self._options = network, options
        self._folder = None if options.reference_folder is None else Path(options.reference_folder)
        self._in_memory: dict[tuple[str, str], Tensor] = {}
        self._bytes = 0
        self._common: bytes | None = None

    def find(self, dataset: str, names: Sequence[str], lq: Tensor) -> list[Tensor] | None:
        """Return the outputs (3, scale h, scale w) for images (N, 3, h, w), or None unless all are there."""
        found = [self._find(dataset, name, image) for name, image in zip(names, lq, strict=True)]
        outputs = [output for output in found if output is not None]
        return outputs if len(outputs) == len(found) else None

    def keep(self, dataset: str, names: Sequence[str], lq: Tensor, outputs: Tensor) -> None:
        """Keep the outputs (N, 3, scale h, scale w) of images (N, 3, h, w).

        Raises:
            CheckpointError: the folder cannot be written.
        """
        for name, image, output in zip(names, lq, outputs, strict=True):
            self._remember(dataset, name, output)
            if self._folder is not None:
                self._write(self._file(self._folder, image), output)

    def _find(self, dataset: str, name: str, image: Tensor) -> Tensor | None:
        known = self._in_memory.get((dataset, name))
        if known is not None or self._folder is None:
            return known
        file = self._file(self._folder, image)
        if not file.is_file():
            return None
        try:
            output = torch.from_numpy(np.load(file))
        except (OSError, ValueError, EOFError) as error:
            get_logger().warning("The output '%s' cannot be read and is computed again: %s", file, error)
            return None
        self._remember(dataset, name, output)
        return output

    def _remember(self, dataset: str, name: str, output: Tensor) -> None:
        size = output.numel() * output.element_size()
        if (dataset, name) not in self._in_memory and self._bytes + size <= _MEMORY_BYTES:
            self._in_memory[dataset, name] = output.clone()
            self._bytes += size

    def _write(self, file: Path, output: Tensor) -> None:
        remedy = "Check the folder of val:reference_folder and the space left."
        with (
            explained(CheckpointError, f"The output '{file}' cannot be written", remedy),
            atomic_path(file) as temporary,
        ):
            np.save(temporary, output.numpy())

    def _file(self, folder: Path, image: Tensor) -> Path:
        if self._common is None:
            self._common = self._digest_of_network()
        digest = hashlib.sha256(self._common)
        digest.update(repr(tuple(image.shape)).encode())
        digest.update(image.contiguous().numpy().tobytes())
        return folder / f"{digest.hexdigest()[:32]}.npy"

    def _digest_of_network(self) -> bytes:
        protocol = [getattr(self._options, key) for key in _WHAT_DECIDES]
        digest = hashlib.sha256(repr((torch.__version__, device_of(self._network).type, protocol)).encode())
        for tensor in (*self._network.state_dict().values(), self._answer_to_a_probe()):
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.digest()

    @torch.no_grad()
    def _answer_to_a_probe(self) -> Tensor:
        """Return the output for a small image, which also depends on what leaves no trace in the weights, such as `img_range`."""
        image = torch.linspace(0, 1, 3 * _PROBE_SIDE**2).view(1, 3, _PROBE_SIDE, _PROBE_SIDE)
        return self._network(image.to(device_of(self._network)))
