"""A merge check from checkpoints to a recipe, step by step; a step that was done before is not done again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from commonweight.base.errors import UsageError
from commonweight.base.text import Note, silent
from commonweight.data.table import open_table
from commonweight.footprints.footprint import Footprint
from commonweight.fusion.checkpoints import plan_checkpoints
from commonweight.fusion.folders import check_place as check_fused_place
from commonweight.fusion.folders import fuse_checkpoints
from commonweight.report.answer import write_result
from commonweight.report.files import write_figures
from commonweight.studies.compare.checks import load
from commonweight.studies.compare.names import Model, name_models, named_data
from commonweight.studies.compare.prepare import check_columns
from commonweight.studies.compare.rows import fold_count
from commonweight.studies.localise.halves import halves
from commonweight.studies.localise.run import open_initialisation
from commonweight.studies.merge_check.answer import result
from commonweight.studies.merge_check.beside import Beside, fishers_of, look_beside
from commonweight.studies.merge_check.figures import figures_of
from commonweight.studies.merge_check.layers import (
    Restored,
    layers_of,
    mean_change,
    outside_counts,
    restored,
    restored_outside,
)
from commonweight.studies.merge_check.parents import Parents
from commonweight.studies.merge_check.plan import MERGE_CHECK, MergeCheckOptions, Places, groups
from commonweight.studies.merge_check.recipe import write_recipe
from commonweight.studies.merge_check.results import (
    CHOOSING,
    MEASURING,
    PARENT,
    AllScores,
    MergeCheck,
    chosen_layers,
    gather,
)
from commonweight.studies.merge_check.scoring import score
from commonweight.studies.run.folder import check_place, open_run
from commonweight.studies.run.hold import held_alone
from commonweight.studies.run.record import differences, read_record, refuse_another

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from commonweight.data.table import Table
    from commonweight.studies.localise.cells import Scored
    from commonweight.studies.merge_check.parents import Weights
    from commonweight.studies.merge_check.plan import Members


@dataclass(frozen=True)
class Asked:
    """A merge check that may begin."""

    specs: Mapping[str, str]
    """Where each model is, in the order of their names."""

    initialisation: str
    parents: Parents
    tables: Mapping[str, Mapping[str, Table]]
    """Half -> data set -> rows."""

    question: dict[str, Any]
    options: MergeCheckOptions
    """With the number of folds decided, and the Fishers limited to what is merged."""


def merge_check(
    models: Mapping[str, str | Path],
    data: Mapping[str, str | Path],
    initialisation: str | Path,
    run: str | Path,
    options: MergeCheckOptions | None = None,
    *,
    write: str | Path | None = None,
    note: Note = silent,
) -> MergeCheck:
    """Ask whether models will merge: try it in memory, and score every row.

    Every pair of models, and all together, are merged as a plain average, by task arithmetic at several λ, and
    weighted by their Fishers. What is merged are the parameters that share the initialisation, without heads; a merge
    is scored on the data set of each of its models, with this model's head and buffers. With ``merge_heads`` heads are
    merged like all else. Merges are ranked by the mean over the data
    sets of (merge − own parent) in mean log-likelihood. One half of the rows chooses λ, the best merge and the layers
    that are tested; every number that is shown is from the other half.

    Args:
        models: At least two trained models by name: checkpoint folders, ids, or ``module:function``.
        data: One data set for each model, by the model's name.
        initialisation: The checkpoint that the models were trained from.
        run: The run folder; the same call resumes there.
        options: The λ, what a layer is, random sets, and how Fishers are measured and models read.
        write: Write the best merge of all models as a checkpoint to this folder, as
            :func:`commonweight.fuse_checkpoints` does, which fuses heads too.
        note: Takes one sentence at a time about what is going on.

    Returns:
        What was found: every merge with intervals, and the layers that are confirmed to be in the way. The run folder
        holds the same as ``study.json``, ``study.md`` and figures, and the best merge as ``recipe.json``; as
        ``mergekit.yaml`` too if mergekit can make it.

    Raises:
        UsageError: If there are fewer than two models, a model has no data set of its name or a data set no model, or
            the folder holds a run of another question.
        NotComparableError: If the models share no parameter with each other and the initialisation; with
            ``merge_heads`` also if heads do not, or their labels do not mean the same.
        MeasurementError: If a score is not finite.

    Example:
        >>> models, data = {"films": "runs/films", "food": "runs/food"}, {"films": "films.tsv", "food": "food.tsv"}
        >>> merge_check(models, data, "org/encoder", "runs/merged")  # doctest: +SKIP
    """
    return merge_check_specs(
        [f"{name}={spec}" for name, spec in models.items()],
        [f"{name}={spec}" for name, spec in data.items()],
        str(initialisation),
        Path(run),
        options or MergeCheckOptions(),
        write=None if write is None else Path(write),
        note=note,
    )


def merge_check_specs(
    models: Sequence[str],
    data: Sequence[str],
    initialisation: str,
    run: Path,
    options: MergeCheckOptions,
    *,
    write: Path | None = None,
    note: Note = silent,
) -> MergeCheck:
    """Check merges with models and data given as on the command line, and write the result."""
    asked = checked(models, data, initialisation, run, options, write=write, note=note)
    with held_alone(run, note):
        folder = open_run(run, MERGE_CHECK, "running", asked.question)
        places = Places(run)
        with folder.working():
            found = _check(places, asked, note)
        specs = {**asked.specs, "initialisation": asked.initialisation}
        not_for_mergekit = write_recipe(places, asked.parents, specs, asked.question, found)
        folder.finish(found.to_json())
        figures = write_figures(figures_of(found), run / "figures", note)
        write_result(run, result(found, run, figures, not_for_mergekit))
        if write is not None:
            _write_merged(places, asked, found, write, note)
    return found


def checked(
    models: Sequence[str],
    data: Sequence[str],
    initialisation: str,
    run: Path,
    options: MergeCheckOptions,
    *,
    write: Path | None,
    note: Note,
) -> Asked:
    """Refuse what can be known not to work before anything is measured or written; all models stay in memory."""
    check_place(run)
    asked = _check_models(models, data, initialisation, options, note)
    former = read_record(run, MERGE_CHECK)
    if former:
        refuse_another(run, differences(former["asked"], asked.question), "Choose another folder for this question")
    if write is not None:
        check_fused_place(write, [*asked.specs.values(), initialisation], overwrite=False)
        plan_checkpoints(
            [*asked.specs.values()],
            None,
            "average",
            base=None,
            footprints=None,
            allow_pickle=options.load.allow_pickle,
            parameters={},
        )
    return asked


def _check_models(
    models: Sequence[str], data: Sequence[str], initialisation: str, options: MergeCheckOptions, note: Note
) -> Asked:
    *named, start = name_models([*models, f"initialisation={initialisation}"], options.checkpoints)
    if len(named) < 2:
        raise UsageError(f"expected at least two models to merge, got {len(named)}; give another")
    named.sort(key=lambda model: model.name)
    opened = _open_tables(named, data, options)
    tables = {name: halves(table) for name, table in opened.items()}
    folds = fold_count([choosing for choosing, _ in tables.values()], options.measure.folds, note)
    found, identity = open_initialisation(start, options.load)
    loaded = {model.name: load(model, options.load) for model in named}
    for sentence in (sentence for each in loaded.values() for sentence in each.notes):
        note(sentence)
    parents = Parents.of(loaded, found, options.measure, merge_heads=options.merge_heads)
    question = {
        "settings": options.deciding(),
        "models": {name: each.identity for name, each in loaded.items()},
        "initialisation": identity,
        "data": {name: table.identity for name, table in opened.items()},
    }
    measure = replace(options.measure, folds=folds, include=tuple(parents.start), exclude=())
    return Asked(
        {model.name: model.spec for model in named},
        initialisation,
        parents,
        {half: {name: each[side] for name, each in tables.items()} for side, half in enumerate((CHOOSING, MEASURING))},
        question,
        replace(options, measure=measure),
    )


def _open_tables(named: Sequence[Model], data: Sequence[str], options: MergeCheckOptions) -> dict[str, Table]:
    names, sources = [model.name for model in named], dict(named_data(data))
    if lacking := [name for name in names if name not in sources]:
        raise UsageError(
            f"the model {lacking[0]!r} has no data set of its name, expected one for each model; give {{data}} "
            f"{lacking[0]}=DATA",
            data=None,
        )
    if nobodys := [name for name in sources if name not in names]:
        raise UsageError(
            f"the data set {nobodys[0]!r} is named after no model, and there are {', '.join(names)}: a merge is scored "
            "with the head of the model that the data are named after; leave it out"
        )
    opened = {
        name: open_table(sources[name], split=options.split, examples=options.examples, seed=options.data_seed)
        for name in names
    }
    for table in opened.values():
        check_columns(table, options.measure.columns)
    return opened


def _check(places: Places, asked: Asked, note: Note) -> MergeCheck:
    options, parents = asked.options, asked.parents
    for name in parents.loaded:
        if not places.change(name).exists():
            parents.change(name).save(places.change(name))
    every = fishers_of(places, parents, asked.tables[CHOOSING], options.measure, note)
    fishers = {name: every[name, name] for name in parents.loaded}
    if not places.beside.exists():
        changes = {name: Footprint.load(places.change(name)) for name in parents.loaded}
        look_beside(parents, every, changes).save(places)
    beside = Beside.load(places)
    for sentence in beside.beware:
        note(sentence)
    members: Members = tuple(parents.loaded)

    def scored(half: str, of: Members, what: str, networks: Mapping[str, Callable[[], Weights]], label: str) -> Scored:
        place = places.scores(half, what)
        return score(place, parents, of, networks, asked.tables[half], options, f"{label}, {half} half", silent)

    own = {half: scored(half, members, "parents", {PARENT: dict}, "parents") for half in asked.tables}
    merges: dict[str, dict[Members, Scored]] = {half: {} for half in asked.tables}
    for group in groups(members):
        networks: dict[str, Callable[[], Weights]] = {
            trial.key: partial(parents.merged, group, trial, fishers) for trial in options.trials
        }
        for half in asked.tables:
            merges[half][group] = scored(half, group, "&".join(group), networks, " + ".join(group))
    best = max(
        options.trials, key=lambda trial: mean_change(merges[CHOOSING][members], trial.key, own[CHOOSING], PARENT)
    )
    layers = layers_of(parents.start, options.depth)
    merged = parents.merged(members, best, fishers)
    networks = {
        Restored(layer, parent).key: partial(restored, parents, merged, names, parent)
        for layer, names in layers.items()
        for parent in members
    }
    found = AllScores(own, merges, scored(CHOOSING, members, "layers", networks, "layers"), None)
    chosen = chosen_layers(found, members, best)
    if chosen:
        networks = _confirming(parents, merged, layers, chosen, options)
        found = replace(found, confirmed=scored(MEASURING, members, "layers", networks, "candidate layers"))
    return gather(options, asked.question["settings"], found, beside)


def _confirming(
    parents: Parents,
    merged: Weights,
    layers: Mapping[str, Sequence[str]],
    chosen: Sequence[Restored],
    options: MergeCheckOptions,
) -> dict[str, Callable[[], Weights]]:
    """List the candidates, and beside each its random sets."""
    sizes = {name: weights.numel() for name, weights in merged.items()}
    networks: dict[str, Callable[[], Weights]] = {}
    for one in chosen:
        names = layers[one.layer]
        networks[one.key] = partial(restored, parents, merged, names, one.parent)
        counts = outside_counts(sizes, names)
        for draw in range(options.draws if counts else 0):
            networks[one.draw_key(draw)] = partial(
                restored_outside, parents, merged, counts, one.parent, options.measure.seed, draw
            )
    return networks


def _write_merged(places: Places, asked: Asked, found: MergeCheck, write: Path, note: Note) -> None:
    trial = found.best.trial
    fuse_checkpoints(
        [*asked.specs.values()],
        method=trial.method,
        output=write,
        base=asked.initialisation if trial.method == "task_arithmetic" else None,
        footprints=[places.fisher(name, name) for name in asked.specs] if trial.method == "fisher" else None,
        allow_pickle=asked.options.load.allow_pickle,
        note=note,
        scale=trial.scale,
    )
    if any(found.beside.own.values()):
        note(
            f"{write} holds the fused head as well, and the merges were scored with each parent's own: for a data set, "
            "put back the head of its model"
        )
