"""Runs of a grid: their commands, and what is refused before any of them starts."""

import shlex
from pathlib import Path

import pytest

from basicsr.sweep.grid import load_grid
from basicsr.sweep.plan import describe, plan, select
from basicsr.utils.errors import OptionsError
from basicsr.utils.options import read_with_bases
from tests import tiny, tiny_grid

OTHER = {"name": "other", "type": "PairedImageDataset", "dataroot_gt": "other"}


def runs_of(folder, **changes):
    return plan(load_grid(tiny_grid.write(folder, **changes)), folder)


def method(label, file="demo_MinMax.yml", **overrides):
    return {"label": label, "options": f"{tiny_grid.OPTIONS}/{file}", "overrides": overrides}


def test_names_in_order(tmp_path):
    runs = runs_of(tmp_path, bits=[4, "w2a8"], seeds=[0, 7], methods=[method("DOBI (joint)")])
    assert [run.name for run in runs] == [
        "Bicubic_x4",
        "SwinIR-tiny_FP_x4",
        "SwinIR-tiny_DOBI_joint_x4_bit4_seed0",
        "SwinIR-tiny_DOBI_joint_x4_bit4_seed7",
        "SwinIR-tiny_DOBI_joint_x4_w2a8_seed0",
        "SwinIR-tiny_DOBI_joint_x4_w2a8_seed7",
    ]
    last = runs[-1]
    assert (last.options.w_bits, last.options.a_bits, last.options.manual_seed) == (2, 8, 7)
    assert last.folder == "tiny_SwinIR-tiny_DOBI_joint_x4_w2a8_seed7" and last.options.method == "DOBI (joint)"


def test_commands(tmp_path, monkeypatch):
    monkeypatch.chdir(tiny.ROOT)
    run = runs_of(tmp_path, overrides=None, methods=[method("A", val={"val_freq": 7})])[2]
    folder = "tiny_SwinIR-tiny_A_x4_bit4"
    axes = f"val:val_freq=7 name={folder} method=A scale=4 bit=4"
    assert describe(run.train, Path(".")) == (
        f"python basicsr/train.py -opt {tiny_grid.OPTIONS}/demo_MinMax.yml --force_yml {axes}"
    )
    assert " --auto_resume --force_yml " in describe(run.train, Path("."), auto_resume=True)
    words = shlex.split(describe(run.evaluate, tmp_path))
    assert words[:6] == ["python", "basicsr/test.py", "-opt", words[3], "--root", str(tmp_path)]
    assert words[-1] == f"path:pretrain_network_Q={tmp_path}/experiments/{folder}/models/net_Q_latest.pth"
    assert any(word.startswith("datasets:test_1=") for word in words)
    assert not run.train.overrides[0].startswith("datasets")


def test_later_overrides_win_and_placeholders_are_filled(tmp_path):
    run = runs_of(
        tmp_path,
        overrides={"val": {"val_freq": 1}, "logger": {"print_freq": 1}, "plugins": []},
        architectures={"SwinIR-tiny": {"val": {"val_freq": 2}}},
        scales={4: {"val": {"val_freq": 3}}},
        bits={4: {"val": {"val_freq": 4}, "path": {"param_key_FP": "{arch}-{method}-{scale}-{bit}"}}},
        methods=[method("A", val={"val_freq": 5})],
    )[2]
    assert run.options.val.val_freq == 5 and run.options.logger.print_freq == 1
    assert run.options.path.param_key_FP == "SwinIR-tiny-A-4-4"


def test_overrides_of_a_method_for_an_architecture_win(tmp_path):
    own = {**method("A", val={"val_freq": 5}), "overrides_of": {"first": {"val": {"val_freq": 6}}}}
    runs = runs_of(tmp_path, architectures=["first", "second"], methods=[own])
    assert [run.options.val.val_freq for run in runs if run.kind == "quantized"] == [6, 5]


def test_all_methods_get_the_same_share_of_their_iterations(tmp_path):
    longer, short = (method(name, "demo_2DQuant.yml", train={"total_iter": n}) for name, n in (("A", 300), ("B", 3)))
    runs = runs_of(tmp_path, share=0.02, methods=[longer, short, method("C")])[2:]
    assert [run.options.train.total_iter for run in runs] == [6, 1, 0]  # MinMax has nothing to train
    assert runs[0].share == 0.02 and "train:total_iter=6" in runs[0].train.overrides
    assert not any(text == "train:total_iter=0" for text in runs[2].train.overrides)


