"""What a run will take is said beforehand, and is what then lies on disk; a dry run leaves nothing behind."""

import json
from collections import namedtuple

import pytest
import torch
from safetensors.torch import load_file
from studies.shortcut_texts import tiny_plan

from commonweight.base import UsageError
from commonweight.base.folders import SPARE
from commonweight.base.text import size_words, to_markdown
from commonweight.data.reviews import reviews
from commonweight.data.table import open_table
from commonweight.footprints.folds import fold_of
from commonweight.models.load import load_model
from commonweight.models.options import LoadedModel
from commonweight.studies.compare.compare import compare, compare_outlook
from commonweight.studies.compare.measure import measure, measure_outlook
from commonweight.studies.compare.options import ColumnOptions, CompareOptions, MeasureOptions
from commonweight.studies.demo.encoder import make_start, make_tokenizer, save
from commonweight.studies.shortcuts.run import run_study, study_outlook


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("outlook")
    for name in ("one", "two"):
        save(make_start(0), make_tokenizer(), folder / name)
    for name, count in (("films", 60), ("few", 6)):
        rows = reviews(count, domain="films")
        text = "".join(json.dumps({"text": r["text"], "label": r["label"]}) + "\n" for r in rows)
        (folder / f"{name}.jsonl").write_text(text)
    return folder


def tensor_bytes(folder):
    """All that lies in the shards of the footprints below a folder, without heads and what is kept of rows."""
    shards = [file for record in folder.rglob("footprint.json") for file in record.parent.glob("*.safetensors")]
    shards = [file for file in shards if not file.name.startswith(("rows-", "source_rows-"))]
    return sum(tensor.nbytes for shard in shards for tensor in load_file(shard).values())


def test_a_measurement_takes_what_was_said(place, tmp_path):
    loaded, table = load_model(str(place / "one")), open_table(str(place / "films.jsonl"))
    expected = measure_outlook(loaded, table, MeasureOptions(), tmp_path / "f")
    assert list(tmp_path.iterdir()) == []
    measure(loaded, table, MeasureOptions(), folder=tmp_path / "f")
    assert tensor_bytes(tmp_path) == expected.disk
    (needs,) = expected.pieces.values()
    weights = sum(parameter.numel() for parameter in loaded.model.parameters())
    assert (needs.folds, needs.whole, needs.memory) == (8, 4 * weights, 8 * weights)
    assert 4 * weights <= expected.memory["the model"] <= 4 * weights + 10_000


def test_a_comparison_takes_what_was_said_and_counts_what_is_missing(place, tmp_path):
    models, data, run = [str(place / "one"), str(place / "two")], [str(place / "films.jsonl")], tmp_path / "run"
    expected = compare_outlook(models, data, run)
    assert not run.exists()
    said = []
    compare(models, data, run, note=said.append)
    assert tensor_bytes(run) == expected.disk
    assert expected.sentence().partition(", and")[0] in " ".join(said)
    again = compare_outlook(models, data, run)
    assert (again.disk, again.facts["footprints there already"], again.pieces) == (0, "2", {})
    assert compare_outlook(models, data, run, fresh=True).disk == expected.disk
    with pytest.raises(UsageError, match=r"settings\.folds was 8, is now 2"):
        compare_outlook(models, data, run, CompareOptions(measure=MeasureOptions(folds=2)))
    text = to_markdown(expected.blocks())
    for part in ("one/films", size_words(expected.disk), "Nothing was measured or written"):
        assert part in text


def test_too_few_rows_for_eight_folds_are_said_or_refused(place, tmp_path):
    loaded, few = load_model(str(place / "one")), open_table(str(place / "few.jsonl"))
    said = []
    found = measure(loaded, few, MeasureOptions(), note=said.append)
    assert found.folds == ()
    assert "of 8 holds no example of few, which has 6 rows; so it is measured in one piece" in said[0]
    with pytest.raises(UsageError, match=r"of 8 holds no example of few.*use fewer folds or more examples"):
        measure(loaded, few, MeasureOptions(folds=8))
    said.clear()
    both = [str(place / "films.jsonl"), str(place / "few.jsonl")]
    table = compare([str(place / "one")], both, tmp_path / "run", note=said.append).table
    assert table.resampled is None
    assert sum("measured in one piece" in sentence for sentence in said) == 1


