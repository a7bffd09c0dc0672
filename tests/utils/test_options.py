"""Options: inheritance, overrides, strictness."""

import re
from pathlib import Path

import pytest

from basicsr.utils.errors import OptionsError
from basicsr.utils.options import apply_override, load_network_options, load_options, merge, read_with_bases
from basicsr.utils.options.merging import read_layers
from basicsr.utils.provenance import write_options
from basicsr.utils.registry import ALL_REGISTRIES, LOSS_REGISTRY
from basicsr.utils.yaml_loader import guessed, parse_yaml
from tests import tiny

ROOT = Path(__file__).resolve().parents[2]
TRAIN = ROOT / "options/train/train_2DQuant_x4.yml"


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_scientific_notation_is_a_number():
    assert guessed(parse_yaml("[1e-4, 1.5e3, -2E5, .5, 1e5]", "x")) == [1e-4, 1500.0, -2e5, 0.5, 1e5]
    assert guessed(parse_yaml("[1.0.0, ._, 1e, e5, x4, '1e-4', 3, 0x1F]", "x")) == [
        "1.0.0",
        "._",
        "1e",
        "e5",
        "x4",
        "1e-4",
        3,
        31,
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2", "line 2.*'a' is given twice"),
        ("s:\n  b: 1\n  c: 2\n  b: 3", "line 4.*'b' is given twice"),
        ("a: !!python/object:os.system {}", "could not determine a constructor"),
        ("a: !!python/object/apply:os.system ['true']", "could not determine a constructor"),
        ("a: [1, 2", "cannot be read"),
        ("- 1", "must hold a mapping"),
        ("", "must hold a mapping"),
        ("? [1, 2]\n: 3", "is not text"),
        ("a: 1\nb: 0x_", "line 2.*'0x_' is written like a value of the type 'int' and is none"),
        ("a: 2001-99-99", "'2001-99-99' is written like a value of the type 'timestamp'.*quotation marks"),
        ("a: !!bool x", "'x' is written like a value of the type 'bool'"),
        ("a: !!float ''", "'' is written like a value of the type 'float'"),
    ],
)
def test_yaml_that_is_refused(tmp_path, text, message):
    with pytest.raises(OptionsError, match=message):
        read_with_bases(write(tmp_path / "a.yml", text))


def test_a_network_alone_needs_no_name_and_no_data(tmp_path):
    file = write(tmp_path / "own.yml", "scale: 2\nnetwork_g: {type: EDSR, num_block: 3}")
    assert load_network_options(file).network_g["num_block"] == 3
    with pytest.raises(OptionsError, match="Option 'name' is required but missing"):
        load_options(file)
    with pytest.raises(OptionsError, match="Unknown option 'network_g:num_blocks'"):
        load_network_options(file, ["network_g:num_blocks=4"])


