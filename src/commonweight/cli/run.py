"""``commonweight run``: a command from a file."""

from __future__ import annotations

import click

from commonweight.cli.config import read_config, words_of
from commonweight.cli.options import Command, ending


@click.command("run", cls=Command, epilog=ending("commonweight run runs/both/config.yaml"))
@click.argument("file")
@click.pass_context
def command(ctx: click.Context, file: str) -> None:
    """Do what a YAML FILE says.

    FILE, such as config.yaml of a run folder, has a line "command: compare", or another command, and one line for each
    option of that command. Relative paths in it are taken from where you are.
    """
    group = ctx.find_root().command
    group.main(args=words_of(read_config(file), file, group, ctx), prog_name="commonweight", standalone_mode=False)
