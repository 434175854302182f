"""What is said of a study of shortcuts before it begins: by a dry run, and by the study itself."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import datasets
import pytest
from studies.shortcut_texts import tiny_plan

from commonweight.base import UsageError
from commonweight.studies.demo.encoder import LONGEST
from commonweight.studies.run.hold import held
from commonweight.studies.shortcuts import run as running
from commonweight.studies.shortcuts.grid import _without_repeats
from commonweight.studies.shortcuts.models import read_encoder, with_usual_length
from commonweight.studies.shortcuts.plan import ORIGINAL, SeedFolder
from commonweight.studies.shortcuts.rows import rehearse_rows
from commonweight.studies.shortcuts.run import run_study, study_outlook


def without_test(plan):
    """The same texts, but a tenth of the train rows has to become the test rows."""
    found = datasets.load_from_disk(plan.data)
    del found["test"]
    found.save_to_disk(plan.data + "-fewer")
    return replace(plan, data=plan.data + "-fewer")


def test_more_train_rows_than_are_left_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    plan = replace(without_test(tiny_plan(tmp_path)), train_rows=230)
    said = (
        r"^train_rows must lie in 1\.\.216, the rows that are left to train on; got 230; the test rows are 10% of "
        r"split 'train' chosen by seed 0, for there is no split 'test'$"
    )
    for refuses in (study_outlook, run_study):
        with pytest.raises(UsageError, match=said):
            refuses(tmp_path / "run", plan)
        assert not (tmp_path / "run").exists()
    study_outlook(tmp_path / "run", replace(plan, train_rows=216))


def test_a_dry_run_plants_what_building_would(tmp_path: Path) -> None:
    run, plan = tmp_path / "run", tiny_plan(tmp_path, train_rows=60)
    folder = SeedFolder(run / "seed-0", 0)
    _, tokenizer = read_encoder(plan.model)
    data = running.open_source(plan.data)
    found = rehearse_rows(data, plan, folder, tokenizer)
    assert not run.exists()
    run_study(run, plan, until="build")
    lines = folder.measured(ORIGINAL).read_text().splitlines()
    assert found == {json.loads(line)["source_row"] for line in lines}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"folds": 20}, "fold . of 20 holds none of the 24 rows that seed 0 is measured on"),
        ({"max_length": 4, "shortcuts": ("st", "and_or")}, "no row of .* can hold 'and_or'"),
        ({"preset": "published", "synthetic": 0.2, "measured_rows": 81}, r"measured_rows must lie in 1\.\.80"),
    ],
)
def test_a_dry_run_refuses_what_building_refuses(tmp_path: Path, changes: dict, message: str) -> None:
    plan = tiny_plan(tmp_path, **changes)
    with pytest.raises(UsageError, match=message):
        study_outlook(tmp_path / "run", plan)
    with pytest.raises(UsageError, match=message):
        run_study(tmp_path / "run", plan, until="build")


def test_the_model_is_looked_at_before_the_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = tiny_plan(tmp_path)
    (Path(plan.model) / "model.safetensors").rename(tmp_path / "away")

    def opens(*_: object, **__: object) -> None:
        raise AssertionError("the texts were opened")

    monkeypatch.setattr(running, "open_source", opens)
    for refuses in (study_outlook, run_study):
        with pytest.raises(UsageError, match="it holds no weights of that format"):
            refuses(tmp_path / "run", plan)


def test_the_usual_length_is_what_the_encoder_reads(tmp_path: Path) -> None:
    plan = tiny_plan(tmp_path, max_length=128)
    assert with_usual_length(tmp_path / "run", plan).max_length == LONGEST
    for name in ("config.json", "tokenizer_config.json"):
        file = Path(plan.model) / name
        found = json.loads(file.read_text())
        found |= {key: 600 for key in ("max_position_embeddings", "model_max_length") if key in found}
        file.write_text(json.dumps(found))
    assert with_usual_length(tmp_path / "run", plan).max_length == 128


def test_what_another_process_makes_is_not_to_be_removed(tmp_path: Path) -> None:
    run, plan = tmp_path / "run", tiny_plan(tmp_path)
    run_study(run, plan, until="build")
    (run / "seed-0" / "models" / "st").mkdir()
    other = replace(plan, epochs=2.0)
    for refuses in (study_outlook, run_study):
        with held(run) as hold:
            hold.share()
            with pytest.raises(UsageError, match="another process works in"):
                refuses(run, other)
        with pytest.raises(UsageError, match=r"epochs was 1\.0.*first remove"):
            refuses(run, other)


def test_what_all_models_have_in_common_is_said_once() -> None:
    said: list[str] = []
    note = _without_repeats(said.append, iter(["st/original", "op/original"]))
    for model in ("st", "op", "st"):
        note(f"{model}/original: measuring 24 examples")
        note("15 of 64 rows of original were cut to 24 tokens")
    assert [sentence.partition(":")[0] for sentence in said] == [
        "st/original",
        "15 of 64 rows of original were cut to 24 tokens",
        "op/original",
        "st/original",
    ]
