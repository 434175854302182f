"""The public names of the room, pinned."""

from commonweight.footprints.footprint import KINDS
from commonweight.overlaps.measures.table_of_measures import MEASURES


def test_public_names():
    import commonweight.overlaps as room

    assert room.__all__ == [
        "Alignment",
        "NoiseCeilings",
        "Common",
        "Estimate",
        "LeftOut",
        "Levels",
        "Null",
        "OverlapTable",
        "SeedOverlap",
        "TaskSimilarity",
        "alignment_of",
        "noise_ceiling",
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
