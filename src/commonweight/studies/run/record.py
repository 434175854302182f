"""``run.json``: what a run says of itself, one format for every study, and what stands in the way of going on."""

from __future__ import annotations

import json
import platform
import shlex
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from commonweight.base.errors import IntegrityError, UsageError
from commonweight.base.records import json_file, unsealed
from commonweight.base.version import __version__
from commonweight.data.files import FILE_FORMATS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

RECORD = "run.json"
FORMAT = "commonweight-run"
VERSION = 3
ELSEWHERE = "choose another folder"
PLACES = frozenset({"name", "path", "checkpoint"})
"""Keys of an identity that say where something lies, not what it is."""

MOST_SHOWN = 8
LONGEST = 40
"""Characters of a value that are shown."""

_ABSENT = object()


@dataclass(frozen=True)
class StudyKind:
    """A kind of study."""

    name: str
    packages: tuple[str, ...]
    """Whose versions a run records, beside those of Python and commonweight."""

    def new_record(self, status: str, asked: Mapping[str, Any], grown: Mapping[str, Any]) -> dict[str, Any]:
        """Make the record of a run that begins."""
        versions = {"python": platform.python_version(), "commonweight": __version__}
        record = {
            "format": FORMAT,
            "version": VERSION,
            "study": self.name,
            "status": status,
            "asked": asked,
            "grown": grown,
            "command": _command(),
            "versions": versions | {name: version(name) for name in self.packages},
        }
        plain: dict[str, Any] = json.loads(json.dumps(record))
        return plain


def _command() -> str | None:
    """Give the command line of this process; None where Python called the library."""
    place = Path(sys.argv[0])
    is_ours = place.name == "commonweight" or (place.parent.name, place.name) == ("commonweight", "__main__.py")
    return shlex.join(["commonweight", *sys.argv[1:]]) if is_ours else None


def read_record(path: Path, kind: StudyKind) -> dict[str, Any]:
    """Read what a run folder says of itself; empty where it holds no run."""
    file = path / RECORD
    if not file.is_file():
        return {}
    record = json_file(file, ELSEWHERE)
    if not isinstance(record, dict) or record.get("format") != FORMAT or record.get("version") != VERSION:
        raise IntegrityError(
            f"{file} is not a {FORMAT} record of version {VERSION}: another release or another tool wrote it; "
            "measure again, and choose another folder"
        )
    record = unsealed(record, str(file), ELSEWHERE)
    if record.get("study") != kind.name:
        raise UsageError(f"{path} holds a run of another kind, {record.get('study')}; choose another folder")
    if not all(isinstance(record.get(part), dict) for part in ("asked", "grown")):
        raise damaged(file, "it does not say what was asked")
    return record


def damaged(file: Path, why: str) -> IntegrityError:
    """Make the error of a record that cannot be used."""
    return IntegrityError(f"{file} is damaged ({why}); {ELSEWHERE}")


def folder_name(name: str) -> str:
    """Turn a name into one that a folder can have; hidden folders are those of unfinished work."""
    return name.replace("/", "-").replace("\\", "-").lstrip(".") or "unnamed"


def check_name(name: Any, file: Path) -> None:
    """Check a name that a record gives, and that a folder is called after."""
    if not isinstance(name, str) or "\0" in name or name != folder_name(name):
        raise IntegrityError(
            f"{file} has the name {name!r}, expected one that a folder can have, without slashes and not hidden: it "
            "was damaged or written by somebody else, and nothing of it is used; choose another folder"
        )


def differences(former: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """List what is asked in another way than before, one clause each; what was not asked before may be added."""
    plain = json.loads(json.dumps(asked))
    return [found for part, before in former.items() for found in _differences(part, before, plain.get(part, _ABSENT))]


def refuse_another(path: Path, found: list[str], remedy: str, **values: Any) -> None:
    """Refuse to go on with a run where something else is asked, and say what, so that no table mixes two questions."""
    if found:
        more = f"; and {len(found) - MOST_SHOWN} more" if len(found) > MOST_SHOWN else ""
        shown = "; ".join(found[:MOST_SHOWN]) + more
        raise UsageError(f"{path} holds a run of something else: {shown}. {remedy}", **values)


def same_identity(former: Any, now: Any) -> bool:
    """Tell whether two identities name the same thing, wherever it lies."""
    return not list(_differences("", former, json.loads(json.dumps(now))))


def _differences(where: str, before: Any, now: Any) -> Iterator[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*before, *now]):
            values = before.get(key, _ABSENT), now.get(key, _ABSENT)
            if key not in PLACES:
                yield from _differences(f"{where}.{key}", *values)
            elif key == "path":  # the ending of a file says how it is read
                yield from _differences(f"{where}.format", *map(_ending, values))
    elif before != now:
        yield f"{where} was {_show(before)}, is now {_show(now)}"


def _ending(path: Any) -> str:
    suffix = Path(str(path)).suffix.lower()
    return suffix if suffix in FILE_FORMATS else ""


def _show(value: Any) -> str:
    if value is _ABSENT:
        return "absent"
    if isinstance(value, dict):
        return "present"
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}…"
