"""Every options file in the repository loads, and runs for two iterations or evaluates one picture, with every network it has been tried with."""

import re
import shlex
import subprocess

import pytest
import yaml

from basicsr import test as test_command
from basicsr import train as train_command
from basicsr.utils.command_line import parse_arguments
from basicsr.utils.errors import OptionsError
from basicsr.utils.options import load_options
from basicsr.utils.options.old_names import REPLACED
from tests import tiny

OPTIONS = tiny.ROOT / "options"
FILES = sorted(file for folder in ("train", "test") for file in (OPTIONS / folder).glob("*.yml"))
NETWORKS = sorted(file.stem for file in (OPTIONS / "networks").glob("*.yml"))
BLOCKS = sorted(file for folder in ("base", "methods", "networks") for file in (OPTIONS / folder).glob("*.yml"))
OLD = yaml.safe_load(REPLACED.read_text(encoding="utf-8"))


def commands(folder):
    """Return each file of a folder alone, and with each network and recipe that an old file stood for, as (file, overrides).

    The files of the demonstration alone answer fast, and are what is run first.
    """
    found = {str(file.relative_to(OPTIONS)): None for file in FILES if file.parent.name == folder}
    for command in OLD.values():
        name, *overrides = shlex.split(command)
        if name.startswith(f"{folder}/"):
            kept = [text for text in overrides if not text.startswith(("scale=", "name=", "method="))]
            found[shlex.join([name, *kept])] = None
    runs = {command: (command.partition(" ")[0], shlex.split(command)[1:]) for command in found}
    fast = [command for command in runs if re.fullmatch(r"\w+/demo\w*\.yml", command)]
    return [pytest.param(run, marks=[] if command in fast else pytest.mark.slow) for command, run in runs.items()]


def name_of(value):
    return value.stem if hasattr(value, "stem") else None


def id_of(command):
    return "-".join((command[0].partition("/")[2].removesuffix(".yml"), *command[1]))


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_it_loads_and_is_called_by_its_file(file):
    options = load_options(file)
    assert (options.train is not None) == (file.parent.name == "train")
    assert options.name.startswith(file.stem.partition("_")[0]) and f"_x{options.scale}" in options.name
    for folder in options.datasets.values():
        assert "{" not in folder["dataroot_gt"]


def test_there_are_few_of_them():
    assert len(FILES) + len(list((OPTIONS / "sweep").glob("*.yml"))) <= 60


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_networks_fit_every_scale(network, scale):
    options = load_options(OPTIONS / "test/test_FP.yml", [f"network={network}", f"scale={scale}"])
    assert f"_x{scale}." in options.path.pretrain_network_FP and options.network_g["upscale"] == scale
    quantized = load_options(OPTIONS / "train/train_2DQuant.yml", [f"network={network}", f"scale={scale}", "bit=3"])
    assert quantized.quantization.coverage and quantized.datasets["train"]["lq_size"] == 64
    assert quantized.name != load_options(OPTIONS / "train/train_2DQuant.yml", ["scale=2", "bit=4"]).name


BESIDE = {
    "DOBI": ["RepQ", "RepQ_log", "DOBI_rotated", "DOBI_points"],
    "QAD": ["QAD_points"],
    "2DQuant": ["CondiQuant", "SPR2Q", "OutlierAware"],
}
"""Recipes of other names that the files of a family take."""


def trained_by_recipe():
    """Return what is trained under options/train/ with every recipe that its file takes, as (file, recipe)."""
    runs = []
    for file in (OPTIONS / "train").glob("*.yml"):
        start, _, family = file.stem.partition("_")
        recipes = [recipe.stem for recipe in (OPTIONS / "methods").glob(f"{family}*.yml")]
        if "{recipe}" in file.read_text(encoding="utf-8"):
            runs += [
                (file, recipe)
                for recipe in recipes
                if recipe in (family, f"{family}_exact", f"{family}_fitted") or "_as_" in recipe
            ]
            runs += [(file, recipe) for recipe in BESIDE.get(family, [])]
        elif family in recipes and family != "FP":
            runs.append((file, family))
    return sorted(runs)


