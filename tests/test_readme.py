"""The commands of the README run as they stand there, on a small copy of what they need."""

import os
import re
import shlex
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest

from tests import tiny

README = (tiny.ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"(?:^    .*\n?)+", README, flags=re.MULTILINE)
TEXT = "\n".join(re.sub(r"\\\n\s+", "", block) for block in BLOCKS)
COMMANDS = [
    line.split("#")[0].strip()
    for line in TEXT.splitlines()
    if line.strip().startswith(("python ", "bash ", "torchrun ", "BIT="))
]
# they install an environment, or take minutes: run by continuous integration and by hand
WHOLE_SCRIPTS = {"bash scripts/quickstart.sh", "bash scripts/run_tests.sh"}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A folder that looks like a checkout in which a user has put small data and a small network."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("basicsr", "docs", "options", "scripts", "tests"):
        os.symlink(tiny.ROOT / name, folder / name)
    (folder / "datasets").mkdir()
    (folder / "keydata").mkdir()
    os.symlink(tiny.ROOT / "datasets/demo", folder / "datasets/demo")
    picture = cv2.imread(str(sorted((tiny.ROOT / "datasets/demo/test/HR").iterdir())[0]))[:192, :192]
    for name in ("datasets/DF2K/HR", "datasets/DIV2K/HR", "datasets/benchmark/Set5/HR", "my_pictures"):
        (folder / name).mkdir(parents=True)
        for i in range(2):
            cv2.imwrite(str(folder / name / f"p{i}.png"), np.roll(picture, 40 * i, 1))
    for name in ("DF2K", "DIV2K", "benchmark/Set5"):
        command = [
            sys.executable,
            "scripts/prepare_data.py",
            "--hr",
            f"datasets/{name}/HR",
            "--out",
            f"datasets/{name}",
        ]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    weights = folder / "experiments/pretrained_models/SwinIR"
    weights.mkdir(parents=True)
    for scale in (2, 3, 4):
        tiny.save_network(weights / f"002_lightweightSR_DIV2K_s64w8_SwinIR-S_x{scale}.pth", scale)
    shutil.copy(weights / "002_lightweightSR_DIV2K_s64w8_SwinIR-S_x4.pth", folder / "my_swinir_light_x4.pth")
    tiny.save_network(folder / "edsr.pth", architecture="EDSR")
    return folder


def short(architecture="SwinIR"):
    """Return overrides that make a network tiny."""
    network = [f"network_g:{k}={v}".replace(" ", "") for k, v in tiny.NETWORKS[architecture].items()]
    return [*network, "device=cpu", "num_threads=1"]


SHORTER = ["train:total_iter=2", "train:batch_size=2", "train:num_workers=0", "datasets:train:gt_size=32",
           "calibration:num_images=2", "calibration:crop_size=16", "logger:use_tb_logger=false"]  # fmt: skip


def prepared(command, folder):
    """Return the command with its length cut, and put in place what an earlier command would have left."""
    words = shlex.split(command)
    environment = {}
    if "train.py" in command:
        if "--force_yml" not in words:
            words.append("--force_yml")
        architecture = "EDSR" if "EDSR" in command else "SwinIR"
        words += [*short(architecture), *SHORTER]
        if architecture == "EDSR":
            words += ["path:pretrain_network_FP=edsr.pth", "calibration:data=null"]
        if "_short" in command:
            words += ["train:compile=none"]
        if "BRECQ" in command:
            words += ["train:total_iter=4"]  # one for each block
        if "--launcher" in words:  # overrides end at the next flag
            words.remove("--launcher")
            words.remove("pytorch")
            words += ["--launcher", "pytorch"]
    elif "basicsr/test.py" in command or "basicsr/export.py" in command:
        wanted = folder / next(w for w in words if "pretrain_network_" in w).split("=")[1]
        made = sorted(wanted.parent.glob("net_*.pth"))
        if not wanted.exists():
            shutil.copy(made[0], wanted)
        words += short("EDSR") + ["path:pretrain_network_FP=edsr.pth"] if "EDSR" in command else short()
    elif "sweep.py" in command:
        words += ["--dry-run"]
    elif "check_pretrained.py" in command:  # the test sets here are not those of the cards
        card = folder / "experiments/pretrained_models/EDSR_x4.json"
        for file in (card, card.with_suffix(".safetensors")):
            shutil.copy(tiny.ROOT / "experiments/pretrained_models" / file.name, file)
        card.write_text(card.read_text().replace("test_EDSR_x4", "demo_EDSR_FP_x4"))
        words += ["--folder", str(card.parent)]
    elif "2DQuant-" in command:
        environment = {"SCALES": "4", "BITS": "2"}
    return words, environment


def run(words, folder, environment):
    python = os.path.dirname(sys.executable)
    path = f"{python}:{os.environ['PATH']}"
    everything = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "PYTHON": sys.executable, **environment}
    done = subprocess.run(words, cwd=folder, env=everything, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


def test_the_readme_has_the_commands():
    assert len(COMMANDS) >= 8 and set(COMMANDS) >= WHOLE_SCRIPTS


@pytest.mark.parametrize(
    "command",
    [c for c in COMMANDS if c.startswith(("python basicsr", "torchrun"))]
    + [c for c in COMMANDS if c.startswith("python scripts/") and "benchmark.py" not in c],
)
def test_command(command, checkout):
    words, environment = prepared(command, checkout)
    run(words, checkout, environment)


def test_sweep_scripts(checkout):
    (command,) = [line for line in README.splitlines() if "2DQuant-getcalidata.sh ;" in line]
    scripts = re.findall(r"bash (scripts/\S+\.sh)", command)
    assert len(scripts) == 3
    for script in scripts:
        extra = {"train": [*short(), *SHORTER], "test": short()}.get(script.removesuffix(".sh").rsplit("-")[-1], [])
        words = ["bash", script, *[word for word in extra if not word.startswith("calibration:")]]
        run(words, checkout, {"SCALES": "4", "BITS": "2", "NUM": "2", "CROP_SIZE": "16"})


def test_whole_scripts_are_valid_shell():
    for command in WHOLE_SCRIPTS:
        subprocess.run(["bash", "-n", tiny.ROOT / command.split()[1]], check=True)
