"""The benchmark of memory by sizes of pictures: no size comes twice, and its table is of the command itself."""

import itertools

import pytest

from basicsr.utils.image import read_image
from tests import tiny

pytestmark = pytest.mark.slow


@pytest.fixture
def benchmark(load_benchmark):
    return load_benchmark("sizes")


def test_every_picture_has_another_size(benchmark, tmp_path):
    benchmark.write_pictures(tmp_path / "few", 3, 5, 8)
    benchmark.write_pictures(tmp_path / "all", 16, 5, 8)
    shapes = [read_image(file).shape[:2] for file in sorted((tmp_path / "all").iterdir())]
    assert sorted(shapes) == sorted(itertools.product(range(5, 9), repeat=2))
    for file in (tmp_path / "few").iterdir():
        assert file.read_bytes() == (tmp_path / "all" / file.name).read_bytes()


def test_the_table_is_of_the_command(benchmark, tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "NETWORK", tiny.save_network(tmp_path / "edsr.pth", 2, "EDSR"))
    monkeypatch.setattr(benchmark, "FOLDERS", ((12, 5, 9),))
    monkeypatch.setattr(benchmark, "RUNTIMES", ("torch",))
    *place, first, peak, difference = (cell.strip() for cell in benchmark.run().splitlines()[-1].split("|")[1:-1])
    assert place == ["12", "5 to 9", "torch"]
    assert 100 < int(first) < 2000 and abs(int(peak) - int(first) - int(difference)) <= 1