@pytest.mark.parametrize("network", ["swinir_light", "edsr_baseline", "rdn_small"])
@pytest.mark.parametrize(("file", "recipe"), trained_by_recipe(), ids=lambda value: getattr(value, "stem", value))
def test_what_is_trained_is_found_and_built_by_the_test_of_its_recipe(file, recipe, network):
    given = [f"network={network}", "bit=3", "scale=2"]
    takes_recipe = "{recipe}" in file.read_text(encoding="utf-8")
    trained = load_options(file, [*given, f"recipe={recipe}"] if takes_recipe else given)
    start = file.stem.partition("_")[0]
    tested = load_options(OPTIONS / f"test/{'demo' if start == 'demo' else 'test'}.yml", [*given, f"recipe={recipe}"])
    assert tested.path.pretrain_network_Q == f"experiments/{trained.name}/models/net_Q_latest.pth"
    assert tested.quantization == trained.quantization and tested.network_g == trained.network_g
    assert tested.method_name == trained.method_name and tested.train is None and "train" not in tested.datasets


def test_every_recipe_is_among_them():
    recipes = {recipe for _, recipe in trained_by_recipe()}
    assert recipes == {file.stem for file in (OPTIONS / "methods").glob("*.yml")} - {"FP"}


@pytest.mark.parametrize("old", OLD)
def test_who_names_a_file_of_before_is_told_what_replaces_it(old):
    name, *overrides = shlex.split(OLD[old])
    assert (OPTIONS / name).is_file() and not (OPTIONS / old).exists()
    with pytest.raises(OptionsError, match=re.escape(f"options/{name}")) as error:
        load_options(OPTIONS / old)
    assert all(text in str(error.value) for text in map(shlex.quote, overrides))


@pytest.mark.parametrize("old", [old for old in OLD if not old.startswith("base/")])
def test_what_is_told_can_be_copied_into_a_shell(old):
    """The line that is told goes through a shell and the parser of the command to the options that the table means."""
    name, *overrides = shlex.split(OLD[old])
    with pytest.raises(OptionsError) as error:
        load_options(OPTIONS / old)
    _, told = str(error.value).split("\n")
    given = subprocess.run(["sh", "-c", f"printf '%s\\0' {told}"], capture_output=True, text=True, check=True).stdout
    arguments = parse_arguments(given.split("\0")[:-1], "", trains=True)
    assert (arguments.opt, arguments.force_yml) == (f"options/{name}", overrides)
    assert not any(set("{}[]") & set(text) for text in overrides)  # which shells take apart where they are not quoted
    options = load_options(tiny.ROOT / arguments.opt, arguments.force_yml)
    for override in overrides:
        place, _, value = override.partition("=")
        found = options.model_dump()
        for key in place.split(":"):
            found = found[key]
        assert found == yaml.safe_load(value)


@pytest.mark.parametrize("file", BLOCKS, ids=name_of)
def test_building_blocks_are_used(file):
    others = [f.read_text(encoding="utf-8") for f in (*FILES, *BLOCKS, *(OPTIONS / "sweep").glob("*.yml")) if f != file]
    variants = {*NETWORKS, *re.findall(r"recipe[=:] ?(\w+)", "\n".join([*others, *OLD.values()]))}
    assert file.stem in variants or any(file.name in text for text in others)


def shorten(file, given=()):
    """Return overrides that keep the recipe of a file and shrink network, data and length."""
    raw = load_options(file, list(given))
    changes = list(given)
    if raw.model_type == "ReconstructionModel":
        changes += [
            "train:total_iter=4" if raw.train.model_extra.get("order") != "weights_first" else "train:total_iter=20"
        ]
    elif raw.train.total_iter:
        changes += ["train:total_iter=2"]
    else:
        changes += ["train:total_iter=0"]
    if raw.after is not None:
        changes += ["after:train:total_iter=2"]
    extras = raw.train.model_extra
    if raw.network_g["type"] == "SwinIR" and extras.get("feature_layers"):
        changes += ["train:feature_layers=[layers.0.residual_group, layers.1.residual_group]"]
    if "compile" in extras:  # takes a minute
        changes += ["train:compile=none"]
    changes += [f"datasets:{key}:dataroot_gt=absent" for key in raw.datasets_of("test")]
    optimizers = [key for key in extras if key.startswith("optim_")]
    network = {"scale": raw.scale, "architecture": raw.network_g["type"], "optimizers": optimizers}
    return network, [*changes, f"network={raw.network}"]


