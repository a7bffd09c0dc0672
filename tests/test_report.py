"""The command: from folders to files and a table on stdout."""

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
    shown = capsys.readouterr().out
    assert shown.startswith((tmp_path / "out/table.md").read_text()) and "report.html" in shown
    assert "<title>out</title>" in (tmp_path / "out/report.html").read_text()


def test_a_folder_that_holds_nothing_ends_with_a_sentence(tmp_path, capsys):
    assert report.main([str(tmp_path), "-o", str(tmp_path / "report.html")]) == 2
    message = capsys.readouterr().err
    assert "holds neither metrics.json" in message and "Traceback" not in message


def test_a_folder_is_required():
    with pytest.raises(SystemExit):
        report.main([])
