"""Files of tensors with metadata have the same bytes whenever they are written, and hold what was put into them."""

import safetensors
import torch
from safetensors.torch import load

from basicsr.utils.safetensors_bytes import to_safetensors

METADATA = {f"key {i}": "\u00fc" * i for i in range(9)}


def test_the_bytes_are_the_same_each_time_and_hold_everything(tmp_path):
    tensors = {"b": torch.arange(5, dtype=torch.uint8), "a": torch.rand(3, 2)}
    written = {to_safetensors(tensors, dict(sorted(METADATA.items(), reverse=i % 2 > 0))) for i in range(20)}
    assert len(written) == 1
    (content,) = written
    assert all(torch.equal(value, tensors[name]) for name, value in load(content).items())
    (tmp_path / "a.safetensors").write_bytes(content)
    with safetensors.safe_open(str(tmp_path / "a.safetensors"), framework="pt") as file:
        assert file.metadata() == METADATA and set(file.keys()) == set(tensors)