@pytest.fixture(scope="module")
def quantized(tmp_path_factory):
    """Networks that the test files evaluate, by architecture and scale."""
    made = {}

    def make(architecture, scale):
        if (architecture, scale) not in made:
            folder = tmp_path_factory.mktemp(f"{architecture}_x{scale}")
            file = OPTIONS / "train/train_2DQuant.yml"
            given = [f"network={tiny.OPTIONS_OF[architecture]}", f"scale={scale}"]
            network, changes = shorten(file, given)
            arguments = tiny.train_overrides(folder, *changes, "train:total_iter=0", **network)
            assert train_command.main(["-opt", str(file), "--root", str(folder), "--force_yml", *arguments]) == 0
            made[architecture, scale] = folder
        return made[architecture, scale]

    return make


@pytest.mark.parametrize("command", commands("train"), ids=id_of)
def test_training_files_run(command, tmp_path):
    file, given = OPTIONS / command[0], command[1]
    network, changes = shorten(file, given)
    options = load_options(file, given)
    start = options.path.pretrain_network_g
    if start:  # a network of the scale that the recipe starts from
        scale = int(re.search(r"_x(\d)\.", start).group(1))
        changes.append(
            f"path:pretrain_network_g={tiny.save_network(tmp_path / 'start.pth', scale, network['architecture'])}"
        )
    arguments = tiny.train_overrides(tmp_path, *changes, **network)
    assert train_command.main(["-opt", str(file), "--root", str(tmp_path), "--force_yml", *arguments]) == 0
    label = "net_Q" if options.quantization else "net_g"
    assert (tmp_path / f"experiments/tiny/models/{label}_latest.pth").exists()


@pytest.mark.parametrize("command", commands("test"), ids=id_of)
def test_test_files_run(command, tmp_path, quantized):
    file, given = OPTIONS / command[0], command[1]
    options = load_options(file, given)
    architecture = options.network_g["type"]
    folder = quantized(architecture, options.scale) if options.quantization else tmp_path
    first, *others = options.datasets_of("test")
    changes = [f"datasets:{key}:dataroot_gt=absent" for key in others]
    changes += [
        f"datasets:{first}:{key}"
        for key in (f"dataroot_gt={tiny.ROOT / 'datasets/demo/val/HR'}", "dataroot_lq=null", "num_images=1")
    ]
    if options.quantization:
        changes.append(f"path:pretrain_network_Q={folder}/experiments/tiny/models/net_Q_latest.pth")
        changes.append(
            "quantization:weight_quantizer:type=Affine"
        )  # that of the network there, whatever the recipe has
    arguments = tiny.overrides(
        folder, "name=tiny_test", *given, *changes, scale=options.scale, architecture=architecture
    )
    assert test_command.main(["-opt", str(file), "--root", str(tmp_path), "--force_yml", *arguments]) == 0
    assert (tmp_path / "results/tiny_test/metrics.json").exists()


@pytest.mark.parametrize(("override", "message"), [
    ("network=edsr_basline", "Option 'network' has the value 'edsr_basline', .*Did you mean 'edsr_baseline'"),
    ("recipe=DFSQexact", "Option 'recipe' has the value 'DFSQexact', .*Did you mean 'DFSQ_exact'"),
    ("network=rdn", "'{shipped}', which nothing defines. Known names: bit, label, network, prefix, recipe, scale, stem, suffix"),
])  # fmt: skip
def test_a_network_or_recipe_that_is_not_there_is_told_with_the_nearest(override, message):
    with pytest.raises(OptionsError, match=message):
        load_options(OPTIONS / "test/demo.yml", [override])


def test_a_file_that_trains_is_no_test(tmp_path, capfd):
    assert test_command.main(["-opt", str(OPTIONS / "train/demo_DOBI.yml"), "--root", str(tmp_path)]) == 2
    assert "name no test set (datasets:test_1)" in capfd.readouterr().err
