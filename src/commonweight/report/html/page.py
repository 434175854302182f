"""The page of a run: its parts, laid out by a template that escapes every name, with a policy that allows no request.

A study hands over an answer, blocks, overlap tables and figures. This module knows no study.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from commonweight.base.folders import write_whole
from commonweight.base.text import Grid, holds_words, without_controls
from commonweight.base.version import __version__
from commonweight.report.html.island import island
from commonweight.report.html.pictures import inline

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from jinja2 import Template

    from commonweight.base.text import Block
    from commonweight.report.answer import Answer
    from commonweight.report.html.island import Overlaps
    from commonweight.report.html.pictures import Picture

REPORT = "report.html"


@dataclass(frozen=True)
class Page:
    """What a page shows, in its order."""

    answer: Answer
    overlaps: Sequence[Overlaps] = ()
    """The first is shown; the others can be chosen."""

    pictures: Sequence[Picture] = ()
    blocks: Sequence[Block] = ()
    """All tables and what is said beside them."""

    origin: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """How the run was made: heading -> name -> value."""


def render(page: Page) -> str:
    """Write a page as one HTML document that needs nothing else."""
    style, script = _part("report.css"), _part("report.js")
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    return _template().render(
        page=page,
        style=style,
        script=script,
        policy=policy,
        island=island(page.overlaps),
        pictures=[(picture, inline(picture, number)) for number, picture in enumerate(page.pictures)],
        version=__version__,
    )


def write_page(run: Path, page: Page) -> Path:
    """Write the page of a run into its folder, whole or not at all."""
    place = run / REPORT
    write_whole(place, render(page))
    return place


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


@cache
def _part(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8").strip()


def _shown(value: Any) -> Any:
    return without_controls(value) if type(value) is str else value  # and not what is markup already


@cache
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_shown
    )
    environment.tests["grid"] = lambda block: isinstance(block, Grid)
    environment.filters["words"] = holds_words
    return environment.from_string(_part("report.html.jinja"))
