"""Pages made at build time: the API, the layers with a rule, the commands, and copies of pages outside ``docs``."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from types import ModuleType

ROOMS = (
    "commonweight",
    "commonweight.diagonal_fisher",
    "commonweight.footprints",
    "commonweight.overlaps",
    "commonweight.verdicts",
    "commonweight.supermasks",
    "commonweight.transfer",
    "commonweight.fusion",
    "commonweight.models",
    "commonweight.data.images",
    "commonweight.data.shortcuts",
    "commonweight.report",
    "commonweight.base",
)

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
FOLDER = DOCS / "_generated"
COPIES = {
    ROOT / "CONTRIBUTING.md": FOLDER / "contributing.md",
    ROOT / "CHANGELOG.md": FOLDER / "changes.md",
    ROOT / "src/commonweight/data/images/digits.md": FOLDER / "digits.md",
    **{page: FOLDER / "results" / page.name for page in sorted((ROOT / "reproductions/results").glob("*.md"))},
}
"""Pages outside ``docs``, and where their copies stand."""

WIDTH = 84
"""Of the help of commands, in characters: what a column of the site holds."""


def write() -> None:
    """Write all of them."""
    (FOLDER / "results").mkdir(parents=True, exist_ok=True)
    for name, lines in (("api", api()), ("layers", layers()), ("commands", commands())):
        (FOLDER / f"{name}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for origin, copy in COPIES.items():
        text = relinked(origin.read_text(encoding="utf-8"), origin, copy)
        title = "" if text.startswith("# ") else f"# {origin.stem.replace('_', ' ').capitalize()}\n\n"
        copy.write_text(title + text, encoding="utf-8")


def relinked(text: str, origin: Path, page: Path) -> str:
    """Let the links of a text lead on when it stands on another page, and those to copied pages to the copies."""

    def link(match: re.Match[str]) -> str:
        target, mark, anchor = match[1].partition("#")
        found = (origin.parent / target).resolve()
        if not target or not found.exists():
            return match[0]
        return f"]({os.path.relpath(COPIES.get(found, found), page.parent)}{mark}{anchor})"

    return re.sub(r"\]\(([^)\s]+)\)", link, text)


def api() -> Iterator[str]:
    """Name every public object of every room for autodoc, each once."""
    seen: list[object] = []
    for room in map(import_module, ROOMS):
        new = [name for name in room.__all__ if not any(getattr(room, name) is known for known in seen)]
        seen += [getattr(room, name) for name in new]
        yield f"## {room.__name__}\n"
        yield f"{inspect.getdoc(room)}\n"
        yield "```{eval-rst}"
        for name in new:
            yield from _directive(room, name)
        yield "```\n"


def _directive(room: ModuleType, name: str) -> Iterator[str]:
    value = getattr(room, name)
    if inspect.isclass(value):
        yield f".. autoclass:: {room.__name__}.{name}"
        yield "   :members:"
    elif inspect.isroutine(value):
        yield f".. autofunction:: {room.__name__}.{name}"
    else:
        yield f".. py:data:: {room.__name__}.{name}"
        yield ""
        yield f"   {_contents(value)}"
    yield ""


def _contents(value: object) -> str:
    if isinstance(value, Mapping):
        return "A table with the keys " + ", ".join(f"``{getattr(key, '__name__', key)}``" for key in value) + "."
    if isinstance(value, tuple):
        return (
            "The codes " + ", ".join(f"``{each.code}``" for each in value) + ", in the order in which they are asked."
        )
    return f"The type ``{value}``."


def layers() -> Iterator[str]:
    """Tabulate the layer types that have a rule, and for which of their parameters."""
    from commonweight.diagonal_fisher import RULES

    yield "| layer | parameters measured by a rule |"
    yield "| --- | --- |"
    for layer, rules in RULES.items():
        name = layer if isinstance(layer, str) else f"{_home(layer)}.{layer.__name__}"
        shown = ", ".join(f"`{parameter}`" for parameter in rules) or "none: it is never called"
        yield f"| `{name}` | {shown} |"


def _home(layer: type) -> str:
    from torch import nn

    return "torch.nn" if getattr(nn, layer.__name__, None) is layer else layer.__module__


def commands() -> Iterator[str]:
    """Show what every command says of itself, sub-commands included."""
    from commonweight.cli.main import group

    found = list(_commands(group, click.Context(group, info_name="commonweight", **group.context_settings)))
    yield "| command | what it does |"
    yield "| --- | --- |"
    for command, context in found:
        first = inspect.cleandoc(command.help).partition("\n\n")[0].replace("\n", " ")
        yield f"| `{context.command_path}` | {first} |"
    yield ""
    for command, context in found:
        yield f"## {context.command_path}\n"
        yield f"```text\n{command.get_help(context)}\n```\n"


def _commands(group: click.Group, context: click.Context) -> Iterator[tuple[click.Command, click.Context]]:
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        inner = click.Context(command, info_name=name, parent=context, max_content_width=WIDTH, terminal_width=WIDTH)
        if isinstance(command, click.Group):
            yield from _commands(command, inner)
        else:
            yield command, inner
