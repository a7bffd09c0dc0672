import argparse

import pytest

from basicsr.utils.arguments import command_parser, integer_from


def test_integers_from_the_minimum_on_are_accepted():
    assert [integer_from(2)(text) for text in ("2", "17")] == [2, 17]


@pytest.mark.parametrize("text", ["1", "-3", "2.5", "four", ""])
def test_anything_else_is_refused_with_the_value(text):
    with pytest.raises(argparse.ArgumentTypeError, match=f"'{text}' is not an integer from 2 on"):
        integer_from(2)(text)


def parser():
    parser = command_parser("")
    parser.add_argument("-opt")
    parser.add_argument("-o", "--output")
    parser.add_argument("--force_yml", nargs="+", default=[])
    return parser


@pytest.mark.parametrize(("words", "told"), [
    ("--opt a.yml", "There is no argument '--opt'. Did you mean '-opt'?"),
    ("-opt a.yml --force-yml bit=4", "There is no argument '--force-yml'. Did you mean '--force_yml'?"),
    ("--forceyml=bit=4", "There is no argument '--forceyml'. Did you mean '--force_yml'?"),
    ("-opt a.yml bit=4 scale=2", "Nothing takes 'bit=4 scale=2'. Overrides of options follow --force_yml, all behind one."),
    ("-opt a.yml b.yml", "Nothing takes 'b.yml'. The line above has all arguments."),
])  # fmt: skip
def test_what_no_argument_takes_is_told_with_the_nearest(words, told, capsys):
    with pytest.raises(SystemExit) as refused:
        parser().parse_args(words.split())
    assert refused.value.code == 2 and capsys.readouterr().err.endswith(f"error: {told}\n")


@pytest.mark.parametrize(
    "words", [["--force", "a=-1"], ["--force_yml", "a=b c"], ["-oout"], ["--output=-x"], ["-opt", "-5"]]
)
def test_what_argparse_takes_is_taken(words):
    parser().parse_args(words)
