"""The command ``commonweight``: finds the sub-command, and turns errors into messages and exit codes."""

from __future__ import annotations

import difflib
import importlib
import sys
import traceback
from functools import partial
from typing import Any

import click

from commonweight.base.errors import CommonweightError
from commonweight.base.team import is_known, join, leave, led, team_here
from commonweight.base.version import __version__
from commonweight.cli import streams
from commonweight.cli.options import ending, in_options

COMMANDS = (
    "compare",
    "show",
    "report",
    "figures",
    "status",
    "ls",
    "run",
    "fisher",
    "overlap",
    "verify",
    "fuse",
    "localise",
    "merge-check",
    "shortcuts",
    "continual",
    "demo",
)


SHARED = frozenset({"compare", "fisher", "localise", "merge-check", "shortcuts"})
"""Commands whose measurements several processes can share."""


def _imported(name: str) -> click.Command:
    command: click.Command = importlib.import_module(f"commonweight.cli.{name.replace('-', '_')}").command
    return command


class Commands(click.Group):
    """One module per command, imported when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """List the commands, in the order of the work."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import a command."""
        if cmd_name not in COMMANDS:
            return None
        return _imported(cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or guess which one was meant."""
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            close = difflib.get_close_matches(args[0], COMMANDS, n=1)
            guess = f" Did you mean {close[0]!r}?" if close else ""
            ctx.fail(f"No such command {args[0]!r}.{guess} There are {', '.join(COMMANDS)}.")
        return super().resolve_command(ctx, args)


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=ending("commonweight compare runs/films runs/food --data dev.tsv -o runs/both"),
)
@click.version_option(__version__, prog_name="commonweight")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def group(debug: bool) -> None:  # noqa: ARG001
    """Which weights hold what two networks have in common?

    A footprint says where a network keeps what it knows about some data: the diagonal Fisher, one number per weight.
    An overlap says how much two footprints coincide, overall and layer by layer.
    """
    from commonweight.base.team import refuse_several

    refuse_several()


def run(arguments: list[str]) -> int:
    """Run a command line."""
    debug = "--debug" in arguments[:1]
    streams.set_quiet(False)
    command = next((word for word in arguments if word in COMMANDS), "")
    try:
        if command in SHARED:
            join()
        code: Any = led(group.main)(args=arguments, prog_name="commonweight", standalone_mode=False)
    except CommonweightError as error:
        if is_known(error) and not team_here().leads:
            return error.exit_code  # the first process says it
        commands = {name: _imported(name) for name in COMMANDS}
        _explain(f"error: {error.told(partial(in_options, commands=commands, here=command))}", debug=debug)
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        if team_here().leads:
            streams.tell("interrupted: the same command goes on from here")
        return streams.INTERRUPTED
    except BrokenPipeError:  # the reader of our pipe has gone
        streams.abandon()
        return 0
    except Exception as error:
        reason = " ".join(str(error).split()) or "no reason given"
        if team_here().size > 1 and isinstance(error, RuntimeError):
            reason = f"another process of this command died, it seems: issue the same command again ({reason})"
        _explain(f"error: {type(error).__name__}: {reason} (--debug shows where)", debug=debug)
        return 1
    return code if isinstance(code, int) else 0


def main() -> None:
    """Run the command line of this process and leave with its exit code."""
    if not streams.prepare():
        streams.tell("error: stdout is closed, so there is nowhere to write the result; redirect it to a file")
        sys.exit(1)
    code = streams.finish(run(sys.argv[1:]))
    leave()
    sys.exit(code)


def _explain(sentence: str, *, debug: bool) -> None:
    if debug:
        streams.tell(traceback.format_exc())
    streams.tell(sentence)
