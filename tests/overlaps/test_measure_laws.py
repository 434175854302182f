"""One table of laws: every measure × every law, and for every law a wrong measure that breaks it."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from reference import measures as reference

from commonweight import cosine_similarity, fisher_overlap, jaccard_index, task_similarity
from commonweight.overlaps.measures.gram import cosine_ratio
from commonweight.overlaps.measures.jaccard import from_gram as jaccard_from_gram

IMPORTANCE = st.just(0.0) | st.floats(1e-6, 1e6)
BITS = st.sampled_from([0.0, 1.0])
NUMBERS = st.just(0.0) | st.floats(1e-6, 1e6) | st.floats(-1e6, -1e-6)


@dataclass(frozen=True)
class Measure:
    call: object
    entries: object
    low: float
    by_definition: object
    from_gram: object
    to_row: object
    scale_free: bool
    one_empty: float  # the value when exactly one of the two is empty
    draw: object  # rng, size -> two unrelated inputs
    chance: float

    def __call__(self, x, y):
        return self.call(x, y)


def same(x):
    return x


MEASURES = {
    "fisher_overlap": Measure(
        fisher_overlap,
        IMPORTANCE,
        0.0,
        reference.fisher_overlap,
        cosine_ratio,
        np.sqrt,
        True,
        math.nan,
        lambda rng, n: rng.exponential(size=(2, n)),
        math.pi / 4,  # (E√f)² / E f = Γ(3/2)² for exponential f
    ),
    "jaccard_index": Measure(
        jaccard_index,
        BITS,
        0.0,
        reference.jaccard_index,
        jaccard_from_gram,
        same,
        False,
        0.0,
        lambda rng, n: rng.random((2, n)) < np.array([[0.3], [0.6]]),
        0.3 * 0.6 / (0.3 + 0.6 - 0.3 * 0.6),
    ),
    "cosine_similarity": Measure(
        cosine_similarity,
        NUMBERS,
        -1.0,
        reference.cosine_similarity,
        cosine_ratio,
        same,
        True,
        math.nan,
        lambda rng, n: rng.normal(size=(2, n)),
        0.0,
    ),
    "task_similarity": Measure(
        task_similarity,
        NUMBERS,
        0.0,
        reference.task_similarity,
        lambda G: abs(cosine_ratio(G)),
        same,
        True,
        math.nan,
        lambda rng, n: rng.normal(size=(2, n)),
        0.0,
    ),
}


def close(value, expected, tolerance=1e-9):
    return (math.isnan(value) and math.isnan(expected)) or abs(value - expected) <= tolerance


def in_range(measure, x, y, rng):
    value = measure(x, y)
    assert math.isnan(value) == math.isnan(measure.by_definition(x.tolist(), y.tolist()))
    assert math.isnan(value) or measure.low <= value <= 1


def agrees_with_definition(measure, x, y, rng):
    assert close(measure(x, y), measure.by_definition(x.tolist(), y.tolist()))


def symmetric(measure, x, y, rng):
    assert close(measure(x, y), measure(y, x), 1e-12)


def one_with_itself(measure, x, y, rng):
    assert close(measure(x, x), 1.0 if x.any() else math.nan, 1e-12)


def nothing_when_disjoint(measure, x, y, rng):
    side = rng.random(len(x)) < 0.5
    x, y = np.where(side, x, 0), np.where(side, 0, y)
    if x.any() and y.any():
        assert measure(x, y) == 0


def free_of_scale(measure, x, y, rng):
    factor = 10.0 ** rng.uniform(-30, 20)
    if measure.scale_free:
        assert close(measure(factor * x, y), measure(x, y))
    elif x.any():
        with pytest.raises(ValueError, match="a mask holds only 0 and 1"):
            measure(factor * x, y)


def unchanged_by_one_permutation_of_both(measure, x, y, rng):
    order = rng.permutation(len(x))
    assert close(measure(x[order], y[order]), measure(x, y))


def changed_by_a_permutation_of_one(measure, x, y, rng):
    one = np.array([1.0] * 5 + [0.0] * 15)
    assert close(measure(one, one), 1.0)
    assert measure(one, np.roll(one, 3)) < 0.5


def whole_from_parts(measure, x, y, rng):
    cut = rng.integers(len(x) + 1)
    rows = measure.to_row(np.stack([x, y]))
    parts = rows[:, :cut] @ rows[:, :cut].T + rows[:, cut:] @ rows[:, cut:].T
    assert close(measure.from_gram(parts)[0, 1], measure(x, y))


def undefined_when_empty(measure, x, y, rng):
    nothing = np.zeros_like(x)
    assert math.isnan(measure(nothing, nothing))
    assert math.isnan(measure([], []))
    if y.any():
        assert close(measure(nothing, y), measure.one_empty)
        assert close(measure(y, nothing), measure.one_empty)


def chance_when_unrelated(measure, x, y, rng):
    assert close(measure(*measure.draw(rng, 40_000)), measure.chance, 0.03)


LAWS = [
    in_range,
    agrees_with_definition,
    symmetric,
    one_with_itself,
    nothing_when_disjoint,
    free_of_scale,
    unchanged_by_one_permutation_of_both,
    changed_by_a_permutation_of_one,
    whole_from_parts,
    undefined_when_empty,
    chance_when_unrelated,
]


def check(law, measure, examples=60, phases=tuple(Phase)):
    @settings(max_examples=examples, phases=phases, deadline=None, derandomize=True, database=None)
    @given(st.data(), st.integers(1, 12), st.integers(0, 2**32 - 1))
    def run(data, size, seed):
        x, y = (data.draw(arrays(np.float64, size, elements=measure.entries)) for _ in range(2))
        law(measure, x, y, np.random.default_rng(seed))

    run()


@pytest.mark.parametrize("name", MEASURES)
@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_every_measure_obeys_every_law(name, law):
    check(law, MEASURES[name], examples=5 if law is chance_when_unrelated else 60)


def wrong(call, of="fisher_overlap", **changes):
    fields = {key: getattr(MEASURES[of], key) for key in Measure.__dataclass_fields__}
    return Measure(**{**fields, "call": call, **changes})


def positional(x, y):
    weight = np.arange(1, len(x) + 1)
    return fisher_overlap(np.asarray(x) * weight, np.asarray(y) * weight**2)


BREAKERS = {
    in_range: wrong(lambda x, y: 1.5 * fisher_overlap(x, y)),
    agrees_with_definition: wrong(lambda x, y: fisher_overlap(np.square(x), np.square(y))),
    symmetric: wrong(lambda x, y: float(np.dot(x, y) / np.dot(x, x)) if np.any(x) else math.nan),
    one_with_itself: wrong(lambda x, y: float(np.dot(x, y))),
    nothing_when_disjoint: wrong(lambda x, y: fisher_overlap(np.asarray(x) + 0.1, np.asarray(y) + 0.1)),
    free_of_scale: wrong(lambda x, y: fisher_overlap(np.asarray(x) + 0.1, np.asarray(y) + 0.1)),
    unchanged_by_one_permutation_of_both: wrong(positional),
    changed_by_a_permutation_of_one: wrong(lambda x, y: fisher_overlap(np.sort(x), np.sort(y))),
    whole_from_parts: wrong(fisher_overlap, from_gram=jaccard_from_gram),
    undefined_when_empty: wrong(lambda x, y: float(np.nan_to_num(fisher_overlap(x, y)))),
    chance_when_unrelated: wrong(lambda x, y: fisher_overlap(np.sort(x), np.sort(y))),
}


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_every_law_can_be_broken(law):
    with pytest.raises(AssertionError):
        check(law, BREAKERS[law], phases=[Phase.generate])  # any example will do, not the smallest
