"""The demonstration, made small: everything is written, scored, and laid out; nothing else is touched."""

import json

import pytest

from commonweight.base import UsageError
from commonweight.report.terminal import to_plain
from commonweight.studies.demo.demo import PAIRS, DemoSize, report, run_demo

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


def test_other_folders_are_left_alone(tmp_path):
    (tmp_path / "mine").write_text("")
    with pytest.raises(UsageError, match=r"holds no demo\.json"):
        run_demo(tmp_path, size=SMALL)
    with pytest.raises(UsageError, match="is a file"):
        run_demo(tmp_path / "mine", size=SMALL)
