"""``commonweight show``: what a finished run found, again."""

from __future__ import annotations

from pathlib import Path

import click

from commonweight.cli.options import Command, ending
from commonweight.cli.results import ROOMS, by_option, result_options, write, write_run


@click.command("show", cls=Command, epilog=ending("commonweight show runs/both --by 3 --verbose"))
@click.argument("folders", nargs=-1, required=True, metavar="RUN ...")
@by_option
@result_options
def command(folders: tuple[str, ...], by: str | int, form: str, verbose: bool) -> None:
    """Show what a finished RUN found.

    RUN is of compare, localise, merge-check, shortcuts or continual. Nothing is measured, and no model or data is read.
    --by is for runs of compare. At least three runs of localise, one for each training seed of the same models, give
    intervals and verdicts over the seeds.
    """
    if len(folders) > 1:
        from commonweight.studies.localise.over_seeds import localise_over_seeds

        write(localise_over_seeds(folders).result(), form, verbose=verbose)
        return
    (folder,) = folders
    from commonweight.studies.run.runs import study_of

    run = Path(folder)
    study_of(run, ROOMS)
    if by == "layer":
        write_run(run, form, verbose=verbose)
        return
    from commonweight.studies.compare.compare import read_comparison_result

    write(read_comparison_result(run, by), form, verbose=verbose, run=folder)
