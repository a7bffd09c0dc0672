"""Every command of the README and of the pages under docs/ runs as it stands there, on a small copy of what it needs."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap

import cv2
import numpy as np
import pytest

from basicsr.data.calibration_crops import candidates
from basicsr.utils.options import load_options
from tests import tiny
from tests.forked import ForkedProgram

pytestmark = pytest.mark.slow
PAGES = [tiny.ROOT / "README.md", *sorted((tiny.ROOT / "docs").rglob("*.md"))]
FENCED = re.compile(
    r"^ *(?P<fence>```+|~~~+) *(?:bash|sh|shell)\b.*\n(?P<code>(?:.*\n)*?) *(?P=fence) *$", re.MULTILINE
)
INDENTED = re.compile(r"(?:^ {4}.*\n?)+", re.MULTILINE)
COMMAND = re.compile(r"(?:[A-Z_]+=\S* )*(?:python3?|bash|torchrun|pip|mkdocs|basicsr-\w+) ")
EXCEPTIONS = {
    "bash scripts/quickstart.sh": "tests/scripts/test_quickstart.py runs it, and continuous integration the whole of it",
    "bash scripts/run_tests.sh": "it would run this test again; tests/scripts/test_run_tests.py runs it on another one",
    "pip install": "it changes the environment that the tests run in; continuous integration installs",
    "bash scripts/2DQuant-": "all scales and bits; test_sweep_scripts runs one of each",
    "python scripts/make_pictures.py": "it shows the runs of a whole sweep; tests/scripts/test_make_pictures.py makes one",
    "python scripts/convert_options.py": "it reads a file of another project; tests/scripts/test_convert_options.py has some",
    "python scripts/fault_campaign.py": "a quarter of an hour; tests/scripts/test_fault_campaign.py runs a small one",
    "python scripts/benchmark.py": "minutes each; tests/scripts runs every benchmark on a tiny network",
}
"""How the commands begin that do not run here, and what runs them instead."""
SHORTER = {
    "train:total_iter": 2,
    "train:batch_size": 2,
    "train:num_workers": 0,
    "datasets:train:lq_size": 8,
    "logger:use_tb_logger": "false",
    "calibration:num_images": 2,
    "calibration:crop_size": 16,
}


def commands_in(text):
    """Return the shell commands of a page: the lines of its fenced shell blocks, and those of indented blocks that look like one."""
    blocks = [(textwrap.dedent(match["code"]), True) for match in FENCED.finditer(text)]
    blocks += [
        (re.sub("^ {4}", "", block, flags=re.MULTILINE), False) for block in INDENTED.findall(FENCED.sub("", text))
    ]
    found = []
    for block, is_shell in blocks:
        lines = iter(re.sub(r"\\\n\s+", "", block).splitlines())
        for line in lines:
            if not COMMAND.match(line):
                assert not is_shell or not line.strip() or line.startswith("#"), f"Nobody runs '{line}'."
                continue
            here = re.search(r"<<(\w+)$", line)
            if here:  # the program goes with its command
                line = "\n".join([line, *iter(lambda lines=lines: next(lines), here[1]), here[1]])
            found.append(line if here else re.sub(r"\s+#.*", "", line).strip())
    return found


COMMANDS = list(dict.fromkeys(c for page in PAGES for c in commands_in(page.read_text(encoding="utf-8"))))


def exception(command):
    """Return how a command begins that does not run here, or nothing."""
    bare = re.sub(r"^(?:[A-Z_]+=\S* )*", "", command)
    return next((start for start in EXCEPTIONS if bare.startswith(start)), None)


def tiny_weights(architecture):
    return f"tiny_{architecture}.pth"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A folder that looks like a checkout in which a user has put small data and a small network."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("basicsr", "options", "scripts", "tests"):
        os.symlink(tiny.ROOT / name, folder / name)
    shutil.copytree(tiny.ROOT / "docs", folder / "docs")  # tables are written there
    for name in ("datasets", "keydata", "experiments/pretrained_models/SwinIR"):
        (folder / name).mkdir(parents=True)
    os.symlink(tiny.ROOT / "datasets/demo", folder / "datasets/demo")
    picture = cv2.imread(str(sorted((tiny.ROOT / "datasets/demo/test/HR").iterdir())[0]))[:192, :192]
    for name in ("datasets/DF2K/HR", "datasets/DIV2K/HR", "datasets/benchmark/Set5/HR", "my_pictures"):
        (folder / name).mkdir(parents=True)
        for i in range(2):
            cv2.imwrite(str(folder / name / f"p{i}.png"), np.roll(picture, 40 * i, 1))
    for name in ("DF2K", "DIV2K", "benchmark/Set5"):
        run(f"python scripts/prepare_data.py --hr datasets/{name}/HR --out datasets/{name}".split(), folder)
    weights = folder / "experiments/pretrained_models"
    for scale in (2, 3, 4):
        tiny.save_network(weights / f"SwinIR/002_lightweightSR_DIV2K_s64w8_SwinIR-S_x{scale}.pth", scale)
    shutil.copy(weights / "SwinIR/002_lightweightSR_DIV2K_s64w8_SwinIR-S_x4.pth", folder / "my_swinir_light_x4.pth")
    for architecture in tiny.NETWORKS:
        tiny.save_network(folder / tiny_weights(architecture), architecture=architecture)
    return folder


@pytest.fixture(scope="module")
def run_once_anew():
    """Run commands as a user would: the first of each program with a Python of its own, the others without its seconds of imports."""
    seen = set()

    def run_command(words, folder):
        is_script = not words[1].startswith("basicsr/")  # scripts start processes by a name of their own
        if is_script or words[1] not in seen:
            seen.add(words[1])
            run(words, folder)
            return
        program = ForkedProgram(words[1:], folder)
        printed, _ = program.communicate(tiny.PATIENCE)
        assert program.returncode == 0, f"{' '.join(words)}\n{printed[-4000:]}"

    return run_command


def run(words, folder, environment=None):
    """Run a command as a user in that folder would."""
    python = os.path.dirname(sys.executable)
    path = f"{python}:{os.environ['PATH']}"
    everything = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "PYTHON": sys.executable, **(environment or {})}
    done = subprocess.run(words, cwd=folder, env=everything, capture_output=True, text=True, timeout=tiny.PATIENCE)
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


def shortened(words, folder):
    """Return the overrides that make the run of these words small: its network, its work, and weights that fit."""
    start = words.index("--force_yml") + 1 if "--force_yml" in words else len(words)
    given = [word for word in words[start:] if "=" in word and not word.startswith("--")]
    options = load_options(folder / words[words.index("-opt") + 1], given)
    architecture = options.network_g["type"]
    network = [f"network_g:{k}={v}".replace(" ", "") for k, v in tiny.NETWORKS[architecture].items()]
    changes = [*network, "device=cpu", "num_threads=1"]
    weights = options.path.pretrain_network_FP or ""
    if weights and "/SwinIR/" not in weights and not (folder / weights).with_suffix(".pth").exists():
        changes.append(f"path:pretrain_network_FP={tiny_weights(architecture)}")
    start = options.path.pretrain_network_g or ""
    if "/pretrained_models/" in start and not (folder / start).exists():
        changes.append(f"path:pretrain_network_g={tiny_weights(architecture)}")
    if "basicsr/train.py" not in words:
        return changes
    fewer = dict(SHORTER)
    if options.model_type == "ReconstructionModel":
        both_parts = (options.train.model_extra or {}).get("order") == "weights_first"
        fewer["train:total_iter"] = 20 if both_parts else 4  # one for each block at least
    if options.train.total_iter == 0:
        fewer.pop("train:total_iter")
    if options.after is not None:
        fewer["after:train:total_iter"] = 2
    if "compile" in (options.train.model_extra or {}):
        fewer["train:compile"] = "none"
    if architecture == "SwinIR" and (options.train.model_extra or {}).get("feature_layers"):
        # the tiny network has two groups
        fewer["train:feature_layers"] = "[layers.0.residual_group,layers.1.residual_group]"
    if not any((folder / file).exists() for file in candidates(options.calibration)):
        fewer["calibration:data"] = "null"
    return [*changes, *(f"{key}={value}" for key, value in fewer.items())]


def prepared(command, folder):
    """Return the words of a command with its length cut, and put in place what an earlier command would have left."""
    words = shlex.split(command)
    if "-opt" in words and "basicsr/upscale.py" not in words:
        for word in words:
            if re.match("path:pretrain_network_(Q|g)=", word) and not (folder / word.split("=")[1]).exists():
                wanted = folder / word.split("=")[1]
                shutil.copy(min(wanted.parent.glob("net_*.pth")), wanted)
        launcher = ["--launcher", "pytorch"] if "--launcher" in words else []  # overrides end at the next flag
        words = [word for word in words if word not in launcher]
        changes = shortened(words, folder)
        return [*words, *([] if "--force_yml" in words else ["--force_yml"]), *changes, *launcher]
    if "basicsr/upscale.py" in words:
        model = folder / words[words.index("--model") + 1]
        shipped = tiny.ROOT / model.relative_to(folder)
        if not model.exists() and shipped.exists():
            shutil.copy(shipped, model)
    elif any(word.endswith("sweep.py") or word == "basicsr/sweep" for word in words):
        words += ["--dry-run"]
    elif "--subimages" in words:
        words += ["--crop_size", "96", "--step", "48"]
    elif "scripts/make_calibration_set.py" in words:
        words += ["--num", "2", "--crop_size", "16"]
    elif "scripts/check_pretrained.py" in words:  # the test sets here are not those of the cards
        card = folder / "checked/EDSR_x4.json"
        card.parent.mkdir()
        for file in (card, card.with_suffix(".safetensors")):
            shutil.copy(tiny.ROOT / "experiments/pretrained_models" / file.name, file)
        card.write_text(card.read_text().replace("test_FP.yml", "demo_FP.yml"))
        words += ["--folder", str(card.parent)]
    return words


def test_commands_are_found():
    readme = commands_in(PAGES[0].read_text(encoding="utf-8"))
    assert len(readme) >= 8 and {"bash scripts/quickstart.sh", "bash scripts/run_tests.sh"} <= set(readme)
    page = "Text\n\n    A=1 python a.py \\\n        b  # why\n    not a command\n\n\n    ```bash\n    # why\n    bash b.sh\n    python - <<END\n    x\n    END\n    ```\n"
    assert commands_in(page) == ["bash b.sh", "python - <<END\nx\nEND", "A=1 python a.py b"]
    with pytest.raises(AssertionError, match="Nobody runs 'rm -r x'"):
        commands_in("```sh\nrm -r x\n```\n")


def test_every_exception_is_needed():
    assert {exception(command) for command in COMMANDS} - {None} == set(EXCEPTIONS)


@pytest.mark.parametrize("command", [command for command in COMMANDS if not exception(command)])
def test_command(command, checkout, run_once_anew):
    run_once_anew(["bash", "-c", command] if "<<" in command else prepared(command, checkout), checkout)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(tiny.ROOT)))
def test_commands_in_a_sentence_name_what_is_there(page):
    for command in re.findall(r"`((?:python|bash|torchrun) [^`]*)`", page.read_text(encoding="utf-8")):
        for word in re.findall(r"(?:basicsr|scripts|options|tests)/[\w./-]+", command):
            assert (tiny.ROOT / word.rstrip(".")).exists(), (
                f"{page.name}: '{command}' names '{word}', which is not there."
            )


def test_sweep_scripts(checkout):
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    scripts = dict.fromkeys(re.findall(r"bash (scripts/2DQuant-\w+\.sh)", text))
    assert [script.rsplit("-")[-1] for script in scripts] == ["getcalidata.sh", "train.sh", "test.sh"]
    for script in scripts:
        kind = script.rsplit("-")[-1].removesuffix(".sh")
        extra = []
        if kind != "getcalidata":
            words = [f"basicsr/{kind}.py", "-opt", f"options/{kind}/{kind}_2DQuant_x4.yml"]
            extra = [word for word in shortened(words, checkout) if not word.startswith("calibration:")]
        run(["bash", script, *extra], checkout, {"SCALES": "4", "BITS": "2", "NUM": "2", "CROP_SIZE": "16"})
