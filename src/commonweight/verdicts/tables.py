"""Verdicts of a table of overlaps: which of its overlaps are above their null, and which pair shares more."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

from commonweight.base.errors import UsageError
from commonweight.verdicts.needs import NOT_COUNTED, aligned, check_pairs, effective, judged, table_needs, told
from commonweight.verdicts.verdict import STORED, Need, null_verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from commonweight.base.estimate import Estimate
    from commonweight.overlaps.table.rows import Quantity
    from commonweight.overlaps.table.table import OverlapTable
    from commonweight.verdicts.needs import Pair
    from commonweight.verdicts.verdict import Verdict


class Cell(NamedTuple):
    """What one footprint of a table is of."""

    model: str
    data: str
    rows: str
    """Names the source rows: equal for data sets made from the same ones."""


def overlap_verdict(table: OverlapTable, a: str, b: str, layer: str | None = None) -> Verdict:
    """Say whether an overlap is above its null, the strictest of three permutations.

    Args:
        table: Overlaps of Fishers with folds.
        a: Name of a footprint.
        b: Name of another.
        layer: A layer; None for all weights pooled.

    Returns:
        The verdict on corrected - null, both of different halves of the examples.

    Raises:
        UsageError: If there is no such footprint, both are one, or the table has no folds.
        KeyError: If there is no such layer.

    Example:
        >>> import torch
        >>> from commonweight import fisher, overlap
        >>> _ = torch.manual_seed(0)
        >>> rows = (torch.randn(200, 40), torch.randint(2, (200,)))
        >>> start = torch.nn.Linear(40, 20)
        >>> prints = {"a": fisher(start, [rows], folds=8)}
        >>> _ = start.weight.data.add_(0.01 * torch.randn(20, 40))
        >>> found = overlap_verdict(overlap(prints | {"b": fisher(start, [rows], folds=8)}), "a", "b")
        >>> found.answer, found.lacking
        ('above its null', ())
    """
    pair, layers = (a, b), (layer,)
    check_pairs(table, pair)
    difference = table.estimate("above_null", a, b, layer)
    needs = table_needs([table], [pair], layers)
    uncounted = [need.found for need in needs if need.found == NOT_COUNTED]
    return told(
        null_verdict(
            difference,
            aligned=aligned([table], [pair], layers),
            effective_sample_size=effective([table], [pair], layers),
        ),
        [table],
        [pair],
        layers,
        [need for need in needs if need.found != NOT_COUNTED],
        uncounted,
    )


def pairs_verdict(
    table: OverlapTable,
    first: Pair,
    second: Pair,
    layer: str | None = None,
    *,
    same_rows: bool,
    of: Quantity = "corrected",
) -> Verdict:
    """Say whether one pair of footprints shares more than another.

    Args:
        table: Overlaps of Fishers with folds.
        first: Names of two footprints.
        second: Names of two others.
        layer: A layer; None for all weights pooled.
        same_rows: Whether both pairs were measured on the same source rows. A table does not know: see
            :func:`same_rows`.
        of: Which overlap, as ``table.estimate`` takes it. Of Fishers corrected ones, or these less their null,
            decide, raw ones do not: noise lowers them, and not all alike.

    Returns:
        The verdict on first - second.

    Raises:
        UsageError: If there is no such footprint, a pair is no pair of names or one footprint twice, the table has no
            folds for what is asked, or ``same_rows`` is no bool.
        KeyError: If there is no such layer.

    Example:
        >>> import torch
        >>> from commonweight import fisher, overlap
        >>> rows = (torch.randn(200, 40), torch.randint(2, (200,)))
        >>> prints = {name: fisher(torch.nn.Linear(40, 20), [rows], folds=8) for name in "abc"}
        >>> found = pairs_verdict(overlap(prints), ("a", "b"), ("a", "c"), same_rows=True)
        >>> found.answer, found.lacking[0].found
        ('inconclusive', 'no shared initialisation')
    """
    pairs = (first, second)
    check_pairs(table, *pairs)
    difference = table.contrast(first, second, of, layer)
    return judged(difference, [table], pairs, (layer,), of=of, same_rows=same_rows)


def contrasts_of(cells: Mapping[str, Cell]) -> tuple[tuple[Pair, Pair], ...]:
    """List the contrasts of a grid of models and data that differ in one thing.

    Two models on one data set against the same two on another; against one of them and a third on the same; one model
    on two data sets against another model on the same two; against one of them and a third in the same model.

    Args:
        cells: Footprint -> what it is of.

    Returns:
        Two pairs each; those of the same source rows come first, since the others decide nothing.

    Example:
        >>> grid = {f"{m}/{d}": Cell(m, d, d) for m in "ab" for d in "xy"}
        >>> for first, second in contrasts_of(grid):
        ...     print(*first, "against", *second)
        a/x a/y against b/x b/y
        a/x b/x against a/y b/y
    """
    pairs = [pair for pair in combinations(cells, 2) if _kind(cells, pair)]
    found = [(first, second) for first, second in combinations(pairs, 2) if _belong(cells, first, second)]
    return tuple(sorted(found, key=lambda contrast: not same_rows(cells, *contrast)))


def same_rows(cells: Mapping[str, Cell], first: Pair, second: Pair) -> bool:
    """Tell whether two pairs were measured on the same source rows."""
    if unknown := [name for name in (*first, *second) if name not in cells]:
        raise UsageError(f"no footprint {unknown[0]!r} among {', '.join(map(repr, cells))}")
    return {cells[name].rows for name in first} == {cells[name].rows for name in second}


def _kind(cells: Mapping[str, Cell], pair: Pair) -> str:
    """What the two of a pair differ in, if that is one thing."""
    a, b = (cells[name] for name in pair)
    if (a.model == b.model) == (a.data == b.data):
        return ""
    return "models" if a.data == b.data else "data"


def _belong(cells: Mapping[str, Cell], first: Pair, second: Pair) -> bool:
    kind = _kind(cells, first)
    if kind != _kind(cells, second):
        return False
    models = [{cells[name].model for name in pair} for pair in (first, second)]
    data = [{cells[name].data for name in pair} for pair in (first, second)]
    differ, stay = (models, data) if kind == "models" else (data, models)
    return differ[0] == differ[1] or (stay[0] == stay[1] and len(differ[0] & differ[1]) == 1)


TWO_NETWORKS, BEYOND_THE_NULL = "two networks", "beyond the null too"
"""Needs of layers only."""


def layers_verdict(table: OverlapTable, a: str, b: str, first_layer: str, second_layer: str) -> Verdict:
    r"""Say whether two networks share more in one layer than in another.

    Layers have nulls of their own: in an untrained network the last layer's overlap can be far above the first's, and
    its null too. So the difference of corrected overlaps and that of corrected - null,

    .. math:: O_{ab}(l) - O_{ab}(m) \quad \text{and} \quad
        [O_{ab}(l) - N_{ab}(l)] - [O_{ab}(m) - N_{ab}(m)],

    must both exclude 0, on the same side. Two Fishers of one network decide nothing: it shares all its weights with
    itself, in every layer.

    Args:
        table: Overlaps of Fishers with folds.
        a: Name of a footprint.
        b: Name of another.
        first_layer: A layer of the table.
        second_layer: Another.

    Returns:
        The verdict on corrected overlaps, first - second. A shared initialisation and effective sample size are asked
        of both layers. Both sides are of the same rows, since they are of the same two footprints.

    Raises:
        UsageError: If there is no such footprint, both are one, both layers are one, or the table has no folds.
        KeyError: If there is no such layer.

    Example:
        >>> import torch
        >>> from commonweight import fisher, overlap
        >>> model = torch.nn.Sequential(torch.nn.Linear(40, 20), torch.nn.Tanh(), torch.nn.Linear(20, 2))
        >>> prints = {}
        >>> for name in "ab":
        ...     rows = (torch.randn(200, 40), torch.randint(2, (200,)))
        ...     prints[name] = fisher(model, [rows], folds=8)
        >>> found = layers_verdict(overlap(prints), "a", "b", "2", "0")
        >>> found.answer, found.lacking[0].found
        ('inconclusive', "'a' and 'b' are of one network, which shares all its weights with itself")
    """
    check_pairs(table, (a, b))
    if first_layer == second_layer or not isinstance(first_layer, str) or not isinstance(second_layer, str):
        raise UsageError(
            f"expected the names of two different layers, got {first_layer!r} and {second_layer!r}; there are "
            f"{', '.join(map(repr, table.layers))}"
        )
    corrected, beyond = (
        table.estimate(of, a, b, first_layer) - table.estimate(of, a, b, second_layer)
        for of in ("corrected", "above_null")
    )
    words = f"the difference of corrected - null is {beyond}"
    agree = _agree(corrected, beyond)
    return judged(
        corrected,
        [table],
        [(a, b)],
        (first_layer, second_layer),
        of="corrected",
        same_rows=True,
        needs=(_two_networks(table, a, b), Need(BEYOND_THE_NULL, agree, words)),
        also=(words,) if agree else (),
    )


def _two_networks(table: OverlapTable, a: str, b: str) -> Need:
    i, j = table.names.index(a), table.names.index(b)
    if table.alignment.distance[i, j] == 0:
        one = f"{a!r} and {b!r} are of one network, which shares all its weights with itself"
        return Need(TWO_NETWORKS, met=False, found=one)
    return Need(TWO_NETWORKS, met=True, found="the weights of the two networks differ")


def _agree(corrected: Estimate, beyond: Estimate) -> bool:
    """Whether the second lies on the side of 0 on which the first is, by more than rounding."""
    return bool(beyond.low > STORED if corrected.value > 0 else beyond.high < -STORED)
