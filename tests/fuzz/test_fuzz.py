"""Damaged files are read as they were, or refused with an error of the package: never another way, never in silence."""

import random

import pytest

from fuzz.mutations import mutated
from fuzz.subjects import SUBJECTS, fuzz, kinds_of

MUTATIONS = 3000


@pytest.mark.parametrize("name", SUBJECTS)
def test_damage_is_refused_or_does_not_matter(tmp_path, name):
    count = max(10, round(MUTATIONS * SUBJECTS[name].share))
    found = fuzz(name, tmp_path / "files", count, seed=0)
    assert found.raw == [], kinds_of(found.raw)
    assert found.silent == []
    assert found.refused > count / 10
    assert found.same + found.refused + found.renamed == count == found.mutations


def test_mutations_are_drawn_by_their_seed_and_do_change():
    content = b'{"count": 12, "names": ["a", "b"]}\n' * 3
    drawn = [mutated(content, random.Random(seed)) for seed in range(100)]
    assert drawn == [mutated(content, random.Random(seed)) for seed in range(100)]
    assert sum(one != content for one in drawn) > 90