def test_missing_and_binary_files(tmp_path):
    with pytest.raises(OptionsError, match=r"none\.yml' does not exist\. The shipped ones are under options/"):
        load_options(tmp_path / "none.yml")
    with pytest.raises(OptionsError, match=r"current folder, '.*'\. The shipped ones are under options/"):
        load_options("no_such_folder/none.yml")
    grid = tiny.ROOT / "options/sweep/benchmark.yml"
    with pytest.raises(OptionsError, match=r"does not exist\. In '.*options/sweep': Did you mean 'benchmarks\.yml'\?"):
        load_options(grid)
    (tmp_path / "b.yml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(OptionsError, match=r"b\.yml' is no text in UTF-8\. Give a YAML file\."):
        load_options(tmp_path / "b.yml")
    with pytest.raises(OptionsError, match=r"cannot be read: Is a directory\. Give a YAML file"):
        load_options(tmp_path)


def test_bases_are_merged_in_order_and_the_file_wins(tmp_path):
    write(tmp_path / "one.yml", "a: {x: 1, y: 1}\nb: 1")
    write(tmp_path / "two.yml", "a: {y: 2, z: 2}")
    write(tmp_path / "top.yml", "base: [one.yml, two.yml]\na: {z: 3}")
    assert read_with_bases(tmp_path / "top.yml") == {"a": {"x": 1, "y": 2, "z": 3}, "b": 1}


def test_a_file_that_builds_on_itself(tmp_path):
    write(tmp_path / "one.yml", "base: two.yml")
    write(tmp_path / "two.yml", "base: one.yml")
    with pytest.raises(OptionsError, match="builds on itself"):
        read_with_bases(tmp_path / "one.yml")


AXES_FILES = {
    "networks/small.yml": "placeholders: {prefix: Small_}\nnetwork_g: {type: EDSR, num_feat: 8}\nquantization: {coverage: body}",
    "networks/large.yml": "network_g: {type: RDN}\nquantization: {coverage: full}",
    "shared.yml": "base: 'networks/{network}.yml'\nscale: 2\nwhere:\n  network=small: {method: A}\n"
    "  network=small|large scale=[34]: {method: '{network} x{scale}'}\n  network=l* bit=3: {manual_seed: 3}",
    "top.yml": "base: shared.yml\nname: '{prefix}run_x{scale}'\nnetwork: small\nbit: 4\n"
    "placeholders: {prefix: ''}\ndatasets: {test_1: {name: A, type: PairedImageDataset, dataroot_gt: 'x/{scale}'},"
    " test_2: {name: B, type: PairedImageDataset, dataroot_gt: y}}",
}


@pytest.fixture
def axes(tmp_path):
    """A file that serves two networks and all scales, as options/train/ has them."""
    (tmp_path / "networks").mkdir()
    for name, text in AXES_FILES.items():
        write(tmp_path / name, text)
    return tmp_path / "top.yml"


def test_overrides_choose_what_a_file_builds_on(axes):
    options = load_options(axes)
    assert (options.name, options.network, options.network_g["num_feat"], options.method) == ("run_x2", "small", 8, "A")
    other = load_options(axes, ["network=large", "scale=3", "bit=3"])
    assert (other.network_g["type"], other.quantization.coverage, other.manual_seed) == ("RDN", "full", 3)
    assert other.method == "large x3" and other.datasets["test_1"]["dataroot_gt"] == "x/3"
    assert load_options(axes, ["scale=4"]).method == "small x4"


def test_a_file_overrules_the_placeholders_of_its_bases(axes):
    assert load_options(axes, ["placeholders:prefix=P_"]).name == "P_run_x2"


def test_an_inherited_data_set_can_be_removed(axes):
    assert list(load_options(axes, ["datasets:test_1=null"]).datasets) == ["test_2"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("network=absent", "has the value 'absent', which is none of those that there are. Known names: large, small"),
        ("name={netwrok}", "'name' has the placeholder '{netwrok}', which nothing defines. Did you mean 'network'"),
        ("name={recipe}", "'{recipe}', but 'recipe' has no value"),
        ("placeholders=3", "'placeholders' must map names to texts, not 3"),
    ],
)
def test_wrong_axes_and_placeholders_are_named(axes, override, message):
    with pytest.raises(OptionsError, match=re.escape(message)):
        load_options(axes, [override])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("where: [1]", "must map conditions"),
        ("where: {network=a: 3}", "'?`where:network=a`.* must hold options"),
        ("where: {netwrk=a: {bit: 3}}", "'netwrk=a' under `where`.* axis=glob. Did you mean 'network'"),
        ("where: {network: {bit: 3}}", "must be of the form axis=glob"),
        ("base: '{network}.yml'", "`base` in .*'network' has no value. Set network"),
    ],
)
def test_wrong_conditions_are_named(tmp_path, text, message):
    with pytest.raises(OptionsError, match=message):
        load_options(write(tmp_path / "a.yml", text))


