"""The command: from folders to files and a table on stdout."""

import io

import pytest

from basicsr import report
from tests.reporting import folders


def test_the_command_writes_page_table_and_picture(tmp_path, capsys):
    pictures = folders.hr_pictures(tmp_path / "HR")
    paths = [
        str(folders.results(tmp_path, name, method, bits, hr=tmp_path / "HR", pictures=pictures))
        for name, method, bits in (("fp", "FP", 32), ("a", "A", 4))
    ]
    assert report.main([*paths, "-o", str(tmp_path / "out/report.html")]) == 0
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"report.html", "table.md", "comparison.png"}
    table = (tmp_path / "out/table.md").read_text(encoding="utf-8")
    page, crops = tmp_path / "out/report.html", tmp_path / "out/comparison.png"
    assert capsys.readouterr().out == f"{table}\nPage for the browser:  {page}\nCrops side by side:    {crops}\n"
    assert "<title>out</title>" in (tmp_path / "out/report.html").read_text()


def test_no_crops_are_named_where_there_are_no_pictures(tmp_path, capsys):
    assert report.main([str(folders.results(tmp_path, "a", "A", 4)), "-o", str(tmp_path / "out/report.html")]) == 0
    assert capsys.readouterr().out.endswith(f"\n\nPage for the browser:  {tmp_path / 'out/report.html'}\n")


def test_a_terminal_without_the_signs_of_the_table_shows_the_rest(tmp_path, monkeypatch):
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", terminal)
    assert report.main([str(folders.results(tmp_path, "a", "FP")), "-o", str(tmp_path / "out/report.html")]) == 0
    terminal.flush()
    assert b"| FP | 32/32 | demo | 31.000 | 0.7750 | ? |" in terminal.buffer.getvalue()


def test_a_folder_that_holds_nothing_ends_with_a_sentence(tmp_path, capsys):
    assert report.main([str(tmp_path), "-o", str(tmp_path / "report.html")]) == 2
    message = capsys.readouterr().err
    assert "holds neither metrics.json" in message and "Traceback" not in message


def test_a_folder_that_is_not_there_is_told_so(tmp_path, capsys):
    assert report.main([str(tmp_path / "absent"), "-o", str(tmp_path / "report.html")]) == 2
    assert "There is no folder" in capsys.readouterr().err


def test_a_folder_is_required():
    with pytest.raises(SystemExit):
        report.main([])
