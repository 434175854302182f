r"""Masks and activities of several trainings: what training noise alone leaves of 1, and overlaps corrected by it.

A Fisher is a mean over examples, and parts of the examples say how far noise keeps two of them apart. A mask or a
task's statistics are the end of a training, so here other trainings of the same tasks in the same frozen network say
it: with other score initialisations and another order of the rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Literal

import numpy as np

from commonweight.base import text
from commonweight.base.errors import NotComparableError, UsageError
from commonweight.base.estimate import Estimate
from commonweight.base.text import Block, Grid
from commonweight.overlaps.compatible import check_named
from commonweight.overlaps.measures.gram import ROUNDING
from commonweight.overlaps.table.numbers import WHOLE, frozen
from commonweight.overlaps.table.table import overlap

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from commonweight.footprints.footprint import Footprint, Kind
    from commonweight.overlaps.table.table import OverlapTable

    Array = NDArray[np.float64]

Of = Literal["within", "between", "corrected"]

FEWEST = 3
"""Trainings: with fewer a noise ceiling has no interval, and nothing says whether it is above chance."""

READING = (
    "Within: both tasks of one training, mean over {seeds} trainings. Noise ceiling: one task in two different "
    "trainings. Corrected: two tasks in different trainings, over the root of both noise ceilings; 1 if they agree as "
    "much as two trainings of one task do{undefined}. Intervals are over seeds, that is trainings (95 %)."
)
MASKS = "; a dash where a noise ceiling is not above chance, or chance is not known. All are beyond chance"


@dataclass(frozen=True, eq=False, repr=False)
class SeedOverlap:
    r"""Overlaps of n tasks over S trainings.

    With :math:`c_{si,tj}` the coefficient of task i in training s and task j in training t (masks: the Jaccard index
    beyond chance, ``(J - J₀) / (1 - J₀)``; activities: the cosine),

    .. math::
        \text{within}_{ij} = \tfrac1S \sum_s c_{si,sj} \qquad
        \text{between}_{ij} = \tfrac{1}{S(S-1)} \sum_{s \ne t} c_{si,tj} \qquad
        \text{corrected}_{ij} = \frac{\text{between}_{ij}}{\sqrt{\text{between}_{ii}\,\text{between}_{jj}}}

    ``between`` of a task with itself is its **noise ceiling**: how much two trainings of one task agree. Corrected is 1
    for two tasks that agree as much as two trainings of one task do, and may exceed 1 by noise. Of masks it is nan
    where a noise ceiling's interval does not lie above 0, which is chance.

    Intervals are over seeds. What is a mean over pairs of trainings has the pseudo-values of the delete-one jackknife
    for replicates, :math:`S\theta - (S-1)\theta_{-s}`; of a mean over trainings these are its terms.
    """

    names: tuple[str, ...]
    """The tasks."""

    seeds: int
    """How many trainings."""

    table: OverlapTable
    """All trainings of all tasks against each other, under the names that :func:`name_of` gives."""

    @property
    def kind(self) -> Kind:
        """``supermask`` or ``activity``."""
        return self.table.kind

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers, in model order."""
        return self.table.layers

    def estimate(self, of: Of, a: str, b: str, layer: str | None = None) -> Estimate:
        """Give one number with its interval over seeds.

        Args:
            of: ``within``, ``between`` or ``corrected``.
            a: Name of a task.
            b: Name of another, or the same.
            layer: A layer; None for all weights pooled.

        Returns:
            The estimate; nan where chance is not known (see ``OverlapTable.chance``) or a noise ceiling is not above
            it.

        Raises:
            UsageError: If there is no such task or quantity.
            KeyError: If there is no such layer.
        """
        if unknown := [name for name in (a, b) if name not in self.names]:
            raise UsageError(f"no task {unknown[0]!r} here; there are {', '.join(map(repr, self.names))}")
        i, j = self.names.index(a), self.names.index(b)
        coefficients = self._coefficients(layer)
        if of == "within":
            return Estimate.over_seeds([float(coefficients[s, i, s, j]) for s in range(self.seeds)])
        between = _between(coefficients)
        if of == "between":
            return _jackknifed(between[:, i, j])
        if of != "corrected":
            raise UsageError(f"expected 'within', 'between' or 'corrected', got {of!r}")
        noise_ceilings = between[:, i, i], between[:, j, j]
        positive = np.minimum(*noise_ceilings) > ROUNDING
        lengths = np.sqrt(np.where(positive, noise_ceilings[0] * noise_ceilings[1], np.nan))
        corrected = between[:, i, j] / lengths
        if self.kind == "supermask" and not all(_jackknifed(each).low > ROUNDING for each in noise_ceilings):
            corrected = np.full_like(corrected, np.nan)
        return _jackknifed(corrected)

    def noise_ceiling(self, name: str, layer: str | None = None) -> Estimate:
        """Give the overlap of two trainings of one task.

        Args:
            name: Name of a task.
            layer: A layer; None for all weights pooled.

        Returns:
            The estimate; of masks beyond chance.
        """
        return self.estimate("between", name, name, layer)

    def contrast(
        self, first: tuple[str, str], second: tuple[str, str], of: Of = "corrected", layer: str | None = None
    ) -> Estimate:
        """Give the difference of two overlaps, first - second: leaving out a training leaves it out on both sides.

        Args:
            first: Names of two tasks.
            second: Names of two others.
            of: As for :meth:`estimate`.
            layer: A layer; None for all weights pooled.

        Returns:
            The estimate.
        """
        return self.estimate(of, *first, layer) - self.estimate(of, *second, layer)

    def to_markdown(self) -> str:
        """Write all pairs for people, pooled and by layer, with noise ceilings and intervals.

        Returns:
            GitHub Markdown; undefined is a dash.
        """
        return text.to_markdown(self.blocks())

    def _repr_html_(self) -> str:
        return text.to_html(self.blocks())

    def __repr__(self) -> str:
        return f"SeedOverlap({self.kind} of {', '.join(self.names)}; {self.seeds} trainings)"

    def _coefficients(self, layer: str | None) -> Array:
        """``[S, n, S, n]``."""
        if self.kind == "supermask":
            levels = self.table.corrected
            flat = levels.pooled if layer is None else levels.by_layer[layer]
        else:
            flat = self.table.pooled if layer is None else self.table.by_layer[layer]
        size = len(self.names)
        return flat.reshape(self.seeds, size, self.seeds, size)

    def blocks(self) -> list[Block]:
        """Lay out every pair of tasks, all weights together and layer by layer."""
        what, undefined = ("masks", MASKS) if self.kind == "supermask" else ("activities", "")
        levels = {layer or WHOLE: layer for layer in self.layers} | {"pooled": None}
        noise_ceilings = Grid(
            f"Noise ceilings of {what}: the same task trained again",
            ("layer", *self.names),
            tuple(
                (words, *(self.noise_ceiling(name, layer).short() for name in self.names))
                for words, layer in levels.items()
            ),
        )
        rows = tuple(
            (f"{a} and {b}, {words}", *(self.estimate(of, a, b, layer).short() for of in ("within", "corrected")))
            for a, b in combinations(self.names, 2)
            for words, layer in levels.items()
        )
        grid = Grid(f"Pairs of tasks over trainings: {what}", ("pair, layer", "within", "corrected"), rows)
        return [noise_ceilings, grid, READING.format(seeds=self.seeds, undefined=undefined)]


