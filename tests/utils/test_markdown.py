"""A table has a head, a ruler and one line a row; bars in cells do not end them."""

from basicsr.utils.markdown import markdown_table


def test_a_table_and_its_escapes():
    lines = [["method", "PSNR (dB)"], ["a|b", "31.20"], ["-", ""]]
    assert markdown_table(lines) == "| method | PSNR (dB) |\n| --- | --- |\n| a\\|b | 31.20 |\n| - |  |"
