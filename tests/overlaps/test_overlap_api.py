"""The public names of the room, pinned; and the measures that know nothing of each other."""

import ast
from pathlib import Path

import pytest

import commonweight.overlaps.table as table_module
from commonweight.footprint.footprint import KINDS
from commonweight.overlaps import _values
from commonweight.overlaps.measures import MEASURES

ROOM = Path(table_module.__file__).parent
MEASURE_FILES = ("fisher_overlap", "jaccard", "cosine")


def test_public_names():
    import commonweight.overlaps as room

    assert room.__all__ == [
        "Alignment",
        "Ceilings",
        "Common",
        "Estimate",
        "LeftOut",
        "Levels",
        "Null",
        "OverlapTable",
        "SeedOverlap",
        "TaskSimilarity",
        "alignment_of",
        "ceiling",
        "chance_corrected",
        "chance_jaccard",
        "common_parameters",
        "cosine_similarity",
        "every_layer_similarity",
        "first_layer_similarity",
        "fisher_overlap",
        "jaccard_index",
        "overlap",
        "overlap_over_seeds",
        "parameter_gram",
        "probed_similarity",
        "task_similarity",
    ]
    assert all(callable(getattr(room, name)) for name in room.__all__)


def test_every_kind_has_a_measure():
    assert tuple(MEASURES) == KINDS


def imported(path):
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
    return found


@pytest.mark.parametrize("name", MEASURE_FILES)
def test_measures_do_not_import_each_other(name):
    assert not imported(ROOM / f"{name}.py") & {f"commonweight.overlaps.{other}" for other in MEASURE_FILES}


def test_an_import_would_be_noticed():
    assert imported(ROOM / "measures.py") >= {f"commonweight.overlaps.{name}" for name in MEASURE_FILES}


def test_the_room_draws_nothing():
    for path in ROOM.glob("*.py"):
        assert not imported(path) & {"rich", "click", "matplotlib"}
    assert "commonweight.errors" in imported(Path(_values.__file__))
