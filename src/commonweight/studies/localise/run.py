"""A localisation from checkpoints to scores, step by step; a step that was done before is not done again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from commonweight.base.errors import MeasurementError, UsageError
from commonweight.base.team import team_here
from commonweight.base.text import Note, silent
from commonweight.data.table import open_table
from commonweight.diagonal_fisher.agreement import beware_of_labels
from commonweight.diagonal_fisher.collector import choose_parameters
from commonweight.footprints.footprint import Footprint
from commonweight.footprints.of_adam import adam_footprint
from commonweight.footprints.of_change import change_footprint, saliency_footprint
from commonweight.footprints.packed import PackedMasks
from commonweight.footprints.slices import shape_of
from commonweight.fusion.checkpoints import find_sources
from commonweight.interventions.graft_reset import Swappable
from commonweight.interventions.sets import Sets, only, top_set
from commonweight.models.options import FUNCTION
from commonweight.report.answer import write_result
from commonweight.report.files import write_figures
from commonweight.studies.compare.checks import load
from commonweight.studies.compare.measure import measure
from commonweight.studies.compare.names import Model, name_models, named_data
from commonweight.studies.compare.prepare import check_columns
from commonweight.studies.compare.rows import fold_count
from commonweight.studies.localise.answer import result
from commonweight.studies.localise.cells import Scored, is_scored, plan_cells, score_networks
from commonweight.studies.localise.figures import figures_of
from commonweight.studies.localise.halves import halves
from commonweight.studies.localise.plan import LOCALISATION, LocaliseOptions, Places
from commonweight.studies.localise.results import Localisation, gather
from commonweight.studies.run.folder import check_place, open_run
from commonweight.studies.run.hold import held_alone
from commonweight.studies.run.record import differences, read_record, refuse_another, same_identity

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import nn

    from commonweight.data.table import Table
    from commonweight.models.options import LoadedModel, LoadOptions
    from commonweight.studies.localise.cells import SetFacts, Way

MOST_MODELS = 2


@dataclass(frozen=True)
class Asked:
    """A localisation that may begin."""

    models: Mapping[str, Model]
    initialisation: nn.Module | Path
    choosing: Mapping[str, Table]
    """Per model the rows that its map is made from."""

    measuring: Mapping[str, Mapping[str, Table]]
    """Per model the data sets that it is scored on: its own, and controls."""

    question: dict[str, Any]
    options: LocaliseOptions
    """With the number of folds decided."""


def localise(
    models: Mapping[str, str | Path],
    data: Mapping[str, str | Path],
    initialisation: str | Path,
    run: str | Path,
    options: LocaliseOptions | None = None,
    *,
    note: Note = silent,
) -> Localisation:
    """Test whether the weights that a footprint names hold what a model knows.

    A map (saliency, Fisher, change or Adam's second moment) chooses a share of the weights of each model on one half of
    its rows. On the other half every row is scored after these weights, and no others, are put onto the initialisation
    (*graft*), or back to it (*reset*). Beside each set stand random sets and sets matched by how far their weights
    moved. Parameters without a shared initialisation, such as heads, and all buffers are the model's own throughout.

    Args:
        models: One or two trained models by name: checkpoint folders, ids, or ``module:function``.
        data: Data sets by name: one named after each model, which belongs to it; others are controls, on which every
            model is scored.
        initialisation: The checkpoint that the models were trained from.
        run: The run folder; the same call resumes there.
        options: Map, fractions, null sets, and how Fishers are measured and models read.
        note: Takes one sentence at a time about what is going on.

    Returns:
        What was found: scores with intervals, shares, and verdicts at the primary fraction. The run folder holds the
        same as ``study.json``, ``study.md`` and figures.

    Raises:
        UsageError: If a model has no data set of its name, or the folder holds a run of another question.
        NotComparableError: If a model shares no parameter with the initialisation.
        MeasurementError: If a score is not finite.

    Example:
        >>> models, data = {"films": "runs/films"}, {"films": "films.tsv"}
        >>> localise(models, data, "org/encoder", "runs/localised", LocaliseOptions(primary=0.05))  # doctest: +SKIP
    """
    return localise_specs(
        [f"{name}={spec}" for name, spec in models.items()],
        [f"{name}={spec}" for name, spec in data.items()],
        str(initialisation),
        Path(run),
        options or LocaliseOptions(),
        note=note,
    )


def localise_specs(
    models: Sequence[str],
    data: Sequence[str],
    initialisation: str,
    run: Path,
    options: LocaliseOptions,
    *,
    note: Note = silent,
) -> Localisation:
    """Localise with models and data given as on the command line, and write the result."""
    asked = checked(models, data, initialisation, run, options, note)
    with held_alone(run, note):
        folder = open_run(run, LOCALISATION, "running", asked.question)
        places = Places(run)
        with folder.working():
            scored = _score_all(places, asked, note)
        found = gather(asked.options, asked.question["settings"], list(asked.models), scored)
        folder.finish(found.to_json())
        figures = write_figures(figures_of(found), run / "figures", note)
        write_result(run, result(found, run, figures))
    return found


def checked(
    models: Sequence[str], data: Sequence[str], initialisation: str, run: Path, options: LocaliseOptions, note: Note
) -> Asked:
    """Refuse what can be known not to work before anything is measured or written."""
    check_place(run)
    asked = _check_localisation(models, data, initialisation, options, note)
    former = read_record(run, LOCALISATION)
    if former:
        refuse_another(run, differences(former["asked"], asked.question), "Choose another folder for this question")
    return asked


def _check_localisation(
    models: Sequence[str], data: Sequence[str], initialisation: str, options: LocaliseOptions, note: Note
) -> Asked:
    *named, start = name_models([*models, f"initialisation={initialisation}"], options.checkpoints)
    if not 1 <= len(named) <= MOST_MODELS:
        raise UsageError(f"expected one or two models, got {len(named)}; localise them two at a time")
    sources = dict(named_data(data))
    if lacking := [model.name for model in named if model.name not in sources]:
        raise UsageError(
            f"the model {lacking[0]!r} has no data set of its name, expected one for each model; give {{data}} "
            f"{lacking[0]}=DATA",
            data=None,
        )
    opened = {
        name: open_table(spec, split=options.split, examples=options.examples, seed=options.data_seed)
        for name, spec in sources.items()
    }
    for table in opened.values():
        check_columns(table, options.measure.columns)
    split = {name: halves(table) for name, table in opened.items()}
    names = [model.name for model in named]
    folds = fold_count([split[name][0] for name in names], options.measure.folds, note)
    found, identity = open_initialisation(start, options.load)
    identities = {}
    for model in named:
        loaded = load(model, options.load)
        for sentence in loaded.notes:
            note(sentence)
        identities[model.name] = loaded.identity
        change_footprint(loaded.model, found)
        if options.map == "adam_v":
            adam_footprint(loaded.model, model.spec)
    question = {
        "settings": options.deciding(),
        "models": identities,
        "initialisation": identity,
        "data": {name: table.identity for name, table in opened.items()},
    }
    controls = [name for name in sources if name not in names]
    return Asked(
        {model.name: model for model in named},
        found,
        {name: split[name][0] for name in names},
        {name: {data: split[data][1] for data in (name, *controls)} for name in names},
        question,
        replace(options, measure=replace(options.measure, folds=folds)),
    )


def open_initialisation(start: Model, reading: LoadOptions) -> tuple[nn.Module | Path, dict[str, Any]]:
    """Load an initialisation that a function builds; find the folder of any other, whose class does not matter."""
    if FUNCTION.fullmatch(start.spec) and not Path(start.spec).expanduser().exists():
        loaded = load(start, reading)
        return loaded.model, loaded.identity
    (source,) = find_sources([start.spec])
    return source.folder, source.identity()


def _score_all(places: Places, asked: Asked, note: Note) -> dict[str, dict[float | None, Scored]]:
    options = asked.options
    maps = {name: _map(places, asked, name, note) for name in asked.models}
    shapes = [{name: shape_of(each.tensors, name) for name in each} for each in maps.values()]
    common = [name for name, shape in shapes[0].items() if all(other.get(name) == shape for other in shapes)]
    if not common:
        raise UsageError("the models have no parameter in common with each other and their initialisation")
    scored: dict[str, dict[float | None, Scored]] = {name: {} for name in asked.models}
    fractions = sorted(options.fractions, key=lambda each: each != options.primary)
    every = {}
    for fraction in fractions:
        note(f"choosing {fraction:g} of the weights by {options.map}")
        every[fraction] = Sets({name: top_set(each, fraction, common) for name, each in maps.items()})
        _keep_sets(places, every[fraction], maps, options.map, fraction)
    for name in asked.models:
        scored[name] = _score(places, asked, name, every)
    return scored


def _score(places: Places, asked: Asked, name: str, every: Mapping[float, Sets]) -> dict[float | None, Scored]:
    """Score a model and its base, then with the sets of every fraction; what was scored before is read."""
    loaded: LoadedModel | None = None
    steps: list[float | None] = [None, *every]
    found: dict[float | None, Scored] = {}
    for fraction in steps:
        place = places.scores(name, fraction)
        if not is_scored(place):
            loaded = loaded or load_again(asked, name)
            work = places, asked, name, every, fraction
            with team_here().ordered(partial(_follow, *work)):
                with team_here().together():
                    pass
                scored = _score_at(loaded, *work)
            scored.save(place)
        found[fraction] = Scored.load(place)
    return found


def _follow(places: Places, asked: Asked, name: str, every: Mapping[float, Sets], fraction: float | None) -> None:
    """Do this process's share of scores that another leads."""
    with team_here().together():
        loaded = load_again(asked, name)
    _score_at(loaded, places, asked, name, every, fraction)


def _score_at(
    loaded: LoadedModel,
    places: Places,
    asked: Asked,
    name: str,
    every: Mapping[float, Sets],
    fraction: float | None,
) -> Scored:
    """Score a model and its base, or with the sets of a fraction."""
    options = asked.options
    masks = next(iter(every.values())).own[name]
    with team_here().together():
        pair = Swappable.of(loaded.model, asked.initialisation, list(masks))
        networks: dict[str, tuple[Way, Callable[[], PackedMasks]]]
        if fraction is None:
            facts: Mapping[str, SetFacts] = {}
            networks = {"model": ("reset", lambda: PackedMasks({})), "base": ("graft", lambda: only(masks, masks))}
        else:
            change = Footprint.load(places.footprint(name, "change"))
            planned = plan_cells(name, every[fraction], change, options, options.draws_at(fraction))
            facts = planned.facts
            networks = {cell.key: (cell.way, make) for cell, make in planned.cells.items()}
    label = f"{name}: {'model and base' if fraction is None else f'{fraction:g} of the weights'}"
    return score_networks(loaded, networks, pair, asked.choosing[name], asked.measuring[name], options, label, facts)


def _map(places: Places, asked: Asked, name: str, note: Note) -> Footprint:
    """Measure the map of a model on the choosing half of its rows, or open what was measured before."""
    options = asked.options
    change_at, fisher_at = places.footprint(name, "change"), places.footprint(name, "fisher")
    loaded: LoadedModel | None = None
    if not change_at.exists():
        loaded = load_again(asked, name)
        found = change_footprint(loaded.model, asked.initialisation)
        chosen = choose_parameters(loaded.model, options.measure.include or None, options.measure.exclude or None)
        kept = {key: tensor for key, tensor in found.items() if key in chosen}
        replace(found, tensors=kept).save(change_at)
    change = Footprint.load(change_at)
    if options.map == "change":
        return change
    if options.map == "adam_v":
        moment_at = places.footprint(name, "adam_v")
        if not moment_at.exists():
            loaded = loaded or load_again(asked, name)
            adam_footprint(loaded.model, asked.models[name].spec).save(moment_at)
        return _within(Footprint.load(moment_at), change)
    if not fisher_at.exists():
        loaded = loaded or load_again(asked, name)
        table = asked.choosing[name]
        note(f"{name}: measuring the Fisher on {len(table)} rows of the choosing half")
        measure(loaded, table, options.measure, folder=fisher_at, note=note)
    fisher = Footprint.load(fisher_at)
    for sentence in beware_of_labels({name: fisher}):
        note(sentence)
    if options.map == "saliency":
        return saliency_footprint(fisher, change)
    return _within(fisher, change)


def _within(found: Footprint, change: Footprint) -> Footprint:
    """Take the parameters that the change holds, which are those that may be chosen."""
    return replace(found, tensors={key: found[key] for key in found if key in change}, folds=())


def load_again(asked: Asked, name: str) -> LoadedModel:
    """Load a model that was looked at before."""
    loaded = load(asked.models[name], asked.options.load)
    if not same_identity(asked.question["models"][name], loaded.identity):
        raise MeasurementError(
            f"{asked.models[name].spec} is not what it was when it was read first: its files changed meanwhile, or its "
            "weights are drawn anew each time; start again from weights that stay"
        )
    return loaded


def _keep_sets(places: Places, sets: Sets, maps: Mapping[str, Footprint], chosen_by: str, fraction: float) -> None:
    for name, masks in sets.own.items():
        place = places.chosen(name, fraction)
        if not place.exists():
            facts = {"chosen_by": chosen_by, "fraction": fraction, "flipped": False}
            facts["architecture"] = maps[name].metadata.get("architecture")  # for --by head
            Footprint("supermask", masks, 0, facts).save(place)
