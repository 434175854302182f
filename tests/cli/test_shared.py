"""One command in several processes: torchrun's variables, the same result, and no process that waits for ever."""

from __future__ import annotations

import json
import math
import os
import signal
import time

import numpy as np
from processes import command, ended, impatient_command, started
from studies.shortcut_texts import tiny_plan

from commonweight import OverlapTable
from commonweight.base.team import Team


def compare(place, run):
    data = ["--data", f"films={place / 'films.jsonl'}", "--data", f"food={place / 'food.jsonl'}"]
    return ["compare", place / "one", place / "two", *data, "-o", run, "--no-report"]


def verdicts(run):
    return json.loads((run / "study.json").read_text())["verdicts"]


def words(found):
    """The answers of verdicts, without their numbers."""
    return [{key: value for key, value in each.items() if key in {"pair", "layer", "answer", "name"}} for each in found]


def test_compare_in_several_processes_is_that_in_one(cli, place, tmp_path):
    assert cli(*compare(place, tmp_path / "one")).code == 0
    leader, *followers = ended(started(3, command, *compare(place, tmp_path / "many")))
    assert leader.code == 0, leader.err
    for each in followers:
        assert (each.code, each.out) == (0, ""), each.err
        assert "measuring" not in each.err
    assert leader.out.startswith("Which of 2 models on 2 data sets share the most weights?")
    one, many = (OverlapTable.load(tmp_path / name) for name in ("one", "many"))
    assert many.counts == one.counts
    assert many.names == one.names
    for mine, theirs in zip(one.records("layer"), many.records("layer"), strict=True):
        assert mine[:5] == theirs[:5]
        assert math.isclose(mine.value, theirs.value, abs_tol=1e-6) or np.isnan([mine.value, theirs.value]).all()
    assert words(verdicts(tmp_path / "many")) == words(verdicts(tmp_path / "one"))
    again = cli(*compare(place, tmp_path / "many"))  # in one process, from what several measured
    assert "measured before" in again.err


def test_an_error_ends_all_and_is_said_once(place, tmp_path):
    asked = [*compare(place, tmp_path / "run"), "--folds", "200"]
    leader, follower = ended(started(2, command, *asked))
    assert leader.code == follower.code == 2
    assert "holds no example" in leader.err
    assert (follower.out, follower.err) == ("", "")
    assert not (tmp_path / "run").exists()


def test_a_process_that_dies_ends_the_others_and_the_same_command_goes_on(cli, place, tmp_path):
    run = tmp_path / "run"
    processes = started(2, command, *compare(place, run))
    deadline = time.monotonic() + 60
    while not list(run.glob("footprints/*/*/footprint.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(processes[1].pid, signal.SIGKILL)
    leader, _ = ended(processes)
    assert leader.code != 0
    assert leader.out == ""
    assert "error:" in leader.err
    done = cli(*compare(place, run))
    assert done.code == 0, done.err
    assert "measured before" in done.err
    assert list(OverlapTable.load(run).counts.values()) == [30] * 4


def test_a_process_whose_others_do_not_come_waits_no_longer_than_it_says(place, tmp_path):
    _, done = ended(started(2, impatient_command, *compare(place, tmp_path / "run")))
    assert done.code == 1
    assert "process 1 of 2 did not meet the others at 127.0.0.1:" in done.err
    assert "within 1 s: they or torchrun died" in " ".join(done.err.split())


def test_what_cannot_be_shared_is_refused_by_every_process(place, tmp_path):
    arguments = ["fuse", place / "one", place / "two", "-o", tmp_path / "both"]
    for done in ended(started(2, command, *arguments)):
        assert (done.code, done.out) == (2, "")
        assert "WORLD_SIZE is 2, so this is one of 2 processes" in done.err
    assert not (tmp_path / "both").exists()


def test_shortcuts_are_trained_by_one_process_and_measured_by_several(cli, tmp_path, monkeypatch):
    plan = tiny_plan(tmp_path)
    asked = [
        "--model",
        plan.model,
        "--data",
        plan.data,
        "--shortcuts",
        "st",
        "op",
        "--train-rows",
        "64",
        "--epochs",
        "1",
    ]
    asked += ["--folds", "1", "--path-points", "2", "--path-rows", "8", "--measured-rows", "16", "--scored-rows", "16"]
    asked += ["--no-report", "-o", tmp_path / "run"]
    with monkeypatch.context() as patched:
        patched.setattr("commonweight.studies.shortcuts.run.team_here", lambda: Team(size=2))
        refused = cli("shortcuts", "run", *asked)
    assert refused.code == 2
    assert "3 models are to be trained, and one process trains" in " ".join(refused.err.split())
    assert cli("shortcuts", "train", *asked).code == 0
    leader, follower = ended(started(2, command, "shortcuts", "run", *asked))
    assert leader.code == follower.code == 0, leader.err
    assert leader.out
    assert not follower.out
    study = json.loads((tmp_path / "run" / "study.json").read_text())
    assert study["plan"]["train_rows"] == 64


def test_a_scheduler_beside_several_processes_is_refused(cli, place, tmp_path, monkeypatch):
    monkeypatch.setattr("commonweight.studies.run.cluster.team_here", lambda: Team(size=2))
    found = cli(*compare(place, tmp_path / "run"), "--scheduler", "local:2")
    assert (found.code, found.out) == (2, "")
    assert "--scheduler shares the items, and 2 processes were started" in " ".join(found.err.split())
