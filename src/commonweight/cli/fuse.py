"""``commonweight fuse``: one checkpoint out of several."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

import click

from commonweight.base.errors import UsageError
from commonweight.cli import streams
from commonweight.cli.options import Command, Dangerous, Suggesting, ending, options_of, together, typed
from commonweight.cli.results import format_option
from commonweight.fusion.methods import METHODS, takes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from commonweight.cli.options import Decorator


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
@click.option("--overwrite", is_flag=True, help="Replace an existing fused checkpoint.")
@click.option("--dry-run", is_flag=True, help="Check everything, say what would be fused, and write nothing.")
@format_option("table", "json", "markdown", words="Form of the result; json is the content of fusion.json.")
@click.option("--allow-pickle", cls=Dangerous, is_flag=True, help="Read weights from pickle files.")
def command(
    models: tuple[str, ...],
    output: str | None,
    method: str,
    weights: tuple[float, ...],
    base: str | None,
    footprints: tuple[str, ...],
    overwrite: bool,
    dry_run: bool,
    form: str,
    allow_pickle: bool,
    **parameters: Any,
) -> None:
    """Fuse the weights of several MODELs into one checkpoint.

    MODEL is a checkpoint folder or a Hugging Face id (org/name@revision). Nothing is trained and no code is run; models
    of any size are read tensor by tensor. The result loads with from_pretrained, with the first MODEL's tokenizer, a
    model card and fusion.json, which say how it was made.
    """
    _check_given(output, dry_run=dry_run)
    from commonweight.fusion.checkpoints import plan_checkpoints
    from commonweight.fusion.folders import check_place, describe, write_fusion

    parameters = typed(parameters)
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
    given = {"method": method, "weight": weights, "base": base, "footprint": footprints, **parameters, "output": output}
    words = _typed(models, given)
    if dry_run or place is None:
        streams.note("dry run: everything was checked that does not take every number, and nothing was written")
        _show(describe(plan, words), form, None)
        return
    for sentence in plan.told():
        streams.note(sentence)
    with streams.working():
        record = write_fusion(plan, place, words, overwrite=overwrite)
    _show(record, form, output)


def _check_given(output: str | None, *, dry_run: bool) -> None:
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


def _show(record: Mapping[str, Any], form: str, folder: str | None) -> None:
    from commonweight.base.text import to_markdown
    from commonweight.fusion.folders import blocks

    if form == "json":
        click.echo(json.dumps(record, indent=1, allow_nan=False))
    elif form == "markdown":
        click.echo(to_markdown(blocks(record, folder)), nl=False)
    else:
        from commonweight.report.fusion import answer
        from commonweight.report.terminal import show

        show(answer(record, folder).blocks(folder or ""))