READ = [
    ("name=0123", "name", "0123"),
    ("name=on", "name", "on"),
    ("name=1e3", "name", "1e3"),
    ("name=2020-01-01", "name", "2020-01-01"),
    ('name="a b"', "name", "a b"),
    ("name={network}", "name", "small"),
    ("name=take #2", "name", "take #2"),
    ("name='take #2'", "name", "take #2"),
    ("name=#2", "name", "#2"),
    ("name=---", "name", "---"),
    ("name=&a", "name", "&a"),
    (r"datasets:test_1:dataroot_gt=C:\my pictures #1", "datasets:test_1:dataroot_gt", r"C:\my pictures #1"),
    ("datasets:test_1:dataroot_lq=", "datasets:test_1:dataroot_lq", None),
    ("datasets:test_1:dataroot_lq=null", "datasets:test_1:dataroot_lq", None),
    ("manual_seed=0123", "manual_seed", 123),
    ("manual_seed=1_000", "manual_seed", 1000),
    ("manual_seed=3e5", "manual_seed", 300000),
    ("val:val_freq=!!float 5e3", "val:val_freq", 5000),
    ("val:save_img=on", "val:save_img", True),
    ("method=null", "method", None),
    ("datasets:test_1:filename_tmpl={}x{scale}m", "datasets:test_1:filename_tmpl", "{}x2m"),
    ("datasets:test_1:filename_tmpl={}", "datasets:test_1:filename_tmpl", "{}"),
    ("datasets:test_1:name=007", "datasets:test_1:name", "007"),
    ("datasets:test_1:num_images=1e1", "datasets:test_1:num_images", 10),
    ("datasets:test_1={name: no}", "datasets:test_1:name", "no"),
    ("network_g:res_scale=1", "network_g:res_scale", 1.0),
    ("plugins=[]", "plugins", []),
    ("quantization:exclude=[on, 1]", "quantization:exclude", ["on", "1"]),
]


@pytest.mark.parametrize(("override", "path", "value"), READ, ids=[override for override, _, _ in READ])
def test_the_type_of_an_option_decides_how_a_value_is_read(axes, override, path, value):
    found = load_options(axes, [override]).model_dump()
    for key in path.split(":"):
        found = found[key]
    assert found == value and type(found) is type(value)


def test_values_of_models_are_read_by_their_constructors():
    changes = [
        "model_type=QATModel",
        "train:diagnostics_freq=1e2",
        "train:teacher_autocast=off",
        "train:optim_bound=null",
    ]
    changes = [*changes[:3], "datasets:train:lq_size=6.4e1"]
    options = load_options(ROOT / "options/train/demo_QAT.yml", changes)
    assert (
        options.train.model_extra["diagnostics_freq"] == 100 and options.train.model_extra["teacher_autocast"] == "off"
    )
    assert options.datasets["train"]["lq_size"] == 64


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("manual_seed=1.5", "'manual_seed' has the value 1.5"),
        ("manual_seed=1:30", "'manual_seed' has the value"),
        ("manual_seed=yes", "'manual_seed' has the value True"),
        ("manual_seed={}x", "--force_yml manual_seed.* cannot be read"),
        (
            "calibration:activations={type:Percentile}",
            "'type:Percentile' has no blank after the colon; write 'type: Percentile'",
        ),
    ],
)
def test_what_does_not_fit_the_option_is_refused(axes, override, message):
    with pytest.raises(OptionsError, match=message):
        load_options(axes, [override])


def test_hr_sizes_of_earlier_versions_are_told_their_new_name(axes, caplog):
    with caplog.at_level("WARNING", "basicsr"):
        options = load_options(axes, ["scale=3", "datasets:test_1:lq_size=5", "datasets:test_1:gt_size=93"])
    assert options.datasets["test_1"]["lq_size"] == 31
    assert "'datasets:test_1:gt_size=93' is 'datasets:test_1:lq_size=31' now" in caplog.text
    assert load_options(axes, ["datasets:test_1:gt_size=null"]).datasets["test_1"]["lq_size"] is None
    with pytest.raises(OptionsError, match="'datasets:test_1:lq_size' has the value 5.33.* valid integer"):
        load_options(axes, ["scale=3", "datasets:test_1:gt_size=16"])
    assert load_options(axes, ["scale=3", "datasets:test_1:gt_size=16", "datasets:test_1:lq_size=4"])
    with pytest.raises(OptionsError, match="'datasets:test_1:gt_size'"):
        load_options(axes, ["datasets:test_1:gt_size=large"])


