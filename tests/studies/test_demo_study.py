"""The demonstration, made small: everything is written, scored, and laid out; nothing else is touched."""

import json
import shutil
from dataclasses import replace

import pytest
from studies.shortcut_texts import triangle

from commonweight.base import UsageError
from commonweight.report.answer import write_result
from commonweight.report.terminal import to_plain
from commonweight.studies.demo.answer import result
from commonweight.studies.demo.demo import (
    CONTINUAL,
    LOCALISE,
    MERGE_CHECK,
    PAIRS,
    DemoSize,
    report,
    run_continual_demo,
    run_demo,
    run_trial_demo,
)
from commonweight.studies.demo.page import write_page
from commonweight.studies.shortcuts.run import run_and_write

SMALL = DemoSize(training_rows=1500, held_out_rows=100, steps=300, folds=2)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    return folder, run_demo(folder, size=SMALL)


def test_training_helps_and_cannot_beat_the_best(demo):
    _, found = demo
    assert set(found.scores) == {"start", "films", "food"}
    for domain in ("films", "food"):
        assert found.scores[domain][domain].loss < 0.85 * found.scores["start"][domain].loss
        assert found.scores[domain][domain].accuracy > 0.6
        assert 0.9 < found.best[domain].accuracy < 1
    assert json.loads((demo[0] / "demo.json").read_text())["steps"] == 300


def test_all_models_on_all_reviews_from_one_start(demo):
    table = demo[1].comparison.table
    assert table.names == tuple(f"{m}/{d}" for m in ("start", "films", "food") for d in ("films", "food"))
    assert table.alignment.reading("films/films", "food/food") == "shared initialisation"
    assert {name for pair in PAIRS.values() for name in pair} <= set(table.names)


def test_no_held_out_review_is_there_twice(demo):
    for domain in ("films", "food"):
        texts = [json.loads(line)["text"] for line in (demo[0] / "data" / f"{domain}.jsonl").read_text().splitlines()]
        assert len(texts) == len(set(texts)) == SMALL.held_out_rows


def test_the_report_has_every_part(demo):
    found = demo[1]
    text = to_plain(report(found))
    for part in (
        "best attainable",
        "all weights together",
        "Corrected overlap, layer by layer",
        "Verdicts: which pair shares more?",
        "bert.encoder.layer.2",
        "shared initialisation",
        "Effective sample size",
        "How to read this",
    ):
        assert part in text
    assert "nan" not in text


def test_the_page_of_all_parts_stays_small(demo, tmp_path, tmp_path_factory, monkeypatch):
    for study in ("shortcuts", "continual", "localise", "merge_check"):  # the page draws its own
        monkeypatch.setattr(f"commonweight.studies.{study}.run.write_figures", lambda *_: [])
    folder, encoders = shutil.copytree(demo[0], tmp_path / "demo"), demo[1]
    trained, plan, _ = triangle(tmp_path_factory)
    few = {"draws": 2, "examples": 60}
    trials = run_trial_demo(folder, localising=replace(LOCALISE, **few), merging=replace(MERGE_CHECK, **few))
    shortcuts = run_and_write(shutil.copytree(trained, folder / "shortcuts-0" / "run"), plan)
    tasks = run_continual_demo(folder / "continual", plan=replace(CONTINUAL, rows=60, epochs=1, seeds=1))
    write_result(folder, result(encoders, trials, shortcuts, tasks, folder, is_kept=True))
    said = json.loads((folder / "answer.json").read_text())
    assert said["answer"].count(". ") == 1  # two sentences
    first = [row[0] for row in said["table"]["rows"]]
    assert first[-3:-1] == ["localise: 5 % reset, films", "localise: 5 % reset, food"]
    assert first[-1].startswith("best merge: ")
    page = write_page(folder)
    text = page.read_text()
    assert "Do the weights that the saliency" in text
    assert "Will these models merge?" in text
    assert 1_000_000 < page.stat().st_size < 2_000_000


def test_other_folders_are_left_alone(tmp_path):
    (tmp_path / "mine").write_text("")
    with pytest.raises(UsageError, match=r"holds no demo\.json"):
        run_demo(tmp_path, size=SMALL)
    with pytest.raises(UsageError, match="is a file"):
        run_demo(tmp_path / "mine", size=SMALL)
