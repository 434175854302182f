"""Noise ceilings, corrected overlaps, nulls and their replicates against the loops; laws of all of them."""

import math
from dataclasses import replace
from itertools import chain

import numpy as np
import pytest
import torch
from overlaps.folded import SHAPES, fisher, plain, squares
from reference import resampling as reference

from commonweight import overlap
from commonweight.base.errors import MeasurementError, NotComparableError, UsageError
from commonweight.footprints.footprint import Fold, Footprint
from commonweight.footprints.slices import slabs
from commonweight.overlaps.measures.gram import parameter_gram
from commonweight.overlaps.resampling.ratios import FoldRatios, Resampled
from commonweight.overlaps.resampling.splits import splits_of
from commonweight.overlaps.resampling.sums import fold_terms

LAYERS = {"body": ("body.weight", "body.bias"), "head": ("head.weight",), "scale": ("scale",)}
QUANTITIES = ("raw", "corrected", "null", "above_null")


def three(folds=8, **options):
    return {name: fisher(squares, folds=folds, seed=seed, **options) for seed, name in enumerate("abc")}


def by_loops(of, a, b, folds, left_out=None):
    splits = splits_of(folds)
    if of == "raw":
        return reference.raw(a, b, [k for k in range(folds) if k != left_out])
    return reference.corrected(a, b, splits.halves, left_out)


@pytest.mark.parametrize("folds", [3, 4, 5, 8])
@pytest.mark.parametrize("of", ["raw", "corrected"])
def test_values_and_replicates_agree_with_the_loops(of, folds):
    footprints = three(folds)
    table = overlap(footprints)
    for layer, names in (*LAYERS.items(), (None, tuple(SHAPES))):
        a, c = plain(footprints["a"], names), plain(footprints["c"], names)
        found = table.estimate(of, "a", "c", layer)
        assert found.value == pytest.approx(by_loops(of, a, c, folds), abs=1e-10)
        expected = [by_loops(of, a, c, folds, k) for k in range(folds)]
        assert found.replicates == pytest.approx(expected, abs=1e-10, nan_ok=True)


def test_noise_ceilings_agree_with_the_loops():
    footprints = three()
    table = overlap(footprints)
    for layer, names in (*LAYERS.items(), (None, tuple(SHAPES))):
        found = table.noise_ceiling.pooled if layer is None else table.noise_ceiling.by_layer[layer]
        expected = [reference.noise_ceiling(plain(each, names), splits_of(8).halves) for each in footprints.values()]
        assert found.tolist() == pytest.approx(expected, abs=1e-12)
    replicates = table.numbers.of("noise_ceiling")(LAYERS["body"])[1:, 1]
    b = plain(footprints["b"], LAYERS["body"])
    assert replicates == pytest.approx(
        [reference.noise_ceiling(b, splits_of(8).halves, k) for k in range(8)], abs=1e-12
    )
    assert (table.noise_ceiling.pooled < 1).all()


@pytest.mark.parametrize("folds", [2, 3, 8])
@pytest.mark.parametrize("what", ["entries", "rows", "columns"])
def test_nulls_are_the_mean_over_all_permutations_of_different_halves(what, folds):
    name, shape = "w.weight", (3, 2)
    a, b = (fisher(squares, {name: shape}, folds, seed) for seed in (1, 2))
    table = overlap({"a": a, "b": b})

    def by_loops(left_out=None):
        return reference.null(plain(a, [name]), plain(b, [name]), splits_of(folds).halves, shape, what, left_out)

    assert getattr(table.null, what).pooled[0, 1] == pytest.approx(by_loops())
    assert table.null.strictest.pooled[0, 1] >= getattr(table.null, what).pooled[0, 1]
    if table.null.which()[0, 1] == what:
        null, corrected, above = (table.estimate(of, "a", "b") for of in ("null", "corrected", "above_null"))
        assert null.replicates == pytest.approx([by_loops(k) for k in range(folds)], nan_ok=True)
        assert above.value == corrected.value - null.value
        assert above.replicates == pytest.approx((corrected - null).replicates, nan_ok=True)


