"""The answer of a command: a question, one or two sentences, one small table, what to beware of, where the rest lies.

Studies make it from what they found. The terminal, ``show`` and the report start with it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from commonweight.base.errors import IntegrityError
from commonweight.base.folders import write_whole
from commonweight.base.records import Format, folder_record, sealed
from commonweight.base.text import Block, Grid, grids_of, to_html, to_markdown

if TYPE_CHECKING:
    from pathlib import Path

ANSWER = "answer.json"
FILES = {"markdown": "study.md", "json": "study.json", "csv": "study.csv"}
"""Form of a result -> its file in a run folder."""

FORMAT = Format("commonweight-answer", (2,), "a finished run", "run it again")
KEYS = ("question", "answer", "table", "beware", "rest", "blocks", "files")
COLUMNS = 80
LINES = 20
"""What the table of an answer may take of a screen."""

LONGEST_NAME = 31
"""Of a layer in a sentence."""

SHORTEST = 24
"""Characters of a name that are shown, however long the other columns are."""

CUT = "…."
"""Stands for the first parts of a name."""


@dataclass(frozen=True)
class Answer:
    """What a person reads first."""

    question: str
    answer: str
    """One or two sentences, with the numbers that carry them."""

    table: Grid
    """At most :data:`LINES` lines; on a screen of :data:`COLUMNS` characters, with its names cut."""

    beware: tuple[str, ...] = ()
    rest: tuple[str, ...] = ()
    """Files of the run folder that hold the rest, with what is in them."""

    def blocks(self, run: str = "") -> list[Block]:
        """Lay it out; ``run`` is the folder that the rest lies in."""
        found: list[Block] = [self.question, self.answer, self.table]
        found += [f"Beware: {sentence}" for sentence in self.beware]
        if self.rest:
            found.append(f"{f'In {run}: ' if run else ''}{' · '.join(self.rest)}")
        return found

    def on_screen(self) -> Answer:
        """Cut the names in the table, if it is too wide for a screen."""
        every = (self.table.header, *self.table.rows, *self.table.totals)
        used = sum(2 + max(len(row[column]) for row in every) for column in range(1, len(self.table.header)))
        room = max(SHORTEST, COLUMNS - used)
        rows, totals = (
            tuple((short(name, room), *cells) for name, *cells in part) for part in (self.table.rows, self.table.totals)
        )
        return replace(self, table=replace(self.table, rows=rows, totals=totals))

    def _repr_html_(self) -> str:
        return to_html(self.blocks())

    def record(self) -> dict[str, Any]:
        """Give it as plain values."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return {"format": FORMAT.name, "version": FORMAT.versions[0], **plain}

    @classmethod
    def load(cls, run: Path) -> Answer:
        """Read that of a finished run."""
        found = folder_record(run, ANSWER, FORMAT, KEYS)
        said = found["question"], found["answer"], _read_grid(found["table"])
        return cls(*said, tuple(found["beware"]), tuple(found["rest"]))


@dataclass(frozen=True)
class Result:
    """All that a command found, in every form."""

    answer: Answer
    blocks: list[Block]
    """Everything, for people."""

    json: str
    """Everything, for programs, with the answer and the verdicts."""

    csv: str
    """Every number, a row each."""

    links: tuple[str, ...] = ()
    """Markdown that points to figures; a page shows the figures themselves."""

    def to_markdown(self) -> str:
        """Write everything for people, the answer first; its table only where no table of that title holds more."""
        titles = {block.title for block in grids_of(self.blocks)}
        answer = [block for block in self.answer.blocks() if isinstance(block, str) or block.title not in titles]
        return to_markdown([*answer, *self.blocks, *self.links])


def short(name: str, most: int = LONGEST_NAME) -> str:
    """Leave out the first parts of a dotted name that is too long; a path stays whole."""
    if len(name) <= most or "/" in name:
        return name
    parts = name.split(".")
    while len(parts) > 1 and len(CUT) + len(".".join(parts)) > most:
        del parts[0]
    kept = ".".join(parts)
    return f"{kept[: most - 1]}…" if len(kept) > most - len(CUT) else f"{CUT}{kept}"


def write_result(run: Path, result: Result) -> None:
    """Write a result into its run folder in every form; the answer comes last."""
    forms = {"markdown": result.to_markdown(), "json": result.json, "csv": result.csv}
    for form, text in forms.items():
        write_whole(run / FILES[form], text)
    files = {FILES[form]: _hash(text.encode()) for form, text in forms.items()}
    blocks = [block if isinstance(block, str) else asdict(block) for block in result.blocks]
    _write_answer(run, result.answer.record() | {"blocks": blocks, "files": files})


def load_blocks(run: Path) -> list[Block]:
    """Read everything that the result of a finished run says to people."""
    found = folder_record(run, ANSWER, FORMAT, KEYS)["blocks"]
    return [block if isinstance(block, str) else _read_grid(block) for block in found]


def name_in_rest(run: Path, line: str) -> None:
    """Say in the answer of a finished run that another file holds more of it."""
    found = folder_record(run, ANSWER, FORMAT, KEYS)
    if line not in found["rest"]:
        _write_answer(run, found | {"rest": [line, *found["rest"]]})


def read_form(run: Path, form: str) -> str:
    """Read a finished run in one form, as it was written."""
    expected = folder_record(run, ANSWER, FORMAT, KEYS)["files"].get(FILES[form])
    try:
        written = (run / FILES[form]).read_bytes()
    except OSError as error:
        raise IntegrityError(f"{run / FILES[form]} cannot be read: {error}; {FORMAT.again}") from None
    if _hash(written) != expected:
        raise IntegrityError(
            f"{run / FILES[form]} is not as it was written: expected the SHA-256 {expected}, got {_hash(written)}; it "
            f"was damaged or edited: {FORMAT.again}"
        )
    return written.decode()


def _hash(written: bytes) -> str:
    return hashlib.sha256(written).hexdigest()


def _write_answer(run: Path, record: dict[str, Any]) -> None:
    write_whole(run / ANSWER, json.dumps(sealed(record), indent=1, ensure_ascii=False) + "\n")


def _read_grid(record: dict[str, Any]) -> Grid:
    rows, totals = (tuple(map(tuple, record[part])) for part in ("rows", "totals"))
    return Grid(record["title"], tuple(record["header"]), rows, totals)
