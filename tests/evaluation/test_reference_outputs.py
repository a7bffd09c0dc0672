"""Outputs of the full-precision network that are kept between runs: the same figures, and nothing stale."""

import copy

import pytest
import torch

from basicsr.archs import build_network
from basicsr.evaluation.evaluator import Evaluator
from basicsr.utils.errors import CheckpointError
from basicsr.utils.options import ValOptions
from tests import tiny


class Pictures(list):
    name = "pictures"


@pytest.fixture
def networks():
    full_precision = build_network({"type": "EDSR", "upscale": 2, "img_range": 1.0, **tiny.NETWORKS["EDSR"]}).eval()
    other = copy.deepcopy(full_precision)
    with torch.no_grad():
        other.conv_first.weight.mul_(1.1)
    return full_precision, other


@pytest.fixture
def pictures():
    return Pictures({"name": str(i), "lq": torch.rand(3, 32, 34), "gt": torch.rand(3, 64, 68)} for i in range(2))


def evaluate(networks, pictures, **options):
    """Return the values of each image, and how many images went through the full-precision network, a probe apart."""
    full_precision, other = networks
    heights = []
    hook = full_precision.register_forward_pre_hook(lambda _, inputs: heights.append(inputs[0].shape[2]))
    result = Evaluator(ValOptions(**options), 2, full_precision).evaluate(other, pictures)
    hook.remove()
    return result.images, sum(height >= 32 for height in heights)


def test_a_second_run_does_without_the_full_precision_network(networks, pictures, tmp_path):
    expected = evaluate(networks, pictures)[0]
    first = evaluate(networks, pictures, reference_folder=str(tmp_path))
    second = evaluate(networks, pictures, reference_folder=str(tmp_path))
    assert first == (expected, 2) and second == (expected, 0)


def test_whatever_decides_the_output_is_noticed(networks, pictures, tmp_path):
    folder = str(tmp_path)
    evaluate(networks, pictures, reference_folder=folder)
    assert evaluate(networks, pictures, reference_folder=folder, self_ensemble=True)[1] > 0
    changed = Pictures({**picture, "lq": picture["lq"] / 2} for picture in pictures)
    assert evaluate(networks, changed, reference_folder=folder)[1] == 2
    networks[0].img_range = 2.0  # leaves no trace in the weights
    assert evaluate(networks, pictures, reference_folder=folder)[1] == 2
    networks[0].img_range = 1.0
    with torch.no_grad():
        networks[0].conv_last.bias.add_(0.01)
    assert evaluate(networks, pictures, reference_folder=folder)[1] == 2


def test_a_damaged_file_is_computed_again(networks, pictures, tmp_path, caplog):
    expected = evaluate(networks, pictures, reference_folder=str(tmp_path))[0]
    for file in tmp_path.iterdir():
        file.write_bytes(file.read_bytes()[:100])
    with caplog.at_level("WARNING", "basicsr"):
        assert evaluate(networks, pictures, reference_folder=str(tmp_path)) == (expected, 2)
    assert "cannot be read and is computed again" in caplog.text
    assert evaluate(networks, pictures, reference_folder=str(tmp_path)) == (expected, 0)


def test_a_folder_that_cannot_be_written(networks, pictures, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="Check the folder of val:reference_folder"):
        evaluate(networks, pictures, reference_folder=str(tmp_path / "file"))