def noisy_pair(seed, common, count=25):
    """Two Fishers without any structure of their own; some of their noise is the same in both."""
    generator = torch.Generator().manual_seed(seed)
    same = torch.randn(8, count, 5, 6, generator=generator, dtype=torch.float64)

    def one():
        own = torch.randn(8, count, 5, 6, generator=generator, dtype=torch.float64)
        squares = (common * same + math.sqrt(1 - common**2) * own).square()
        folds = tuple(Fold(count, {"w": each.mean(0)}) for each in squares)
        return Footprint("fisher", {"w": squares.mean((0, 1))}, 8 * count, folds=folds)

    return overlap({"a": one(), "b": one()})


def test_noise_that_two_models_have_in_common_is_not_above_the_null():
    found = [noisy_pair(seed, common=0.95).estimate("above_null", "a", "b") for seed in range(40)]
    assert sum(each.low > 0 for each in found) <= 4  # 2.5 % each: more than 4 of 40 are one in 300
    values = [each.value for each in found]
    assert np.mean(values) < 3 * np.std(values) / math.sqrt(40)  # below 0 by a little: the strictest of three


def test_the_strictest_null_is_named():
    columns = torch.tensor([[9.0, 1.0, 0.1]]).expand(4, 3)  # exchanging rows changes nothing
    footprints = {
        name: fisher(lambda g, n, s: squares(g, n, s) * 1e-3 + columns, {"w.weight": (4, 3)}, seed=seed)
        for seed, name in enumerate("ab")
    }
    table = overlap(footprints)
    assert table.null.which()[0, 1] == table.null.which("w")[0, 1] == "rows"
    assert table.null.rows.pooled[0, 1] == table.null.strictest.pooled[0, 1] > table.null.entries.pooled[0, 1] + 0.1
    above = table.estimate("above_null", "a", "b")
    assert above.low < 0.01  # nothing is above the null that keeps the columns
    against_entries = table.corrected.pooled[0, 1] - table.null.entries.pooled[0, 1]
    assert against_entries > 0.1


def test_a_vector_has_one_null():
    table = overlap({name: fisher(squares, {"bias": (5,)}, seed=seed) for seed, name in enumerate("ab")})
    assert table.null.rows.pooled[0, 1] == table.null.columns.pooled[0, 1] == table.null.entries.pooled[0, 1] < 1
    assert table.null.which(parameter="bias")[0, 1] == "entries"


def test_intervals_are_those_of_the_loops():
    found = overlap(three()).estimate("corrected", "a", "b")
    low, high = reference.jackknife(found.value, found.replicates, 2.3646242515927844)  # t of 7 degrees, 97.5 %
    assert (found.low, found.high) == pytest.approx((low, high))


def test_totals_are_sums_of_the_parts():
    table = overlap(three())
    assert table.roll_up(0).corrected.by_layer[""].tolist() == table.corrected.pooled.tolist()
    mean = table.estimate("corrected", "a", "b", total="layer_mean")
    layers = [table.estimate("corrected", "a", "b", layer) for layer in table.layers]
    assert mean.value == pytest.approx(sum(each.value for each in layers) / 3)
    assert mean.replicates[3] == pytest.approx(sum(each.replicates[3] for each in layers) / 3)
    assert table.corrected.layer_mean[0, 1] == pytest.approx(mean.value)


def test_what_the_table_shows_is_what_it_estimates():
    table = overlap(three())
    for layer in (*table.layers, None):
        shown = table.corrected.pooled if layer is None else table.corrected.by_layer[layer]
        assert table.estimate("corrected", "a", "b", layer).value == shown[0, 1]
        raw = table.pooled if layer is None else table.by_layer[layer]
        assert table.estimate("raw", "a", "b", layer).value == raw[0, 1]
    assert table.estimate("raw", "a", "b", parameter="scale").value == table.by_parameter["scale"][0, 1]


