r"""Everything a study found, gathered from its run folder: the cells that answer the question, and their contrasts.

For two models a and b, each with its own shortcut, with ``O(x, y)`` the overlap of two footprints:

=============  ============================================================================
shared         ``O(a on originals, b on originals)``
unshared       ``O(a on its own conflicting rows, b on its own)``: different inputs
same input, a  ``O(a, b)``, both on the rows that conflict with a's shortcut
same input, b  ``O(a, b)``, both on the rows that conflict with b's shortcut
=============  ============================================================================

``shared − unshared`` is the published contrast. Part of it is an effect of the input, since *unshared* compares models
on different inputs; what remains of it when the input is the same is ``shared − same input``.

With folds both are also taken between corrected overlaps, which sampling noise does not lower. The estimates are over
training seeds; of a single seed with folds, over examples.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations, product
from statistics import fmean
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from commonweight.base.estimate import Estimate
from commonweight.overlaps.table.evidence import Place, evidence
from commonweight.overlaps.table.table import OverlapTable
from commonweight.studies.run.folder import read_json
from commonweight.studies.run.results import recorded, result_text
from commonweight.studies.shortcuts.grid import measured_rows
from commonweight.studies.shortcuts.plan import CONTROLS, ORIGINAL, footprint_name
from commonweight.verdicts.verdict import judge

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from commonweight.studies.shortcuts.plan import Plan, SeedFolder
    from commonweight.verdicts.evidence import Pair
    from commonweight.verdicts.verdict import Verdict

Of = Literal["raw", "corrected"]
CONTRASTS: Mapping[str, Pair] = MappingProxyType({
    f"shared − {cell}": ("shared", cell) for cell in ("unshared", "same input, first", "same input, second")
})


def cell_sets(first: str, second: str) -> dict[str, Pair]:
    """Name the sets that the two models of a pair are measured on, in every cell."""
    return {
        "shared": (ORIGINAL, ORIGINAL),
        "unshared": (first, second),
        "same input, first": (first, first),
        "same input, second": (second, second),
    }


def footprint_names(models: Pair, sets: Pair) -> Pair:
    """Name the footprints of two models, each on its set."""
    return footprint_name(models[0], sets[0]), footprint_name(models[1], sets[1])


def have_folds(tables: Sequence[OverlapTable]) -> bool:
    """Tell whether corrected overlaps are known."""
    return all(table.resampled is not None for table in tables)


def pair_estimates(
    tables: Sequence[OverlapTable], shortcuts: Sequence[str], layer: str | None = None, of: Of = "raw"
) -> Mapping[Pair, dict[str, Estimate]]:
    """Collect the cells of every pair of models."""
    return {
        pair: {
            cell: _estimate(tables, footprint_names(pair, sets), layer, of) for cell, sets in cell_sets(*pair).items()
        }
        for pair in combinations(shortcuts, 2)
    }


def pair_verdicts(
    tables: Sequence[OverlapTable],
    rows: Sequence[Mapping[str, str]],
    shortcuts: Sequence[str],
    layer: str | None = None,
    without_shortcut: Collection[str] = (),
) -> Mapping[Pair, dict[str, Verdict]]:
    """Say for every pair of models whether it shares more on originals than elsewhere."""
    # Corrected overlaps decide. Without folds there are none, and raw ones inconclusive: the noise of finite samples
    # lowers them, in every training, and not alike on originals and elsewhere. Beside each verdict stand its controls:
    # the same contrast with the start, the random-label model or, where there is one, the model from an independent
    # initialisation in place of one of the two models (the mean of both ways).
    # They decide nothing; where a contrast is not shown to be larger than a control, its reason says so.
    of: Of = "corrected" if have_folds(tables) else "raw"

    def verdict(pair: Pair, cells: Pair) -> Verdict:
        sets = [cell_sets(*pair)[cell] for cell in cells]

        def contrast(models: Pair) -> Estimate:  # of the two, or with another in the place of one
            first, second = (_estimate(tables, footprint_names(models, each), layer, of) for each in sets)
            return first - second

        places = [Place(table, footprint_names(pair, side), layer) for table, side in product(tables, sets)]
        same_rows = all(len({named[data] for side in sets for data in side}) == 1 for named in rows)
        controls = {
            f"with {model}": 0.5 * (contrast((model, pair[1])) + contrast((pair[0], model)))
            for model in CONTROLS
            if all(footprint_name(model, data) in table.names for table in tables for data in (ORIGINAL, *pair))
        }
        not_learned = tuple(code for code in pair if code in without_shortcut)
        known = evidence(contrast(pair), places, of, same_rows=same_rows)
        return judge(replace(known, controls=controls, not_learned=not_learned))

    return {
        pair: {name: verdict(pair, cells) for name, cells in CONTRASTS.items()} for pair in combinations(shortcuts, 2)
    }


def _estimate(tables: Sequence[OverlapTable], names: Pair, layer: str | None, of: Of) -> Estimate:
    if of == "raw":
        levels = [table.pooled if layer is None else table.by_layer[layer] for table in tables]
        places = [[table.names.index(name) for name in names] for table in tables]
        return Estimate.over_seeds([float(level[i, j]) for level, (i, j) in zip(levels, places, strict=True)])
    estimates = [table.estimate(of, *names, layer) for table in tables]
    return estimates[0] if len(estimates) == 1 else Estimate.over_seeds([found.value for found in estimates])


FORMAT = "commonweight-shortcuts"
VERSION = 2
DEPTH = 4
"""Module levels of the layer tables: embeddings, encoder blocks, pooler, head."""


@dataclass(frozen=True)
class ShortcutStudy:
    """What a study found; every estimate has one value per training seed."""

    plan: Plan
    scores: tuple[Mapping[str, Mapping[str, Mapping[str, float]]], ...]
    """Per seed: model -> set -> ``accuracy`` and ``loss``."""

    constants: tuple[Mapping[str, float], ...]
    """Per seed: set -> accuracy of the best constant answer."""

    paths: tuple[tuple[Mapping[str, Any], ...], ...]
    """Per seed: walks through weight space, each with ``from``, ``to``, ``points`` and accuracies by set."""

    tables: Mapping[str, tuple[OverlapTable, ...]]
    """Fisher type -> per seed the overlaps of every ``model/data`` pair."""

    rows: tuple[Mapping[str, str], ...]
    """Per seed: set -> a digest of the source rows that Fishers were measured on; equal for sets of the same rows."""

    triangles: tuple[Mapping[str, Any], ...] = ()
    """Per seed: ``corners``, three shortcuts, ``points``, weights of their models, and accuracies by set; none with
    two shortcuts."""

    def cells(
        self, rule: str, layer: str | None = None, of: Of = "raw"
    ) -> Mapping[tuple[str, str], dict[str, Estimate]]:
        """Collect shared, unshared and same-input overlaps of every pair of models."""
        return pair_estimates(self._rolled[rule], self.plan.shortcuts, layer, of)

    def contrasts(
        self, rule: str, layer: str | None = None, of: Of = "raw"
    ) -> Mapping[tuple[str, str], dict[str, Estimate]]:
        """Subtract the cells, seed by seed."""
        return {
            pair: {name: cells[a] - cells[b] for name, (a, b) in CONTRASTS.items()}
            for pair, cells in self.cells(rule, layer, of).items()
        }

    def verdicts(self, rule: str, layer: str | None = None) -> Mapping[tuple[str, str], dict[str, Verdict]]:
        """Say what the contrasts of corrected overlaps say."""
        # Nothing, where Fishers have no folds, so that overlaps are raw, or one of the two models did not learn its
        # shortcut.
        return pair_verdicts(self._rolled[rule], self.rows, self.plan.shortcuts, layer, self.without_shortcut)

    def own_accuracy(self, code: str) -> tuple[float, float]:
        """Give the accuracy of a model on development rows with its own shortcut, beside the best constant answer."""
        data = f"{code} dev"
        return self.accuracy(code, data).value, fmean(found[data] for found in self.constants)

    @cached_property
    def without_shortcut(self) -> tuple[str, ...]:
        """Models that are not halfway from a constant answer to all right on their own shortcut."""
        scored = [code for code in self.plan.shortcuts if f"{code} dev" in self.constants[0]]
        accuracies = {code: self.own_accuracy(code) for code in scored}
        return tuple(
            code for code, (reached, constant) in accuracies.items() if reached < constant + (1 - constant) / 2
        )

    def has_folds(self, rule: str) -> bool:
        """Tell whether corrected overlaps are known."""
        return have_folds(self.tables[rule])

    def best_known(self, rule: str) -> Of:
        """Tell which overlaps to show first: corrected ones where they are known."""
        return "corrected" if self.has_folds(rule) else "raw"

    @property
    def layers(self) -> tuple[str, ...]:
        """Layers of the tables, rolled up to ``DEPTH``."""
        return next(iter(self._rolled.values()))[0].layers

    @cached_property
    def _rolled(self) -> dict[str, list[OverlapTable]]:
        return {rule: [table.roll_up(DEPTH) for table in tables] for rule, tables in self.tables.items()}

    def accuracy(self, model: str, data: str) -> Estimate:
        """Collect one accuracy over the seeds."""
        return Estimate.over_seeds([scores[model][data]["accuracy"] for scores in self.scores])

    def to_json(self) -> str:
        """Write everything but the Gram terms, which the run folder keeps in ``overlap.json``."""
        return result_text(
            FORMAT,
            VERSION,
            self.plan,
            scores=self.scores,
            constant_answer=self.constants,
            paths=self.paths,
            triangles=self.triangles,
            overlaps={rule: self._overlaps(rule) for rule in self.tables},
            measured_rows=self.rows,
            footprints={rule: [footprint_facts(table) for table in tables] for rule, tables in self.tables.items()},
        )

    def _overlaps(self, rule: str) -> dict[str, Any]:
        def of(layer: str | None) -> dict[str, Any]:
            cells, contrasts = self.cells(rule, layer), self.contrasts(rule, layer)
            return {
                "–".join(pair): {name: recorded(value) for name, value in (cells[pair] | contrasts[pair]).items()}
                for pair in cells
            }

        return {"pooled": of(None), "by_layer": {layer: of(layer) for layer in self.layers}}


def gather(plan: Plan, folders: list[SeedFolder]) -> ShortcutStudy:
    """Read what a run holds."""
    scores = [read_json(folder.scores) for folder in folders]
    return ShortcutStudy(
        plan,
        tuple(found["scores"] for found in scores),
        tuple(found["constant_answer"] for found in scores),
        tuple(tuple(read_json(folder.paths)["paths"]) for folder in folders),
        {rule: tuple(OverlapTable.load(folder.grid(rule)) for folder in folders) for rule in plan.fisher_types},
        tuple(measured_rows(plan, folder) for folder in folders),
        tuple(read_json(folder.triangle) for folder in folders if plan.triangle),
    )


def footprint_facts(table: OverlapTable) -> dict[str, Any]:
    """Tell of every footprint of a table how many examples it is from, how many carry it, and its trace."""
    traces = np.diagonal(sum(table.terms.values()))
    return {
        name: {
            "examples": table.counts[name],
            "effective_sample_size": table.effective_sample_size[name],
            "trace": float(trace),
        }
        for name, trace in zip(table.names, traces, strict=True)
    }
