"""Errors of the library speak of Python arguments; on the command line they speak of options."""

from __future__ import annotations

import re
from pathlib import PurePath
from types import MappingProxyType
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_CHOICES = r"'(\w+)'(?: or '(\w+)')?"
_OPTIONS = (
    (re.compile(r"common_only=True"), r"--common-only"),
    (re.compile(r"overwrite=True"), r"--overwrite"),
    (re.compile(r"fisher_type=" + _CHOICES), r"--fisher-type \1 or \2"),
    (re.compile(r"\bloss='(\w+)'"), r"--loss \1"),
    (re.compile(r"\bpass loss= one of .*", re.DOTALL), r"pass --loss classification, multilabel or regression"),
    (re.compile(r"\bpass loss=CustomLoss.*?, or (use fisher_type)"), r"\1"),
    (re.compile(r"\bpass loss= "), r"pass --loss, or in Python "),
    (re.compile(r"^(include|exclude): "), r"--\1: "),
    (re.compile(r"^include and exclude leave"), r"--include and --exclude leave"),
    (re.compile(r"an unshuffled loader or a source_row in the batches"), r"a column source_row in the data"),
    (re.compile(r"give every row a source_row, the"), r"give the data a column source_row, the"),
    (re.compile(r"exclude it, real weights"), r"leave it out with --exclude, real weights"),
)
_OF_OVERLAP = {"intervals=False": "--no-intervals"}


def in_options(text: str, command: str = "", options: Mapping[str, str] = MappingProxyType({})) -> str:
    """Say what an error of the library says in the words of the command line.

    Args:
        text: The error.
        command: The command that ran; not all have every option.
        options: Its options by the names of their arguments: ``path_rows`` is ``--path-rows``. A name of one word is
            an ordinary word too: it is taken for the argument only where the error begins with what it is or must be,
            and after "a smaller". Parts of a path are left as they are.

    Returns:
        The text with options in place of arguments.

    Example:
        >>> in_options("pass intervals=False to compare without noise ceilings", "overlap")
        'pass --no-intervals to compare without noise ceilings'
        >>> in_options("there are 900: use fisher_type='mc'")
        'there are 900: use --fisher-type mc'
        >>> in_options("path_rows must be at least 1", "shortcuts", {"path_rows": "--path-rows"})
        '--path-rows must be at least 1'
        >>> in_options("rows must be at least 2, and there are rows", "continual", {"rows": "--rows"})
        '--rows must be at least 2, and there are rows'
    """
    for argument, option in _OF_OVERLAP.items():
        text = text.replace(argument, option if command == "overlap" else f"{option} to commonweight overlap")
    # The longest phrases first: what is cut may hold a shorter one.
    for pattern, words in sorted(_OPTIONS, key=lambda pair: -len(pair[0].pattern)):
        text = pattern.sub(lambda match, words=words: _fill(match, words), text)  # type: ignore[misc]
    for argument, option in options.items():
        text = re.sub(_where(argument), option, text)
    return text


def options_of(command: click.Command | None, typed: Iterable[str] = ()) -> dict[str, str]:
    """Map the arguments of a command, and of its subcommands, to options.

    Args:
        command: The command; None has no options.
        typed: What was typed. A folder, file or name that is called like an argument is not taken for it.

    Returns:
        Options by the names of their arguments, without one-word names whose option is called otherwise.

    Example:
        >>> run = click.Command("run", params=[click.Option(["--path-rows"]), click.Option(["--rows"])])
        >>> options_of(run, ["--path-rows", "4", "-o", "rows/"])
        {'path_rows': '--path-rows'}
    """
    commands = (command, *command.commands.values()) if isinstance(command, click.Group) else (command,)
    called = {str(PurePath(piece)) for word in typed for piece in word.split("=")}
    return {
        parameter.name: max(parameter.opts, key=len)
        for each in commands
        if each is not None
        for parameter in each.params
        if isinstance(parameter, click.Option) and parameter.name and parameter.name not in called
        if "_" in parameter.name or f"--{parameter.name}" in parameter.opts
    }


def _where(argument: str) -> str:
    end = r"(?![\w'/-]|\.\w)"
    if "_" in argument:
        return rf"(?<![\w'/.-]){argument}{end}"
    return rf"^{argument}(?= (?:is|must) )|(?<=\ba smaller ){argument}{end}"


def _fill(match: re.Match[str], words: str) -> str:
    if r" or \2" in words and match.lastindex == 1:
        words = words.replace(r" or \2", "")
    return match.expand(words)
