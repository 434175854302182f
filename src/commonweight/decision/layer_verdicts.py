"""Verdict on two layers: in which of them a pair of networks shares more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from commonweight.decision.asked_of_tables import check_pairs, judged
from commonweight.decision.verdict import STORED, Need
from commonweight.errors import UsageError

if TYPE_CHECKING:
    from commonweight.decision.verdict import Verdict
    from commonweight.overlaps.estimate import Estimate
    from commonweight.overlaps.table import OverlapTable

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
        The verdict on corrected overlaps, first - second. A common start and effective examples are asked of both
        layers. Both sides are of the same rows, since they are of the same two footprints.

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
        ('cannot say', "'a' and 'b' are of one network, which shares all its weights with itself")
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
