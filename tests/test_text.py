"""Numbers that do not lie by rounding, and text that cannot break its table."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commonweight.base.errors import UsageError
from commonweight.base.names import Named, among, by_value, first_of, quoted
from commonweight.base.text import (
    DASH,
    LONGEST,
    Grid,
    escape_latex,
    escape_markdown,
    holds_words,
    number,
    printable,
    to_html,
    to_latex,
    to_markdown,
)
from commonweight.report.terminal import to_plain


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.5, "0.5000"),
        (0.12345, "0.1235"),
        (1.0, "1.0000"),
        (0.99994, "0.9999"),
        (0.99996, ">0.9999"),
        (1 - 1e-9, ">0.9999"),
        (1 - 1e-15, "1.0000"),
        (0.0, "0.0000"),
        (-0.0, "0.0000"),
        (0.00006, "0.0001"),
        (0.00004, "<0.0001"),
        (1e-300, "<0.0001"),
        (-0.25, "-0.2500"),
        (-1e-9, ">-0.0001"),
        (-1.0, "-1.0000"),
        (-1 + 1e-9, "<-0.9999"),
        (math.nan, "–"),
    ],
)
def test_numbers(value, text):
    assert number(value) == text


@settings(deadline=None, derandomize=True)
@given(st.floats(-1, 1), st.integers(1, 9))
def test_exactly_zero_and_one_are_written_only_for_exactly_zero_and_one(value, decimals):
    text = number(value, decimals)
    if text.lstrip("-") == f"{1:.{decimals}f}":
        assert abs(value) >= 1 - 1e-12
    elif text == f"{0:.{decimals}f}":
        assert value == 0
    else:
        assert abs(float(text.lstrip("<>")) - value) <= 10.0**-decimals


def test_decimals():
    assert number(0.123456, 2) == "0.12"
    assert number(0.996, 2) == ">0.99"
    assert number(0.996, 3) == "0.996"


@pytest.mark.parametrize("decimals", [0, 10, 2.0, True, "4"])
def test_decimals_out_of_range(decimals):
    with pytest.raises(UsageError, match="decimals must be a whole number from 1 to 9, got"):
        number(0.5, decimals)


GRID = Grid("a|b <i>", ("layer", "x"), (("w|1", "0.5"), ("<script>", DASH)), (("total", ">0.9"),))


def test_markdown():
    assert to_markdown(["One & all.", GRID]) == (
        "One & all.\n\n**a\\|b \\<i>**\n\n| layer | x |\n|---|---:|\n| w\\|1 | 0.5 |\n| \\<script> | – |\n"
        "| **total** | **>0.9** |\n"
    )


def test_every_markdown_row_has_as_many_cells_as_the_header():
    rows = to_markdown([GRID]).splitlines()[2:]
    assert {row.replace("\\|", "").count("|") for row in rows} == {3}
    assert {row.count("|") for row in rows} != {3}  # without the escape it would break


def test_a_backslash_cannot_undo_the_escape():
    assert escape_markdown("a\\|b") == "a\\\\\\|b"
    assert escape_markdown("two\nlines") == "two lines"


def test_html_escapes_names():
    text = to_html(["1 < 2 & 3", GRID])
    assert "<script>" not in text
    assert "<i>" not in text
    assert "&lt;script&gt;" in text
    assert "<p>1 &lt; 2 &amp; 3</p>" in text
    assert '<tfoot>\n<tr><th scope="row">total</th><td>&gt;0.9</td></tr>' in text


def test_names_in_sentences():
    assert among("sentense", ["label", "sentence"]) == "there are 'label', 'sentence'; did you mean 'sentence'?"
    assert among("x", []) == "there are none"
    assert quoted(["a", "b"]) == "'a' and 'b'"
    assert by_value({"a": 2, "b": 3, "c": 2}) == "2 in 'a' and 'c', 3 in 'b'"
    assert first_of(["a", "b"]) == "2 differences: a; b"
    with pytest.raises(KeyError, match=r"no layer 'haed' in this table; .*did you mean 'head'"):
        Named("layer", {"body": 1, "head": 2})["haed"]


def test_columns_of_words_are_told_from_columns_of_numbers():
    grid = Grid("Files", ("name", "size", "state"), (("a", "45.3 kB", "done"), ("b", "1e-05", "–")))
    assert [holds_words(grid, column) for column in range(3)] == [True, False, True]


def test_latex_prints_every_sign_as_it_is():
    grid = Grid("50 % of a_b & c", ("layer", "95 %"), (("fc_1", "[<0.1, 0.2]"),), (("all", "−0.1 ± 0.2"),))
    assert escape_latex("#1 {x} ~ ^ \\ $ -0.5 a-1") == (
        r"\#1 \{x\} \textasciitilde{} \textasciicircum{} \textbackslash{} \$ $-$0.5 a-1"
    )
    assert to_latex([grid]) == (
        r"\begin{table}"
        "\n"
        r"\caption{50 \% of a\_b \& c}"
        "\n"
        r"\label{tab:1}"
        "\n"
        r"\centering"
        "\n"
        r"\begin{tabular}{lr}"
        "\n"
        r"\toprule"
        "\n"
        r"layer & 95 \% \\"
        "\n"
        r"\midrule"
        "\n"
        r"fc\_1 & [$<$0.1, 0.2] \\"
        "\n"
        r"\midrule"
        "\n"
        r"all & $-$0.1 $\pm$ 0.2 \\"
        "\n"
        r"\bottomrule"
        "\n"
        r"\end{tabular}"
        "\n"
        r"\end{table}"
        "\n"
    )


HOSTILE = "a\x1b[31mred\x9b2J\u202egnp.exe\u2028\r\x07\ud800"


def test_names_of_strangers_reach_no_terminal_page_or_paper_as_they_are():
    blocks = [f"About {HOSTILE}.", Grid(f"Of {HOSTILE}", ("", HOSTILE), ((HOSTILE, "1"),), ((HOSTILE, "2"),))]
    for written in (to_markdown(blocks), to_html(blocks), to_latex(blocks[1:]), to_plain(blocks)):
        assert not [sign for sign in written if sign != "\n" and not sign.isprintable()]
        assert "x1b" in written
        written.encode()


def test_a_long_name_hides_no_number_and_a_long_sentence_stays():
    long = "encoder." * 700
    for written in (
        to_markdown([Grid("", ("", "x"), ((long, "0.75"),))]),
        to_plain([Grid("", ("", "x"), ((long, "1"),))]),
    ):
        assert len(max(written.splitlines(), key=len)) < 250
        assert "…" in written
    assert printable("word " * 500) == "word " * 500
    assert printable("x" * LONGEST) == "x" * LONGEST
    assert len(printable("x" * 5000)) == LONGEST
    assert printable("a\tb\r\nc") == "a\tb\r\nc"