def test_a_component_of_another_type_replaces_the_old_one():
    base = {"loss": {"type": "A", "alpha": 1}, "other": {"type": "B", "beta": 2}}
    merged = merge(base, {"loss": {"type": "C"}, "other": {"beta": 3}})
    assert merged == {"loss": {"type": "C"}, "other": {"type": "B", "beta": 3}}
    assert base["loss"] == {"type": "A", "alpha": 1}


def test_overrides_are_yaml_and_reach_sections():
    options = {"a": {"b": 1}, "c": None}
    for override in ("a:b=2", "a:d=[1, 1e-3]", "c:e=true", "name=x=y"):
        options = apply_override(options, override)
    assert options == {"a": {"b": 2, "d": [1, 1e-3]}, "c": {"e": True}, "name": "x=y"}


def test_an_override_of_the_type_drops_the_options_of_the_old_one():
    options = apply_override({"search": {"type": "DOBI", "num_candidates": 10}}, "search:type=MinMax")
    assert options == {"search": {"type": "MinMax"}}


@pytest.mark.parametrize("order", [1, -1])
def test_overrides_of_one_section_may_come_in_any_order(tmp_path, order):
    file = write(tmp_path / "a.yml", "train: {scheduler: {type: Cosine, eta_min: 1}}\n")
    overrides = ["train:scheduler:milestones=[1]", "train:scheduler:type=Multi", "other:key=1", "other:type=A"][::order]
    merged = guessed(read_layers(file, overrides).merged())
    assert merged["train"]["scheduler"] == {"type": "Multi", "milestones": [1]}
    assert merged["other"] == {"type": "A", "key": 1}


def test_of_overrides_of_the_same_the_last_counts(tmp_path):
    file = write(tmp_path / "a.yml", "train: {optim: {type: Adam, lr: 1}}\n")
    for overrides in (
        ["train:optim={type: SGD, lr: 3}", "train:optim:type=A"],
        ["train:optim:type=B", "train:optim:type=A"],
    ):
        assert guessed(read_layers(file, overrides).merged())["train"]["optim"] == {"type": "A"}
    assert guessed(read_layers(file, ["train:optim:lr=2", "train:optim={lr: 3}"]).merged())["train"]["optim"]["lr"] == 3


@pytest.mark.parametrize("override", ["abc", "=3", "a:b:c=3"])
def test_overrides_of_a_wrong_form(override):
    with pytest.raises(OptionsError, match=override):
        apply_override({"a": {"b": 1}}, override)


@pytest.mark.parametrize(
    ("given", "overlap"),
    [
        ("val:tile=16", 8),
        ("val:tile=8", 0),
        ("val:tile=12", 0),
        ("val:tile=24", 8),
        ("val:tile=32", 16),
        ("val:tile=96", 16),
        ("val:tile=16 val:tile_overlap=16", 16),
    ],
)
def test_small_tiles_share_less_by_default(given, overlap):
    assert load_options(TRAIN, given.split()).val.tile_overlap == overlap


