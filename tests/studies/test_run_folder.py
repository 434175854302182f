"""A run folder belongs to one question: it goes on, grows, or refuses."""

import json
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
from damage import content

from commonweight.base import IntegrityError, UsageError
from commonweight.base.folders import HOST, checked_output, clear_run, replacing
from commonweight.base.records import sealed
from commonweight.base.settings import setting
from commonweight.base.text import silent
from commonweight.footprints.files import FOOTPRINT_FOLDER
from commonweight.studies.compare.folder import (
    FOOTPRINTS,
    bound_by,
    check_question,
    open_comparison,
    read_comparison,
)
from commonweight.studies.demo.demo import check_demo_folder
from commonweight.studies.run.folder import check_place, open_run
from commonweight.studies.run.plan import StudyPlan
from commonweight.studies.run.record import StudyKind, differences, read_record, same_identity

DEAD = f"{HOST}-999999999-0123abcd"
"""As a process of this machine that is gone names things."""

ASKED = {
    "settings": {"folds": 4, "fisher_type": "empirical"},
    "models": {"a": {"name": "x/a", "weights": {"model.safetensors": "1"}}},
    "data": {"d": {"path": "d.tsv", "sha256": "2"}},
}


def changed(**parts):
    return {key: {**value, **parts.get(key, {})} for key, value in ASKED.items()}


def finish(run, *names):
    for name in names:
        (run.path / FOOTPRINTS / name).mkdir(parents=True)
        (run.path / FOOTPRINTS / name / "footprint.json").write_text("{}")


def test_the_same_question_goes_on(tmp_path):
    run = open_comparison(tmp_path / "run", ASKED)
    run.write("note.txt", "kept")
    again = open_comparison(tmp_path / "run", ASKED)
    assert (again.path / "note.txt").read_text() == "kept"
    assert read_comparison(tmp_path / "run")["asked"] == ASKED
    assert not list((tmp_path / "run").glob(".*"))


def test_models_and_data_may_be_added_but_not_dropped(tmp_path):
    open_comparison(tmp_path / "run", ASKED)
    more = changed(models={"b": {"weights": {}}}, data={"e": {"sha256": "3"}})
    finish(open_comparison(tmp_path / "run", more), "b/d")
    with pytest.raises(UsageError, match=r"models\.b was present, is now absent"):
        open_comparison(tmp_path / "run", ASKED)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (changed(settings={"folds": 8}), r"settings\.folds was 4, is now 8"),
        (changed(settings={"more": True}), r"settings\.more was absent, is now True"),
        (
            changed(models={"a": {"weights": {"model.safetensors": "9"}}}),
            r"models\.a\.weights.*was '1', is now '9'",
        ),
        (changed(data={"d": {"sha256": "9"}}), r"data\.d\.sha256"),
    ],
)
def test_another_question_is_refused_and_fresh_starts_over(tmp_path, other, message):
    run = open_comparison(tmp_path / "run", ASKED)
    finish(run, "a/d")
    run.write("study.md", "old")
    with pytest.raises(UsageError, match=message + ".*fresh=True"):
        open_comparison(tmp_path / "run", other)
    assert (tmp_path / "run" / "study.md").exists()
    open_comparison(tmp_path / "run", other, fresh=True)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["run.json"]


def test_where_a_thing_lies_does_not_matter():
    moved = changed(models={"a": {"name": "elsewhere", "weights": {"model.safetensors": "1"}}})
    assert not differences(bound_by(ASKED, None), bound_by(moved, None))
    assert same_identity({"path": "a", "sha256": "1"}, {"path": "b", "sha256": "1"})
    assert not same_identity({"path": "a", "sha256": "1"}, {"path": "a", "sha256": "2"})
    assert not same_identity(None, {"sha256": "2"})


def test_folders_that_are_no_run_are_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    for fresh in (False, True):
        with pytest.raises(UsageError, match=r"not empty and holds no run\.json"):
            open_comparison(tmp_path, ASKED, fresh=fresh)
    with pytest.raises(UsageError, match="is a file"):
        open_comparison(tmp_path / "mine.txt", ASKED)
    assert (tmp_path / "mine.txt").read_text() == "precious"


