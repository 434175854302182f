"""Open a data set: a file, a ``save_to_disk`` folder, or a Hugging Face id, with an identity that can be recorded.

Every row keeps its number in the data set, its *source row*: folds and random labels are keyed by it, so that choosing
fewer rows or another order changes no row's part in the measurement. A column ``source_row`` of whole numbers says it
where rows were made from those of another data set, so that both fall into the same folds.
"""

from __future__ import annotations

import functools
import hashlib
import heapq
import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from commonweight.base.errors import IntegrityError, UsageError
from commonweight.base.names import among, nearby
from commonweight.base.records import json_file
from commonweight.data.files import FILE_FORMATS, read_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from commonweight.data.files import Choose


SOURCE_ROW = "source_row"
SAVE_AGAIN = "save the data set again"

HUB_ID = re.compile(r"(?P<id>[\w.-]+(?:/[\w.-]+)?)(?::(?P<config>[^@\s]+))?(?:@(?P<revision>[^\s]+))?")


@dataclass(frozen=True)
class Table:
    """Rows of a data set and where they come from."""

    name: str
    """A short name: the file's stem, the folder's or the data set's last name."""

    rows: Any
    """The chosen rows, a ``datasets.Dataset``."""

    source_rows: Sequence[int]
    """Each row's number in the data set it comes from."""

    identity: dict[str, Any]
    """Where the rows come from and which they are: plain JSON values, equal exactly if the data are."""

    seed: int = 0
    """Names the order in which a choice of rows takes them."""

    def __len__(self) -> int:
        return len(self.source_rows)

    @cached_property
    def is_numbered(self) -> bool:
        """Whether the source rows stand in a column of that name; else they are places in the data set."""
        return SOURCE_ROW in self.rows.column_names

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(self.rows.column_names)

    @cached_property
    def order(self) -> list[int]:
        """Places of the rows, in the order in which a growing choice takes them."""
        numbers = self._numbers
        return sorted(range(len(self)), key=lambda place: _drawn(numbers[place], self.seed))

    def taken(self, places: Sequence[int]) -> Table:
        """Take some of the rows: the first of :attr:`order` are those that so many examples would be."""
        places = sorted(places)
        selection = {"seed": self.seed, "rows": [self._numbers[place] for place in places]}
        return Table(
            self.name,
            self.rows.select(places),
            [self.source_rows[place] for place in places],
            self.identity | {"rows_used": len(places), "selection": selection},
            self.seed,
        )

    @property
    def _numbers(self) -> Sequence[int]:
        """Numbers of the rows in the whole data set."""
        selection = self.identity["selection"]
        return range(len(self)) if selection == "all" else selection["rows"]

    def column(self, name: str) -> list[Any]:
        """Read one column."""
        if name not in self.columns:
            raise UsageError(f"no column {name!r} in {self.name}; {among(name, self.columns)}")
        return list(self.rows[name])


def open_table(data: str, *, split: str | None = None, examples: int | None = None, seed: int = 0) -> Table:
    """Open a data set and choose its rows."""
    path = Path(data).expanduser()
    choose = functools.partial(_chosen, data, examples, seed)
    if path.is_file():
        rows, chosen, total, identity = _from_file(path, split, choose)
    elif path.is_dir():
        rows, chosen, total, identity = _from_whole(*_from_folder(path, split), choose)
    elif (close := nearby(data)) is not None or _looks_like_a_path(data):
        meant = "." if close is None else f"; did you mean {close!r}?"
        raise UsageError(
            f"no file or folder {data!r}{meant} Give an existing one, or a Hugging Face id such as 'org/name' "
            "(with a revision, org/name@main, where a local name is much like it)"
        )
    else:
        rows, chosen, total, identity = _from_whole(*_from_hub(data, split), choose)
    selection = "all" if examples is None else {"seed": seed, "rows": chosen}
    identity |= {"rows_in_all": total, "rows_used": len(chosen), "selection": selection}
    if SOURCE_ROW in rows.column_names:
        _check_source_rows(data, rows[SOURCE_ROW], chosen)
        return Table(table_name(data), rows, list(rows[SOURCE_ROW]), identity, seed)
    return Table(table_name(data), rows, chosen, identity, seed)


def _chosen(data: str, examples: int | None, seed: int, total: int) -> Sequence[int]:
    """Choose rows out of so many."""
    if total == 0:
        raise UsageError(f"{data} has no rows; an overlap needs at least one example")
    if examples is None:
        return range(total)
    if not 1 <= examples <= total:
        raise UsageError(
            f"{{argument}} must lie in 1..{total}, the rows of {data}; got {examples}", argument="examples"
        )
    return choose_rows(total, examples, seed)


def _check_source_rows(data: str, written: Iterable[Any], numbers: Iterable[int]) -> None:
    for number, row in zip(numbers, written, strict=True):
        if isinstance(row, bool) or not isinstance(row, int) or row < 0:
            raise UsageError(
                f"row {number} of {data} has {row!r} in the column {SOURCE_ROW}, expected a whole number from 0: folds "
                "go by it; correct the row, or give the column another name"
            )


