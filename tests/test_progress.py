"""Progress: nothing unless asked for, a bar on a terminal, a line now and then elsewhere; labels, rate, time left."""

import sys

import pytest

from commonweight.base import progress


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(progress, "DELAY", 0)
    monkeypatch.setattr(progress, "EVERY", 0)


def test_nothing_is_shown_unless_asked_for(capsys):
    assert list(progress.track([1, 2], "Fisher")) == [1, 2]
    assert capsys.readouterr().err == ""


def test_lines_in_a_pipe_say_what_and_how_long(capsys):
    with progress.shown(), progress.part("rt/dev, 2 of 3"):
        for _ in progress.track(range(4), "Fisher"):
            pass
    found = capsys.readouterr().err
    assert all(line.startswith("rt/dev, 2 of 3, Fisher:") for line in found.splitlines())
    assert any("2/4" in line and "batch/s" in line for line in found.splitlines())
    assert "\r" not in found


def test_a_bar_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with progress.shown(), progress.steps("overlap", 10, "weight") as advance:
        advance(4)
        advance(6)
    found = capsys.readouterr().err
    assert "\r" in found
    assert "overlap:" in found


def test_what_a_part_is_called_ends_with_it(capsys):
    with progress.shown():
        with progress.part("seed 0"):
            pass
        list(progress.track([1, 2, 3], "Fisher"))
    assert "seed 0" not in capsys.readouterr().err
