"""What compare finds out before it measures, and what it makes of interruptions and companions."""

import gc
import json
import shutil
import sys
import weakref
from pathlib import Path

import pytest
import torch
from damage import content
from safetensors.torch import load_file, save_file

from commonweight import Footprint
from commonweight.base import IntegrityError, MeasurementError, UsageError
from commonweight.base.folders import HOST, TakenError
from commonweight.base.records import sealed
from commonweight.data.reviews import reviews
from commonweight.models.options import LoadOptions
from commonweight.studies.compare import checks
from commonweight.studies.compare import compare as study
from commonweight.studies.compare.compare import compare, compare_outlook
from commonweight.studies.compare.options import ColumnOptions, CompareOptions, MeasureOptions
from commonweight.studies.demo.encoder import make_start, make_tokenizer, save


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("guards")
    model = make_start(0)
    save(model, make_tokenizer(), folder / "one")
    with torch.no_grad():
        model.classifier.weight.mul_(3)
    save(model, make_tokenizer(), folder / "two")
    rows = [{"text": r["text"], "label": r["label"]} for r in reviews(12)]
    for name, written in (
        ("good", rows),
        ("bad", [*rows, {"text": "the film is good", "label": 7}]),
        ("textless", [{"n": 1, "label": 0}]),
    ):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in written))
    return folder


@pytest.fixture
def measured(monkeypatch):
    """Names of the data measured, in order."""
    names = []

    def note_down(loaded, table, *args, **options):
        names.append(table.name)
        return true_measure(loaded, table, *args, **options)

    true_measure = study.measure
    monkeypatch.setattr(study, "measure", note_down)
    return names


def test_bad_rows_of_the_last_data_set_stop_the_first(place, tmp_path, measured):
    good = str(place / "good.jsonl")
    for bad, message in (("bad", "row 12 of bad has 7"), ("textless", "0 columns of strings")):
        with pytest.raises(UsageError, match=message):
            compare([str(place / "one")], [good, str(place / f"{bad}.jsonl")], tmp_path / "run")
    for measuring, message in (
        (MeasureOptions(folds=40), "fold 1 of 40 holds no example of good"),
        (MeasureOptions(columns=ColumnOptions(max_length=2)), "max_length 2 leaves no room"),
    ):
        options = CompareOptions(measure=measuring)
        with pytest.raises(UsageError, match=message):
            compare([str(place / "one"), str(place / "two")], [good], tmp_path / "run", options)
    assert measured == []
    assert not (tmp_path / "run").exists()


@pytest.fixture
def events(monkeypatch):
    """What was loaded and measured, in order, each with how many models were in memory then."""
    found, alive = [], weakref.WeakSet()

    def load_and_note(model, options):
        gc.collect()
        found.append(("load", model.name, len(alive)))
        loaded = true_load(model, options)
        alive.add(loaded.model)
        return loaded

    def measure_and_note(loaded, table, *args, **options):
        gc.collect()
        found.append(("measure", Path(loaded.identity["name"]).name, len(alive)))
        return true_measure(loaded, table, *args, **options)

    true_load, true_measure = checks.load, study.measure
    monkeypatch.setattr(checks, "load", load_and_note)
    monkeypatch.setattr(study, "load", load_and_note)
    monkeypatch.setattr(study, "measure", measure_and_note)
    return found


def test_small_models_are_loaded_once_and_go_when_they_are_measured(place, tmp_path, events):
    models, data = [str(place / name) for name in ("one", "two")], [str(place / "good.jsonl")]
    both = [*data, f"again={place / 'good.jsonl'}"]
    first = compare(models, both, tmp_path / "run")
    assert events == [
        ("load", "one", 0),
        ("load", "two", 1),
        ("measure", "one", 2),
        ("measure", "one", 2),
        ("measure", "two", 1),
        ("measure", "two", 1),
    ]
    assert first.table.names == first.measured == ("one/good", "one/again", "two/good", "two/again")
    events.clear()
    assert compare(models, both, tmp_path / "run").measured == ()
    assert [event for event, *_ in events] == ["load", "load"]