def choose_rows(total: int, count: int, seed: int) -> list[int]:
    """Choose rows by the smallest keyed hashes: the same on every machine, and nested for growing counts.

    Args:
        total: How many rows there are.
        count: How many to take, at most ``total``.
        seed: Names the choice.

    Returns:
        Row numbers, ascending.

    Example:
        >>> choose_rows(10, 3, seed=0), choose_rows(10, 4, seed=0)
        ([4, 5, 9], [2, 4, 5, 9])
    """
    return sorted(heapq.nsmallest(count, range(total), key=lambda row: _drawn(row, seed)))


def _drawn(row: int, seed: int) -> bytes:
    return hashlib.blake2b(f"commonweight examples {seed} {row}".encode(), digest_size=8).digest()


def table_name(data: str) -> str:
    """Name a data set for tables.

    Args:
        data: As for :func:`open_table`.

    Returns:
        The file's stem, the folder's name, or the last part of the id.

    Example:
        >>> table_name("films.tsv"), table_name("org/reviews:small@v1.0")
        ('films', 'reviews')
    """
    path = Path(data).expanduser()
    if path.is_dir():
        return path.resolve().name
    if path.suffix.lower() in FILE_FORMATS:
        return path.stem
    match = HUB_ID.fullmatch(data)
    return (match["id"] if match else data).rpartition("/")[2]


def _from_file(path: Path, split: str | None, choose: Choose) -> tuple[Any, Sequence[int], int, dict[str, Any]]:
    if split is not None:
        raise UsageError(f"{path} is one file and has no splits; leave {{split}} out", split=split)
    try:
        with path.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    return *read_rows(path, choose), {"source": "file", "path": str(path), "sha256": sha256}


def _from_whole(rows: Any, identity: dict[str, Any], choose: Choose) -> tuple[Any, Sequence[int], int, dict[str, Any]]:
    total = len(rows)
    chosen = choose(total)
    return rows if chosen == range(total) else rows.select(chosen), chosen, total, identity


def _from_folder(path: Path, split: str | None) -> tuple[Any, dict[str, Any]]:
    import datasets

    if not (path / "state.json").is_file() and not (path / "dataset_dict.json").is_file():
        raise UsageError(
            f"{path} is a folder but not a saved data set (no state.json or dataset_dict.json); give a folder written "
            f"by Dataset.save_to_disk, or a file ending in {', '.join(FILE_FORMATS)}"
        )
    try:
        found = datasets.load_from_disk(str(path))
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"the saved data set in {path} cannot be read: {error}") from error
    if isinstance(found, datasets.DatasetDict):
        split = _pick_split(str(path), split, list(found))
        rows = found[split]
    else:
        if split is not None:
            raise UsageError(f"{path} holds a single split; leave {{split}} out", split=split)
        rows = found
    digest = hashlib.sha256()
    for arrow in sorted((path / split if split else path).glob("*.arrow")):
        with arrow.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    place = path / split if split else path
    state = json_file(place / "state.json", SAVE_AGAIN)
    if not isinstance(state, dict) or "_data_files" not in state:
        raise IntegrityError(f"{place / 'state.json'} names no _data_files; {SAVE_AGAIN}")
    parts = state["_data_files"]
    layout = json.dumps([parts, rows.features.to_dict()], sort_keys=True)  # order of the files; types and class names
    return rows, {
        "source": "folder",
        "path": str(path),
        "split": split,
        "sha256": digest.hexdigest(),
        "layout": hashlib.sha256(layout.encode()).hexdigest(),
    }


def _from_hub(data: str, split: str | None) -> tuple[Any, dict[str, Any]]:
    import datasets

    match = HUB_ID.fullmatch(data)
    if match is None:
        raise UsageError(
            f"{data!r} is neither an existing file or folder nor an id of the form org/name:config@revision"
        )
    name, config, revision = match["id"], match["config"], match["revision"]
    try:
        split = _pick_split(data, split, datasets.get_dataset_split_names(name, config, revision=revision))
        rows = datasets.load_dataset(name, config, split=split, revision=revision)
    except UsageError:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"{data!r} is no local file or folder, and as a Hugging Face data set it could not be loaded: {error}. "
            "Check the spelling and the network, or give a file"
        ) from error
    commits = {found[1] for url in rows.info.download_checksums or {} if (found := re.search(r"@([0-9a-f]{40})", url))}
    return rows, {
        "source": "hub",
        "id": name,
        "config": rows.info.config_name,
        "revision": revision,
        "commit": commits.pop() if len(commits) == 1 else None,
        "split": split,
        "fingerprint": rows._fingerprint,
    }


def _pick_split(data: str, split: str | None, splits: list[str]) -> str:
    if split is None:
        if len(splits) == 1:
            return splits[0]
        raise UsageError(f"{data} has the splits {', '.join(splits)}; choose one with {{split}}", split=None)
    if split not in splits:
        raise UsageError(f"no split {split!r} in {data}; {among(split, splits)}")
    return split


def _looks_like_a_path(data: str) -> bool:
    return data.startswith((".", "/", "~")) or data.count("/") > 1 or Path(data).suffix.lower() in FILE_FORMATS
