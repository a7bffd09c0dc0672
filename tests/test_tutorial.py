"""The tutorial runs as it stands, and says nothing that is not so."""

import os
import re
import subprocess
import sys

import pytest

from tests import tiny

TUTORIAL = (tiny.ROOT / "docs/tutorial.md").read_text(encoding="utf-8")
README = (tiny.ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", TUTORIAL, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_the_blocks_of_the_tutorial_run_in_order():
    code = "\n".join(BLOCKS).replace("ITERATIONS = 60", "ITERATIONS = 4")
    code += "\nprint(len(quantized.quantization_map.quantizers), sorted(small.left_out), small.scale)\n"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(tiny.ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tiny.ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=tiny.PATIENCE,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.splitlines()[-1] == "64 ['2'] 2"
    assert "DOBI + 2DQuant revised, 4 iterations" in done.stdout
    assert re.search(r"full precision \{'psnr': \d\d\.\d+, 'ssim': 0\.\d+\}", done.stdout)


@pytest.mark.slow
def test_the_python_of_the_readme_runs(tmp_path):
    (code,) = re.findall(r"^```python\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
    assert len(code.splitlines()) <= 10 and "crops, 200," in code
    code = code.replace("crops, 200,", "crops, 4,").replace('"results/', f'"{tmp_path}/')
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(tiny.ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tiny.ROOT, env=environment,
        capture_output=True, text=True, timeout=tiny.PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    assert re.fullmatch(r"\{'psnr': \d\d\.\d+, 'ssim': 0\.\d+, 'fidelity': \d\d\.\d+\}", done.stdout.strip())


def test_every_function_of_the_interface_is_in_the_tutorial():
    import basicsr

    functions = [name for name in basicsr.__all__ if name != "QuantizedNetwork"]
    assert all(f"basicsr.{name}(" in TUTORIAL for name in functions)
