"""Features that are joined again and again, as in dense blocks, are rounded once where all readers round alike."""

from collections.abc import Iterator
from typing import Any

from basicsr.deploy.graph_passes import is_number, rounding_after
from basicsr.utils.extras import require

_Chain = list[Any]
_Key = tuple[Any, ...]


def round_before_concat(model: Any) -> None:
    """Let features be rounded before they are joined, where all that read them, and what they are joined to, have one grid.

    The values are the same. Each feature is rounded once in place of once in every joined tensor, the convolution that makes it gives codes
    by itself, and codes are joined, a quarter of the bytes.

    Args:
        model: an `onnx_ir.Model`, changed in place.
    """
    for concats in _families(model.graph):
        joined = [concat.outputs[0] for concat in concats]
        sources = [value for concat in concats for value in concat.inputs if value not in joined]
        chains = [(value, chain) for value in joined for chain in _chains_on(value)]
        if len(chains) < 2 or len({_key(chain) for _, chain in chains}) > 1:
            continue
        _round_sources(concats, chains, sources)
        model.graph.sort()


def _families(graph: Any) -> list[list[Any]]:
    """Return the Concat nodes, each in a list with those that it joins to and that are joined to it, in their order in the graph."""
    family_of: dict[Any, list[Any]] = {}
    for node in graph:
        if node.op_type == "Concat":
            before = [value.producer() for value in node.inputs if value.producer() in family_of]
            family = family_of[before[0]] if before else []
            for other in before[1:]:
                if family_of[other] is not family:
                    return []  # joined from several sides: no dense block
            family.append(node)
            family_of[node] = family
    return list({id(family): family for family in family_of.values()}.values())


def _chains_on(value: Any) -> Iterator[_Chain]:
    """Yield the operators that round a value, for each that reads it and rounds."""
    for use in value.uses():
        chain = rounding_after(value, use.node)
        if chain:
            yield chain


def _key(chain: _Chain) -> _Key:
    """Return what is the same for chains that round alike."""
    key: list[Any] = []
    for node in chain:
        numbers = [other.const_value.numpy().tobytes() for other in node.inputs if is_number(other)]
        places = tuple(is_number(other) for other in node.inputs)
        key.append((node.op_type, places, tuple(numbers), tuple(sorted(map(str, node.attributes.values())))))
    return tuple(key)


def _round_sources(concats: list[Any], chains: list[tuple[Any, _Chain]], sources: list[Any]) -> None:
    """Join rounded features, and hand them to all that read rounded joined ones."""
    ir = require("onnx_ir")
    key, pattern = _key(chains[0][1]), chains[0]
    rounded: dict[Any, Any] = {}
    for source in sources:
        if source not in rounded:
            own = [chain for chain in _chains_on(source) if _key(chain) == key]
            rounded[source] = own[0][-1].outputs[0] if own else _copied(source, *pattern)
    for concat in concats:
        node = ir.Node("", "Concat", [rounded[value] for value in concat.inputs], concat.attributes.values())
        concat.append(node)
        rounded[concat.outputs[0]] = node.outputs[0]
    for value, chain in chains:
        chain[-1].outputs[0].replace_all_uses_with(rounded[value], replace_graph_outputs=True)
        concats[0].graph.remove(reversed(chain), safe=True)
    for concat in reversed(concats):
        if not concat.outputs[0].uses() and not concat.outputs[0].is_graph_output():
            concat.graph.remove(concat, safe=True)


def _copied(source: Any, value: Any, chain: _Chain) -> Any:
    """Return `source` rounded by a copy of a chain on `value`."""
    ir = require("onnx_ir")
    last = source
    for node in chain:
        inputs = [last if other is value else other for other in node.inputs]
        copy = ir.Node(node.domain, node.op_type, inputs, node.attributes.values())
        chain[-1].append(copy)
        value, last = node.outputs[0], copy.outputs[0]
    return last