def test_a_full_disk_is_noticed_before_anything_is_measured(place, tmp_path, monkeypatch):
    Usage = namedtuple("Usage", "total used free")
    monkeypatch.setattr("commonweight.base.folders.shutil.disk_usage", lambda _: Usage(1, 1, 1000))
    models, data = [str(place / "one"), str(place / "two")], [str(place / "films.jsonl")]
    with pytest.raises(UsageError, match=r"of disk, and 0\.00 GB are free there; make room"):
        compare_outlook(models, data, tmp_path / "run")
    with pytest.raises(UsageError, match="make room"):
        compare(models, data, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "run").mkdir()
    with pytest.raises(UsageError, match="make room"):
        compare(models, data, tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []


def test_a_fresh_run_has_the_room_of_what_it_throws_away_and_a_refused_one_throws_nothing_away(
    place, tmp_path, monkeypatch
):
    models, data, run = [str(place / "one"), str(place / "two")], [str(place / "films.jsonl")], tmp_path / "run"
    compare(models, data, run)
    before = sorted(run.rglob("*"))
    Usage = namedtuple("Usage", "total used free")
    free = [SPARE]
    monkeypatch.setattr("commonweight.base.folders.shutil.disk_usage", lambda _: Usage(1, 1, free[0]))
    assert compare_outlook(models, data, run, fresh=True).thrown_away > 0
    save(make_start(3), make_tokenizer(), tmp_path / "three")
    with pytest.raises(UsageError, match="make room"):
        compare([*models, str(tmp_path / "three")], data, run, fresh=True)
    assert sorted(run.rglob("*")) == before
    compare(models, data, run, fresh=True)


def test_plain_modules_keep_the_folds_of_the_source_rows(tmp_path):
    """Also where rows are chosen: their running numbers would fall into other folds."""
    lines = [json.dumps({"u": row / 10, "label": row % 2}) for row in range(90)]
    (tmp_path / "n.jsonl").write_text("\n".join(lines) + "\n")
    loaded = LoadedModel(torch.nn.Linear(1, 2), {"name": "mine"})
    table = open_table(str(tmp_path / "n.jsonl"), examples=50)
    options = MeasureOptions(folds=4, batch_size=7, columns=ColumnOptions(input_column=("u",)))
    sizes = []
    handle = loaded.model.register_forward_hook(lambda _, args, __: sizes.append(len(args[0])))
    found = measure(loaded, table, options)
    handle.remove()
    folds = [fold_of(row, 4) for row in table.source_rows]
    assert [fold.count for fold in found.folds] == [folds.count(fold) for fold in range(4)]
    assert [fold.count for fold in found.folds] != [
        [fold_of(row, 4) for row in range(50)].count(fold) for fold in range(4)
    ]
    for number, fold in enumerate(found.folds):
        chosen = [row for row, its in zip(table.source_rows, folds, strict=True) if its == number]
        inputs = torch.tensor([[row / 10] for row in chosen])
        labels = torch.tensor([row % 2 for row in chosen])
        gradient = loaded.model(inputs).softmax(-1) - torch.nn.functional.one_hot(labels, 2)
        assert torch.allclose(fold.tensors["bias"], gradient.square().mean(0), rtol=1e-4)


def test_a_study_of_shortcuts_takes_what_was_said(tmp_path):
    plan = tiny_plan(tmp_path)
    expected = study_outlook(tmp_path / "run", plan)
    assert not (tmp_path / "run").exists()
    said = []
    run_study(tmp_path / "run", plan, note=said.append)
    assert tensor_bytes(tmp_path / "run") == sum(needs.disk for needs in expected.pieces.values())
    models = sum(file.stat().st_size for file in (tmp_path / "run").rglob("model.safetensors"))
    copies = len(list((tmp_path / "run").rglob("model.safetensors")))
    whole = next(iter(expected.pieces.values())).whole
    assert models == pytest.approx(copies * whole, rel=0.05)
    assert expected.models == (copies + 6) * whole
    assert any("footprints with 4 folds to measure" in sentence for sentence in said)
    assert study_outlook(tmp_path / "run", plan).pieces == {}


def test_measured_rows_that_leave_a_fold_empty_are_noticed_before_training(tmp_path):
    plan = tiny_plan(tmp_path, folds=24)
    with pytest.raises(UsageError, match=r"of 24 holds none of the 24 rows.*measured_rows.*fewer folds"):
        run_study(tmp_path / "run", plan)
    assert not list((tmp_path / "run").rglob("models/st"))
    with pytest.raises(UsageError, match="of 24 holds none"):
        study_outlook(tmp_path / "run", plan)
    run_study(tmp_path / "run", tiny_plan(tmp_path), until="train")  # a plan can be corrected until then


def test_sizes_in_words():
    assert [size_words(size) for size in (0, 999, 1000, 99_950, 1_234_567, 5 * 10**12)] == [
        "0 B", "999 B", "1.00 kB", "100.0 kB", "1.23 MB", "5.00 TB",
    ]  # fmt: skip
