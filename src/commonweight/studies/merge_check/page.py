"""The page and the figures of a merge check, from its folder alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from commonweight.footprints.footprint import Footprint
from commonweight.overlaps.table.table import overlap
from commonweight.report.html import Overlaps
from commonweight.studies.merge_check.answer import SHOWS
from commonweight.studies.merge_check.figures import figures_of
from commonweight.studies.merge_check.plan import MERGE_CHECK, Places, groups
from commonweight.studies.merge_check.results import CHOOSING, MEASURING, read_merge_check
from commonweight.studies.run.page import pictures_of, write_run_page
from commonweight.studies.run.record import read_record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from matplotlib.figure import Figure


def overlaps(run: Path) -> list[Overlaps]:
    """Compute the overlaps of Fishers, each on its own data, and the cosines of changes."""
    places, models = Places(run), _models(run)
    fishers = {name: Footprint.load(places.fisher(name, name)) for name in models}
    changes = {name: Footprint.load(places.change(name)) for name in models}
    return [
        Overlaps("Fishers, each on its own data", [overlap(fishers)]),
        Overlaps("changes, signed", [overlap(changes)]),
    ]


def write_page(run: Path) -> Path:
    """Write the page of a finished merge check."""
    return write_run_page(run, overlaps(run), pictures_of(run, SHOWS))


def figures(run: Path) -> Iterator[tuple[str, Figure]]:
    """Draw the figures of a finished run again."""
    return figures_of(read_merge_check(run))


def items(run: Path) -> dict[str, Path]:
    """Name what is to be measured and scored, and the file that is there when it is."""
    places, models = Places(run), _models(run)
    found = {f"Fisher of {name}": places.fisher(name, name) for name in models}
    for half in (CHOOSING, MEASURING):
        for what in ("parents", *("&".join(members) for members in groups(models))):
            place = places.scores(half, what)
            found[f"{what}, {half} half"] = place.with_name(f"{place.name}.json")
    place = places.scores(CHOOSING, "layers")
    return found | {"layers": place.with_name(f"{place.name}.json")}


def _models(run: Path) -> list[str]:
    return sorted(read_record(run, MERGE_CHECK)["asked"]["models"])
