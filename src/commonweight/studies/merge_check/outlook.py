"""What a merge check will take of disk, memory and time, before any of it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from commonweight.footprints.folds import needs_of
from commonweight.studies.compare.measure import FOLD_DTYPE, footprint_outlook, model_bytes, probe, probe_scores
from commonweight.studies.localise.cells import is_scored
from commonweight.studies.merge_check.layers import MOST_CANDIDATES, layers_of
from commonweight.studies.merge_check.plan import Places, Trial, groups
from commonweight.studies.merge_check.results import CHOOSING, MEASURING
from commonweight.studies.merge_check.run import checked

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from commonweight.base.text import Note
    from commonweight.footprints.folds import Needs
    from commonweight.studies.merge_check.plan import Members, MergeCheckOptions
    from commonweight.studies.merge_check.run import Asked
    from commonweight.studies.run.outlook import Outlook


def merge_check_outlook(
    models: Sequence[str],
    data: Sequence[str],
    initialisation: str,
    run: Path,
    options: MergeCheckOptions,
    *,
    write: Path | None,
    note: Note,
) -> Outlook[Needs]:
    """Check a merge check without measuring or writing anything, and tell what it will take."""
    asked, places = checked(models, data, initialisation, run, options, write=write, note=note), Places(run)
    parents, choosing, options = asked.parents, asked.tables[CHOOSING], asked.options
    names = [*parents.loaded]
    fisher, change = (needs_of(parents.start, *how) for how in ((options.measure.folds or 1, FOLD_DTYPE), (1, None)))
    pieces = {f"changes/{name}": (change, places.change(name)) for name in names}
    pieces |= {f"fishers/{name}/{data}": (fisher, places.fisher(name, data)) for name in names for data in choosing}
    missing = {name: needs for name, (needs, place) in pieces.items() if not place.exists()}
    scored = [each for each in _scored(asked) if not is_scored(places.scores(*each[:2]))]
    facts = {"networks to score, at most": str(sum(networks for *_, networks in scored))}
    size = sum(map(model_bytes, parents.loaded.values())) + 2 * fisher.whole
    found = footprint_outlook(run, missing, model=size, there=len(pieces) - len(missing), facts=facts)
    found.check()
    note("timing a few rows and a merge")
    loaded = parents.loaded[names[0]]
    rows = sum(networks * len(asked.tables[half][data]) for half, _, of, networks in scored for data in of)
    seconds = rows * probe_scores(loaded, choosing[names[0]], options.measure)
    seconds += sum(networks * len(of) for *_, of, networks in scored) * _seconds_per_merge(asked)
    measured = sum(len(choosing[name.rpartition("/")[2]]) for name in missing if name.startswith("fishers/"))
    if measured:
        seconds += measured * probe(loaded, choosing[names[0]], options.measure)
    return found.with_time(seconds, "measure and score")


def _scored(asked: Asked) -> Iterator[tuple[str, str, Members, int]]:
    """List the files of scores: half, name, whose data are scored, and how many networks at most."""
    options, every = asked.options, tuple(asked.parents.loaded)
    for half in asked.tables:
        yield half, "parents", every, 1
        for group in groups(every):
            yield half, "&".join(group), group, len(options.trials)
    layers = len(every) * len(layers_of(asked.parents.start, options.depth))
    yield CHOOSING, "layers", every, layers
    yield MEASURING, "layers", every, min(layers, MOST_CANDIDATES) * (1 + options.draws)


def _seconds_per_merge(asked: Asked) -> float:
    """Time an average: it is made, put into a model, and taken back."""
    members = tuple(asked.parents.loaded)
    start = time.perf_counter()
    with asked.parents.holding(members[0], asked.parents.merged(members, Trial("average"), {})):
        pass
    return time.perf_counter() - start
