"""``commonweight fuse``: one checkpoint out of several."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any

import click

from commonweight.base.errors import UsageError
from commonweight.cli import streams
from commonweight.cli.options import Command, Dangerous, Suggesting, ending, options_of, read_options, together, typed
from commonweight.cli.results import result_options, write
from commonweight.fusion.methods import METHODS, takes
from commonweight.models.options import LoadOptions
from commonweight.studies.compare.options import ColumnOptions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from commonweight.cli.options import Decorator
    from commonweight.interventions.measure import ModelScore


FUSION = "fusion"
NUMBER = re.compile(r"-?\d*\.?\d+")


def _typed_name(method: str) -> str:
    return method.replace("_", "-")


def _of(what: str) -> str:
    """Name the methods that an option is for."""
    return " and ".join(_typed_name(name) for name, method in METHODS.items() if what in takes(method))


def _parameter_options() -> Decorator:
    """Make an option of every parameter of a method."""
    owners = {name: method for method in METHODS.values() for name in method.parameters()}
    words = {name: f"{method.parameters()[name][0].words}, for {_of(name)}." for name, method in owners.items()}
    return together(*(options_of(method, only=[name], words=words) for name, method in owners.items()))


@click.command("fuse", cls=Command, epilog=ending("commonweight fuse runs/films runs/food -o runs/both"))
@click.argument("models", nargs=-1, required=True, metavar="MODEL MODEL ...")
@click.option("-o", "--output", metavar="FOLDER", help="Folder for the fused checkpoint.")
@click.option(
    "--method",
    type=Suggesting([_typed_name(name) for name in METHODS]),
    default="average",
    show_default=True,
    help=f"The methods, in order: {'; '.join(method.summary for method in METHODS.values())}.",
)
@click.option(
    "--weight",
    "weights",
    metavar="W",
    type=float,
    multiple=True,
    help="One weight for each MODEL, in order; they sum to 1, and by default are equal. For task-arithmetic any sum; "
    "default: 1 each.",
)
@click.option("--base", metavar="MODEL", help=f"What the models were fine-tuned from, for {_of('base')}.")
@click.option(
    "--footprint",
    "footprints",
    metavar="FOLDER",
    multiple=True,
    help=f"The Fisher of each MODEL, in order, as commonweight fisher wrote it; for {_of('footprints')}.",
)
@_parameter_options()
@click.option(
    "--data",
    multiple=True,
    metavar="[NAME=]DATA",
    help="Score the models and their fusion on this data set; give it several times for several.",
)
@options_of(ColumnOptions)
@click.option("--overwrite", is_flag=True, help="Replace an existing fused checkpoint.")
@click.option("--dry-run", is_flag=True, help="Check everything, say what would be fused, and write nothing.")
@result_options
@click.option("--allow-pickle", cls=Dangerous, is_flag=True, help="Read weights from pickle files.")
def command(
    models: tuple[str, ...],
    output: str | None,
    method: str,
    weights: tuple[float, ...],
    base: str | None,
    footprints: tuple[str, ...],
    data: tuple[str, ...],
    overwrite: bool,
    dry_run: bool,
    form: str,
    verbose: bool,
    allow_pickle: bool,
    **given: Any,
) -> None:
    """Fuse the weights of several MODELs into one checkpoint.

    MODEL is a checkpoint folder or a Hugging Face id (org/name@revision). Nothing is trained and no code is run; models
    of any size are read tensor by tensor. The result loads with from_pretrained, with the first MODEL's tokenizer, a
    model card and fusion.json, which say how it was made.
    """
    _check_given(models, output, dry_run=dry_run)
    from commonweight.data.table import open_table
    from commonweight.fusion.checkpoints import plan_checkpoints
    from commonweight.fusion.folders import check_place, describe, write_fusion
    from commonweight.report.fusion import result
    from commonweight.studies.compare.names import name_models, named_data
    from commonweight.studies.compare.prepare import check_columns

    columns = read_options(ColumnOptions, given)
    tables = {name: open_table(spec) for name, spec in named_data(data)}
    for table in tables.values():
        check_columns(table, columns)
    names = {name for owner in METHODS.values() for name in owner.parameters()}
    parameters = typed({name: value for name, value in given.items() if name in names})
    inputs = (*models, *([base] if base is not None else []), *footprints)
    place = None if output is None else check_place(output, inputs, overwrite=overwrite)
    plan = plan_checkpoints(
        models,
        weights or None,
        method.replace("-", "_"),
        base=base,
        footprints=footprints or None,
        allow_pickle=allow_pickle,
        parameters=parameters,
    )
    said = {"method": method, "weight": weights, "base": base, "footprint": footprints, **parameters, "output": output}
    words = _typed(models, said)
    if dry_run or place is None:
        streams.note("dry run: everything was checked that does not take every number, and nothing was written")
        write(result(describe(plan, words), None), form, verbose=verbose)
        return
    for sentence in plan.told():
        streams.note(sentence)
    if tables:
        from commonweight.studies.compare.score import check_rows

        with streams.working():
            check_rows(models[0], tables, columns, LoadOptions(allow_pickle=allow_pickle))
    with streams.working():
        record = write_fusion(plan, place, words, overwrite=overwrite)
    scores: list[ModelScore] = []
    if tables:
        from commonweight.studies.compare.score import score_models

        named = {model.name: model.spec for model in name_models([*models, f"{FUSION}={place}"])}
        with streams.working():
            scores = score_models(named, tables, columns, LoadOptions(allow_pickle=allow_pickle))
    write(result(record, output, scores), form, verbose=verbose, run=output or "")


def _check_given(models: tuple[str, ...], output: str | None, *, dry_run: bool) -> None:
    if numbers := [model for model in models if NUMBER.fullmatch(model)]:
        raise UsageError(f"{numbers[0]} stands where a MODEL is expected: write --weight before each weight")
    if output is None and not dry_run:
        raise UsageError("-o FOLDER is missing: where should the fused checkpoint go? (--dry-run needs none)")


def _typed(models: tuple[str, ...], given: Mapping[str, Any]) -> str:
    """Write down the command, as it can be typed again."""
    words = ["commonweight", "fuse", *models]
    for option, value in given.items():
        for one in value if isinstance(value, tuple) else (value,):
            if one is not None and (option, one) != ("method", "average"):
                words += [f"--{_typed_name(option)}", str(one)]
    return shlex.join(words)