def changed(footprint, change):
    folds = tuple(Fold(f.count, {n: change(n, t) for n, t in f.tensors.items()}) for f in footprint.folds)
    return replace(footprint, tensors={n: change(n, t) for n, t in footprint.tensors.items()}, folds=folds)


def numbers(table, a="a", b="b"):
    found = [table.estimate(of, a, b) for of in QUANTITIES]
    return [x for each in found for x in (each.value, *each.replicates)]


def test_a_footprint_with_itself_is_one_and_its_noise_ceiling_below():
    a = fisher(squares)
    table = overlap({"a": a, "same": a})
    for of in ("raw", "corrected"):
        found = table.estimate(of, "a", "same")
        assert (found.value, *found.replicates) == pytest.approx([1.0] * 9, abs=1e-12)
    assert table.noise_ceiling.pooled[0] < 0.999


def test_a_single_weight_is_shared_whatever_its_noise():
    table = overlap(three())
    for of in ("raw", "corrected"):
        found = table.estimate(of, "a", "b", "scale")
        assert (found.value, found.low, found.high) == pytest.approx((1, 1, 1))
    assert table.noise_ceiling.by_layer["scale"].tolist() == pytest.approx([1, 1, 1])


def test_the_scale_cancels():
    footprints = three()
    scaled = {**footprints, "a": changed(footprints["a"], lambda name, tensor: tensor * 7.5)}
    assert numbers(overlap(scaled)) == pytest.approx(numbers(overlap(footprints)), abs=1e-12)
    crooked = {
        **footprints,
        "a": changed(footprints["a"], lambda n, t: t * torch.arange(1.0, 1 + t.numel()).view(t.shape)),
    }
    assert numbers(overlap(crooked)) != pytest.approx(numbers(overlap(footprints)), abs=1e-3)


def test_one_permutation_of_both_changes_nothing_and_of_one_does():
    footprints = three()

    def rows_reversed(name, tensor):
        return tensor.flip(0) if tensor.dim() else tensor

    both = {name: changed(each, rows_reversed) for name, each in footprints.items()}
    assert numbers(overlap(both)) == pytest.approx(numbers(overlap(footprints)), abs=1e-12)
    one = {**footprints, "a": both["a"]}
    assert numbers(overlap(one))[:9] != pytest.approx(numbers(overlap(footprints))[:9], abs=1e-6)
    null = [overlap(each).null.rows.pooled[0, 1] for each in (one, footprints)]
    assert null[0] == pytest.approx(null[1])  # the null does not see which row is which


def test_the_order_of_footprints_changes_nothing():
    footprints = three()
    backwards = dict(reversed(footprints.items()))
    assert numbers(overlap(backwards)) == pytest.approx(numbers(overlap(footprints)), abs=1e-12)
    two = overlap({"c": footprints["c"], "a": footprints["a"]})
    assert numbers(two, "c", "a") == pytest.approx(numbers(overlap(footprints), "a", "c"), abs=1e-12)


def test_disjoint_fishers_stay_disjoint():
    a, b = (
        fisher(lambda g, n, s, here=here: squares(g, n, s) * torch.tensor(here), {"w.weight": (2, 2)}, seed=seed)
        for seed, here in enumerate(([[1.0, 0], [1, 0]], [[0.0, 1], [0, 1]]))
    )
    table = overlap({"a": a, "b": b})
    assert table.corrected.pooled[0, 1] == table.pooled[0, 1] == 0
    assert table.null.strictest.pooled[0, 1] > 0.4


