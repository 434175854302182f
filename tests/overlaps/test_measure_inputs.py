"""The plain functions: against scikit-learn, every sort of input, the edges of the number range, refusals."""

import math

import numpy as np
import pytest
import sklearn.metrics
import sklearn.metrics.pairwise
import torch
from reference import measures as reference

from commonweight import cosine_similarity, fisher_overlap, jaccard_index, task_similarity
from commonweight.base.errors import NotComparableError, UsageError
from commonweight.footprints.footprint import Footprint
from commonweight.overlaps.measures.gram import cosine_ratio, without_rounding
from commonweight.overlaps.measures.jaccard import from_gram as jaccard_from_gram


def test_jaccard_agrees_with_scikit_learn_and_not_on_other_bits():
    rng = np.random.default_rng(0)
    mask1, mask2 = rng.random((2, 4, 50)) < 0.4
    assert jaccard_index(mask1, mask2) == pytest.approx(sklearn.metrics.jaccard_score(mask1.ravel(), mask2.ravel()))
    assert jaccard_index(mask1, ~mask2) != pytest.approx(sklearn.metrics.jaccard_score(mask1.ravel(), mask2.ravel()))


def test_cosine_agrees_with_scikit_learn_and_keeps_the_sign():
    x, y = np.random.default_rng(1).normal(size=(2, 300))
    expected = sklearn.metrics.pairwise.cosine_similarity(x[None], y[None])[0, 0]
    assert cosine_similarity(x, y) == pytest.approx(expected, abs=1e-14)
    assert cosine_similarity(x, -y) == pytest.approx(-expected, abs=1e-14)
    assert task_similarity(x, y) == task_similarity(x, -y) == abs(cosine_similarity(x, y))


F1, F2 = [[0.5, 2.0], [0.0, 8.0]], [[1.0, 2.0], [4.0, 0.25]]
VALUE = reference.fisher_overlap([0.5, 2.0, 0.0, 8.0], [1.0, 2.0, 4.0, 0.25])


@pytest.mark.parametrize(
    "convert",
    [
        lambda x: x,
        tuple,
        np.array,
        lambda x: np.array(x, dtype=np.float16),
        lambda x: np.asfortranarray(x)[::-1, ::-1],
        torch.tensor,
        lambda x: torch.tensor(x, dtype=torch.bfloat16),
        lambda x: torch.tensor(x, dtype=torch.float64, requires_grad=True),
        lambda x: torch.tensor(x).t(),
        lambda x: torch.tensor(x).to_sparse(),
        lambda x: torch.tensor(x).reshape(2, 1, 2, 1),
        lambda x: [[torch.tensor(value) for value in row] for row in x],
    ],
)
def test_every_sort_of_array_gives_one_value(convert):
    value = fisher_overlap(convert(F1), convert(F2))
    assert type(value) is float
    assert value == pytest.approx(VALUE, abs=1e-12)


def test_sorts_of_arrays_mix():
    assert fisher_overlap(torch.tensor(F1, dtype=torch.bfloat16), np.array(F2)) == pytest.approx(VALUE, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32, torch.bfloat16])
def test_masks_of_every_dtype(dtype):
    mask1, mask2 = torch.tensor([1, 1, 0, 1]).to(dtype), torch.tensor([0, 1, 0, 1]).to(dtype)
    assert jaccard_index(mask1, mask2) == 2 / 3
    assert jaccard_index(mask1.numpy() if dtype != torch.bfloat16 else mask1.tolist(), mask2) == 2 / 3


def test_integers_are_numbers():
    assert cosine_similarity([3, 4], np.array([4, 3], dtype=np.int8)) == pytest.approx(24 / 25)
    assert cosine_similarity(torch.tensor([3, 4]), [4, 3]) == pytest.approx(24 / 25)


def test_numbers_count_as_one_entry():
    assert fisher_overlap(2.0, 3.0) == 1
    assert jaccard_index(True, False) == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_other_devices():
    assert fisher_overlap(torch.tensor(F1, device="cuda"), F2) == pytest.approx(VALUE, abs=1e-12)


