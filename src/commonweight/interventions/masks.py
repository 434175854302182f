"""Do the bits that two masks share hold what both tasks learned? They are switched off, and every row is scored.

For tasks A and B of one supermask network, with s the score of A (accuracy, or mean log-likelihood) on held-out rows:

=========  =====================================================================
cost       ``s(A) − s(A with the bits off)``
necessity  ``cost / (s(A) − base)``, base = chance: ``1/C``, or ``log(1/C)``
=========  =====================================================================
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from commonweight.base.errors import UsageError
from commonweight.base.progress import track
from commonweight.base.resampled import Resampled
from commonweight.base.seeds import keyed
from commonweight.footprints.packed import PackedMasks
from commonweight.interventions.matched import binned, random_set
from commonweight.interventions.measure import METRICS, STATISTICS, RowResampling, RowScores, necessity, row_scores
from commonweight.interventions.sets import both, equal_parts, only, size
from commonweight.verdicts.localised import SetClaim, SetVerdict, judge_sets

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from commonweight.interventions.measure import Metric, Statistics
    from commonweight.supermasks.network import SupermaskNetwork

EDGES = np.linspace(0, 1, 21)
"""Quantiles of |frozen weight| between 20 bins of a layer."""

DRAWS = 9
"""Random sets, and matched parts, of every set."""

FEWEST = 2

CLAIMS_PER_PAIR = 5

OFF_PER_TASK = 3 + 4 * DRAWS
"""Masks that are scored of a task in a pair, the whole one included."""

Off = Literal["nothing", "shared", "only", "random for shared", "random for only", "part of shared", "part of only"]
"""What is switched off: what both masks have, what only this one has, as many random bits of the mask, or equally
large parts of the first two, with as many bits in every layer and bin of |frozen weight|."""

NOTHING_TO_MATCH = "one of the two sets has no bit in a bin of |frozen weight| in which the other has one"


@dataclass(frozen=True)
class MaskCell:
    """A task with bits of its mask switched off, in one metric; of several draws the mean."""

    pair: tuple[str, str]
    """The tasks whose masks are compared."""

    task: str
    """The one of them that is scored."""

    off: Off
    bits: int
    """How many are switched off."""

    draws: int
    statistics: Statistics
    """Batch-norm statistics: the stored ones, or those of the choosing half with the bits off."""

    metric: Metric
    score: Resampled
    difference: Resampled
    """What it costs: score with nothing off, less this one."""

    share: Resampled
    """Necessity; undefined where the task is not clearly above chance."""

    def record(self) -> dict[str, Any]:
        """Give it as plain values."""
        said = ("pair", "task", "off", "bits", "draws", "statistics", "metric")
        numbers = {name: getattr(self, name).record() for name in ("score", "difference", "share")}
        return {**{name: getattr(self, name) for name in said}, **numbers}


@dataclass(frozen=True)
class MaskLocalisation:
    """What switching off bits of masks did, for every pair of tasks."""

    rows: Mapping[str, int]
    """Measuring rows, by task."""

    cells: tuple[MaskCell, ...]
    verdicts: tuple[SetVerdict, ...]
    """One family: per pair whether the shared bits are necessary in each task, are shared, and whether those of one
    mask alone are specific to it."""

    def record(self) -> dict[str, Any]:
        """Give it as plain values."""
        return {
            "measuring_rows": dict(self.rows),
            "cells": [each.record() for each in self.cells],
            "verdicts": [each.record() | {"sentence": each.sentence} for each in self.verdicts],
        }


def localise_masks(
    net: SupermaskNetwork,
    rows: Mapping[str, tuple[Tensor, Tensor]],
    *,
    draws: int = DRAWS,
    resamples: int | None = None,
    seed: int = 0,
    least_share: float = 0.5,
    batch_size: int = 1000,
) -> MaskLocalisation:
    """Switch off the bits that two masks share, or that one has alone, and measure what that costs.

    Claims are judged by mean log-likelihood with the stored statistics, Holm over all of them. *Is necessary* in A:
    a part of what both masks share costs A more than an equally large part of what only A has. *Shared*: so it is in
    both. *Specific*: it is the other way round; the other task loses nothing by construction, as those bits are off in
    its mask. All else is descriptive.

    Args:
        net: The network; the tasks are finished. Afterwards it is bit for bit what it was.
        rows: Task -> inputs and labels of held-out rows. One half, chosen by content so that copies stay together,
            measures; statistics are re-estimated on the other.
        draws: Random sets, and matched parts, of every set; at least 2.
        resamples: Bootstrap samples of the rows; None for 60 per claim, at least 1000. With fewer than 40 per claim no
            p can stay below .05 after Holm.
        seed: Names draws and samples.
        least_share: Shared bits are necessary whole where the lower end of their share is at least this; else in part.
        batch_size: Changes speed, never the result.

    Returns:
        Every score with its interval over rows and draws, and the verdicts. C, in chance, is the number of labels among
        the task's measuring rows.

    Raises:
        UsageError: If there are fewer than two tasks or draws, a task is not finished, or a half has no row.

    Example:
        >>> from commonweight.supermasks.network import SupermaskNetwork
        >>> net = SupermaskNetwork(torch.nn.Sequential(torch.nn.Linear(4, 2)))
        >>> for task in "ab":
        ...     net.add_task(task)
        ...     net.finish(task)
        >>> inputs = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
        >>> rows = inputs, (inputs.sum(1) > 0).long()
        >>> found = localise_masks(net, {"a": rows, "b": rows})
        >>> [verdict.asked.claim for verdict in found.verdicts]
        ['is necessary', 'specific', 'is necessary', 'specific', 'shared']
    """
    if len(rows) < FEWEST or draws < FEWEST:
        raise UsageError(f"expected at least two tasks and two draws, got {len(rows)} and {draws}")
    resamples = resamples or max(1000, 60 * CLAIMS_PER_PAIR * math.comb(len(rows), 2))
    bins = {name: torch.from_numpy(binned(net.weight(name).abs().double().cpu().numpy(), EDGES)) for name in net.masked}
    trials = {task: _Trial(net, task, given, resamples, seed, batch_size) for task, given in rows.items()}
    cells: list[MaskCell] = []
    claims: list[SetClaim] = []
    for pair in track([*combinations(rows, 2)], "switching off bits", unit="pair"):
        needs = {}
        for task, other in (pair, pair[::-1]):
            sets = _sets(_bits(net, task), _bits(net, other), bins, draws, seed)
            found = {(each.off, each.statistics, each.metric): each for each in trials[task].cells(pair, sets)}
            cells += found.values()
            parts = [found[off, "stored", "log-likelihood"] for off in ("part of shared", "part of only")]
            extra = parts[0].difference - parts[1].difference
            if not parts[0].bits:
                extra = Resampled.undefined(NOTHING_TO_MATCH)
            needs[f"cost in {task} − matched bits of {task} alone"] = extra
            claims += _claims(pair, task, extra, found["shared", "stored", "log-likelihood"].share)
        claims.append(SetClaim("shared", "∩".join(pair), needs))
    measuring = {task: len(each.units) for task, each in trials.items()}
    return MaskLocalisation(measuring, tuple(cells), judge_sets(claims, least_share))


def _claims(pair: tuple[str, str], task: str, extra: Resampled, share: Resampled) -> Iterator[SetClaim]:
    shared = "∩".join(pair)
    other = pair[0] if task == pair[1] else pair[1]
    yield SetClaim("is necessary", f"{shared} in {task}", {f"cost − matched bits of {task} alone": extra}, share)
    yield SetClaim(
        "specific",
        f"only {task} (against {other})",
        {f"cost in {task} − matched bits of {shared}": extra.below(0)},
        to=task,
    )


def _bits(net: SupermaskNetwork, task: str) -> PackedMasks:
    return PackedMasks({name: net.bits(task, name) for name in net.masked})


def _sets(
    mine: PackedMasks, other: PackedMasks, bins: Mapping[str, Tensor], draws: int, seed: int
) -> dict[Off, list[PackedMasks]]:
    """Choose the bits of a mask that are switched off, each set in all its draws."""
    shared, own = both(mine, other), only(mine, other)
    parts = [equal_parts(shared, own, seed + draw, bins) for draw in range(draws)]
    return {
        "nothing": [only(mine, mine)],
        "shared": [shared],
        "only": [own],
        "random for shared": [random_set(shared, seed, draw, mine) for draw in range(draws)],
        "random for only": [random_set(own, seed, draw, mine) for draw in range(draws)],
        "part of shared": [first for first, _ in parts],
        "part of only": [second for _, second in parts],
    }


class _Trial:
    """One task, its rows in two halves, and what every row scores with bits switched off."""

    def __init__(
        self,
        net: SupermaskNetwork,
        task: str,
        rows: tuple[Tensor, Tensor],
        resamples: int,
        seed: int,
        batch_size: int,
    ) -> None:
        self.net, self.task = net, task
        device = next(net.parameters()).device
        units = np.array([_unit(row) for row in rows[0]])
        halves = []
        for side, name in enumerate(("choosing", "measuring")):
            places = np.flatnonzero([keyed(unit) % 2 == side for unit in units.tolist()])
            if not len(places):
                raise UsageError(f"the {name} half of {task!r} has no row, of {len(units)} given; give more")
            inputs, labels = (each[torch.from_numpy(places)].to(device) for each in rows)
            halves.append([*zip(inputs.split(batch_size), labels.split(batch_size), strict=True)])
        self.choosing, self.measuring = halves
        self.units = units[places]
        self.resampling = RowResampling(self.units.tolist(), resamples, seed)
        chance = 1 / len(labels.unique())
        levels: dict[Metric, float] = {"accuracy": chance, "log-likelihood": math.log(chance)}
        self.base = {metric: Resampled(value, np.full(resamples, value)) for metric, value in levels.items()}

    def cells(self, pair: tuple[str, str], sets: Mapping[Off, Sequence[PackedMasks]]) -> Iterator[MaskCell]:
        """Score the task with each of the sets switched off."""
        for statistics in STATISTICS:
            scores = {off: [self._scores(each, statistics) for each in draws] for off, draws in sets.items()}
            for metric, attribute in METRICS.items():
                means = {off: self._mean([getattr(each, attribute) for each in of]) for off, of in scores.items()}
                whole, base = means["nothing"], self.base[metric]
                for off, draws in sets.items():
                    score = means[off]
                    yield MaskCell(
                        pair,
                        self.task,
                        off,
                        size(draws[0]),
                        len(draws),
                        statistics,
                        metric,
                        score,
                        whole - score,
                        necessity(score, base, whole),
                    )

    def _scores(self, chosen: PackedMasks, statistics: Statistics) -> RowScores:
        anew = self.choosing if statistics == "re-estimated" else None
        with self.net.switched_off(self.task, {name: chosen[name] for name in chosen}, anew), self.net.on(self.task):
            return row_scores(self.net, self.measuring)

    def _mean(self, values: list[NDArray[np.float64]]) -> Resampled:
        return self.resampling.mean(values[0] if len(values) == 1 else np.stack(values))


def _unit(row: Tensor) -> int:
    """Number a row by its content: copies are one unit."""
    content = row.detach().cpu().contiguous().numpy().tobytes()
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest()) >> 1
