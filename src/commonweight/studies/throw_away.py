"""What of a run folder may be deleted: footprints and tables this package wrote, and nothing else, ever."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from commonweight.errors import UsageError
from commonweight.footprint.files import RECORD as FOOTPRINT_RECORD
from commonweight.place import is_leftover
from commonweight.studies.run_record import FORMAT, RECORD

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

FOOTPRINTS = "footprints"
TABLES = ("overlap.json", "overlap.md")


def check_outside(run: Path, used: Iterable[str | Path]) -> None:
    """Check that nothing the run reads lies in the folder that is thrown away.

    Args:
        run: The run folder.
        used: Models, data and checkpoints as the user gave them, and the current folder; ids that are no paths are
            passed over.

    Raises:
        UsageError: If one lies at or under the run folder.
    """
    place = run.resolve()
    for given in used:
        path = Path(given).expanduser()
        if path.exists() and path.resolve().is_relative_to(place):
            raise UsageError(f"--fresh throws away the run in {run}, and {given} lies in it; choose another run folder")


def throw_away(run: Path) -> None:
    """Delete the footprints and tables of a run; ``run.json`` stays until the new run replaces it.

    Args:
        run: The run folder, resolved.

    Raises:
        UsageError: If ``run.json`` is not of this package, or a link lies where a footprint should; nothing is deleted
            then.
    """
    if not (run / RECORD).is_file():
        return
    _check_ours(run)
    places = [*_places(run)]
    for place in [run / FOOTPRINTS, *(run / FOOTPRINTS).glob("*"), *places]:
        if place.is_symlink():
            raise UsageError(f"{place} is a link, and --fresh follows none; remove it, or choose another run folder")
    for place in places:
        shutil.rmtree(place)
    for name in TABLES:
        (run / name).unlink(missing_ok=True)
    for folder in [*(run / FOOTPRINTS).glob("*"), run / FOOTPRINTS]:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def remove_partial(run: Path) -> None:
    """Delete what killed measurements left in a run; only to be called while no other process works in it.

    Args:
        run: The run folder.
    """
    for place in _places(run):
        if _is_partial(place) and not place.is_symlink():
            shutil.rmtree(place, ignore_errors=True)
    for file in run.glob(".*.partial"):
        if is_leftover(file) and file.is_file():
            file.unlink()


def _check_ours(run: Path) -> None:
    file = run / RECORD
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        if (run / FOOTPRINTS).is_dir():
            return
        raise UsageError(
            f"{file} cannot be read and there is no folder {FOOTPRINTS} beside it, so it may not be a run of "
            f"commonweight; nothing was deleted ({error}). Choose another folder"
        ) from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise UsageError(f"{file} is not a {FORMAT} record; nothing was deleted. Choose another folder")


def _places(run: Path) -> Iterator[Path]:
    for depth in ("*", "*/*"):
        for place in (run / FOOTPRINTS).glob(depth):
            if place.is_dir() and (_is_partial(place) or (place / FOOTPRINT_RECORD).is_file()):
                yield place


def _is_partial(place: Path) -> bool:
    return place.name.startswith(".") and place.name.endswith(".partial")
