"""scripts/reproducibility.py: commands are run again, and what differs is named."""

import pytest


@pytest.mark.slow
def test_a_command_leaves_the_same_bits_in_every_process_and_with_two_threads(script_command):
    done = script_command("reproducibility", "--commands", "upscale")
    assert done.stdout == "| command | again | two threads |\n|---|---|---|\n| upscale | same bits | same bits |\n", (
        done.stderr
    )


def test_what_differs_is_named(load_script, monkeypatch, capsys):
    script = load_script("reproducibility")
    monkeypatch.setattr(script.jobs, "make_inputs", script.jobs.Inputs)
    monkeypatch.setattr(
        script, "results", lambda _name, _inputs, _root, threads, seed: {"a": str(threads), "b": str(seed)}
    )
    assert script.main(["--commands", "test"]) == 0
    assert "| test | other bits: b | other bits: a, b |" in capsys.readouterr().out
