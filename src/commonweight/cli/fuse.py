"""``commonweight fuse``: one checkpoint out of several."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

import click

from commonweight.base.errors import UsageError
from commonweight.cli import streams
from commonweight.cli.options import Command, Dangerous, Suggesting, ending

if TYPE_CHECKING:
    from collections.abc import Mapping

SHOWN_DIGITS = 12
"""Of a SHA-256 on the terminal; the other forms have all."""


@click.command("fuse", cls=Command, epilog=ending("commonweight fuse runs/films runs/food -o runs/both"))
@click.argument("models", nargs=-1, required=True, metavar="MODEL MODEL ...")
@click.option("-o", "--output", metavar="FOLDER", help="Where the fused checkpoint goes.")
@click.option(
    "--method",
    type=Suggesting(["average", "task-arithmetic", "fisher"]),
    default="average",
    show_default=True,
    help="The weighted average, task vectors added to --base, or each weight averaged by its Fisher.",
)
@click.option(
    "--weight",
    "weights",
    metavar="W",
    type=float,
    multiple=True,
    help="One for each MODEL, in order, with the sum 1; default equal. For task-arithmetic any, default 1 each.",
)
@click.option("--base", metavar="MODEL", help="What the models were fine-tuned from, for task-arithmetic.")
@click.option(
    "--scale",
    metavar="X",
    type=float,
    help="Multiplies the sum of task vectors; default 1, for task-arithmetic.",
)
@click.option(
    "--footprint",
    "footprints",
    metavar="FOLDER",
    multiple=True,
    help="The Fisher of each MODEL, in order, as commonweight fisher wrote it; for fisher.",
)
@click.option("--floor", metavar="X", type=float, help="The least a Fisher counts for; default 1e-6, for fisher.")
@click.option(
    "--normalize",
    type=Suggesting(["norm", "trace", "none"]),
    help="Divide each Fisher by its root mean square (the default), its mean, or nothing; for fisher.",
)
@click.option("--overwrite", is_flag=True, help="Replace a fused checkpoint that is there.")
@click.option("--dry-run", is_flag=True, help="Check everything, say what would be fused, and write nothing.")
@click.option(
    "--format",
    "form",
    type=Suggesting(["table", "json", "markdown"]),
    default="table",
    show_default=True,
    help="Form of the result; json is what fusion.json says.",
)
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
    **numbers: Any,
) -> None:
    """Fuse the weights of several MODELs into one checkpoint.

    MODEL is a checkpoint folder or a Hugging Face id (org/name@revision). Nothing is trained and no code is run; models
    of any size are read tensor by tensor. The result loads with from_pretrained, with the first MODEL's tokenizer, a
    model card and fusion.json, which say how it was made.
    """
    _check_given(output, dry_run=dry_run)
    from commonweight.fusion.card import describe
    from commonweight.fusion.methods import make_recipe
    from commonweight.fusion.plan import plan_checkpoints
    from commonweight.fusion.writing import check_place, write_fusion

    recipe = make_recipe(
        method.replace("-", "_"),
        len(models),
        weights or None,
        **numbers,
        has_base=base is not None,
        has_footprints=bool(footprints),
    )
    inputs = (*models, *([base] if base is not None else []), *footprints)
    place = None if output is None else check_place(output, inputs, overwrite=overwrite)
    plan = plan_checkpoints(recipe, models, base=base, footprints=footprints or None, allow_pickle=allow_pickle)
    given = {"method": method, "weight": weights, "base": base, "footprint": footprints, **numbers, "output": output}
    typed = _typed(models, given)
    if dry_run or place is None:
        streams.tell("dry run: everything was checked that does not take every number, and nothing was written")
        _show(describe(plan, typed), form, None)
        return
    for sentence in plan.notes:
        streams.tell(sentence)
    _show(write_fusion(plan, place, typed, overwrite=overwrite, progress=streams.bars()), form, output)


def _check_given(output: str | None, *, dry_run: bool) -> None:
    if output is None and not dry_run:
        raise UsageError("-o FOLDER is missing: where should the fused checkpoint go? (--dry-run needs none)")


def _typed(models: tuple[str, ...], given: Mapping[str, Any]) -> str:
    """Write down the command, as it can be typed again."""
    words = ["commonweight", "fuse", *models]
    for option, value in given.items():
        for one in value if isinstance(value, tuple) else (value,):
            if one is not None and (option, one) != ("method", "average"):
                words += [f"--{option}", str(one)]
    return shlex.join(words)


def _show(record: Mapping[str, Any], form: str, folder: str | None) -> None:
    from commonweight.base.text import to_markdown
    from commonweight.fusion.card import blocks

    if form == "json":
        click.echo(json.dumps(record, indent=1, allow_nan=False))
    elif form == "markdown":
        click.echo(to_markdown(blocks(record, folder)), nl=False)
    else:
        from commonweight.report.terminal import show

        show(blocks(record, folder, digits=SHOWN_DIGITS))
