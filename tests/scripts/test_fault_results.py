"""What a campaign compares: values, whatever their times and the bytes of the files that were read."""

import json

import onnx
import pytest
import torch

from basicsr.deploy.graph_metadata import GraphMetadata, add_metadata, sealed
from faults.results import contents, difference, half_written


def folder(place, seconds=1.0, file_sha256="a", psnr=30.0, weight=0.5):
    place.mkdir()
    torch.save({"params": {"weight": torch.full((2,), weight)}}, place / "net.pth")
    (place / "metrics.jsonl").write_text(json.dumps({"psnr": psnr, "seconds": seconds}))
    (place / "calibration_set.json").write_text(json.dumps({"sha256": "p", "file_sha256": file_sha256}))
    (place / "run.log").write_text(str(seconds))
    return contents(place)


@pytest.mark.parametrize("change", [{"seconds": 2.0}, {"file_sha256": "b"}])
def test_times_and_bytes_of_files_that_were_read_are_no_results(tmp_path, change):
    assert difference(folder(tmp_path / "one"), folder(tmp_path / "two", **change)) is None


@pytest.mark.parametrize(("change", "file"), [({"psnr": 30.01}, "metrics.jsonl"), ({"weight": 0.25}, "net.pth")])
def test_values_are(tmp_path, change, file):
    found = folder(tmp_path / "two", **change)
    assert difference(folder(tmp_path / "one"), found) == f"other bits: {file}"
    (tmp_path / "two" / file).unlink()
    assert difference(folder(tmp_path / "three"), contents(tmp_path / "two")) == f"missing: {file}"


@pytest.mark.parametrize(
    ("file", "told"), [("net.pth", True), ("calibration_set.json", True), ("metrics.jsonl", False), ("run.log", False)]
)
def test_files_that_are_half_written_are_named_but_those_that_lines_are_added_to(tmp_path, file, told):
    folder(tmp_path / "run", seconds=1.25)
    assert half_written(tmp_path) is None
    whole = (tmp_path / "run" / file).read_bytes()
    (tmp_path / "run" / f".tmp-0{file}").write_bytes(whole[: len(whole) // 2])
    assert half_written(tmp_path) is None
    (tmp_path / "run" / file).write_bytes(whole[: len(whole) // 2])
    said = half_written(tmp_path)
    assert said.startswith(f"half written: run/{file}: ") if told else said is None


@pytest.mark.parametrize("kept", [0, 40, -1])
def test_graphs_that_are_half_written_are_named(tmp_path, kept):
    lr, sr = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in ("lr", "sr"))
    graph = onnx.helper.make_model(onnx.helper.make_graph([], "network", [lr], [sr]))
    add_metadata(graph, GraphMetadata(2, 1))
    file = tmp_path / "network.onnx"
    file.write_bytes(sealed(graph))
    assert half_written(tmp_path) is None
    file.write_bytes(file.read_bytes()[:kept])
    assert half_written(tmp_path).startswith("half written: network.onnx: ")
