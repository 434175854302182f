"""Folders take their place whole: the name holds the old or the new one, and what dead processes left goes."""

import os
import subprocess
import sys
import time

import pytest

from commonweight.base import folders
from commonweight.base.errors import UsageError
from commonweight.base.folders import Kind, checked_output, clear_leftovers, clear_run, for_the_time_being, replacing

KIND = Kind("thing", "thing.json")
GONE = 999_999_999
"""No process has this number."""


def make(place, text):
    place.mkdir(parents=True)
    (place / KIND.record).write_text(text)


def names(place):
    return sorted(path.name for path in place.iterdir())


@pytest.fixture(params=["exchange", "two renames"])
def way(request, monkeypatch):
    if request.param == "two renames":
        monkeypatch.setattr(folders.sys, "platform", "other")
    return request.param


def test_the_new_one_takes_the_place_of_the_old(tmp_path, way):
    make(tmp_path / "x", "old")
    with replacing(tmp_path / "x", KIND, overwrite=True) as beside:
        make(beside, "new")
        assert (tmp_path / "x" / KIND.record).read_text() == "old"
    assert (tmp_path / "x" / KIND.record).read_text() == "new"
    assert names(tmp_path) == ["x"]


def test_work_that_fails_leaves_the_old_one_and_nothing_else(tmp_path, way):
    make(tmp_path / "x", "old")

    def work():
        with replacing(tmp_path / "x", KIND, overwrite=True) as beside:
            make(beside, "new")
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        work()
    assert (tmp_path / "x" / KIND.record).read_text() == "old"
    assert names(tmp_path) == ["x"]


@pytest.mark.parametrize("failing", [1, 2])
def test_a_rename_that_fails_hides_neither(tmp_path, monkeypatch, failing):
    make(tmp_path / "x", "old")
    monkeypatch.setattr(folders.sys, "platform", "other")
    rename, calls = folders.Path.rename, []

    def counted(path, target):
        calls.append(target)
        if len(calls) == failing:
            raise OSError("disk")
        return rename(path, target)

    monkeypatch.setattr(folders.Path, "rename", counted)
    with pytest.raises(UsageError, match=r"x\.kept-"), replacing(tmp_path / "x", KIND, overwrite=True) as beside:
        make(beside, "new")
    assert (tmp_path / "x" / KIND.record).read_text() == "old"
    (kept,) = tmp_path.glob("x.kept-*")
    assert (kept / KIND.record).read_text() == "new"
    assert len(names(tmp_path)) == 2


def left_by(process, path, ending):
    return path.with_name(f".{path.name}.{folders.HOST}-{process}-0123abcd.{ending}")


def test_what_dead_processes_left_goes_and_what_living_ones_make_stays(tmp_path):
    make(tmp_path / "run" / "deep" / "y", "there")
    make(left_by(GONE, tmp_path / "run" / "deep" / "x", "new"), "half")
    left_by(GONE, tmp_path / "run" / "z.json", "partial").write_text("half")
    make(left_by(os.getpid(), tmp_path / "run" / "x", "new"), "at work")
    other = tmp_path / "run" / ".x.00000000-999999999-0123abcd.new"  # of another machine
    make(other, "who knows")
    (tmp_path / "run" / ".mine").write_text("a user's")
    said = []
    clear_run(tmp_path / "run", said.append)
    assert len(said) == 1
    assert said[0].startswith("removed what an interrupted run left: ")
    mine = left_by(os.getpid(), tmp_path / "run" / "x", "new")
    assert names(tmp_path / "run") == sorted([".mine", other.name, mine.name, "deep"])
    assert names(tmp_path / "run" / "deep") == ["y"]
    clear_run(tmp_path / "run", said.append)
    assert len(said) == 1


def test_a_former_folder_that_nothing_replaced_comes_back(tmp_path):
    make(left_by(GONE, tmp_path / "x", folders.FORMER), "old")
    clear_leftovers(tmp_path)
    assert (tmp_path / "x" / KIND.record).read_text() == "old"
    make(left_by(GONE, tmp_path / "x", folders.FORMER), "older")
    checked_output(tmp_path / "x", KIND, overwrite=True)
    assert (tmp_path / "x" / KIND.record).read_text() == "old"
    assert names(tmp_path) == ["x"]


def test_names_for_the_time_being_are_told_from_others(tmp_path):
    assert folders.is_leftover(for_the_time_being(tmp_path / "x.json", "partial"))
    assert not folders.is_leftover(tmp_path / ".x.json.partial")
    assert not folders.is_leftover(left_by(10**30, tmp_path / "x.json", "partial"))  # no process has such a number


LOCKED = """
import ctypes
from commonweight.cli import streams
streams.GRACE = 0.5
streams.prepare()
library, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)
library.pthread_mutex_lock(mutex)
print("waiting", flush=True)
library.pthread_mutex_lock(mutex)  # never comes back, and no signal interrupts it
"""


@pytest.mark.skipif(sys.platform != "linux", reason="waits in a call of Linux's C library")
def test_sigterm_ends_a_process_that_waits_in_a_call():
    with subprocess.Popen([sys.executable, "-c", LOCKED], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"waiting\n"
        time.sleep(0.5)  # it waits by now
        process.terminate()
        assert process.wait(timeout=20) == 130
