"""Options made at random: by the schema that editors read, and from these, others that are wrong somewhere."""

import copy
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

_DEEPEST = 6
_TEXTS = st.sampled_from(["x", "*", "body.*", "psnr", "datasets/demo/val/HR", "4", "1e-3", "", "ü", "a b"])
JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**30), 10**30),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["{", "{recipe}", "{x", "}", "{0.__class__}", "\0", "!!python/name:os.system", "../..", "on", "0x1", "~", "NaN"]),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=4), st.integers(), max_size=2),
    st.recursive(st.none(), lambda inner: st.lists(inner, min_size=1, max_size=1), max_leaves=30),
)  # fmt: skip
"""What nobody means to write."""


class Schema:
    """A JSON schema as a source of values that it allows.

    Args:
        schema: of a whole file.
    """

    def __init__(self, schema: dict[str, Any]) -> None:
        self._definitions = schema.get("$defs", {})
        self._schema = schema

    def section(self, name: str) -> SearchStrategy[Any]:
        """Return a strategy for the values of a section."""
        return self.values(self._schema["properties"][name], _DEEPEST)

    def definition(self, name: str) -> SearchStrategy[Any]:
        """Return a strategy for what the schema defines under a name."""
        return self.values(self._definitions[name], _DEEPEST - 1)

    def values(self, schema: dict[str, Any], depth: int) -> SearchStrategy[Any]:
        """Return a strategy for values; below `depth` sections only what is required is given."""
        if "$ref" in schema:
            return self.values(self._definitions[schema["$ref"].rpartition("/")[2]], depth)
        for key in ("anyOf", "oneOf"):
            if key in schema:
                return st.one_of([st.deferred(lambda one=one: self.values(one, depth)) for one in schema[key]])
        if "allOf" in schema and any("if" in part for part in schema["allOf"]):
            return st.one_of([st.deferred(lambda p=p: self.values(p["then"], depth)) for p in schema["allOf"]])
        if "const" in schema:
            return st.just(schema["const"])
        if "enum" in schema:
            return st.sampled_from(schema["enum"])
        return self._of_type(schema, depth)

    def _of_type(self, schema: dict[str, Any], depth: int) -> SearchStrategy[Any]:
        kind = schema.get("type")
        if kind == "object":
            return self._mapping(schema, depth)
        if kind == "array":
            return self._list(schema, depth)
        low, high = schema.get("minimum"), schema.get("maximum")
        if kind == "integer":
            low = low if low is not None else schema.get("exclusiveMinimum", -1) + 1
            return st.integers(low, high if high is not None else low + 64)
        if kind == "number":
            low = low if low is not None else schema.get("exclusiveMinimum", 0.0)
            high = high if high is not None else schema.get("exclusiveMaximum", low + 10.0)
            inside = {"exclude_min": "exclusiveMinimum" in schema, "exclude_max": "exclusiveMaximum" in schema}
            return st.floats(
                low, high, width=32 if float(low).is_integer() and float(high).is_integer() else 64, **inside
            )
        return {"boolean": st.booleans(), "null": st.none(), "string": _TEXTS}.get(kind, JUNK)

    def _mapping(self, schema: dict[str, Any], depth: int) -> SearchStrategy[Any]:
        known, required = schema.get("properties", {}), schema.get("required", ())
        if not known:
            inner = schema.get("additionalProperties")
            values = self.values(inner, depth - 1) if isinstance(inner, dict) and depth > 0 else _TEXTS
            return st.dictionaries(_TEXTS, values, max_size=2)
        parts = {name: st.deferred(lambda name=name: self.values(known[name], depth - 1)) for name in known}
        optional = {name: part for name, part in parts.items() if name not in required} if depth > 0 else {}
        needed = {name: parts[name] for name in required if name in parts}
        some = st.sets(st.sampled_from(sorted(optional)), max_size=3) if optional else st.just(set())
        return some.flatmap(lambda names: st.fixed_dictionaries({**needed, **{name: optional[name] for name in names}}))

    def _list(self, schema: dict[str, Any], depth: int) -> SearchStrategy[Any]:
        if "prefixItems" in schema:
            return st.tuples(*(self.values(one, depth - 1) for one in schema["prefixItems"])).map(list)
        items = self.values(schema.get("items", {}), depth - 1)
        low = schema.get("minItems", 0)
        return st.lists(items, min_size=low, max_size=schema.get("maxItems", low + 2))


def places(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of all nodes below the root of a tree."""
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    found: list[tuple[Any, ...]] = []
    for key, value in inner:
        found += [(*path, key), *places(value, (*path, key))]
    return found


def with_value(tree: Any, path: tuple[Any, ...], value: Any) -> Any:
    """Return a copy of a tree with another value at a path."""
    tree = copy.deepcopy(tree)
    node = tree
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return tree


@st.composite
def mutated(draw: Any, trees: SearchStrategy[dict[str, Any]]) -> dict[str, Any]:
    """Return trees with one to three values replaced by junk, or with a key that is unknown."""
    tree = draw(trees)
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(places(tree) or [("name",)]))
        if draw(st.booleans()) and isinstance(path[-1], str):
            path = (*path[:-1], draw(st.text(max_size=6)) or path[-1] + "s")
        tree = with_value(tree, path, draw(JUNK))
    return tree