def test_of_large_models_one_is_in_memory_at_a_time_and_the_last_is_not_loaded_again(
    place, tmp_path, events, monkeypatch
):
    shutil.copytree(place / "one", tmp_path / "three")
    models = [str(place / "one"), str(place / "two"), str(tmp_path / "three")]
    data = [str(place / "good.jsonl")]
    monkeypatch.setattr(checks, "ROOM", 0)
    found = compare(models, data, tmp_path / "run")
    assert events == [
        ("load", "one", 0),
        ("load", "two", 0),
        ("load", "three", 0),
        ("measure", "three", 1),
        ("load", "one", 0),
        ("measure", "one", 1),
        ("load", "two", 0),
        ("measure", "two", 1),
    ]
    assert found.table.names == found.measured == ("one/good", "two/good", "three/good")
    monkeypatch.setattr(checks, "ROOM", 1 << 30)
    assert compare(models, data, tmp_path / "all").table.to_json() == found.table.to_json()


def test_models_that_fit_stay_beside_one_that_does_not(place, tmp_path, events, monkeypatch):
    shutil.copytree(place / "one", tmp_path / "three")
    models = [str(place / "one"), str(place / "two"), str(tmp_path / "three")]
    size = sum(weights.nbytes for weights in load_file(place / "one" / "model.safetensors").values())
    monkeypatch.setattr(checks, "ROOM", round(1.5 * size))
    compare(models, [str(place / "good.jsonl")], tmp_path / "run")
    assert [name for event, name, _ in events if event == "load"] == ["one", "two", "three", "two"]
    assert [name for event, name, _ in events if event == "measure"] == ["one", "three", "two"]
    assert max(count for *_, count in events) == 2


def test_a_large_model_that_changes_meanwhile_is_noticed(place, tmp_path, monkeypatch):
    shutil.copytree(place / "one", tmp_path / "one")

    def measure_and_change(*args, **options):
        weights = load_file(tmp_path / "one" / "model.safetensors")
        save_file({n: w + 1 for n, w in weights.items()}, tmp_path / "one" / "model.safetensors", {"format": "pt"})
        return true_measure(*args, **options)

    true_measure = study.measure
    monkeypatch.setattr(study, "measure", measure_and_change)
    monkeypatch.setattr(checks, "ROOM", 0)
    with pytest.raises(MeasurementError, match="is not what it was when it was read first: its files changed"):
        compare([str(tmp_path / "one"), str(place / "two")], [str(place / "good.jsonl")], tmp_path / "run")


