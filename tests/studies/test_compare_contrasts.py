"""Which data sets are of the same source rows, and which overlaps of a grid are compared."""

from __future__ import annotations

import json

import pytest

from commonweight.data.table import open_table
from commonweight.studies.compare.contrasts import Cell, contrasts_of, grid_cells
from commonweight.studies.compare.rows import rows_key


@pytest.fixture
def write(tmp_path):
    def write(name, rows):
        place = tmp_path / f"{name}.jsonl"
        place.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return open_table(str(place))

    return write


def rows(words, numbers=None):
    found = [{"text": f"{words} {k}", "label": k % 2} for k in range(6)]
    return [row | ({} if numbers is None else {"source_row": numbers[k]}) for k, row in enumerate(found)]


def test_the_column_says_which_rows_they_were_made_from(write):
    plain = write("plain", rows("a", [3, 1, 4, 5, 9, 2]))
    planted = write("planted", rows("marker a", [2, 9, 5, 4, 1, 3]))
    others = write("others", rows("marker a", [2, 9, 5, 4, 1, 7]))
    assert rows_key(plain) == rows_key(planted) != rows_key(others)


def test_how_often_a_row_was_taken_counts(write):
    once = write("once", rows("a", [0, 1, 2, 3, 4, 5]))
    twice = write("twice", rows("b", [0, 1, 2, 3, 4, 5]) + rows("c", [0, 1, 2, 3, 4, 5]))
    uneven = write("uneven", rows("b", [0, 1, 2, 3, 4, 5]) + rows("c", [0, 0, 0, 3, 4, 5]))
    shuffled = write("shuffled", rows("d", [5, 5, 4, 4, 3, 3]) + rows("e", [2, 1, 0, 0, 1, 2]))
    assert len({rows_key(once), rows_key(twice), rows_key(uneven)}) == 3
    assert rows_key(shuffled) == rows_key(twice)


def test_where_a_file_lies_does_not_matter(write, tmp_path, monkeypatch):
    absolute = write("one", rows("a"))
    copy = tmp_path / "elsewhere" / "copy.jsonl"
    copy.parent.mkdir()
    copy.write_bytes((tmp_path / "one.jsonl").read_bytes())
    monkeypatch.chdir(tmp_path)
    for same in ("one.jsonl", "./one.jsonl", "elsewhere/../one.jsonl", str(copy)):
        assert rows_key(open_table(same)) == rows_key(absolute)
    assert rows_key(open_table("one.jsonl", examples=5)) != rows_key(absolute)
    absolute.rows.save_to_disk("folder")
    assert rows_key(open_table("folder")) == rows_key(open_table(str(tmp_path / "folder"))) != rows_key(absolute)


def test_without_it_only_the_same_data_are_the_same(write):
    one, two = write("one", rows("a")), write("two", rows("b"))
    assert rows_key(one) != rows_key(two)
    assert rows_key(one) == rows_key(write("one", rows("a")))
    numbered = write("numbered", rows("a", list(range(6))))
    assert rows_key(one) != rows_key(numbered)


def test_cells_of_a_grid(write):
    tables = {"x": write("x", rows("a", range(6))), "y": write("y", rows("b", range(6))), "z": write("z", rows("c"))}
    cells = grid_cells(["one", "two"], tables)
    assert list(cells) == ["one/x", "one/y", "one/z", "two/x", "two/y", "two/z"]
    same = {contrast[:2]: contrast.same_rows for contrast in contrasts_of(cells)}
    assert same[("one/x", "two/x"), ("one/y", "two/y")]
    assert not same[("one/x", "two/x"), ("one/z", "two/z")]


# Which contrasts there are


def grid(models, data, rows=None):
    return {f"{m}/{d}": Cell(m, d, (rows or {}).get(d, d)) for m in models for d in data}


def test_contrasts_differ_in_one_thing():
    def pairs_of(cells):
        return {contrast[:2] for contrast in contrasts_of(cells)}

    assert pairs_of(grid("ab", "xy")) == {(("a/x", "b/x"), ("a/y", "b/y")), (("a/x", "a/y"), ("b/x", "b/y"))}
    assert pairs_of(grid("abc", "x")) == {
        (("a/x", "b/x"), ("a/x", "c/x")), (("a/x", "b/x"), ("b/x", "c/x")), (("a/x", "c/x"), ("b/x", "c/x")),
    }  # fmt: skip
    assert pairs_of(grid("a", "xyz")) == {
        (("a/x", "a/y"), ("a/x", "a/z")), (("a/x", "a/y"), ("a/y", "a/z")), (("a/x", "a/z"), ("a/y", "a/z")),
    }  # fmt: skip
    assert contrasts_of(grid("ab", "x")) == contrasts_of({}) == ()
    for first, second in pairs_of(grid("abcd", "xyz")):
        models, data = ({name.split("/")[k] for name in (*first, *second)} for k in (0, 1))
        assert min(len(models), len(data)) <= 2
        assert len(models) * len(data) <= 4


def test_the_same_rows_come_first_and_only_they_are_the_same():
    cells = grid("ab", "xy")
    assert tuple(each[:3] for each in contrasts_of(cells)) == (
        (("a/x", "a/y"), ("b/x", "b/y"), True),
        (("a/x", "b/x"), ("a/y", "b/y"), False),
    )
    planted = grid("ab", "xy", {"x": "source", "y": "source"})
    assert all(contrast.same_rows for contrast in contrasts_of(planted))
    # some rows in common are not the same rows
    some = {contrast[:2]: contrast.same_rows for contrast in contrasts_of(grid("a", "xyz"))}
    assert not some[("a/x", "a/y"), ("a/x", "a/z")]
