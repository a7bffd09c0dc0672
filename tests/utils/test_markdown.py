"""A table has a head, a ruler and one line a row; bars in cells do not end them. Pages hold tables in marked places."""

from basicsr.utils.markdown import markdown_table, with_tables


def test_a_table_and_its_escapes():
    lines = [["method", "PSNR (dB)"], ["a|b", "31.20"], ["-", ""]]
    assert markdown_table(lines) == "| method | PSNR (dB) |\n| --- | --- |\n| a\\|b | 31.20 |\n| - |  |"


def test_the_tables_of_a_page_are_made_anew_in_their_places():
    page = "a\n<!-- from one: x2 -->\nold\n<!-- end -->\nb\n<!-- from two -->\n<!-- end -->\n"
    made = with_tables(page, lambda source: f"table of {source}")
    assert made == (
        "a\n<!-- from one: x2 -->\n\ntable of one: x2\n\n<!-- end -->\nb\n<!-- from two -->\n\ntable of two\n\n<!-- end -->\n"
    )
    assert with_tables(made, lambda source: f"table of {source}") == made