def overlap_over_seeds(trainings: Sequence[Mapping[str, Footprint]], *further: Mapping[str, Footprint]) -> SeedOverlap:
    """Compare tasks over several trainings in one frozen network.

    Args:
        trainings: Per training seed the footprints of all tasks by name, the same names in each: masks
            (:func:`~commonweight.supermask_footprint`) or activities (:func:`~commonweight.activity_footprint`). At
            least three trainings of at least two tasks. ``SupermaskNetwork(..., seed=s, weights_seed=0)`` trains other
            masks in the same weights.

        *further: None: trainings are one list.

    Returns:
        Overlaps within and between trainings, noise ceilings, and corrected overlaps.

    Raises:
        UsageError: If there are too few trainings or tasks, or names differ, or footprints are Fishers, or activities
            of two trainings are one and the same (masks from one score initialisation have no chance level, and are
            nan).
        NotComparableError: If the frozen weights differ, or the footprints cannot be compared.

    Example:
        >>> import torch
        >>> from commonweight import SupermaskNetwork, supermask_footprint
        >>> trainings = []
        >>> for seed in range(3):
        ...     net = SupermaskNetwork(torch.nn.Linear(40, 10), seed=seed, weights_seed=0)
        ...     net.add_task("a")
        ...     net.add_task("b")  # neither is trained: two score initialisations have nothing in common
        ...     trainings.append({task: supermask_footprint(net, task) for task in net.tasks})
        >>> found = overlap_over_seeds(trainings)
        >>> abs(found.noise_ceiling("a").value) < 0.1, found.estimate("corrected", "a", "b").value
        (True, nan)
    """
    if further or isinstance(trainings, Mapping) or not isinstance(trainings, Iterable):
        came = ", ".join(type(each).__name__ for each in (trainings, *further))
        raise UsageError(
            f"expected a list of trainings, each a mapping of tasks to footprints, got {came}; put them into one list"
        )
    every = list(trainings)
    if len(every) < FEWEST:
        raise UsageError(
            f"expected at least {FEWEST} trainings, got {len(every)}: with fewer a noise ceiling has no interval, and "
            "nothing says whether it is above chance"
        )
    for training in every:
        check_named(training)
    names = tuple(every[0])
    for seed, training in enumerate(every):
        if set(training) != set(names):
            raise UsageError(
                f"training {seed} has the tasks {', '.join(sorted(training))}, and training 0 "
                f"{', '.join(sorted(names))}: expected the same tasks in each"
            )
    flat = {name_of(name, seed): training[name] for seed, training in enumerate(every) for name in names}
    _check_frozen(flat)
    table = overlap(flat)
    if table.kind == "activity":
        _check_copies(names, len(every), table)
    return SeedOverlap(names, len(every), table)


