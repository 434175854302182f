"""``--config FILE.yaml``: options of a command in a file; what is typed beside it wins."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from commonweight.base.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

COMMAND = "command"
"""Key of a file that ``commonweight run`` can repeat: ``compare``, ``continual run``."""

FILE = "config.yaml"
"""Its name in a run folder."""

NOT_KEPT = frozenset({"help", "config", "quiet", "dry_run", "fresh", "form", "verbose", "by"})
"""Parameters that say how a command shows its result, not what it does."""


def read_config(file: str) -> dict[str, Any]:
    """Read the file."""
    import yaml

    try:
        found = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}; give a YAML file with options") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{file} cannot be read as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(found, dict):
        raise UsageError(f"{file} holds no options: expected lines such as 'folds: 8', got {type(found).__name__}")
    return {str(key).replace("-", "_"): value for key, value in found.items()}


def take_config(ctx: click.Context, _: click.Parameter, file: str | None) -> None:
    """Take the options of the file as defaults of the command."""
    if file is None:
        return
    found = read_config(file)
    found.pop(COMMAND, None)
    known = {name: param.name or "" for param in ctx.command.params for name in _names(param)}
    for key in found:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            guess = f"; did you mean {close[0].replace('_', '-')!r}?" if close else ""
            raise UsageError(f"{file}: commonweight {ctx.command.name} has no option {key!r}{guess}")
    params = {param.name: param for param in ctx.command.params}
    for key in found:
        if getattr(params[known[key]], "dangerous", False):
            option = f"--{key.replace('_', '-')}"
            raise UsageError(f"{file}: {option} lets code of others run; type it, a file cannot ask for it")
        if isinstance(found[key], dict) or (isinstance(found[key], list) and not _takes_many(params[known[key]])):
            raise UsageError(f"{file}: {key.replace('_', '-')} takes one value, got a {type(found[key]).__name__}")
    ctx.default_map = {known[key]: _plain(params[known[key]], value) for key, value in found.items()}


def write_config(ctx: click.Context, run: Path) -> None:
    """Write what a command was asked into its run folder."""
    import yaml

    plain: dict[str, Any] = {COMMAND: " ".join(ctx.command_path.split()[1:])}
    for param in ctx.command.params:
        value = ctx.params.get(param.name or "")
        name = _names(param)[0]
        if isinstance(param, click.Option) and param.is_flag and name != param.name:
            value = not value  # --drop-scores sets keep_scores
        if value == ():
            value = getattr(param.type, "none", None)
        if param.name not in NOT_KEPT and not getattr(param, "dangerous", False) and value not in (None, (), "", False):
            plain[name.replace("_", "-")] = list(value) if isinstance(value, tuple) else value
    (run / FILE).write_text(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True), encoding="utf-8")


def words_of(config: Mapping[str, Any], file: str, group: click.Command, ctx: click.Context) -> list[str]:
    """Make the command line of a file that names its command, one of a group."""
    words = config.get(COMMAND)
    if not isinstance(words, str) or not words.split():
        raise UsageError(f"{file} names no command: expected a line such as 'command: compare'")
    found: click.Command | None = group
    for word in words.split():
        found = found.get_command(ctx, word) if isinstance(found, click.Group) else None
    if found is None or not any(param.name == "config" for param in found.params):
        raise UsageError(f"{file}: commonweight {words} is no command that takes options from a file, such as compare")
    return [*words.split(), "--config", file]


def _names(param: click.Parameter) -> list[str]:
    options = [option.lstrip("-").replace("-", "_") for option in param.opts if option.startswith("--")]
    # A switch that turns something off has the name of what it turns off.
    is_switch = isinstance(param, click.Option) and param.is_flag
    return options if is_switch else [*options, param.name or ""]


def _plain(param: click.Parameter, value: Any) -> Any:
    """Give a value as the command line would have it: many as a tuple, a switch that turns off as it is typed."""
    if param.multiple or param.nargs == -1:
        return tuple(map(str, value if isinstance(value, list) else [value]))
    return tuple(value) if isinstance(value, list) else value


def _takes_many(param: click.Parameter) -> bool:
    """Whether several values of a parameter may stand in a list; a list of words has its own type."""
    return param.multiple or param.nargs == -1 or hasattr(param.type, "none")
