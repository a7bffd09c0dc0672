"""What several tests of deployment start from."""

from pathlib import Path

import pytest

from basicsr.deploy.packed_file import save_packed
from tests.deploy.networks import SWINIR, calibrated


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packed file of a small quantized SwinIR."""
    network, quantization_map = calibrated()
    path = tmp_path_factory.mktemp("packed") / "net.safetensors"
    save_packed(network, SWINIR, quantization_map, path)
    return path
