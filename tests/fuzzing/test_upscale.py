"""upscale.py with damaged networks: the right picture, or one sentence and no picture."""

import time

import cv2
import numpy as np
import pytest

from basicsr import upscale
from basicsr.deploy.onnx_export import save_onnx
from tests.deploy.networks import calibrated
from tests.fuzzing.broken_networks import OPTIONS, changed, changes, lies_of, packed_network
from tests.memory import at_most

pytestmark = pytest.mark.slow
SIDE, SCALE = 8, OPTIONS["upscale"]
LONGEST = 4000
MOST_SECONDS = 60
MOST_MEMORY = 2  # GiB


class Enlarger:
    """Enlarges one small picture by `upscale.main` and looks at what it says.

    Args:
        folder: for files.
        capfd: of pytest.
        suffix: of the network's file.
        runtime: what runs it.
    """

    def __init__(self, folder, capfd, suffix, runtime="torch"):
        self.network, self._picture, self._capfd = folder / f"a{suffix}", folder / "p.png", capfd
        self._result = folder / f"out/p_x{SCALE}.png"
        pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        cv2.imwrite(str(self._picture), pixels)
        self._arguments = ["-i", str(self._picture), "-o", str(folder / "out"), "--model", str(self.network)]
        self._arguments += ["--runtime", runtime, "--device", "cpu"]

    def picture_of(self, data, *, codes=(0, 2)):
        """Return the picture that a network of these bytes makes; None where a sentence tells why there is none."""
        self.network.write_bytes(data)
        self._result.unlink(missing_ok=True)
        self._capfd.readouterr()
        started = time.monotonic()
        code = upscale.main(self._arguments)
        said = self._capfd.readouterr().err
        assert time.monotonic() - started < MOST_SECONDS
        assert code in codes and "Traceback" not in said, f"{code}: {said}"
        assert self._result.is_file() == (code == 0)
        if code == 0:
            assert "ERROR" not in said
            return cv2.imread(str(self._result))
        assert said.count(" ERROR: ") == 1 and said.rstrip()[-1] in ".?!'\"", said
        assert 40 < len(said.partition(" ERROR: ")[2]) < LONGEST, said
        return None


@pytest.fixture
def memory():
    """Fail where a test takes more memory than its few kilobytes of network explain."""
    with at_most(MOST_MEMORY):
        yield


def damage(fuzz, enlarger, whole):
    """Hand changed bytes of a network to `upscale.main`, which must not take them for another network."""
    right = enlarger.picture_of(whole)
    assert right.shape == (SCALE * SIDE, SCALE * SIDE, 3) and right.std() > 1
    outcomes = []

    def check(steps):
        picture = enlarger.picture_of(changed(whole, steps))
        outcomes.append(picture is not None)
        if picture is not None:
            np.testing.assert_array_equal(picture, right)

    fuzz(changes(len(whole)), check)
    assert not all(outcomes)


def test_packed_networks_whose_bytes_were_changed(fuzz, memory, tmp_path, capfd):
    whole = packed_network(tmp_path / "whole.safetensors").read_bytes()
    damage(fuzz, Enlarger(tmp_path, capfd, ".safetensors"), whole)


def test_packed_networks_that_lie(fuzz, memory, tmp_path, capfd, recwarn):
    """Their checksum is right, so that they are taken where they are a network at all; torch is asked nothing that it warns of."""
    enlarger = Enlarger(tmp_path, capfd, ".safetensors")
    lies, packed = lies_of(packed_network(tmp_path / "whole.safetensors"), tmp_path / "lie.safetensors")
    outcomes = []

    def check(lie):
        if packed(lie):
            picture = enlarger.picture_of((tmp_path / "lie.safetensors").read_bytes(), codes=(0, 2, 3))
            outcomes.append(picture is not None)
            assert picture is None or picture.shape[0] % SIDE == 0

    fuzz(lies, check)
    assert any(outcomes) and not all(outcomes) and not list(recwarn)


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    for package in ("onnx", "onnxscript"):
        pytest.importorskip(package)
    file = tmp_path_factory.mktemp("graph") / "whole.onnx"
    save_onnx(calibrated("body", 4, options=OPTIONS)[0], file)
    return file.read_bytes()


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_graphs_whose_bytes_were_changed(runtime, graph, fuzz, memory, tmp_path, capfd):
    """Without a checksum both runtimes make other pictures of many of them, and OpenVINO ends the process at some."""
    pytest.importorskip(runtime)
    damage(fuzz, Enlarger(tmp_path, capfd, ".onnx", runtime), graph)
