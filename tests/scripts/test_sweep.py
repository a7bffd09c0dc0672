"""scripts/sweep.py as a user calls it: real runs of a network of 4 layers, stopped, continued, one of them failing."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
import torch

from tests import tiny, tiny_grid

pytestmark = pytest.mark.slow

SCRIPT = tiny.ROOT / "scripts/sweep.py"
FAILING = {
    "label": "Broken",
    "options": f"{tiny_grid.OPTIONS}/demo_MinMax.yml",
    "overrides": {"calibration": {"data": "absent_calibration_set.json"}},
}
SHORT = {"total_iter": 24}


def methods(folder):
    _, trained = tiny_grid.grid(folder)["methods"]
    return [FAILING, {**trained, "overrides": {"train": SHORT}}]


def parameters(experiment):
    return torch.load(experiment / "models/net_Q_latest.pth", weights_only=True)["params"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder in which a sweep was stopped while it trained: one run has failed, two are finished, one can be continued."""
    folder = tmp_path_factory.mktemp("sweep")
    file = tiny_grid.write(folder, methods=methods(folder))
    command = [sys.executable, str(SCRIPT), "-grid", str(file), "--root", str(folder)]
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    tiny.wait_for(folder / "experiments/tiny_SwinIR-tiny_2DQuant_x4_bit4/training_states/2.state", process)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=tiny.PATIENCE)
    assert process.returncode == 143, output
    (folder / "output").write_text(output)
    return folder


@pytest.fixture
def sweep(load_script, folder, capsys, monkeypatch):
    """Call the script in this process; return exit status and what it prints."""
    monkeypatch.chdir(folder)
    main = load_script("sweep").main

    def call(*arguments, file=folder / "grid.yml"):
        status = main(["-grid", str(file), "--root", str(folder), *arguments])
        captured = capsys.readouterr()
        return status, captured.out + captured.err

    return call


def test_stopped(folder):
    output = (folder / "output").read_text()
    assert "SwinIR-tiny_Broken_x4_bit4 failed with exit status 2" in output and "absent_calibration_set.json" in output
    assert "SwinIR-tiny_FP_x4 finished in" in output
    assert "Stopping 1 runs" in output and "The same command continues." in output
    names = {file.stem for file in (folder / "results/sweeps/tiny/runs").glob("*.json")}
    assert names == {"Bicubic_x4", "SwinIR-tiny_FP_x4"}


def test_continued(folder, sweep):
    status, output = sweep("--dry-run")
    assert status == 0 and "4 runs, 2 of them finished." in output
    assert "# SwinIR-tiny_FP_x4: finished" in output and output.count("--auto_resume") == 1

    finished = folder / "results/sweeps/tiny/runs/SwinIR-tiny_FP_x4.json"
    before = finished.stat().st_mtime_ns
    status, output = sweep()
    assert status == 1 and output.rstrip().endswith("failed: SwinIR-tiny_Broken_x4_bit4")
    assert "FP_x4 begins" not in output and finished.stat().st_mtime_ns == before
    log = (folder / "results/sweeps/tiny/logs/SwinIR-tiny_2DQuant_x4_bit4.log").read_text()
    assert "Continuing 'tiny_SwinIR-tiny_2DQuant_x4_bit4' after iteration" in log and log.count("\n$ ") == 1
    states = folder / "experiments/tiny_SwinIR-tiny_2DQuant_x4_bit4/training_states"
    assert (states / f"{SHORT['total_iter']}.state").exists()


def test_tables_of_what_is_there(folder, sweep):
    status, output = sweep("--tables-only")
    assert status == 0 and "3 of 4 runs" in output
    output_folder = folder / "results/sweeps/tiny"
    rows = {row["method"]: row for row in csv.DictReader((output_folder / "results.csv").open())}
    assert list(rows) == ["Bicubic", "FP", "2DQuant"]
    metrics = json.loads((folder / "results/tiny_SwinIR-tiny_2DQuant_x4_bit4/metrics.json").read_text())
    assert float(rows["2DQuant"]["psnr"]) == metrics["datasets"]["demo"]["psnr"]
    assert float(rows["2DQuant"]["fidelity"]) > 20 and float(rows["2DQuant"]["calibration_seconds"]) >= 0
    change = float(rows["2DQuant"]["psnr"]) - float(rows["FP"]["psnr"])
    assert float(rows["2DQuant"]["psnr_change"]) == pytest.approx(change, abs=1e-6)
    assert "Not finished:\n\n- SwinIR-tiny_Broken_x4_bit4\n" in (output_folder / "tables.md").read_text()
    assert (output_folder / "demo.svg").stat().st_size > 1000


