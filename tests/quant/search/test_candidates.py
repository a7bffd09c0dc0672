"""Candidates, and the data's side."""

import numpy as np
import pytest
import torch

from basicsr.quant.search.candidates import bulk_side, shrinkages
from basicsr.quant.search.histogram import AlignedHistogram
from tests.quant.calibrators import oracle


def side_of(tensor: torch.Tensor) -> str:
    histogram = AlignedHistogram(2**16, torch.device("cpu"))
    histogram.cover(tensor.min().item(), tensor.max().item())
    histogram.add(tensor.flatten())
    return bulk_side(histogram)


SIDES = {"softmax": "lower", "gelu": "lower", "relu_sparse": "lower", "one_outlier": "lower"} | dict.fromkeys(
    ["gaussian", "long_tailed", "uniform", "far_from_zero", "integers"], "both"
)


@pytest.mark.parametrize(("kind", "side"), SIDES.items())
@pytest.mark.parametrize("factor", [1.0, 3e-7, 123.456])
def test_side_does_not_depend_on_scale(kind, side, factor):
    tensor = oracle.tensors()[kind] * factor
    assert side_of(tensor) == side
    assert side_of(-tensor) == {"lower": "upper"}.get(side, side)


def test_sides_of_the_reference_tensors(reference):
    arrays = np.load(reference / "dobi.npz")
    sides = {str(name): side_of(torch.from_numpy(arrays[f"x_{name}"])) for name in arrays["names"]}
    one_sided = {"softmax_rows", "gelu", "relu_sparse", "asymmetric"}
    assert sides == {name: "lower" if name in one_sided else "both" for name in sides}


def test_half_of_the_data_in_the_outer_quarter():
    assert side_of(torch.tensor([0.0, 1.0, 2.0, 8.0])) == "lower"
    assert side_of(torch.tensor([0.0, 1.9, 3.0, 8.0])) == "lower"
    assert side_of(torch.tensor([0.0, 2.0, 2.0, 8.0])) == "both"
    assert side_of(torch.tensor([0.0, 6.0, 6.0, 8.0])) == "both"
    assert side_of(torch.tensor([0.0, 7.0, 6.5, 8.0])) == "upper"


def test_shrinkages():
    assert shrinkages("symmetric", "lower", 2, "2K")[0].tolist() == [[0, 0], [0.25, 0.25]]
    assert shrinkages("one_sided", "both", 2, "2K")[0].tolist() == [[0, 0], [0, 0.25]]
    assert shrinkages("one_sided", "lower", 2, "K")[0].tolist() == [[0, 0], [0, 0.5]]
    assert shrinkages("one_sided", "upper", 2, "K")[0].tolist() == [[0, 0], [0.5, 0]]
    assert shrinkages("joint", "lower", 2, "K")[0].tolist() == [[0, 0], [0, 0.25], [0.25, 0], [0.25, 0.25]]


def test_names():
    names = [
        shrinkages(search, side, 3, "2K")[1] for search in ("auto", "one_sided") for side in ("both", "lower", "upper")
    ]
    assert names == ["symmetric", "one_sided", "one_sided_mirrored", "one_sided", "one_sided", "one_sided_mirrored"]
