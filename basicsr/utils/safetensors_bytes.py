"""Files of tensors with the same bytes each time: the library writes the metadata of a file in an order that differs from call to call."""

import json
from collections.abc import Mapping

from safetensors.torch import save
from torch import Tensor

_LENGTH, _ALIGNMENT = 8, 8
"""Bytes of the number before the header, and of what the tensors start at a multiple of."""


def to_safetensors(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Return a `.safetensors` file, in which the names of the metadata are sorted.

    Args:
        tensors: contiguous tensors of the CPU that share no memory.
        metadata: text for readers.

    Raises:
        ValueError: two tensors share memory, or one is not contiguous.
    """
    content = save(dict(tensors), metadata=dict(metadata))
    end = _LENGTH + int.from_bytes(content[:_LENGTH], "little")
    header = json.loads(content[_LENGTH:end])
    header["__metadata__"] = dict(sorted(metadata.items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(_LENGTH, "little") + text + content[end:]
