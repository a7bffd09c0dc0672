"""docs/results/README.md: the committed one follows from the committed records, and from them alone."""

import dataclasses
import shutil

import pytest

from basicsr.sweep.overview import FOLDER, GRIDS, overview, read_sweeps
from basicsr.utils.errors import CheckpointError, OptionsError
from tests import tiny


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A folder with the grids and the results of the repository, to be changed."""
    folder = tmp_path_factory.mktemp("repository")
    for name in (GRIDS, FOLDER):
        shutil.copytree(tiny.ROOT / name, folder / name)
    for extra in (folder / FOLDER).iterdir():
        if extra.is_dir() and extra.name != "benchmarks":
            shutil.rmtree(extra)
    return folder


def test_the_committed_file_follows_from_the_committed_records():
    text = (tiny.ROOT / FOLDER / "README.md").read_text(encoding="utf-8")
    assert text == overview(read_sweeps()), "run python scripts/make_tables.py and commit docs/results/README.md"


def test_links_lead_to_files_of_the_repository():
    text = (tiny.ROOT / FOLDER / "README.md").read_text(encoding="utf-8")
    links = [part.split(")")[0] for part in text.split("](")[1:]]
    assert len(links) > 5
    for link in links:
        if link.startswith("#"):
            assert f"\n## {link[1:]}\n" in text
        else:
            assert (tiny.ROOT / FOLDER / link.split("#")[0]).exists(), link


def records_of(repository):
    return sorted((repository / FOLDER / "benchmarks/runs").glob("*.json"))


def test_records_are_in_the_order_of_the_grid(repository):
    (sweep,) = read_sweeps(repository)
    assert sweep.name == "benchmarks" and sweep.number == len(records_of(repository))
    edsr = [
        row for row in sweep.rows if row["arch"] == "EDSR-baseline" and row["scale"] == 4 and row["dataset"] == "Set5"
    ]
    assert [row["method"] for row in edsr[:4]] == ["FP", "MinMax", "Percentile", "DBDC+Pac"]
    assert [row["a_bits"] for row in edsr if row["method"] == "DOBI joint"] == [4, 3, 2]
    assert [row["method"] for row in sweep.rows[:2]] == ["Bicubic", "Bicubic"]  # on each of the test sets
    assert next(row for row in sweep.rows if row["arch"])["arch"] == "SwinIR-light"


def test_what_the_grid_has_no_more_is_left_out(repository):
    grid = repository / GRIDS / "benchmarks.yml"
    text = grid.read_text()
    grid.write_text(text.replace("bits: [4, 3, 2]", "bits: [4, 2]"))
    (sweep,) = read_sweeps(repository)
    grid.write_text(text)
    left = [file for file in records_of(repository) if not file.stem.endswith("_bit3")]
    assert 0 < sweep.number == len(left) < len(records_of(repository))
    assert all(row["a_bits"] != 3 for row in sweep.rows)


def test_the_text_has_what_a_reader_looks_for(repository):
    text = overview(read_sweeps(repository), repository)
    assert "    python scripts/sweep.py -grid options/sweep/benchmarks.yml --jobs 2\n" in text
    assert "    # Every method on the same networks, on Set5 and Set14, in one protocol:" in text  # head of the grid
    head = "| method | W/A | Set5 | change | Set14 | change | activations | iterations x batch |\n"
    assert f"### EDSR-baseline x4, benchmarks\n\n{head}" in text
    assert "![PSNR and fidelity against bits](benchmarks/Set5.svg)" in text
    assert "MinMax < DOBI one-sided < 2DQuant" in text and "](dobi_layers.md)" in text
    assert "## Searches of DOBI" in text and "## Points of DFSQ" in text


def test_nothing_is_compared_where_there_is_nothing_to_compare(repository):
    (sweep,) = read_sweeps(repository)
    rows = [row for row in sweep.rows if row["method"] not in ("DOBI symmetric", "DOBI joint", "DFSQ exact")]
    text = overview([dataclasses.replace(sweep, rows=rows)], repository)
    assert "## Searches of DOBI" not in text and "## Points of DFSQ" not in text


def test_records_without_a_grid_are_named(repository):
    folder = repository / FOLDER / "other"
    shutil.copytree(repository / FOLDER / "benchmarks", folder)
    with pytest.raises(OptionsError, match="docs/results/other/runs' belong to no grid"):
        read_sweeps(repository)
    shutil.rmtree(folder)


def test_a_damaged_record_is_named(repository):
    file = repository / FOLDER / "benchmarks/runs/Bicubic_x4.json"
    content = file.read_text()
    file.write_text("{")
    with pytest.raises(CheckpointError, match="Bicubic_x4.json"):
        read_sweeps(repository)
    file.write_text(content)
