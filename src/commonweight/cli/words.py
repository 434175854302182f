"""Errors of the library speak of Python arguments; on the command line they speak of options."""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_CHOICES = r"'(\w+)'(?: or '(\w+)')?"
_OPTIONS = (
    (re.compile(r"common_only=True"), r"--common-only"),
    (re.compile(r"overwrite=True"), r"--overwrite"),
    (re.compile(r"label_rule=" + _CHOICES), r"--label-rule \1 or \2"),
    (re.compile(r"use verify=True, or"), r"leave --no-verify out, or use"),
    (re.compile(r"verify=True"), r"leave --no-verify out"),
    (re.compile(r"\bpass loss= one of .*", re.DOTALL), r"pass --loss classification, multilabel or regression"),
    (re.compile(r"\bpass loss=CustomLoss.*?, or (use label_rule)"), r"\1"),
    (re.compile(r"\bpass loss= "), r"pass --loss, or in Python "),
    (re.compile(r"^(include|exclude): "), r"--\1: "),
    (re.compile(r"^include and exclude leave"), r"--include and --exclude leave"),
    (re.compile(r"exclude it, real weights"), r"leave it out with --exclude, real weights"),
)
_MIXED = re.compile(r"mixed_rules=True")


def in_options(text: str, command: str = "", options: Mapping[str, str] = MappingProxyType({})) -> str:
    """Say what an error of the library says in the words of the command line.

    Args:
        text: The error.
        command: The command that ran; not all have every option.
        options: Its options by the names of their arguments: ``path_rows`` is ``--path-rows``.

    Returns:
        The text with options in place of arguments.

    Example:
        >>> in_options("measure them with one loss, or pass mixed_rules=True to compare them all the same", "overlap")
        'measure them with one loss, or pass --mixed-rules to compare them all the same'
        >>> in_options("there are 900: use label_rule='sampled'")
        'there are 900: use --label-rule sampled'
        >>> in_options("path_rows must be at least 1", "shortcuts", {"path_rows": "--path-rows"})
        '--path-rows must be at least 1'
    """
    # The longest phrases first: what is cut may hold a shorter one.
    for pattern, words in sorted(_OPTIONS, key=lambda pair: -len(pair[0].pattern)):
        text = pattern.sub(lambda match, words=words: _fill(match, words), text)  # type: ignore[misc]
    for argument, option in options.items():
        text = re.sub(rf"(?<![\w'-]){argument}(?![\w'])", option, text)
    mixed = "--mixed-rules" if command == "overlap" else "--mixed-rules to commonweight overlap"
    return _MIXED.sub(mixed, text)


def _fill(match: re.Match[str], words: str) -> str:
    if r" or \2" in words and match.lastindex == 1:
        words = words.replace(r" or \2", "")
    return match.expand(words)