def test_train_only_makes_the_networks_of_records_again(folder, sweep):
    record = folder / "results/sweeps/tiny/runs/SwinIR-tiny_2DQuant_x4_bit4.json"
    experiment = folder / "experiments/tiny_SwinIR-tiny_2DQuant_x4_bit4"
    before, network = record.read_bytes(), parameters(experiment)
    arguments = ("--train-only", "--only", "*_2DQuant_*")
    status, output = sweep(*arguments)
    assert status == 0 and "1 runs, 1 of them finished." in output

    shutil.rmtree(experiment)
    status, output = sweep(*arguments, "--dry-run")
    assert status == 0 and "basicsr/train.py" in output and "basicsr/test.py" not in output
    status, output = sweep(*arguments)
    assert status == 0 and f"its network lies in {experiment / 'models'}" in output
    torch.testing.assert_close(parameters(experiment), network)
    assert record.read_bytes() == before
    log = (folder / "results/sweeps/tiny/logs/SwinIR-tiny_2DQuant_x4_bit4.log").read_text()
    assert "basicsr/test.py" not in log
    assert sweep(*arguments)[1].startswith("1 runs, 1 of them finished.")


def test_another_recipe_is_neither_reused_nor_replaced_unasked(folder, sweep, tmp_path):
    content = tiny_grid.grid(folder)
    content["evaluation"]["datasets"]["test_1"]["num_images"] = 2
    file = tiny_grid.write(tmp_path, **content)
    status, output = sweep("--only", "Bicubic*", file=file)
    assert status == 2 and "test set demo:num_images was 1, is now 2" in output and "--rerun" in output
    status, output = sweep("--only", "Bicubic*", "--rerun", file=file)
    assert status == 0 and "Bicubic_x4 finished" in output
    assert "Warning: SwinIR-tiny_FP_x4 in the tables was made with another recipe" in output
    status, output = sweep("--only", "Bicubic*", file=file)
    assert status == 0 and "1 runs, 1 of them finished." in output


def test_a_grid_that_cannot_be_used_ends_with_2(sweep, tmp_path):
    status, output = sweep(file=tiny_grid.write(tmp_path, jbos=1))
    assert status == 2 and "Did you mean 'jobs'?" in output and "Traceback" not in output


def test_runs_without_full_precision_weights_are_left_out(sweep, folder, tmp_path):
    absent = {"path": {"pretrain_network_FP": "absent.pth"}}
    content = tiny_grid.grid(tmp_path)
    content["name"] = "absent"
    content["architectures"] = {"SwinIR-tiny": absent}
    file = tiny_grid.write(tmp_path, **content)
    status, output = sweep(file=file)
    assert status == 0 and "Bicubic_x4 finished" in output and "begins" in output
    assert "Left out: 3 runs, because their full-precision weights 'absent.pth' are not on disk." in output
    status, output = sweep("--only", "SwinIR*", file=file)
    assert status == 2 and "No run can be done. Put the weights there first: absent.pth." in output
    text = (folder / "results/sweeps/absent/tables.md").read_text()
    assert "Not finished:\n\n- SwinIR-tiny x4 (3 runs)\n" in text


def test_array_job_with_the_local_executor(script_command, tmp_path):
    file = tiny_grid.write(tmp_path, slurm={"minutes": 10, "gpus": 0, "setup": ["true"]})
    done = script_command("sweep", "-grid", file, "--root", tmp_path, "--launcher", "local", "--only", "Bicubic_x4")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[1/1] Bicubic_x4 is job" in done.stdout and "Bicubic_x4 finished." in done.stdout
    assert (tmp_path / "results/sweeps/tiny/runs/Bicubic_x4.json").exists()
