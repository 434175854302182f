"""Rows in a file: TSV, CSV, JSON lines or Parquet, read into memory; of Parquet, only the rows that are wanted."""

from __future__ import annotations

import codecs
import csv
import functools
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from commonweight.base.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

FILE_FORMATS = (".tsv", ".csv", ".jsonl", ".parquet")

SIGNS = {"comma": ",", "tab": "\t", "semicolon": ";", "bar": "|"}

SEPARATORS = {".csv": "comma", ".tsv": "tab"}

LARGEST_BLOCK = 1 << 30
"""Column types are inferred from the first block of a text file, so a block is the whole file up to this many bytes."""


Choose = Callable[[int], Sequence[int]]
"""Which of so many rows are wanted, ascending."""


def read_file(path: Path) -> Any:
    """Read a file into a ``datasets.Dataset`` held in memory."""
    return read_rows(path, lambda total: range(total))[0]


def read_rows(path: Path, choose: Choose) -> tuple[Any, Sequence[int], int]:
    """Read the chosen rows of a file into memory; with their numbers, and how many rows the file has."""
    import datasets
    import pyarrow as pa  # type: ignore[import-untyped,unused-ignore]
    from datasets.table import InMemoryTable

    suffix = path.suffix.lower()
    if suffix not in FILE_FORMATS:
        raise UsageError(f"cannot tell the format of {path}; the name must end in {', '.join(FILE_FORMATS)}")
    try:
        if suffix == ".parquet":
            rows, chosen, total = _read_parquet(path, choose)
            rows.validate(full=True)  # text may be no UTF-8
            _check_names(path, rows)
            return datasets.Dataset(InMemoryTable(rows)), chosen, total
        _check_utf8(path)
        _check_separator(path, suffix)
        rows = _read_arrow(path, suffix)
        _check_names(path, rows)
        if suffix == ".csv":
            _check_quotes(path, rows)
        whole, total = datasets.Dataset(InMemoryTable(rows)), len(rows)
        chosen = choose(total)
        return whole if len(chosen) == total else whole.select(chosen), chosen, total
    except UsageError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:  # ValueError: of datasets, of columns it cannot take
        raise UsageError(
            f"{path} is not a readable {suffix[1:].upper()} file ({error}): correct it, or save it again"
        ) from error


def _check_names(path: Path, rows: Any) -> None:
    twice = [name for name, count in Counter(rows.column_names).items() if count > 1]
    if twice:
        raise UsageError(f"{path} has several columns called {twice[0]!r}; give each a name of its own")


def _read_parquet(path: Path, choose: Choose) -> tuple[Any, Sequence[int], int]:
    """Read the groups of rows that hold chosen ones, a batch at a time."""
    import pyarrow as pa
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        total = file.metadata.num_rows
        chosen = choose(total)
        if len(chosen) == total:
            return file.read(), chosen, total
        kept, start, waiting = [], 0, list(reversed(chosen))
        for group in range(file.num_row_groups):
            stop = start + file.metadata.row_group(group).num_rows
            if waiting and waiting[-1] < stop:
                for batch in file.iter_batches(row_groups=[group]):
                    here = []
                    while waiting and waiting[-1] < start + len(batch):
                        here.append(waiting.pop() - start)
                    if here:
                        kept.append(batch.take(pa.array(here)))
                    start += len(batch)
            start = stop
        return pa.Table.from_batches(kept, file.schema_arrow), chosen, total


def _read_arrow(path: Path, suffix: str) -> Any:
    from pyarrow import csv, json

    block = min(max(path.stat().st_size + 1, 1 << 20), LARGEST_BLOCK)
    if suffix == ".jsonl":
        return json.read_json(path, read_options=json.ReadOptions(block_size=block))
    quoting = {"delimiter": "\t", "quote_char": False} if suffix == ".tsv" else {"newlines_in_values": True}
    return csv.read_csv(
        path,
        read_options=csv.ReadOptions(block_size=block),
        parse_options=csv.ParseOptions(**quoting),
        convert_options=csv.ConvertOptions(null_values=[""], strings_can_be_null=True),
    )


def _check_separator(path: Path, suffix: str) -> None:
    """Refuse a file whose line of names has another separator than its ending says, and not that one."""
    expected = SEPARATORS.get(suffix)
    if expected is None:
        return
    with path.open(encoding="utf-8-sig") as stream:
        line = re.sub(r'"[^"]*"', "", stream.readline()) if suffix == ".csv" else stream.readline()
    found = next((name for name, sign in SIGNS.items() if sign in line and name != expected), None)
    if found is not None and SIGNS[expected] not in line:
        raise UsageError(
            f"the columns of {path} are separated by {found}s, expected {expected}s in a {suffix} file; "
            f"write it again with {expected}s"
            + (", or call it .tsv" if found == "tab" else ", or call it .csv" if found == "comma" else "")
        )


def _check_utf8(path: Path) -> None:
    decoder, before = codecs.getincrementaldecoder("utf-8")(), 0
    with path.open("rb") as stream:
        while True:
            part = stream.read(1 << 20)
            try:
                decoder.decode(part, final=not part)
            except UnicodeDecodeError as error:
                line = before + error.object[: error.start].count(b"\n") + 1
                raise UsageError(
                    f"line {line} of {path} is not UTF-8 ({error.reason}); expected UTF-8: convert the file, for "
                    "example with iconv -t UTF-8"
                ) from error
            if not part:
                return
            before += part.count(b"\n")


def _check_quotes(path: Path, rows: Any) -> None:
    """Refuse a CSV file in which a quote without its partner made one value of many rows."""
    import pyarrow as pa
    import pyarrow.compute as pc  # type: ignore[import-untyped,unused-ignore]

    known = functools.cache(lambda column: set(rows.column(column).cast("string").to_pylist()))
    numeric = [pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in rows.schema.types]
    for place, name in enumerate(rows.column_names):
        if not pa.types.is_string(rows.schema.types[place]) or rows.num_columns < 2:
            continue
        with_lines = pc.fill_null(pc.match_substring(rows[name], "\n"), False)
        for row in pc.indices_nonzero(with_lines).to_pylist():
            lines = rows[name][row].as_py().splitlines()
            parts = [
                (lines[0], place, rows.num_columns),
                *((line, 0, rows.num_columns) for line in lines[1:-1]),
                (lines[-1], 0, place + 1),
            ]
            found = [_is_part(*part, known, numeric, place) for part in parts if part[2] - part[1] > 1]
            if found and 2 * sum(found) > len(found):
                raise UsageError(
                    f"row {row} of {path} has {sum(found)} lines in its column {name!r} that look like rows "
                    "themselves, so a quote seems to lack its partner; double every quote inside a value, or save the "
                    "data as JSON lines or Parquet"
                )


def _is_part(
    line: str, first: int, stop: int, known: Callable[[int], set[str]], numeric: Sequence[bool], text: int
) -> bool:
    """Tell whether a line looks like some columns of a row: as many, numbers where these are, known words elsewhere."""
    try:
        cells = next(csv.reader([line]), [])
    except csv.Error:  # a cell of more than 131,072 characters
        return False
    if len(cells) != stop - first:
        return False
    for cell, column in zip(cells, range(first, stop), strict=True):
        if column == text:
            continue
        if numeric[column] and not _NUMBER.fullmatch(cell.strip()):
            return False
        if not numeric[column] and cell not in known(column):
            return False
    return True


_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
