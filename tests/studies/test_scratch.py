"""A folder for the time being goes with its run, and that of a dead run with the next; that of a living one stays."""

import subprocess
import sys

import pytest

from commonweight.studies.run import hold
from commonweight.studies.run.scratch import scratch

KILLED = """
import os, signal, sys
from pathlib import Path
from commonweight.studies.run.scratch import scratch
with scratch(Path(sys.argv[1]), print) as place:
    (place / "part").mkdir()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def silent(_):
    pass


def test_it_goes_with_the_run_however_it_ends(tmp_path):
    with scratch(tmp_path / "deep" / "f", silent) as place:
        assert (place.parent, list(place.iterdir())) == (tmp_path / "deep", [])
        (place / "part").mkdir()
    with pytest.raises(KeyError), scratch(tmp_path / "deep" / "f", silent):
        raise KeyError
    assert list((tmp_path / "deep").iterdir()) == []


def test_that_of_a_killed_run_goes_and_that_of_a_living_one_stays(tmp_path):
    said = []
    with scratch(tmp_path / "f", said.append) as living:
        subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "f")], check=False)
        (dead,) = {path for path in tmp_path.iterdir() if path != living}
        with scratch(tmp_path / "f", said.append) as mine:
            assert set(tmp_path.iterdir()) == {living, mine}
        assert list(tmp_path.iterdir()) == [living]
    assert said == [f"{dead} was left by a run that was killed, and is deleted"]


def test_nothing_of_another_name_goes(tmp_path):
    digits = "0" * 32
    for name in (f".g.{digits}.steps", f".f.{digits}.steps-mine", ".f.123.steps", f"f.{digits}.steps", f".fx{digits}"):
        (tmp_path / name).mkdir()
    (tmp_path / f".f.{digits}.steps").write_text("a file")
    (tmp_path / f".f.{'1' * 32}.steps").symlink_to(tmp_path / ".f.123.steps")
    before = set(tmp_path.iterdir())
    with scratch(tmp_path / "f", pytest.fail):
        pass
    assert set(tmp_path.iterdir()) == before


def test_where_there_are_no_locks_it_is_named(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def refuse(descriptor, operation):
        raise OSError

    monkeypatch.setattr(fcntl, "flock", refuse)
    left = tmp_path / f".f.{'0' * 32}.steps"
    left.mkdir()
    said = []
    with hold.held(left) as found:
        assert (found.alone, found.busy) == (False, False)
    with scratch(tmp_path / "f", said.append):
        pass
    assert left.is_dir()
    assert len(said) == 1
    assert f"{left} is of a run that was killed, or of one at work" in said[0]
