import argparse

import pytest

from basicsr.utils.arguments import integer_from


def test_integers_from_the_minimum_on_are_accepted():
    assert [integer_from(2)(text) for text in ("2", "17")] == [2, 17]


@pytest.mark.parametrize("text", ["1", "-3", "2.5", "four", ""])
def test_anything_else_is_refused_with_the_value(text):
    with pytest.raises(argparse.ArgumentTypeError, match=f"'{text}' is not an integer from 2 on"):
        integer_from(2)(text)
