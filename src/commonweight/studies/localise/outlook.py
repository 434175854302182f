"""What a localisation will take of disk, memory and time, before any of it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from commonweight.diagonal_fisher.collector import choose_parameters
from commonweight.footprints.folds import needs_of
from commonweight.footprints.of_change import change_footprint
from commonweight.interventions.graft_reset import Swappable
from commonweight.interventions.matched import random_set
from commonweight.interventions.measure import batch_norms
from commonweight.interventions.sets import top_set
from commonweight.studies.compare.measure import FOLD_DTYPE, footprint_outlook, model_bytes, probe, probe_scores
from commonweight.studies.localise.cells import is_scored
from commonweight.studies.localise.plan import Places
from commonweight.studies.localise.run import checked, load_again

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from commonweight.base.text import Note
    from commonweight.footprints.folds import Needs
    from commonweight.models.options import LoadedModel
    from commonweight.studies.localise.plan import LocaliseOptions
    from commonweight.studies.localise.run import Asked
    from commonweight.studies.run.outlook import Outlook


def localise_outlook(
    models: Sequence[str], data: Sequence[str], initialisation: str, run: Path, options: LocaliseOptions, note: Note
) -> Outlook[Needs]:
    """Check a localisation without measuring or writing anything, and tell what it will take."""
    asked, places = checked(models, data, initialisation, run, options, note), Places(run)
    options, first = asked.options, next(iter(asked.models))
    loaded = load_again(asked, first)
    chosen = choose_parameters(loaded.model, options.measure.include or None, options.measure.exclude or None)
    kinds = {"change": needs_of(chosen, 1, None)}
    if options.map != "change":
        kinds["fisher"] = needs_of(chosen, options.measure.folds or 1, FOLD_DTYPE)
    pieces = {f"{name}/{kind}": needs for name in asked.models for kind, needs in kinds.items()}
    missing = {name: needs for name, needs in pieces.items() if not places.footprint(*name.split("/")).exists()}
    networks = {name: _networks(places, asked, name) for name in asked.models}
    facts = {"networks to score, at most": str(sum(networks.values()))}
    there = len(pieces) - len(missing)
    found = footprint_outlook(run, missing, model=2 * model_bytes(loaded), there=there, facts=facts)
    found.check()
    note("timing a few rows and a set")
    seconds = _seconds_per_set(asked, loaded) * sum(networks.values())
    norms = len(batch_norms(loaded.model))
    scored = sum(networks[name] * _rows_passed(asked, name, norms) for name in asked.models)
    seconds += scored * probe_scores(loaded, asked.choosing[first], options.measure)
    measured = sum(len(asked.choosing[name]) for name in asked.models if f"{name}/fisher" in missing)
    if measured:
        seconds += measured * probe(loaded, asked.choosing[first], options.measure)
    return found.with_time(seconds, "measure and score")


def _networks(places: Places, asked: Asked, name: str) -> int:
    """Count the networks that a model is still to be scored as, at most: of some sets there are no matched ones."""
    options = asked.options
    count = 0 if is_scored(places.scores(name, None)) else 2
    for fraction in options.fractions:
        if not is_scored(places.scores(name, fraction)):
            draws = options.draws_at(fraction)
            count += 2 * (1 + draws * (1 if options.map == "change" else 2))
            if len(asked.models) > 1:
                count += 2 * (1 + draws) + 1 + 3 * draws
    return count


def _rows_passed(asked: Asked, name: str, norms: int) -> int:
    """Count the rows that pass through a network; with batch norm it is scored anew, after a pass for each norm."""
    measuring = sum(map(len, asked.measuring[name].values()))
    return 2 * measuring + norms * len(asked.choosing[name]) if norms else measuring


def _seconds_per_set(asked: Asked, loaded: LoadedModel) -> float:
    """Time a random set: its weights are drawn, and go back to the initialisation."""
    change = change_footprint(loaded.model, asked.initialisation)
    names = list(change)
    masks = top_set(change, asked.options.primary, names)
    pair = Swappable.of(loaded.model, asked.initialisation, names)
    start = time.perf_counter()
    with pair.reset(random_set(masks, asked.options.measure.seed, 0)):
        return time.perf_counter() - start