def test_undefined_is_nan():
    nothing = fisher(lambda g, n, s: torch.zeros((n, *s)))
    table = overlap({"a": fisher(squares), "nothing": nothing})
    for of in QUANTITIES:
        found = table.estimate(of, "a", "nothing")
        assert math.isnan(found.value)
        assert math.isnan(found.low)
        assert found.missing == "the value is undefined"
    assert np.isnan(table.noise_ceiling.pooled[1])
    assert table.null.which()[0, 1] == ""
    assert np.isfinite(table.noise_ceiling.pooled[0])


def test_a_layer_that_lives_in_one_fold_has_no_interval():
    a = fisher(squares)
    folds = [
        Fold(f.count, {n: t if k == 2 or n != "scale" else t * 0 for n, t in f.tensors.items()})
        for k, f in enumerate(a.folds)
    ]
    count = sum(fold.count for fold in folds)
    tensors = {n: sum(f.count * f.tensors[n] for f in folds) / count for n in a.names}
    table = overlap({"a": replace(a, folds=tuple(folds), tensors=tensors), "b": fisher(squares, seed=1)})
    found = table.estimate("raw", "a", "b", "scale")
    assert found.value == pytest.approx(1.0)
    assert found.missing == "undefined without one of the folds"
    assert math.isnan(table.noise_ceiling.by_layer["scale"][0]) or table.noise_ceiling.by_layer["scale"][0] == 0
    assert table.estimate("raw", "a", "b", "body").missing is None


def test_two_folds_give_a_noise_ceiling_and_no_interval():
    table = overlap(three(2))
    assert np.isfinite(table.corrected.pooled).all()
    assert table.estimate("raw", "a", "b").missing == "an interval needs at least 3 folds, and there are 2"
    assert overlap(three(3)).estimate("raw", "a", "b").missing is None


def test_slabs_cover_every_entry_once():
    tensors = {"m": torch.arange(60.0).view(5, 4, 3), "v": torch.arange(7.0), "s": torch.tensor(2.0)}
    for name, tensor in tensors.items():
        for entries in (1, 2, 5, 14, 1000):
            rebuilt = torch.full(next(iter(slabs([tensors], name, entries))).shape, -1.0)
            shares = [slabs([tensors, tensors], name, entries, share=(share, 3)) for share in range(3)]
            for slab in chain(*shares):
                assert sum(part.numel() for part in slab.parts) <= max(2, entries)
                rows, columns = slab.parts[0].shape
                place = rebuilt[slab.row : slab.row + rows, slab.column : slab.column + columns]
                assert (place == -1).all()
                place.copy_(slab.parts[1])
            assert rebuilt.reshape(-1).tolist() == tensor.reshape(-1).tolist()


def test_the_size_of_slices_and_the_disk_change_nothing(tmp_path, monkeypatch):
    footprints = three()
    expected = numbers(overlap(footprints))
    for name, each in footprints.items():
        single = changed(each, lambda _, tensor: tensor.float())
        single.save(tmp_path / name)
    stored = {name: Footprint.load(tmp_path / name) for name in footprints}
    monkeypatch.setattr("commonweight.overlaps.resampling.sums.READ", {torch.float64: 30, torch.float32: 30})
    assert numbers(overlap(stored)) == pytest.approx(expected, abs=1e-6)


def test_what_an_earlier_table_holds_is_taken_from_it(monkeypatch):
    monkeypatch.setattr("commonweight.overlaps.resampling.sums.DOUBLE_UP_TO", 0)  # the kernel, in every parameter
    footprints = {name: fisher(squares, seed=seed) for seed, name in enumerate("abcde")}
    expected = overlap(footprints)
    earlier = overlap({name: footprints[name] for name in "dbc"})
    table = overlap(footprints, earlier=earlier)
    for pair in ("ab", "ae", "bd", "cd", "de"):
        assert numbers(table, *pair) == pytest.approx(numbers(expected, *pair), abs=1e-7)

    terms = {name: replace(each, half=2 * each.half) for name, each in earlier.resampled.terms.items()}
    doubled = overlap(footprints, earlier=replace(earlier, resampled=Resampled(8, terms)))
    for name, each in doubled.resampled.terms.items():
        ratio = each.half[0] / expected.resampled.terms[name].half[0]
        assert ratio == pytest.approx(np.array([[1 + (a in "bcd") * (b in "bcd") for b in "abcde"] for a in "abcde"]))

    with pytest.raises(UsageError, match=r"earlier is of other footprints.*leave earlier out"):
        overlap({**footprints, "b": footprints["a"]}, earlier=earlier)
    with pytest.raises(UsageError, match=r"earlier is a table of d, b, c, expected one with 8 folds of some of a, b"):
        overlap({name: footprints[name] for name in "ab"}, earlier=earlier)


