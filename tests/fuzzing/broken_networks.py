"""Bytes of files with changes at random, and networks in files to put them into."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from basicsr.deploy.graph_metadata import GraphMetadata, add_metadata
from basicsr.deploy.packed_file import save_packed
from basicsr.deploy.packed_format import Description, parse_description, read_packed, write_packed
from basicsr.quant.spec import QuantizationError
from tests import tiny
from tests.deploy.networks import calibrated
from tests.fuzzing.schema_strategies import JUNK, places, with_value

OPTIONS = {"type": "EDSR", "upscale": 2, **tiny.NETWORKS["EDSR"]}
_HEAD = 700
"""Bytes at the start of a file that are changed as often as all the rest: there it says of itself what it is."""


def changes(length: int) -> st.SearchStrategy[list[tuple[int, int, bytes | None]]]:
    """Return changes of a file of this length for `changed`: places, how many bytes are left out, and what is put there."""
    at = st.integers(0, min(_HEAD, length)) | st.integers(0, length)
    pieces = st.tuples(at, st.integers(0, 40), st.binary(max_size=8))
    bits = st.tuples(at, st.integers(0, 7), st.none())
    cut = at.map(lambda start: (start, length, b""))
    return st.lists(pieces | bits | cut, min_size=1, max_size=3)


def changed(data: bytes, steps: list[tuple[int, int, bytes | None]]) -> bytes:
    """Return bytes with changes; one without bytes flips a bit."""
    for start, number, put in steps:
        if put is not None:
            data = data[:start] + put + data[start + number :]
        elif start < len(data):
            data = data[:start] + bytes([data[start] ^ 1 << number]) + data[start + 1 :]
    return data


def packed_network(file: Path) -> Path:
    """Write a packed network of tiny EDSR, whose output depends on what it is made of."""
    network, quantization_map = calibrated("body", 4, options=OPTIONS)
    save_packed(network, OPTIONS, quantization_map, file, method="random")
    return file


def lies_of(file: Path, lie: Path) -> tuple[st.SearchStrategy[Any], Callable[[Any], bool]]:
    """Return lies about a packed network, and a function that packs one of them with the right checksum.

    Args:
        file: the packed network.
        lie: where the function writes; it returns whether it could, for not every lie is a description.
    """
    tensors = read_packed(file)
    description = parse_description(tensors.pop("description")).model_dump()
    description["codes"], description["state"] = (list(map(list, description[key])) for key in ("codes", "state"))
    paths = places(description)

    def pack(change: Any) -> bool:
        index, value, name = change
        stored = {key: tensor[: len(tensor) // 2] if key == name else tensor for key, tensor in tensors.items()}
        try:
            said = Description.model_validate_json(json.dumps(with_value(description, paths[index], value)))
            said.map()
        except (ValueError, QuantizationError):  # this package cannot write such a file; its reader refuses it as well
            return False
        write_packed(lie, said, stored)
        return True

    return st.tuples(st.integers(0, len(paths) - 1), JUNK, st.sampled_from(["codes", "float32", ""])), pack


def graph_of(nodes: list[Any], inputs: list[Any]) -> Any:
    """Return an `onnx.ModelProto` that says of itself what those of this package say."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper

    shape = ["n", 3, "h", "w"]
    lr, sr = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("lr", "sr"))
    graph = helper.make_graph(nodes, "g", [lr], [sr], initializer=inputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    add_metadata(model, GraphMetadata(scale=2, size_multiple=1))
    onnx.checker.check_model(model)
    return model
