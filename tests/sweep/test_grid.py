"""The YAML of a sweep is read strictly, and overrides become what --force_yml takes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from basicsr.sweep.grid import flatten_overrides, load_grid
from basicsr.sweep.plan import plan
from basicsr.utils.errors import OptionsError
from basicsr.utils.options import apply_override, merge
from tests import tiny, tiny_grid

GRIDS = sorted((tiny.ROOT / "options/sweep").glob("*.yml"))


@pytest.mark.slow
@pytest.mark.parametrize("file", GRIDS, ids=lambda file: file.stem)
def test_every_shipped_grid_loads_with_all_its_options_files(file, monkeypatch, tmp_path):
    monkeypatch.chdir(tiny.ROOT)
    grid = load_grid(file)
    assert grid.name == file.stem
    runs = plan(grid, tmp_path)
    quantized = [run for run in runs if run.kind == "quantized"]
    methods = sum(method.options_for(arch) is not None for method in grid.methods for arch in grid.architectures)
    assert len(quantized) == methods * len(grid.scales) * len(grid.bits) * max(1, len(grid.seeds))
    for run in quantized:
        assert run.train is not None and run.options.train.total_iter >= 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"jbos": 2}, "Unknown option 'jbos'. Did you mean 'jobs'?"),
        ({"methods": [{"label": "A", "option": "x.yml"}]}, "Unknown option 'methods:0:option'"),
        ({"methods": []}, "'methods'"),
        ({"scales": [5]}, "'5' must be a scale factor"),
        ({"bits": [4, 4]}, "an entry is given twice"),
        ({"bits": ["w4a9"]}, "'w4a9' must be a number of bits from 2 to 8"),
        ({"bits": {4: None}}, "'bits:4' has the value None"),
        ({"jobs": "two"}, "'jobs' has the value 'two'"),
        ({"slurm": {"hours": 3}}, "Unknown option 'slurm:hours'"),
        ({"architectures": []}, "'architectures'"),
        ({"architectures": None}, "'architectures' is required"),
        ({"methods": [{"label": "A", "options": {"EDSR": "x.yml"}}]}, "architecture 'EDSR', which is not among"),
        ({"methods": [{"label": "A", "options": "x.yml", "overrides_of": {"RDN": {}}}]}, "'RDN', which is not among"),
        ({"share": 0}, "'share' has the value 0"),
        ({"methods": [{"label": "A", "options": "x.yml"}] * 2}, "Two methods are called 'A'"),
        ({"methods": [{"label": "A|B", "options": "x.yml"}]}, "'methods:0:label'"),
        ({"methods": [{"label": "A", "options": "x_{sclae}.yml"}]}, "Unknown placeholder '{sclae}' in 'methods:0:options:*'"),
        ({"overrides": {"path": {"a": ["{bits}"]}}}, "Unknown placeholder '{bits}' in 'overrides:path:a:0'"),
        ({"overrides": {"bit": 3}}, "'bit' in overrides is set by the axes"),
        ({"bits": {4: {"quantization": {"w_bits": 3}}}}, "'quantization:w_bits' in bits:4 is set by the axes"),
        ({"evaluation": {"val": {"pad": "mirror"}}}, "'evaluation' names no 'datasets'"),
        ({"evaluation": "absent.yml"}, "absent.yml' does not exist"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_named(tmp_path, changes, message):
    with pytest.raises(OptionsError) as error:
        load_grid(tiny_grid.write(tmp_path, **changes))
    assert message in str(error.value)


def test_axes_may_bring_overrides(tmp_path):
    grid = load_grid(tiny_grid.write(tmp_path, scales={2: {"val": {"tile": 8}}, 4: {}}, bits=[3, "w4a8"]))
    assert grid.scales == {"2": {"val": {"tile": 8}}, "4": {}}
    assert grid.bit_widths() == {"3": (3, 3), "w4a8": (4, 8)}


def test_a_file_of_datasets_serves_as_evaluation(tmp_path):
    grid = load_grid(tiny_grid.write(tmp_path, evaluation=str(tiny.ROOT / "options/base/benchmarks.yml")))
    assert grid.evaluation["datasets"]["test_5"]["name"] == "Manga109"


NAMES = st.sampled_from(["a", "b", "c"])
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 5), st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["x", "1e-4", "yes", "null", "{scale}", "a: b", "#", "é", "", "~", "'", '"']),
    st.lists(st.integers(0, 3), max_size=2),
)  # fmt: skip
MAPPINGS = st.recursive(LEAVES, lambda inner: st.dictionaries(NAMES, inner, min_size=1, max_size=2), max_leaves=6)


@given(st.dictionaries(NAMES, MAPPINGS, max_size=3))
@settings(max_examples=80, deadline=None)
def test_flattened_overrides_say_the_same_as_the_mapping(overrides):
    options = {}
    for text in flatten_overrides(overrides):
        options = apply_override(options, text)
    assert options == merge({}, overrides)


def test_a_component_stays_in_one_piece():
    overrides = {"calibration": {"weights": {"type": "DOBI", "search": "auto"}, "batch_size": 2}}
    assert flatten_overrides(overrides) == [
        'calibration:weights={"type": "DOBI", "search": "auto"}',
        "calibration:batch_size=2",
    ]