def in_both_precisions(footprints, grams, monkeypatch):
    """Sums with float32 roots in every parameter, and with float64 in every one."""
    for entries in (0, 10**6):
        monkeypatch.setattr("commonweight.overlaps.resampling.sums.DOUBLE_UP_TO", entries)
        yield fold_terms(footprints, grams)


def flat(generator, count, shape):
    return torch.full((count, *shape), 0.7)


def rare(generator, count, shape):
    """Heavy tails, and most rows of an embedding unused."""
    drawn = torch.randn((count, *shape), generator=generator).pow(4) * 1e-9
    return drawn * (torch.rand((1, shape[0], *[1] * (len(shape) - 1)), generator=generator) < 0.2)


@pytest.mark.parametrize("examples", [squares, flat, rare])
@pytest.mark.parametrize("scale", [1.0, 1e-28, 1e25])
def test_float32_is_off_by_less_than_a_millionth(examples, scale, monkeypatch):
    shapes = {"embedding": (600, 130), "wide": (2, 70_000)}
    footprints = {
        name: fisher(lambda *drawn: scale * examples(*drawn), shapes, seed=seed) for seed, name in enumerate("ab")
    }
    for name, each in footprints.items():
        footprints[name] = changed(each, lambda _, tensor: tensor.float())
    grams = {name: parameter_gram(footprints, name) for name in shapes}
    single, double = (
        FoldRatios(Resampled(8, terms), grams) for terms in in_both_precisions(footprints, grams, monkeypatch)
    )
    for parameters in (("embedding",), ("wide",), tuple(shapes)):
        for quantity in ("raw", "noise_ceiling", "corrected", "nulls"):
            found, expected = (getattr(ratios, quantity)(parameters) for ratios in (single, double))
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6, err_msg=quantity)


def test_what_lies_in_one_fold_leaves_nothing_behind_without_it(monkeypatch):
    """Sums without a fold are sums of the others, never the whole less the fold: 1e10 less 1e10 leaves rounding."""

    def spiked(generator, count, shape):
        drawn = squares(generator, count, shape)
        drawn[:, 0] *= 1e-10
        return drawn

    shapes = {"wide": (2, 40_000)}
    footprints = {name: fisher(spiked, shapes, seed=seed) for seed, name in enumerate("ab")}
    for each in footprints.values():
        each.folds[2].tensors["wide"][0, 0] = 1e10
        whole = sum(fold.count * fold.tensors["wide"] for fold in each.folds) / each.count
        each.tensors["wide"].copy_(whole)
    grams = {"wide": parameter_gram(footprints, "wide")}
    single, double = (terms["wide"] for terms in in_both_precisions(footprints, grams, monkeypatch))
    np.testing.assert_allclose(single.full[2], double.full[2], rtol=1e-6)
    assert double.full[2].max() < 1e6 < 1e8 < double.full[1].min()


