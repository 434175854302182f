"""The cells of a localisation: which sets are grafted for a model, or reset in it, and what every row scores then."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from safetensors.torch import load_file, save_file

from commonweight.base.progress import track
from commonweight.base.team import team_here
from commonweight.base.text import silent
from commonweight.interventions.matched import matched_sets, random_set
from commonweight.interventions.measure import RowScores, batch_norms, reestimated, row_scores
from commonweight.interventions.sets import equal_parts, size
from commonweight.studies.compare.measure import with_less_memory
from commonweight.studies.compare.prepare import prepare
from commonweight.studies.localise.halves import units_in_order
from commonweight.studies.run.folder import read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from commonweight.data.table import Table
    from commonweight.footprints.footprint import Footprint
    from commonweight.footprints.packed import PackedMasks
    from commonweight.interventions.graft_reset import Swappable
    from commonweight.interventions.measure import Statistics
    from commonweight.interventions.sets import Sets
    from commonweight.models.options import LoadedModel
    from commonweight.studies.compare.prepare import Prepared
    from commonweight.studies.localise.plan import LocaliseOptions

Way = Literal["graft", "reset"]
Which = Literal["set", "random", "matched", "part", "part of the other"]
BY_CONSTRUCTION = "no set of equal change lies outside the weights that changed most"


class Cell(NamedTuple):
    """One network that is scored: a set, or a null set of it, grafted or reset."""

    way: Way
    name: str
    """Of the set."""

    which: Which
    draw: int = 0

    @property
    def key(self) -> str:
        """Its name in a file."""
        return "/".join(map(str, self))

    @classmethod
    def of_key(cls, key: str) -> Cell:
        """Read its name."""
        way, name, which, draw = key.split("/")
        return cls(way, name, which, int(draw))  # type: ignore[arg-type]


@dataclass(frozen=True)
class SetFacts:
    """What is known of a set in a model beside its scores."""

    weights: int
    squares: float = float("nan")
    """ΣΔ²."""

    squares_of_matched: float = float("nan")
    unmatched: str = ""
    """Why there are no matched sets."""

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> SetFacts:
        """Read it from a file, where nan is null."""
        squares, matched = (
            float("nan") if record[name] is None else record[name] for name in ("squares", "squares_of_matched")
        )
        return cls(record["weights"], squares, matched, record["unmatched"])


@dataclass(frozen=True)
class Planned:
    """The cells of a model at one fraction."""

    cells: Mapping[Cell, Callable[[], PackedMasks]]
    """Each with what makes its set when it is scored: all of them together would take a bit per weight and draw."""
    facts: Mapping[str, SetFacts] = field(default_factory=dict)


def plan_cells(model: str, sets: Sets, change: Footprint, options: LocaliseOptions, draws: int) -> Planned:
    """List the networks that a model is scored as, with their sets."""
    named, seed, other = sets.named, options.measure.seed, sets.other(model)
    cells: dict[Cell, Callable[[], PackedMasks]] = {}
    facts: dict[str, SetFacts] = {}

    def add(ways: Sequence[Way], name: str, which: Which, make: Callable[[int], PackedMasks], count: int) -> None:
        cells.update({Cell(way, name, which, draw): partial(make, draw) for way in ways for draw in range(count)})

    def add_set(ways: Sequence[Way], name: str) -> None:
        facts[name] = SetFacts(size(named[name]))
        add(ways, name, "set", lambda _: named[name], 1)

    def add_random(ways: Sequence[Way], name: str) -> None:
        add(ways, name, "random", partial(random_set, named[name], seed), draws)

    def add_matched(ways: Sequence[Way], name: str, outside: PackedMasks) -> None:
        found = matched_sets(named[name], change, outside, draws, seed)
        facts[name] = SetFacts(size(named[name]), found.squares, found.squares_of_nulls, found.reason)
        add(ways, name, "matched", found.sets.__getitem__, len(found.sets))

    both_ways: tuple[Way, ...] = ("graft", "reset")
    add_set(both_ways, model)
    add_random(both_ways, model)
    if options.map == "change":
        facts[model] = SetFacts(size(named[model]), unmatched=BY_CONSTRUCTION)
    else:
        add_matched(both_ways, model, named[model])
    if not other:
        return Planned(cells, facts)
    for name in (sets.only(model), sets.only(other)):
        add_set(("reset",), name)
        add_random(("reset",), name)
    shared, rest = named[sets.shared], named[sets.only(other)]
    add_set(("reset",), sets.shared)
    add_matched(("reset",), sets.shared, sets.every)
    if size(equal_parts(shared, rest, seed)[0]):
        add(("reset",), sets.shared, "part", lambda draw: equal_parts(shared, rest, seed + draw)[0], draws)
        add(("reset",), sets.shared, "part of the other", lambda draw: equal_parts(shared, rest, seed + draw)[1], draws)
    return Planned(cells, facts)


@dataclass(frozen=True)
class Scored:
    """The scores of several networks on several data sets."""

    units: Mapping[str, tuple[int, ...]]
    """Data set -> what each row was made from, in the order of the scores: rows of one unit are drawn together."""

    scores: Mapping[str, Mapping[str, RowScores]]
    """Data set -> key of a cell -> scores."""

    facts: Mapping[str, SetFacts]
    reestimated: Mapping[str, Mapping[str, RowScores]] = field(default_factory=dict)
    """The same with statistics re-estimated on the choosing rows; empty for networks without batch norm."""

    def under(self, statistics: Statistics) -> Mapping[str, Mapping[str, RowScores]]:
        """Give the scores with stored statistics, or with those that were re-estimated."""
        return self.scores if statistics == "stored" else self.reestimated

    @classmethod
    def load(cls, place: Path) -> Scored:
        """Read what was written."""
        record = read_json(_beside(place, "json"))
        tensors = load_file(_beside(place, "safetensors"))
        rows = {data: tuple(found) for data, found in record["source_rows"].items()}
        units = {data: tuple(found) for data, found in record["units"].items()}
        scores: dict[str, dict[str, RowScores]] = {data: {} for data in rows}
        reestimated: dict[str, dict[str, RowScores]] = {}
        for key, values in tensors.items():
            data, _, cell = key.partition("/")
            scores[data][cell] = RowScores(rows[data], values[0].numpy(), values[1].numpy())
            if len(values) > 2:
                found = RowScores(rows[data], values[2].numpy(), values[3].numpy())
                reestimated.setdefault(data, {})[cell] = found
        facts = {name: SetFacts.of_record(each) for name, each in record["facts"].items()}
        return cls(units, scores, facts, reestimated)

    def save(self, place: Path) -> None:
        """Write all of it; the record comes last, and without it nothing is there."""
        place.parent.mkdir(parents=True, exist_ok=True)
        tensors = {
            f"{data}/{key}": torch.stack([
                torch.from_numpy(values)
                for scores in (self.scores, self.reestimated)
                if data in scores
                for values in (scores[data][key].right, scores[data][key].log_likelihood)
            ])
            for data, cells in self.scores.items()
            for key in cells
        }
        save_file(tensors, _beside(place, "safetensors"))
        facts = {name: asdict(each) for name, each in self.facts.items()}
        rows = {data: next(iter(cells.values())).source_rows for data, cells in self.scores.items()}
        write_json(_beside(place, "json"), {"source_rows": rows, "units": self.units, "facts": facts})


def _beside(place: Path, ending: str) -> Path:
    """Add an ending to a name that may hold a point, such as 0.05."""
    return place.with_name(f"{place.name}.{ending}")


def is_scored(place: Path) -> bool:
    """Tell whether scores were written."""
    return _beside(place, "json").is_file()


def score_networks(
    loaded: LoadedModel,
    networks: Mapping[str, tuple[Way, Callable[[], PackedMasks]]],
    pair: Swappable,
    choosing: Table,
    tables: Mapping[str, Table],
    options: LocaliseOptions,
    label: str,
    facts: Mapping[str, SetFacts],
) -> Scored:
    """Score a model with sets grafted or reset, on several data sets; with batch norm also its statistics anew."""
    team = team_here()  # its processes take networks in turn, and all get the scores of all
    prepared = {data: prepare(loaded, table, options.measure.columns) for data, table in tables.items()}
    found: dict[str, dict[str, RowScores]] = {data: {} for data in tables}
    rows_anew = prepare(loaded, choosing, options.measure.columns) if batch_norms(loaded.model) else None
    anew: dict[str, dict[str, RowScores]] = {} if rows_anew is None else {data: {} for data in tables}

    def score(data: str, size: int) -> RowScores:
        batches = prepared[data].batches.with_batch_size(size)
        return row_scores(loaded.model, batches, options.measure.loss or loaded.task)

    def score_anew(rows: Prepared, size: int) -> dict[str, RowScores]:
        with reestimated(loaded.model, rows.batches.with_batch_size(size)):
            return {data: score(data, size) for data in tables}

    most = max(map(len, tables.values()))
    mine = [key for number, key in enumerate(networks) if team.takes(number)]
    with team.together():
        for key in track(mine, label, unit="network"):
            way, make = networks[key]
            masks = make()
            with pair.graft(masks) if way == "graft" else pair.reset(masks):
                for data in tables:
                    found[data][key] = with_less_memory(
                        loaded, options.measure, len(tables[data]), silent, partial(score, data)
                    )
                if rows_anew is not None:
                    run = partial(score_anew, rows_anew)
                    for data, scores in with_less_memory(loaded, options.measure, most, silent, run).items():
                        anew[data][key] = scores
    parts = team.gather((found, anew))
    whole, whole_anew = (
        {data: {key: each[data][key] for key in networks for each in of if key in each[data]} for data in of[0]}
        for of in zip(*parts, strict=True)
    )
    units = {data: units_in_order(tables[data], next(iter(each.values())).source_rows) for data, each in whole.items()}
    return Scored(units, whole, facts, whole_anew)
