"""``--fresh`` deletes what this package wrote into a run folder, and nothing else, ever."""

import json

import pytest

from commonweight.base import UsageError
from commonweight.base.folders import HOST, clear_run
from commonweight.base.text import silent
from commonweight.studies.compare.folder import check_outside, open_comparison, throw_away
from commonweight.studies.run.hold import held


def footprint(place):
    place.mkdir(parents=True)
    (place / "footprint.json").write_text("{}")
    return place


@pytest.fixture
def run(tmp_path):
    """A run with footprints, an unfinished one, and things of the user beside them."""
    folder = tmp_path / "run"
    open_comparison(folder, {"settings": {}, "models": {}, "data": {}})
    for name in ("a/d", "b/d", f"a/.d.{HOST}-999999999-0123abcd.partial"):
        footprint(folder / "footprints" / name)
    (folder / "overlap.json").write_text("")
    (folder / "overlap.safetensors").write_text("")
    (folder / "thesis.txt").write_text("precious")
    (folder / "footprints" / "a" / "notes").mkdir()
    (folder / "footprints" / "a" / "notes" / "mine.txt").write_text("precious")
    return folder


def left(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_only_footprints_and_tables_go(run):
    open_comparison(run, {"settings": {}, "models": {}, "data": {}}, fresh=True)
    assert left(run) == ["footprints/a/notes/mine.txt", "run.json", "thesis.txt"]


@pytest.mark.parametrize(
    "written",
    ['{"format": "other"}', "[1]", '{"format": "commonweight-run", "study": "shortcuts"}', '{"name": "another tool"}'],
)
def test_a_run_json_of_another_tool_is_left_alone(run, written):
    (run / "run.json").write_text(written)
    before = left(run)
    with pytest.raises(UsageError, match="not the record of a comparison; nothing was deleted"):
        open_comparison(run, {}, fresh=True)
    assert left(run) == before


def test_an_unreadable_run_json_needs_footprints_beside_it(run, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "run.json").write_text("{")
    (tmp_path / "other" / "mine").write_text("precious")
    with pytest.raises(UsageError, match="nothing was deleted"):
        throw_away(tmp_path / "other")
    assert left(tmp_path / "other") == ["mine", "run.json"]
    (run / "run.json").write_text("{")
    throw_away(run)
    assert "footprints/a/d/footprint.json" not in left(run)


def test_links_are_not_followed(run, tmp_path):
    target = footprint(tmp_path / "elsewhere" / "d")
    (run / "footprints" / "c").symlink_to(target.parent)
    with pytest.raises(UsageError, match="is a link, and fresh follows none"):
        throw_away(run)
    assert (target / "footprint.json").exists()
    assert "footprints/a/d/footprint.json" in left(run)


def test_a_linked_run_folder_works(run, tmp_path):
    (tmp_path / "link").symlink_to(run)
    open_comparison(tmp_path / "link", {"settings": {}, "models": {}, "data": {}}, fresh=True)
    assert (tmp_path / "link").is_symlink()
    assert json.loads((run / "run.json").read_text())["status"] == "measuring"
    assert not (run / "footprints" / "b").exists()


def test_nothing_the_run_reads_may_lie_in_it(run, tmp_path, monkeypatch):
    check_outside(run, ["org/model", tmp_path, str(tmp_path / "absent")])
    for used in (run, run / "thesis.txt", run / "footprints"):
        with pytest.raises(UsageError, match=r"fresh throws away the run .* lies in it"):
            check_outside(run, [str(used)])
    (tmp_path / "link").symlink_to(run / "thesis.txt")
    with pytest.raises(UsageError, match="lies in it"):
        check_outside(run, [tmp_path / "link"])


def test_what_a_killed_process_left_goes_only_while_nobody_else_works_there(run):
    with held(run) as first:
        assert (first.alone, first.busy) == (True, False)
        first.share()
        with held(run) as second:
            assert (second.alone, second.busy) == (False, True)
    with held(run) as third:
        assert third.alone
    clear_run(run, silent)
    assert left(run) == [
        "footprints/a/d/footprint.json",
        "footprints/a/notes/mine.txt",
        "footprints/b/d/footprint.json",
        "overlap.json",
        "overlap.safetensors",
        "run.json",
        "thesis.txt",
    ]
