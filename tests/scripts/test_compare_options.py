"""The table that shows that options files of before and what replaces them mean the same."""

import pytest


@pytest.fixture
def script(load_script):
    return load_script("compare_options")


def test_all_files_of_before_mean_the_same(script, capsys):
    assert script.main([]) == 0
    table = capsys.readouterr().out
    assert table.endswith("\n134 of 134 are equal.\n")
    assert "| train/train_RDN_BRECQ_x4.yml | train/train_BRECQ.yml network=rdn | equal |" in table


def test_a_difference_is_told(script, monkeypatch, capsys):
    commands = script.new_commands()
    monkeypatch.setattr(
        script, "new_commands", lambda: {**commands, "train/train_RDN_ODM_x4.yml": "train/train_ODM.yml bit=3"}
    )
    assert script.main(["--only", "train/train_RDN_ODM*"]) == 1
    told = capsys.readouterr().out
    assert "bit: 2 -> 3" in told and "network_g:type: 'RDN' -> 'EDSR'" in told and "0 of 1 are equal" in told
    assert script.main(["--only", "no such file"]) == 1