@pytest.mark.slow
def test_the_benchmarks_take_one_share_of_the_published_iterations(monkeypatch, tmp_path):
    monkeypatch.chdir(tiny.ROOT)
    grid = load_grid(Path("options/sweep/benchmarks.yml"))
    for axis in (grid.scales, grid.bits):
        for entry in list(axis)[1:]:
            del axis[entry]
    blocks = {"SwinIR-light": 24, "EDSR-baseline": 16, "RDN-small": 4}
    recipes = {"DBDC+Pac": "DBDC_Pac", "2DQuant revised": "2DQuant_as_published", "2DQuant as published": "2DQuant_as_published",
               "CondiQuant revised": "2DQuant_as_published", "SPR2Q without routing": "2DQuant_as_published",
               "Outlier-aware revised": "2DQuant_as_published",
               "2DQuant as released": "2DQuant_as_released", "LSQ": "QAT", "ODM": "QAT",
               "QAD": "QAD", "QAD fitted": "QAD", "QAD points": "QAD"}  # fmt: skip
    whole = {label: read_with_bases(Path(f"options/methods/{name}.yml"))["train"] for label, name in recipes.items()}
    for run in (run for run in plan(grid, tmp_path) if run.kind == "quantized"):
        if run.method in ("BRECQ joint", "QDrop"):
            expected = 20000 * blocks[run.arch]
        else:
            expected = whole[run.method]["total_iter"] if run.method in whole else 0
        assert run.options.train.total_iter == grid.share * expected, run.name


def test_lines_to_compare_with_know_nothing_of_quantization(tmp_path):
    bicubic, full, *_ = runs_of(tmp_path)
    assert bicubic.arch is None and bicubic.evaluate.script == "scripts/bicubic.py"
    assert full.options.quantization is None and full.options.method_name == "FP" and full.train is None
    assert full.options.network_g["embed_dim"] == tiny.NETWORK["embed_dim"]


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ([method("A", "absent_x4.yml")], "absent_x4.yml' does not exist"),
        ([method("A", train={"total_itre": 3})], "The run 'SwinIR-tiny_A_x4_bit4' of"),
        ([method("A", network_g={"embed_dim": 24}), method("B")], "their 'network_g' differ"),
        ([method("A", path={"pretrain_network_FP": "other.pth"}), method("B")], "'path:pretrain_network_FP' differ"),
        ([method("A", val={"pad": "mirror"}), method("B")], "their 'val:pad' differ: 'mirror' and 'official'"),
        ([method("A", datasets={"test_2": OTHER}), method("B")], "their 'test sets' differ"),
        ([method("A", train=None)], "has no section 'train'"),
        ([method("A", quantization=None)], "has no section 'quantization'"),
        ([method("A B"), method("A_B")], "would both be run as 'SwinIR-tiny_A_B_x4_bit4'"),
    ],
)
def test_what_cannot_be_run_is_refused(tmp_path, methods, message):
    with pytest.raises(OptionsError) as error:
        runs_of(tmp_path, methods=methods)
    assert message in str(error.value)


def test_bits_that_a_file_fixes_are_noticed(tmp_path):
    file = tmp_path / "fixed.yml"
    file.write_text(f"base: {tiny_grid.OPTIONS}/demo_MinMax.yml\nquantization: {{w_bits: 3}}\n")
    with pytest.raises(OptionsError, match="fixes the bits at 3/4"):
        runs_of(tmp_path, methods=[{"label": "A", "options": str(file)}])


def test_methods_are_left_out_where_they_have_no_options(tmp_path):
    other = {"label": "B", "options": {"second": f"{tiny_grid.OPTIONS}/demo_MinMax.yml"}}
    runs = runs_of(tmp_path, architectures=["first", "second"], methods=[method("A"), other])
    assert [run.name for run in runs if run.kind == "quantized"] == [
        "first_A_x4_bit4",
        "second_A_x4_bit4",
        "second_B_x4_bit4",
    ]


def test_selection(tmp_path):
    runs = runs_of(tmp_path)
    assert [run.name for run in select(runs, "*_bit4")] == ["SwinIR-tiny_MinMax_x4_bit4", "SwinIR-tiny_2DQuant_x4_bit4"]
    assert select(runs, None) == runs
    with pytest.raises(OptionsError, match=r"No run matches --only 'SwinIR-tiny_Minmax_x4_bit4'\. Did you mean"):
        select(runs, "SwinIR-tiny_Minmax_x4_bit4")