def test_what_owns_no_footprint_may_change_and_idle_settings_do_not_matter(place, tmp_path, measured, monkeypatch):
    copy = tmp_path / "m.jsonl"
    shutil.copy(place / "good.jsonl", copy)
    models, data = [str(place / "one")], [f"a={place / 'good.jsonl'}", str(copy)]
    second = study.measure

    def fail_second(loaded, table, *args, **options):
        if table.name == "m":
            raise MeasurementError("broke")
        return second(loaded, table, *args, **options)

    monkeypatch.setattr(study, "measure", fail_second)
    with pytest.raises(MeasurementError, match="broke"):
        compare(models, data, tmp_path / "run")
    monkeypatch.setattr(study, "measure", second)
    copy.write_text("".join(copy.read_text().splitlines(keepends=True)[:-1]))
    found = compare(models, data, tmp_path / "run", CompareOptions(measure=MeasureOptions(seed=5, samples=3)))
    assert (found.measured, found.skipped) == (("one/m",), ("one/a",))
    copy.write_text("".join(copy.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(UsageError, match=r"data\.m\.sha256"):
        compare(models, data, tmp_path / "run")
    with pytest.raises(UsageError, match=r"settings\.tokenizer was None, is now"):
        compare(models, data[:1] * 1 + [f"m={place / 'good.jsonl'}"], tmp_path / "run",
                CompareOptions(load=LoadOptions(tokenizer=str(place / "two"))))  # fmt: skip


def test_adding_a_model_renames_none(place, tmp_path, measured):
    for name, source in (("x", "one"), ("y", "two"), ("z", "two")):
        shutil.copytree(place / source, tmp_path / name / "final")
    weights = load_file(tmp_path / "z" / "final" / "model.safetensors")
    weights["classifier.bias"] += 1
    save_file(weights, tmp_path / "z" / "final" / "model.safetensors", {"format": "pt"})
    data = [str(place / "good.jsonl")]
    shutil.copytree(place / "one", tmp_path / "other")
    first = compare([str(tmp_path / "y" / "final"), str(tmp_path / "other")], data, tmp_path / "run")
    assert first.table.names == ("final/good", "other/good")
    both = [str(tmp_path / name / "final") for name in "yz"]
    second = compare([*both, str(tmp_path / "other")], data, tmp_path / "run")
    assert second.measured == ("z-final/good",)
    assert second.table.names == ("final/good", "z-final/good", "other/good")


def test_a_cell_that_another_process_finished_is_taken(place, tmp_path, monkeypatch):
    models, data = [str(place / "one"), str(place / "two")], [str(place / "good.jsonl")]
    notes, true_measure = [], study.measure

    def overtaken(loaded, table, options, *, folder, **others):
        true_measure(loaded, table, options, folder=folder)  # the other process
        if loaded.identity["name"].endswith("one"):
            return true_measure(loaded, table, options, folder=folder, **others)
        (tmp_path / "kept").mkdir()
        error = TakenError("as this one wanted to give the folder its name")
        error.kept = tmp_path / "kept"
        raise error

    monkeypatch.setattr(study, "measure", overtaken)
    found = compare(models, data, tmp_path / "run", note=notes.append)
    assert found.skipped == ("one/good", "two/good")
    assert any("another process finished it meanwhile" in note for note in notes)
    assert not (tmp_path / "kept").exists()


def test_unfinished_work_of_a_killed_process_goes(place, tmp_path):
    models, data = [str(place / "one"), str(place / "two")], [str(place / "good.jsonl")]
    compare(models, data, tmp_path / "run")
    stale = tmp_path / "run" / "footprints" / "one" / f".good.{HOST}-999999999-0123abcd.partial"
    stale.mkdir()
    compare(models, data, tmp_path / "run")
    assert not stale.exists()


def test_one_function_with_two_checkpoints(tmp_path, monkeypatch):
    (tmp_path / "twice.py").write_text("import torch\n\n\ndef linear():\n    return torch.nn.Linear(2, 2)\n")
    (tmp_path / "n.csv").write_text("u,v,label\n1,2.5,0\n3,4,1\n-1,0,1\n")
    for name in ("a", "b"):
        save_file(torch.nn.Linear(2, 2).state_dict(), tmp_path / f"{name}.safetensors")
    monkeypatch.chdir(tmp_path)
    options = CompareOptions(
        measure=MeasureOptions(columns=ColumnOptions(input_column=("u", "v"))),
        checkpoints=("a.safetensors", "b.safetensors"),
    )
    found = compare(["twice:linear", "twice:linear"], ["n.csv"], "run", options)
    again = compare(["twice:linear", "twice:linear"], ["n.csv"], "run", options)
    sys.modules.pop("twice", None)
    assert found.table.names == ("a/n", "b/n")
    assert (again.measured, again.skipped) == ((), ("a/n", "b/n"))
    one, two = (Footprint.load(tmp_path / "run" / "footprints" / name / "n") for name in ("a", "b"))
    assert not torch.equal(one["weight"], two["weight"])


@pytest.mark.parametrize("part", ["models", "data"])
@pytest.mark.parametrize("name", ["../../../escaped", "{0}/escaped", ".escaped"])
@pytest.mark.parametrize("dry", [True, False])
def test_a_crafted_record_takes_nothing_out_of_the_folder(place, tmp_path, part, name, dry):
    models, data = [str(place / "one"), str(place / "two")], [str(place / "good.jsonl")]
    run = tmp_path / "a" / "b" / "run"
    compare(models, data, run)
    record = content(run / "run.json")
    named = record["asked"][part]
    named[name.format(tmp_path)] = named.pop(next(iter(named)))
    (run / "run.json").write_text(json.dumps(sealed(record)))
    shutil.rmtree(run / "footprints" / "one")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(IntegrityError, match="expected one that a folder can have"):
        (compare_outlook if dry else compare)(models, data, run)
    assert sorted(tmp_path.rglob("*")) == before
    assert not list(place.rglob("*escaped*"))
    assert compare(models, data, run, fresh=True).table.names == ("one/good", "two/good")