def test_differing_folds_are_refused():
    a, other = fisher(squares), fisher(squares, folds=4, seed=1)
    with pytest.raises(NotComparableError, match=r"different numbers of folds: 8 in 'a', 4 in 'b'.*folds=8"):
        overlap({"a": a, "b": other})
    with pytest.raises(NotComparableError, match=r"different fold maps: .* in 'a', row mod 8 in 'b'"):
        overlap({"a": a, "b": fisher(squares, seed=1, fold_map="row mod 8")})
    assert overlap({"a": a, "b": other}, intervals=False).pooled[0, 1] > 0
    assert overlap({"a": a, "b": fisher(squares, seed=1)}).resampled.folds == 8


def test_folds_that_cannot_be_are_refused():
    a = fisher(squares)
    empty = replace(a, folds=(Fold(0, a.folds[0].tensors), *a.folds[1:]))
    with pytest.raises(MeasurementError, match="fold 0 of footprint 'b' holds no examples"):
        overlap({"a": a, "b": empty})
    lacking = replace(a, folds=(Fold(3, {"scale": torch.tensor(1.0)}), *a.folds[1:]))
    with pytest.raises(MeasurementError, match=r"fold 0 of footprint 'b' lacks 'body\.weight'"):
        overlap({"a": a, "b": lacking})
    negative = changed(a, lambda _, tensor: tensor.clone())
    negative.folds[3].tensors["scale"].fill_(-1.0)
    with pytest.raises(MeasurementError, match=r"footprint 'b', fold 3, parameter 'scale': .*at least 0"):
        overlap({"a": a, "b": negative})
    foreign = replace(a, folds=fisher(lambda *drawn: 2 * squares(*drawn)).folds)
    with pytest.raises(MeasurementError, match=r"the folds of footprint 'b' do not add up to it.*'body\.weight'"):
        overlap({"a": a, "b": foreign})


def test_without_folds_everything_is_as_before_and_says_so():
    footprints = {name: replace(each, folds=()) for name, each in three().items()}
    table, folded = overlap(footprints), overlap(three())
    assert table.resampled is None
    assert table.pooled.tolist() == folded.pooled.tolist()
    raw = table.estimate("raw", "a", "b", "body")
    assert raw.value == folded.by_layer["body"][0, 1]
    assert raw.missing == "an interval needs at least 3 folds, and there are 0"
    for derived in ("noise_ceiling", "corrected", "null"):
        with pytest.raises(UsageError, match=r"without folds in every footprint.*fisher\(\.\.\., folds=8\)"):
            getattr(table, derived)
    mixed = overlap({**footprints, "a": three()["a"]})
    assert mixed.resampled is None


def test_unknown_names_are_refused():
    table = overlap(three())
    for pairs in (("a", "b"), (("a", "b"), ("a",)), (("a", "b"), ("a", 1))):
        with pytest.raises(UsageError, match=r"expected pairs of two names each, .*; there are 'a', 'b', 'c'"):
            table.contrast(*pairs)
    with pytest.raises(UsageError, match="no footprint 'x'"):
        table.estimate("raw", "a", "x")
    with pytest.raises(UsageError, match="expected raw, corrected, null or above_null, got 'rwa'"):
        table.estimate("rwa", "a", "b")
    with pytest.raises(KeyError, match="no layer 'bod'"):
        table.estimate("raw", "a", "b", "bod")
    with pytest.raises(UsageError, match="'pooled' or 'layer_mean'"):
        table.estimate("raw", "a", "b", total="sum")


def test_contrasts_go_fold_by_fold():
    table = overlap(three())
    shared, unshared = table.estimate("corrected", "a", "b"), table.estimate("corrected", "a", "c")
    found = table.contrast(("a", "b"), ("a", "c"))
    assert found == shared - unshared
    assert found.replicates == tuple(x - y for x, y in zip(shared.replicates, unshared.replicates, strict=True))
    body = table.contrast(("a", "b"), ("a", "c"), "raw", "body")
    assert body.value == table.by_layer["body"][0, 1] - table.by_layer["body"][0, 2]
    nothing = table.contrast(("a", "b"), ("a", "b"))
    assert (nothing.value, nothing.low, nothing.high) == (0, 0, 0)
