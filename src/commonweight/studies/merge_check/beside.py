"""What stands beside the merges: how two models' changes and Fishers relate, and what to beware of."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

from commonweight.base.errors import UsageError
from commonweight.base.names import some
from commonweight.diagonal_fisher.agreement import beware_of_labels
from commonweight.footprints.footprint import Footprint
from commonweight.fusion.compatible import beware_of_nameless
from commonweight.fusion.modules import config_of
from commonweight.overlaps.table.layout import beware_of_few
from commonweight.overlaps.table.table import overlap
from commonweight.studies.compare.measure import measure
from commonweight.studies.run.folder import read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from commonweight.base.text import Note
    from commonweight.data.table import Table
    from commonweight.overlaps.table.table import OverlapTable
    from commonweight.studies.compare.options import MeasureOptions
    from commonweight.studies.merge_check.parents import Parents
    from commonweight.studies.merge_check.plan import Places


@dataclass(frozen=True)
class Pair:
    """Two models, and how their changes and Fishers relate; nan is undefined."""

    members: tuple[str, str]
    own_data: float
    """Fisher overlap, each on its own data."""

    same_data: float
    """The mean of the Fisher overlaps on the data of either, as far as both models read them."""

    cosine: float
    """Of the changes, signed."""

    signs: float
    r"""Sign agreement, ``Σ |Δ_a Δ_b| [signs equal] / Σ |Δ_a Δ_b|``."""

    distance: float
    """Relative, ``‖w_a − w_b‖ / √(‖w_a‖² + ‖w_b‖²)``: 0 for equal weights, about 1 for unrelated ones."""

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> Pair:
        """Read it from a file, where nan is null."""
        a, b = record["members"]
        numbers = {key: math.nan if value is None else value for key, value in record.items() if key != "members"}
        return cls((a, b), **numbers)


@dataclass(frozen=True)
class Beside:
    """What is known beside the scores."""

    pairs: tuple[Pair, ...]
    own: Mapping[str, tuple[str, ...]]
    """Model -> parameters that are not merged."""

    beware: tuple[str, ...]

    @classmethod
    def load(cls, places: Places) -> Beside:
        """Read what was written."""
        record = read_json(places.beside)
        return cls(
            tuple(Pair.of_record(each) for each in record["pairs"]),
            {model: tuple(names) for model, names in record["own"].items()},
            tuple(record["beware"]),
        )

    def save(self, places: Places) -> None:
        """Write all of it."""
        record: dict[str, Any] = {
            "pairs": [asdict(each) for each in self.pairs],
            "own": self.own,
            "beware": self.beware,
        }
        write_json(places.beside, record)


def fishers_of(
    places: Places, parents: Parents, tables: Mapping[str, Table], options: MeasureOptions, note: Note
) -> dict[tuple[str, str], Footprint]:
    """Measure the Fisher of every model on every data set that it reads; what was measured before is opened."""
    found = {}
    for data, table in tables.items():
        for model, loaded in parents.loaded.items():
            place = places.fisher(model, data)
            if not place.exists():
                note(f"{model}: measuring the Fisher on {len(table)} rows of {data}")
                try:
                    measure(loaded, table, options, folder=place, note=note)
                except UsageError as error:
                    if model == data:
                        raise
                    note(f"{model} does not read the rows of {data}, so these two have no overlap on {data}: {error}")
                    continue
            found[model, data] = Footprint.load(place)
    return found


def look_beside(
    parents: Parents, fishers: Mapping[tuple[str, str], Footprint], changes: Mapping[str, Footprint]
) -> Beside:
    """Compare every pair, and collect warnings."""
    own = {name: fishers[name, name] for name in parents.loaded}
    kept = {model: tuple(parents.own(model)) for model in parents.loaded}
    beware = [f"{sentence}." for sentence in beware_of_labels(own)]
    beware += beware_of_few({name: each.effective_sample_size for name, each in own.items()})
    heads = list(dict.fromkeys(name for names in kept.values() for name in names))
    if not heads:  # heads are merged, so their labels have to mean the same
        configs = {name: config_of(each.model) for name, each in parents.loaded.items()}
        named = {name: config for name, config in configs.items() if config is not None}
        beware += [f"{sentence}." for sentence in beware_of_nameless(named)]
    else:
        beware.append(
            f"Not merged: {some(heads)}. Every data set is scored with those of its own parent, and whoever uses the "
            "merge needs them too."
        )
    table = overlap(changes)
    pairs = tuple(_pair(parents, fishers, table, a, b) for a, b in combinations(parents.loaded, 2))
    return Beside(pairs, kept, tuple(beware))


def _pair(
    parents: Parents, fishers: Mapping[tuple[str, str], Footprint], changes: OverlapTable, a: str, b: str
) -> Pair:
    same = [_overlap(fishers[a, data], fishers[b, data]) for data in (a, b) if {(a, data), (b, data)} <= set(fishers)]
    i, j = (changes.names.index(name) for name in (a, b))
    return Pair(
        (a, b),
        _overlap(fishers[a, a], fishers[b, b]),
        sum(same) / len(same) if same else math.nan,
        float(changes.pooled[i, j]),
        float(changes.sign_agreement.pooled[i, j]),
        _distance(parents, a, b),
    )


def _distance(parents: Parents, a: str, b: str) -> float:
    apart = size = 0.0
    for name in parents.start:
        first, second = (parents.weights(model, name).double() for model in (a, b))
        apart += float((first - second).square().sum())
        size += float(first.square().sum() + second.square().sum())
    return math.sqrt(apart / size) if size > 0 else math.nan


def _overlap(first: Footprint, second: Footprint) -> float:
    return float(overlap({"a": first, "b": second}, intervals=False).pooled[0, 1])