def test_inputs_are_left_as_they_were():
    f1, f2 = torch.tensor([4.0, 9.0], dtype=torch.float64), np.array([1.0, 25.0])
    fisher_overlap(f1, f2)
    assert f1.tolist() == [4.0, 9.0]
    assert f2.tolist() == [1.0, 25.0]


@pytest.mark.parametrize("scale", [5e-324, 1e-300, 1e-30, 1e20, 1e300])
@pytest.mark.parametrize("measure", [fisher_overlap, cosine_similarity])
def test_the_smallest_and_the_largest_entries(measure, scale):
    one, other = np.array([1.0, 1.0, 0.0]), np.array([1.0, 0.0, 1.0])
    assert measure(one * scale, other) == pytest.approx(0.5)
    assert measure(one * scale, other * scale) == pytest.approx(0.5)
    assert measure(one * scale, one) == pytest.approx(1)


def test_float32_importances_of_1e_minus_30_against_1e_plus_20():
    f = torch.rand(1000, generator=torch.Generator().manual_seed(0))
    assert fisher_overlap(f * 1e-30, f * 1e20) == pytest.approx(1, abs=1e-6)
    assert fisher_overlap(f * 1e-30, f.flip(0) * 1e20) < 0.95


def test_a_long_vector_is_summed_in_slices():
    rng = np.random.default_rng(2)
    f1, f2 = rng.exponential(size=(2, 2**20 + 7)).astype(np.float32)
    r1, r2 = np.sqrt(f1.astype(np.float64)), np.sqrt(f2.astype(np.float64))
    expected = (r1 @ r2) / math.sqrt((r1 @ r1) * (r2 @ r2))
    assert fisher_overlap(f1, f2) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: fisher_overlap([1.0, 2.0], [1.0]),
            r"f1 and f2 must have one shape, got \[2\] and \[1\]; reshape or cut",
        ),
        (lambda: fisher_overlap([[1.0, 2.0]], [1.0, 2.0]), r"got \[1, 2\] and \[2\]"),
        (lambda: fisher_overlap([1.0, -2.0], [1.0, 1.0]), "f1: entries must be finite and at least 0, got -2; pass sq"),
        (lambda: fisher_overlap([1.0, 2.0], [1.0, math.nan]), "f2: entries must be finite and at least 0, got nan"),
        (lambda: fisher_overlap([1.0, 2.0], [math.inf, 1.0]), "f2: entries must be finite and at least 0, got inf"),
        (lambda: jaccard_index([0, 1], [0, 2]), "mask2: a mask holds only 0 and 1, got 2; pass the bits of the mask"),
        (lambda: jaccard_index([0.5, 1], [0, 1]), "mask1: a mask holds only 0 and 1, got 0.5"),
        (lambda: jaccard_index([math.nan, 1], [0, 1]), "mask1: a mask holds only 0 and 1, got nan"),
        (lambda: cosine_similarity([1.0], [-math.inf]), "y: entries must be finite, got -inf; remove or replace"),
        (lambda: task_similarity([math.nan], [1.0]), "x: entries must be finite, got nan"),
        (lambda: cosine_similarity([[1.0], [1.0, 2.0]], [1.0]), "x must be real numbers .* got list"),
        (lambda: cosine_similarity(["a"], [1.0]), "x must be real numbers .* got list of dtype <U1"),
        (lambda: cosine_similarity([1j], [1.0]), "x must be real numbers .* got list of dtype complex128"),
        (lambda: cosine_similarity([1.0], torch.tensor([1j])), "y must be real numbers .* got torch.complex64"),
        (lambda: cosine_similarity(None, [1.0]), "x must be real numbers .* got NoneType of dtype object"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(UsageError, match=message):
        call()


def fisher_of(**tensors):
    return Footprint("fisher", {name.replace("_", "."): torch.tensor(value) for name, value in tensors.items()}, 4)


def test_two_footprints_give_the_pooled_value():
    a, b = fisher_of(x_w=[1.0, 3.0], y_w=[[0.5]]), fisher_of(x_w=[2.0, 0.0], y_w=[[7.0]])
    assert fisher_overlap(a, b) == pytest.approx(fisher_overlap(a.flat(), b.flat()), abs=1e-12)
    assert fisher_overlap(a, b) != pytest.approx(fisher_overlap(a["x.w"], b["x.w"]))


def test_masks_and_activities_as_footprints():
    mask1, mask2 = (Footprint("supermask", {"w": torch.tensor(bits)}, 1) for bits in ([1, 1, 0], [0, 1, 1]))
    assert jaccard_index(mask1, mask2) == pytest.approx(1 / 3)
    x, y = (Footprint("activity", {"bn": torch.tensor(mean)}, 1) for mean in ([1.0, 0.0], [-1.0, 1.0]))
    assert cosine_similarity(x, y) == pytest.approx(-math.sqrt(0.5))
    assert task_similarity(x, y) == pytest.approx(math.sqrt(0.5))


def test_footprints_refused():
    fisher, mask = fisher_of(w=[1.0, 0.0]), Footprint("supermask", {"w": torch.tensor([1, 0])}, 1)
    with pytest.raises(
        UsageError, match=r"mask1 is a footprint of kind fisher, expected supermask; commonweight.overlap"
    ):
        jaccard_index(fisher, mask)
    with pytest.raises(
        UsageError, match=r"f2 is a footprint and the other argument is not: .* such as footprint\['w'\]"
    ):
        fisher_overlap([1.0, 0.0], fisher)
    with pytest.raises(NotComparableError, match="'f1' and 'f2' have no parameter of equal name and shape"):
        fisher_overlap(fisher, fisher_of(v=[1.0, 0.0]))


FROM_GRAM = {"cosine": cosine_ratio, "jaccard": jaccard_from_gram}


@pytest.mark.parametrize("from_gram", FROM_GRAM.values(), ids=FROM_GRAM)
class TestFromGram:
    def test_refuses_what_is_not_square(self, from_gram):
        with pytest.raises(UsageError, match=r"expected a Gram matrix of shape \[n, n\], got shape \[2, 3\]"):
            from_gram(np.ones((2, 3)))

    def test_is_symmetric_with_ones_on_the_diagonal(self, from_gram):
        rows = (np.random.default_rng(3).random((5, 100)) < 0.5).astype(float)
        values = from_gram(rows @ rows.T)
        assert (values == values.T).all()
        assert (np.diagonal(values) == 1).all()
        assert (values[~np.eye(5, dtype=bool)] < 1).all()

    def test_an_empty_row_is_undefined_and_the_others_are_not(self, from_gram):
        values = from_gram(np.diag([0.0, 4.0, 0.0]))
        assert np.isnan(values[0, 0])
        assert np.isnan(values[0, 2])
        assert values[1, 1] == 1

    def test_leaves_the_matrix_alone(self, from_gram):
        G = np.array([[2.0, 1.0], [1.0, 2.0]])
        from_gram(G)
        assert G.tolist() == [[2.0, 1.0], [1.0, 2.0]]


def test_lengths_whose_product_leaves_the_range_of_float64():
    for small, middle, large in [(1e-300, 5e-301, 1e-300), (1e300, 5e299, 1e300), (1e-300, 0.5, 1e300)]:
        G = np.array([[small, middle], [middle, large]])
        assert cosine_ratio(G)[0, 1] == pytest.approx(0.5)


def test_only_rounding_noise_is_taken_away():
    values = np.array([1 + 5e-13, -1 - 5e-13, 1 + 1e-6, 1 - 5e-13, -2.0, np.nan])
    cleaned = without_rounding(values)
    assert cleaned[:5].tolist() == [1.0, -1.0, 1 + 1e-6, 1 - 5e-13, -2.0]
    assert np.isnan(cleaned[5])