def name_of(task: str, seed: int) -> str:
    """Name one training of a task in :attr:`SeedOverlap.table`."""
    return f"{task}, training {seed}"


def _check_frozen(footprints: Mapping[str, Footprint]) -> None:
    if any(footprint.kind not in {"supermask", "activity"} for footprint in footprints.values()):
        raise UsageError(
            "expected masks or activities, got Fishers: their noise is that of examples; measure them with folds, and "
            "compare them with overlap()"
        )
    digests = {
        name: digest
        for name, footprint in footprints.items()
        if (digest := dict(footprint.metadata.get("model") or {}).get("weights_digest"))
    }
    first = next(iter(digests), "")
    for name, digest in digests.items():
        if digest != digests[first]:
            raise NotComparableError(
                f"{first} and {name} are of different frozen weights, so weight k of one is not weight k of the other: "
                "train all in one network, with SupermaskNetwork(..., weights_seed=...)"
            )


def _check_copies(names: tuple[str, ...], seeds: int, table: OverlapTable) -> None:
    """Refuse two trainings of a task that came to the very same numbers."""
    for name in names:
        for first, second in combinations(range(seeds), 2):
            if table.one_and_the_same(name_of(name, first), name_of(name, second)):
                raise UsageError(
                    f"trainings {first} and {second} of {name} are one and the same: expected other score "
                    "initialisations and another order of the rows in each, such as SupermaskNetwork(..., seed=...) "
                    "gives"
                )


def _between(coefficients: Array) -> Array:
    """Means over pairs of different trainings, of all of them and without each: ``[S + 1, n, n]``."""
    seeds = len(coefficients)
    others = 1 - np.eye(seeds)
    found = [
        coefficients.transpose(0, 2, 1, 3)[np.outer(keep, keep) * others > 0].mean(axis=0)
        for keep in (np.ones(seeds), *others)
    ]
    return frozen(np.stack(found))


def _jackknifed(values: Array) -> Estimate:
    """An estimate from the value of all trainings and those without each."""
    whole, without = float(values[0]), values[1:]
    seeds = len(without)
    return Estimate(whole, tuple(float(seeds * whole - (seeds - 1) * each) for each in without), "seeds")
