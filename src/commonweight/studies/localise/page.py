"""The page and the figures of a localisation, from its folder alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from commonweight.footprints.footprint import Footprint
from commonweight.overlaps.table.table import overlap
from commonweight.report.html import Overlaps
from commonweight.studies.localise.answer import SHOWS
from commonweight.studies.localise.figures import figures_of
from commonweight.studies.localise.plan import LOCALISATION, Places
from commonweight.studies.localise.results import read_localisation
from commonweight.studies.run.page import pictures_of, write_run_page
from commonweight.studies.run.record import read_record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from matplotlib.figure import Figure


def overlaps(run: Path) -> list[Overlaps]:
    """Compute the Jaccard index of the sets that two models' maps choose, at every fraction."""
    found = []
    for place in sorted((run / "sets").glob("*"), key=lambda place: float(place.name)):
        sets = {each.name: Footprint.load(each) for each in sorted(place.glob("[!.]*"))}
        if len(sets) > 1:
            found.append(Overlaps(f"sets of {place.name} of the weights", [overlap(sets)]))
    return found


def write_page(run: Path) -> Path:
    """Write the page of a finished localisation."""
    return write_run_page(run, overlaps(run), pictures_of(run, SHOWS))


def figures(run: Path) -> Iterator[tuple[str, Figure]]:
    """Draw the figures of a finished localisation again."""
    return figures_of(read_localisation(run))


def items(run: Path) -> dict[str, Path]:
    """Name what is to be scored, and the file that is there when it is."""
    asked = read_record(run, LOCALISATION)["asked"]
    found = {}
    for model in asked["models"]:
        for fraction in (None, *asked["settings"]["fractions"]):
            place = Places(run).scores(model, fraction)
            what = "itself" if fraction is None else f"{fraction:g} of the weights"
            found[f"{model}, {what}"] = place.with_name(f"{place.name}.json")
    return found
