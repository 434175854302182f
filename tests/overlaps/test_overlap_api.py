"""The public names of the room, pinned."""

from commonweight.footprints.footprint import KINDS
from commonweight.overlaps.measures.table_of_measures import MEASURES


def test_public_names():
    import commonweight.overlaps as room

    assert room.__all__ == [
        "Alignment",
        "LeftOut",
        "Levels",
        "NoiseCeilings",
        "Null",
        "Row",
        "SeedOverlap",
        "TaskSimilarity",
        "chance_corrected",
        "chance_jaccard",
        "noise_ceiling",
        "overlap_over_seeds",
    ]
    assert all(callable(getattr(room, name)) for name in room.__all__)


def test_every_kind_has_a_measure():
    assert tuple(MEASURES) == KINDS