def test_bit_is_the_short_form_of_both_widths():
    options = load_options(TRAIN, ["bit=3", "quantization:a_bits=5"])
    assert (options.w_bits, options.a_bits) == (3, 5)
    assert options.name == "train_2DQuant_x4_bit3"
    assert options.network_g["upscale"] == 4
    assert options.path.pretrain_network_FP.endswith("_x4.pth")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("bit=1", "'bit' has the value 1"),
        ("bit=9", "'bit' has the value 9"),
        ("bit=four", "'bit' has the value 'four'"),
        ("bit=2.5", "'bit' has the value 2.5"),
        ("bits=4", "Unknown option 'bits'. Did you mean 'bit'"),
        ("train:total_iters=4", "Unknown option 'train:total_iters'. Did you mean 'total_iter'"),
        ("train:total_iter=-1", "'train:total_iter' has the value -1"),
        ("train:total_iter=!!python/name:os.system", "cannot be read"),
        ("val:val_frq=10", "Unknown option 'val:val_frq'. Did you mean 'val_freq'"),
        ("val:save_img=1", "'val:save_img' has the value 1"),
        ("scale=5", "'scale' has the value 5"),
        ("name=", "'name' has the value None"),
        ("name=../x", "'name' has the value '../x'"),
        ("name=..", "'name' has the value '..': must be usable as the name of a folder"),
        ("train:pixel_loss:since=2020-01-01", "quotation marks"),
        ("datasets:val:name=a/b", "'datasets:val:name' has the value 'a/b'"),
        ("datasets:val:name=Set5", "'datasets:val:name' and 'datasets:test_1:name' are both 'Set5'"),
        ("network_g:type=[1]", "'network_g:type' is [1], but must name"),
        ("network_g:embed_dim=0", "'network_g:embed_dim' has the value 0"),
        ("manual_seed=9223372036854775808", "'manual_seed' has the value"),
        ("val:crop_border=-1", "'val:crop_border' has the value -1"),
        ("datasets=&a [*a]", "recursive"),
        ("datasets=" + "[" * 5000, "nested too deeply|cannot be read"),
        ("network_g:depth=[6]", "Unknown option 'network_g:depth'. Did you mean 'depths'"),
        ("network_g:type=SwinIRR", "'SwinIRR', which does not exist. Did you mean 'SwinIR'"),
        ("network_g:upscale=2", "'network_g:upscale' is 2, but 'scale' is 4"),
        ("datasets:trian:name=x", "'trian' must be train"),
        ("datasets:val:nam=x", "Unknown option 'datasets:val:nam'. Did you mean 'name'"),
        ("calibration:activations:type=Dobi", "'Dobi', which does not exist. Did you mean 'DOBI'"),
        ("calibration:activations:search=fast", "'calibration:activations:search' has the value 'fast'"),
        ("quantization:w_bits=12", "'quantization:w_bits' has the value 12"),
        ("plugins=[/nowhere/at/all]", "does not exist"),
        (
            "quantization:coverage=[{modules: '*', type: QConvolution}]",
            "quantization:coverage:0:type.*Did you mean 'QConv2d'",
        ),
        ("quantization:coverage=[]", "quantization:coverage"),
        ("model_type=PTQ", "Did you mean 'PTQModel'"),
        ("[=1", "Unknown option '['. Known names: after, bit"),
        ("train:a[b]=1", "Unknown option 'train:a[b]'. Known names"),
    ],
)
def test_wrong_options_are_named_with_value_and_remedy(override, message):
    with pytest.raises(OptionsError, match=message.replace("(", r"\(").replace("[", r"\[").replace("]", r"\]")):
        load_options(TRAIN, [override])


def test_a_plugin_folder_adds_a_component(tmp_path, monkeypatch):
    for registry in ALL_REGISTRIES:  # what a plugin brings is remembered as long as the process lives
        monkeypatch.setattr(registry, "_folders", list(registry._folders))
        monkeypatch.setattr(registry, "_components", dict(registry._components))
    write(
        tmp_path / "my_loss.py",
        "from basicsr.losses.base import Loss\nfrom basicsr.utils.registry import LOSS_REGISTRY\n"
        "@LOSS_REGISTRY.register()\nclass MyLoss(Loss):\n    def __init__(self, *, power: float = 3.0): super().__init__()\n    def forward(self, x, y): return x\n",
    )
    load_options(TRAIN, [f"plugins=[{tmp_path}]"])
    assert LOSS_REGISTRY.build({"type": "MyLoss", "power": 2.0}, where="x") is not None


@pytest.mark.parametrize(
    "file", ["train/demo_2DQuant.yml", "train/demo_chain.yml", "train/demo_train_EDSR.yml", "test/demo.yml"]
)
def test_the_options_that_a_run_leaves_can_be_run_again(tmp_path, file):
    options = load_options(ROOT / "options" / file)
    write_options(options, tmp_path)
    assert load_options(tmp_path / "options.yml") == options
    changed = load_options(tmp_path / "options.yml", ["name=again"])
    assert changed.name == "again"
