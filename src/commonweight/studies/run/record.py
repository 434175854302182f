"""``run.json``: what a run says of itself, and what stands in the way of going on with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from commonweight.base.errors import IntegrityError, UsageError
from commonweight.data.table import FILE_FORMATS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

RECORD = "run.json"
FORMAT = "commonweight-run"
VERSION = 1
PARTS = ("settings", "models", "data")
PLACES = frozenset({"name", "path", "checkpoint"})
"""Keys of an identity that say where something lies, not what it is."""

_ABSENT = object()


def read_record(path: Path) -> dict[str, Any] | None:
    """Read what a run folder says of itself."""
    file = path / RECORD
    if not file.is_file():
        return None
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise IntegrityError(f"{file} is damaged ({error}); pass --fresh to start the run over") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT or record.get("version") != VERSION:
        raise IntegrityError(f"{file} is not a {FORMAT} record of version {VERSION}; choose another folder")
    for part in PARTS:
        value = record.get(part, {})
        if not isinstance(value, dict) or (part != "settings" and not all(isinstance(v, dict) for v in value.values())):
            raise IntegrityError(f"{file} is damaged ({part} is no mapping); pass --fresh to start the run over")
        for name in value if part != "settings" else ():
            check_name(name, file)
    return record


def study_record(path: Path, form: str, version: int) -> dict[str, Any]:
    """Read what the run folder of a study says of itself."""
    file = path / RECORD
    if not file.is_file():
        return {}
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise IntegrityError(f"{file} is damaged ({error}); choose another folder") from error
    kind = record.get("format") if isinstance(record, dict) else None
    if kind != form or record.get("version") != version:
        raise UsageError(f"{path} holds a run of another kind, {kind}; choose another folder")
    if not isinstance(record.get("plan"), dict) or type(record.get("seeds")) is not int:
        raise IntegrityError(f"{file} is damaged (it has no plan, or no number of seeds); choose another folder")
    return dict(record)


def folder_name(name: str) -> str:
    """Turn a name into one that a folder can have; hidden folders are those of unfinished work.

    Args:
        name: A name.

    Returns:
        The name without slashes, and without dots before it.

    Example:
        >>> folder_name("../a/b"), folder_name("bert@v1")
        ('-a-b', 'bert@v1')
    """
    return name.replace("/", "-").replace("\\", "-").lstrip(".") or "unnamed"


def check_name(name: Any, file: Path) -> None:
    """Check a name that a record gives, and that a folder is called after."""
    if not isinstance(name, str) or "\0" in name or name != folder_name(name):
        raise IntegrityError(
            f"{file} has the name {name!r}, expected one that a folder can have, without slashes and not hidden: it "
            "was damaged or written by somebody else, and nothing of it is used; choose another folder"
        )


def differences(
    former: Mapping[str, Any], asked: Mapping[str, Any], *, finished: Collection[str] | None = None
) -> Iterator[str]:
    """List what stands in the way of going on with a run.

    Args:
        former: Record of the run.
        asked: What is asked for now; it may have more models and data.
        finished: Names ``model/data`` of the footprints that are there. A model or data set without one may change or
            go, and without any so may the settings; None takes all for finished.

    Yields:
        One clause per difference.

    Example:
        >>> list(differences({"settings": {"folds": 1}, "models": {}}, {"settings": {"folds": 8}, "models": {"a": {}}}))
        ['settings.folds was 1, is now 8']
    """
    owners = None if finished is None else tuple({name.split("/")[i] for name in finished} for i in (0, 1))
    for part in PARTS:
        before, now = former.get(part, {}), asked.get(part, {})
        if part == "settings":
            if owners is None or owners[0]:
                yield from _differences(part, before, now)
            continue
        for name, value in before.items():  # whatever it is called
            if owners is None or name in owners[part == "data"]:
                yield from _differences(f"{part}.{name}", value, now.get(name, _ABSENT))


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
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:37]}…"
