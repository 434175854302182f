"""Null sets: drawn at random, or matched to a set by how far its weights moved.

A set that names large changes wins against random weights whatever its map knows beside the change. A matched set has
the same number of weights in each quantile bin of |Δ| of every parameter, and so about the same ΣΔ².
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from commonweight.base.errors import UsageError
from commonweight.base.seeds import keyed
from commonweight.footprints.packed import PackedMasks
from commonweight.interventions.sets import drawn
from commonweight.supermasks.bits import Bits

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from commonweight.footprints.footprint import Footprint

EDGES = np.concatenate([np.linspace(0, 0.95, 39), np.linspace(0.95, 1, 21)[1:]])
"""Quantiles of |Δ| between 58 bins of a parameter: 38 up to .95, and 20 above."""

MOST_APART = 0.05
"""ΣΔ² of a set and its matched sets may differ by this much, relative to the set's."""

NEAR = 2
"""Bins on either side of its own from which a match may come: in a small parameter a bin holds a single weight."""

MOST_UNMATCHED = 0.05
"""Share of a set that may lack such a match: it is drawn from the nearest bins of the parameter that have weights left
outside, and where the whole parameter has too few, left out."""

RANDOM, MATCHED = 1, 2


@dataclass(frozen=True)
class Nulls:
    """Null sets of one set, or why there are none."""

    sets: tuple[PackedMasks, ...]
    reason: str = ""
    """Why there are none; empty where there are some."""

    squares: float = float("nan")
    """ΣΔ² of the set."""

    squares_of_nulls: float = float("nan")
    """The mean ΣΔ² of the null sets, also where they are refused because of it."""


def random_set(chosen: PackedMasks, seed: int, draw: int = 0, among: PackedMasks | None = None) -> PackedMasks:
    """Draw a set with the same number of weights in every parameter, from all of its weights.

    Args:
        chosen: The set.
        seed: Names the draws.
        draw: Which of them.
        among: Draw from these weights alone, of which the set is a part; None for all.

    Returns:
        The random set.

    Example:
        >>> chosen = PackedMasks.of({"w": torch.tensor([True, True, False, False])})
        >>> int(random_set(chosen, seed=0)["w"].sum())
        2
    """
    found = {}
    for number, name in enumerate(chosen):
        mask = chosen[name]
        every = torch.ones(mask.numel(), dtype=torch.bool) if among is None else among[name].flatten()
        picked = drawn(every, int(mask.sum()), keyed(seed, RANDOM, number, draw))
        found[name] = Bits.of(picked.reshape(mask.shape))
    return PackedMasks(found)


def matched_sets(chosen: PackedMasks, change: Footprint, outside: PackedMasks, draws: int, seed: int) -> Nulls:
    """Draw sets whose weights moved as far as those of a set, parameter by parameter.

    Args:
        chosen: The set.
        change: The change of the model in which it is reset or grafted.
        outside: A set, no weight of which is drawn: all sets that are compared.
        draws: How many.
        seed: Names the draws.

    Returns:
        The sets, with ΣΔ² of both sides; none, with the reason, where bins are too thin or ΣΔ² differs by more than
        5 %.

    Raises:
        UsageError: If the change lacks a parameter of the set.

    Example:
        >>> from commonweight.footprints.footprint import Footprint
        >>> change = Footprint("change", {"w": torch.linspace(-1, 1, 1000)}, 0)
        >>> chosen = PackedMasks.of({"w": torch.arange(1000) % 10 == 0})
        >>> found = matched_sets(chosen, change, chosen, 2, seed=0)
        >>> [int(each["w"].sum()) for each in found.sets], abs(found.squares_of_nulls / found.squares - 1) < 0.05
        ([100, 100], True)
    """
    if lacking := [name for name in chosen if name not in change]:
        raise UsageError(f"the change lacks {lacking[0]!r}, which is in the set; take both of one model")
    found: list[dict[str, Bits]] = [{} for _ in range(draws)]
    squares, of_nulls, unmatched, total = 0.0, 0.0, 0, 0
    for number, name in enumerate(chosen):
        mask = chosen[name].flatten().numpy()
        size = np.abs(change[name].flatten().double().numpy())
        free = ~(mask | outside[name].flatten().numpy())
        shape = chosen.shape(name)
        if not mask.any():
            for masks in found:
                masks[name] = Bits.of(torch.zeros(shape, dtype=torch.bool))
            continue
        bins = binned(size, EDGES)
        need, have = (np.bincount(bins[each], minlength=len(EDGES) - 1) for each in (mask, free))
        total += int(need.sum())
        taken, far = _fitted(need, have)
        unmatched += far
        places = np.flatnonzero(free)
        places = places[np.argsort(bins[places], kind="stable")]
        starts = np.concatenate([[0], np.cumsum(have)])
        squares += float((size[mask] ** 2).sum())
        for draw, masks in enumerate(found):
            rng = np.random.default_rng(keyed(seed, MATCHED, number, draw))
            flat = np.zeros(len(mask), dtype=bool)
            for each in np.flatnonzero(taken):
                picked = rng.choice(have[each], taken[each], replace=False, shuffle=False)
                flat[places[starts[each] + picked]] = True
            of_nulls += float((size[flat] ** 2).sum()) / draws
            masks[name] = Bits.of(torch.from_numpy(flat).reshape(shape))
    if not total:
        return Nulls((), "the set is empty")
    if unmatched > MOST_UNMATCHED * total:
        reason = f"bins of |Δ| are too thin: {unmatched / total:.0%} of the set have no match of their size outside"
        return Nulls((), reason, squares, of_nulls)
    if abs(of_nulls - squares) > MOST_APART * squares:
        return Nulls((), f"ΣΔ² is {squares:.3g} in the set and {of_nulls:.3g} in matched ones", squares, of_nulls)
    return Nulls(tuple(map(PackedMasks, found)), "", squares, of_nulls)


def binned(size: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.int64]:
    """Number the quantile bin of every weight of a parameter, given the quantiles between bins, 0 and 1 included."""
    return np.searchsorted(np.quantile(size, edges[1:-1]), size, side="right")


def _fitted(need: NDArray[np.int64], have: NDArray[np.int64]) -> tuple[NDArray[np.int64], int]:
    """Take from each bin what is needed, and what it lacks from the nearest bins; count what comes from afar or not."""
    taken = np.minimum(need, have)
    far = 0
    for each in np.flatnonzero(need > have):
        lacking = int(need[each] - have[each])
        distance = np.abs(np.arange(len(have)) - each)
        for near in np.argsort(distance, kind="stable"):
            more = min(lacking, int(have[near] - taken[near]))
            taken[near] += more
            lacking -= more
            far += more if distance[near] > NEAR else 0
        far += lacking
    return taken, far