def test_a_damaged_record_is_said(tmp_path):
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(IntegrityError, match=r"is not JSON .*: it was damaged; choose another folder"):
        open_comparison(tmp_path, ASKED)
    (tmp_path / "run.json").write_text('{"format": "other"}')
    with pytest.raises(IntegrityError, match="not a commonweight-run record of version 3"):
        open_comparison(tmp_path, ASKED)


def test_an_output_is_checked_before_the_work_and_replaced_after_it(tmp_path):
    footprint = tmp_path / "f"
    checked_output(tmp_path / "deep" / "new", FOOTPRINT_FOLDER)
    footprint.mkdir()
    assert checked_output(footprint, FOOTPRINT_FOLDER) == footprint.resolve()  # an empty folder is free
    (footprint / "mine").write_text("")
    with pytest.raises(UsageError, match="is not a footprint"):
        checked_output(footprint, FOOTPRINT_FOLDER, overwrite=True)
    (footprint / "mine").unlink()
    (footprint / "footprint.json").write_text("old")
    with pytest.raises(UsageError, match="pass overwrite=True"):
        checked_output(footprint, FOOTPRINT_FOLDER)
    checked_output(footprint, FOOTPRINT_FOLDER, overwrite=True)

    def fail(place):
        place.mkdir()
        raise RuntimeError("broke")

    with pytest.raises(RuntimeError, match="broke"), replacing(footprint, FOOTPRINT_FOLDER, overwrite=True) as place:
        fail(place)
    assert (footprint / "footprint.json").read_text() == "old"
    with replacing(footprint, FOOTPRINT_FOLDER, overwrite=True) as place:
        place.mkdir()
        (place / "footprint.json").write_text("new")
    assert (footprint / "footprint.json").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("name", ["name", "path", "checkpoint"])
def test_a_model_may_be_called_like_a_key_of_places(name):
    former = {"models": {name: {"weights": "1"}}, "data": {name: {"sha256": "1"}}}
    now = {"models": {name: {"weights": "2"}}, "data": {name: {"sha256": "2"}}}
    asked = bound_by(now, None)
    assert len(differences(bound_by(former, None), asked)) == 2
    assert len(differences(bound_by(former, [f"{name}/{name}"]), asked)) == 2
    assert not differences(bound_by(former, []), asked)
    assert not differences(asked, asked)


@pytest.mark.parametrize(
    ("former", "now", "same"),
    [
        ("a.csv", "a.tsv", False),
        ("a.csv", "b/a.CSV", True),
        ("a.tsv", "z.jsonl", False),
        ("folder.v1", "folder.v2", True),
        ("rows.parquet", "rows", False),
    ],
)
def test_how_a_file_is_read_is_part_of_what_it_is(former, now, same):
    assert same_identity({"path": former, "sha256": "1"}, {"path": now, "sha256": "1"}) is same


def test_the_question_of_another_process_holds_before_anything_is_finished(tmp_path):
    open_comparison(tmp_path, ASKED)
    for other in (changed(settings={"folds": 8}), changed(models={"a": {"weights": {"model.safetensors": "9"}}})):
        check_question(tmp_path, other)
        with pytest.raises(UsageError, match="holds a run of something else"):
            check_question(tmp_path, other, busy=True)
    check_question(tmp_path, changed(models={"b": {"weights": {}}}), busy=True)


BAD_NAMES = ["../../../X", "/etc/X", "a/b", "a\\b", "..", ".", ".hidden", "", "a\0b"]


@pytest.mark.parametrize("part", ["models", "data"])
@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_of_a_record_are_checked_as_typed_ones_are(tmp_path, part, name):
    open_comparison(tmp_path, ASKED)
    record = content(tmp_path / "run.json")
    record["asked"][part] = {name: next(iter(record["asked"][part].values()))}
    (tmp_path / "run.json").write_text(json.dumps(sealed(record)))
    with pytest.raises(IntegrityError, match=r"expected one that a folder can have.*nothing of it is used"):
        read_comparison(tmp_path)


@pytest.mark.parametrize("name", ["bert@v1", "a=b", "x 2", "größe", "a.b", "org-name", "a:b", "-x"])
def test_names_that_are_made_of_models_and_data_are_read_again(tmp_path, name):
    open_comparison(tmp_path, changed(models={name: {"weights": {}}}, data={name: {"sha256": "1"}}))
    assert name in read_comparison(tmp_path)["asked"]["models"]


