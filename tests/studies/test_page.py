"""The page of a run, from its folder alone."""

import json

import pytest

from commonweight.base.errors import IntegrityError, UsageError
from commonweight.base.records import sealed
from commonweight.base.text import Grid
from commonweight.report.answer import FILES, Answer, Result, read_form, write_result
from commonweight.report.html import REPORT
from commonweight.studies.demo import page as page_of_demo
from commonweight.studies.run.page import LINE, origin_of, pictures_of, write_run_page
from commonweight.studies.run.record import StudyKind
from commonweight.studies.run.runs import Run, runs_in, study_of


@pytest.fixture
def run(tmp_path):
    asked = {
        "settings": {"folds": 8, "loss": None, "include": []},
        "models": {"a": {"name": "org/a", "weights": {"w": "f" * 64}, "config": "0" * 64}},
        "layers": [3, 4],
    }
    record = StudyKind("continual", ()).new_record("complete", asked, {"seeds": 2})
    (tmp_path / "run.json").write_text(json.dumps(sealed(record | {"seconds": 90.0})))
    answer = Answer("What?", "This & that.", Grid("Small", ("", "x"), (("a", "1"),)), ("Care.",), ("study.md more",))
    blocks = ["A paragraph.", Grid("Large", ("", "x"), (("a", "1"),), (("all", "2"),))]
    write_result(tmp_path, Result(answer, blocks, "{}", "", ("- [A link](figures/a.png)",)))
    return tmp_path


def test_the_answer_and_all_tables_come_back_from_the_folder(run):
    text = write_run_page(run, []).read_text(encoding="utf-8")
    for words in ("<h1", "What?", "This &amp; that.", "Care.", "A paragraph.", "<summary>Large</summary>", "org/a"):
        assert words in text
    assert "A link" not in text  # a page shows the figures themselves
    assert "[A link](figures/a.png)" in (run / "study.md").read_text()
    assert Answer.load(run).rest == (LINE, "study.md more")
    write_run_page(run, [])
    assert Answer.load(run).rest == (LINE, "study.md more")
    assert [path.name for path in run.iterdir() if path.name.startswith(".")] == []
    assert (run / REPORT).is_file()


def test_origin_leaves_out_hashes_and_what_was_not_asked(run):
    found = origin_of(run)
    assert found["Settings"] == {"folds": "8", "models.a.name": "org/a", "layers": "3, 4", "seeds": "2"}
    assert found["Run"]["study"] == "continual"
    assert found["Run"]["command"] == "called from Python"
    assert found["Run"]["time"] == "1.5 minutes"
    assert "commonweight" in found["Versions"]


def test_figures_come_in_the_order_of_their_captions(run):
    (run / "figures").mkdir()
    for name in ("b-two", "a", "ab", "b-one"):
        (run / "figures" / f"{name}.svg").write_text("<svg/>")
    found = pictures_of(run, {"b": "Bee", "a": "Ay"})
    assert [picture.caption for picture in found] == ["Bee (one)", "Bee (two)", "Ay"]


def test_a_folder_is_known_by_its_record(run, tmp_path):
    assert study_of(run, ["continual"]) == "continual"
    with pytest.raises(UsageError, match="holds no run: give the folder"):
        study_of(run, ["comparison"])
    with pytest.raises(UsageError, match="holds no run"):
        study_of(tmp_path / "nothing", ["continual"])


@pytest.mark.parametrize(("form", "file"), FILES.items())
def test_a_finished_run_that_was_damaged_is_not_shown(run, form, file):
    assert read_form(run, form) is not None
    (run / file).write_text((run / file).read_text() + " ")
    with pytest.raises(
        IntegrityError, match=rf"{file} is not as it was written: expected the SHA-256 \w+, got \w+; .*run it again"
    ):
        read_form(run, form)
    (run / file).unlink()
    with pytest.raises(IntegrityError, match=f"{file} cannot be read"):
        read_form(run, form)


def test_an_answer_that_was_damaged_is_not_shown(run):
    path = run / "answer.json"
    path.write_text(path.read_text().replace("This & that.", "This & more."))
    with pytest.raises(IntegrityError, match=r"answer\.json is not as it was written: .*: run it again"):
        Answer.load(run)


def test_a_record_that_was_damaged_is_listed_as_such(run):
    (found,) = runs_in(run)
    assert found == Run(str(run), "continual", "complete", Answer.load(run).answer)
    path = run / "run.json"
    path.write_text(path.read_text().replace("complete", "finished"))
    assert runs_in(run) == [Run(str(run), None, "damaged")]
    with pytest.raises(IntegrityError, match=r"run\.json is not as it was written"):
        origin_of(run)


def test_an_unfinished_demonstration_has_a_status_and_no_page(tmp_path):
    (tmp_path / "demo.json").write_text("{}")
    places = page_of_demo.items(tmp_path)
    parts = ("encoders", "localise", "merge-check", "shortcuts", "tasks")
    assert list(places) == [f"{part}: all of it" for part in parts]
    assert not any(place.exists() for place in places.values())
    for make in (page_of_demo.write_page, page_of_demo.figures):
        with pytest.raises(UsageError, match="has no finished part on encoders"):
            make(tmp_path)
