"""One table, three readers: a terminal, a pipe, and a person who sees no colour."""

import io

from commonweight.base.text import Grid
from commonweight.report.terminal import show, to_plain

BLOCKS = [
    Grid(
        "Overlap of [a] and [b]", ("layer", "overlap"), (("head", "0.5000"), ("body.0", "–")), (("pooled", "0.7500"),)
    ),
    "A sentence with a-long/path-that/must-not/be-broken/" + "x" * 90,
]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_plain_text_is_aligned_and_paths_stay_whole():
    lines = to_plain(BLOCKS).splitlines()
    assert lines[:4] == ["Overlap of [a] and [b]", "layer   overlap", "------  -------", "head     0.5000"]
    assert lines[5:7] == ["------  -------", "pooled   0.7500"]
    assert any(line.endswith("x" * 90) for line in lines)
    assert to_plain([Grid("Facts", ("", ""), (("count", "3"),))]) == "Facts\ncount  3\n"


def test_words_stand_on_the_left(monkeypatch):
    grid = Grid("Verdicts", ("pair", "why", "n"), (("a", "its interval holds 0", "5"), ("b", "few", "12")))
    lines = ["pair  why                    n", "a     its interval holds 0   5", "b     few                   12"]
    assert [line for line in to_plain([grid]).splitlines() if line in lines] == lines
    monkeypatch.setenv("COLUMNS", "80")
    stream = Terminal()
    show([grid], stream)
    row = next(line for line in stream.getvalue().splitlines() if line.strip().startswith("b "))
    assert row.index("few") == next(line.index("its") for line in stream.getvalue().splitlines() if "interval" in line)


def test_a_pipe_gets_the_plain_text():
    stream = io.StringIO()
    show(BLOCKS, stream)
    assert stream.getvalue() == to_plain(BLOCKS)


def test_a_terminal_gets_the_same_words():
    stream = Terminal()
    show(BLOCKS, stream)
    drawn = stream.getvalue()
    words = "Overlap of [a] and [b]|layer|overlap|head|0.5000|body.0|–|pooled|0.7500|A sentence"
    for word in words.split("|"):
        assert word in drawn
    assert any(line.endswith("x" * 90) for line in drawn.splitlines())


def test_a_table_wider_than_the_terminal_loses_no_column(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    wide = Grid("Wide", ("layer", *(f"column-number-{i}" for i in range(6))), (("head", *"123456"),))
    stream = Terminal()
    show([wide], stream)
    assert all(f"column-number-{i}" in stream.getvalue() for i in range(6))
