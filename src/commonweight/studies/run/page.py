"""The page of a run, from its folder alone: its answer, tables and figures, and how it was made."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from commonweight.base.text import DASH, size_words
from commonweight.report.answer import Answer, load_blocks, name_in_rest
from commonweight.report.html import REPORT, Page, Picture, write_page
from commonweight.studies.run.folder import read_json
from commonweight.studies.run.record import RECORD

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from commonweight.report.html import Overlaps

FIGURES = "figures"
LINE = f"{REPORT} shows all of it in a browser"
HASH = re.compile("[0-9a-f]{32,}")
SAID_ELSEWHERE = ("selection", "weights", "tokenizer")
"""Parts of a record that are long and say nothing to a person: which rows, and what files hash to."""


def write_run_page(
    run: Path,
    overlaps: Sequence[Overlaps],
    pictures: Sequence[Picture] = (),
    origin: Mapping[str, Mapping[str, str]] | None = None,
) -> Path:
    """Write the page of a run whose result was written, and name it in its answer."""
    made = origin_of(run) if origin is None else origin
    place = write_page(run, Page(Answer.load(run), overlaps, pictures, load_blocks(run), made))
    name_in_rest(run, LINE)
    return place


def pictures_of(run: Path, captions: Mapping[str, str]) -> list[Picture]:
    """Find the figures of a run, in the order of captions; a caption goes by what a name of a file begins with."""
    found = []
    for beginning, caption in captions.items():
        for path in sorted((run / FIGURES).glob(f"{beginning}*.svg")):
            what, _, of = path.stem.partition("-")
            if what == beginning:
                found.append(Picture(f"{caption} ({of})" if of else caption, path))
    return found


def origin_of(run: Path) -> dict[str, dict[str, str]]:
    """Tell how a run was made: its command, settings and versions, and what it takes on disk."""
    record = read_json(run / RECORD)
    asked = dict(record["asked"])
    settings = asked.pop("settings", {}) | asked
    size = sum(path.stat().st_size for path in run.rglob("*") if path.is_file() and path.name != REPORT)
    return {
        "Run": {
            "study": str(record.get("study")),
            "state": str(record.get("status")),
            "command": str(record.get("command") or "called from Python"),
            "folder": run.name,
            "time": f"{record['seconds'] / 60:.1f} minutes" if "seconds" in record else DASH,
            "disk": size_words(size),
        },
        "Settings": dict(_flat({**settings, **record["grown"]})),
        "Versions": {name: str(version) for name, version in record.get("versions", {}).items()},
    }


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, each in value.items():
            if key not in SAID_ELSEWHERE:
                yield from _flat(each, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list) and value:
        yield name, ", ".join(each if isinstance(each, str) else json.dumps(each) for each in value)
    elif value is not None and value != [] and not HASH.fullmatch(str(value)):
        yield name, value if isinstance(value, str) else json.dumps(value)