KIND = StudyKind("novel", ("torch",))


@pytest.mark.parametrize(
    "changes",
    [None, [], 3, {"asked": []}, {"grown": []}, {"study": "other"}, {"format": "g"}, {"version": 1}],
)
def test_a_damaged_or_strange_record_of_a_study_is_an_error_of_its_own(tmp_path, changes):
    assert read_record(tmp_path, KIND) == {}
    run = open_run(tmp_path, KIND, "running", {"folds": 1}, {"seeds": 2})
    whole = read_record(tmp_path, KIND)
    assert (whole["asked"], whole["grown"], whole["study"]) == ({"folds": 1}, {"seeds": 2}, "novel")
    assert set(whole["versions"]) == {"python", "commonweight", "torch"}
    text = "{" if changes is None else json.dumps(sealed(whole | changes) if isinstance(changes, dict) else changes)
    (run.path / "run.json").write_text(text)
    with pytest.raises((IntegrityError, UsageError), match="choose another folder"):
        read_record(tmp_path, KIND)


@dataclass(frozen=True)
class Plan(StudyPlan):
    folds: int = setting(1, "Parts.", least=1)
    seeds: int = setting(1, "Seeds.", least=1, role="grows")
    words: tuple[str, ...] = setting((), "Words.", role="grows")
    trust: bool = setting(False, "Run code.", role="each time")


def test_a_plan_says_what_decides_and_grows_with_its_run(tmp_path):
    plan = Plan(folds=2, seeds=2, words=("b", "c"), trust=True)
    assert (plan.deciding(), plan.growing()) == ({"folds": 2}, {"seeds": 2, "words": ["b", "c"]})
    grown = plan.grown(tmp_path, {"seeds": 3, "words": ["a", "b"]})
    assert (grown.seeds, grown.words, grown.trust) == (3, ("a", "b", "c"), True)
    assert plan.grown(tmp_path, {"seeds": 1}) == plan
    with pytest.raises(IntegrityError, match=r"run\.json is damaged \(seeds is '3'\)"):
        plan.grown(tmp_path, {"seeds": "3"})
    with pytest.raises(UsageError, match=r"^folds must be at least 1, got 0$"):
        Plan(folds=0)


@pytest.mark.parametrize(
    "left",
    [
        [f".run.json.{DEAD}.partial"],
        [".commonweight-ab12_x9z"],
        [
            f".run.json.{DEAD}.partial",
            ".commonweight-1",
            f".f.{DEAD}.new",
        ],
    ],
)
def test_what_a_killed_process_left_before_the_first_record_is_no_content(tmp_path, left):
    for name in left:
        (tmp_path / name).write_text("{") if name.startswith(".run") else (tmp_path / name).mkdir()
    open_comparison(tmp_path, ASKED)
    check_demo_folder(tmp_path / "demo")
    clear_run(tmp_path, silent)
    assert not list(tmp_path.glob(".run*"))
    (tmp_path / "run.json").unlink()
    (tmp_path / "demo").mkdir()
    for name in left:
        (tmp_path / "demo" / name).mkdir()
    check_demo_folder(tmp_path / "demo")
    for strange in (".run.json.partial", "notes.txt", ".git", ".x.0123.partial"):
        (tmp_path / strange).write_text("")
        with pytest.raises(UsageError, match=r"is not empty and holds no run\.json"):
            check_place(tmp_path)
        (tmp_path / strange).unlink()
    check_place(tmp_path / "demo")


def test_the_time_of_work_adds_up(tmp_path, monkeypatch):
    clock = iter([10.0, 14.0, 20.0, 21.5, 30.0, 32.0])
    monkeypatch.setattr("commonweight.studies.run.folder.time", SimpleNamespace(monotonic=lambda: next(clock)))
    with pytest.raises(KeyboardInterrupt), open_run(tmp_path, KIND, "running", {}).working():
        raise KeyboardInterrupt
    record = read_record(tmp_path, KIND)
    assert (record["status"], record["seconds"]) == ("interrupted", 4.0)
    with open_run(tmp_path, KIND, "running", {}).working():
        pass
    assert read_record(tmp_path, KIND)["seconds"] == 5.5
    with open_run(tmp_path, KIND, "running", {}, fresh=True).working():
        pass
    assert read_record(tmp_path, KIND)["seconds"] == 2.0
