"""The benchmark of start-up times commands that end, and names each."""

from benchmarks import startup_benchmark


def test_a_row_for_each_command(monkeypatch):
    monkeypatch.setattr(startup_benchmark, "ROUNDS", 1)
    monkeypatch.setattr(
        startup_benchmark, "COMMANDS", {"nothing": ["-c", ""], "a wait": ["-c", "import time; time.sleep(0.2)"]}
    )
    rows = dict(line.strip("| ").split(" | ") for line in startup_benchmark.run().splitlines()[-2:])
    assert 0 <= float(rows["nothing"]) < float(rows["a wait"]) >= 0.2
