"""Read one file of rows: TSV, CSV, JSONL or Parquet.

TSV is read without quoting: a tab ends a field, a line ends a row, and a quotation mark is a character like any other
(GLUE's files have stray ones). CSV follows the usual quoting. Only an empty field is missing: ``NA`` and ``null`` are
text. Text files are UTF-8.
"""

from __future__ import annotations

import codecs
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from commonweight.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

FILE_FORMATS = (".tsv", ".csv", ".jsonl", ".parquet")
SIGNS = {"comma": ",", "tab": "\t", "semicolon": ";", "bar": "|"}
SEPARATORS = {".csv": "comma", ".tsv": "tab"}
LARGEST_BLOCK = 1 << 30
"""Column types are inferred from the first block of a text file, so a block is the whole file up to this many bytes."""


def read_file(path: Path) -> Any:
    """Read a file into a ``datasets.Dataset`` held in memory.

    Args:
        path: The file; its suffix tells the format.

    Returns:
        The rows, in the order of the file.

    Raises:
        UsageError: If the suffix is unknown, or the file cannot be read, is not UTF-8, does not parse, or has two
            columns of one name.
    """
    import datasets
    import pyarrow as pa  # type: ignore[import-untyped,unused-ignore]
    from datasets.table import InMemoryTable

    suffix = path.suffix.lower()
    if suffix not in FILE_FORMATS:
        raise UsageError(f"cannot tell the format of {path}; the name must end in {', '.join(FILE_FORMATS)}")
    try:
        if suffix != ".parquet":
            _check_utf8(path)
            _check_separator(path, suffix)
        rows = _read_arrow(path, suffix)
        twice = [name for name, count in Counter(rows.column_names).items() if count > 1]
        if twice:
            raise UsageError(f"{path} has several columns called {twice[0]!r}; give each a name of its own")
        return datasets.Dataset(InMemoryTable(rows))
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"{path} is not a readable {suffix[1:].upper()} file: {error}") from error


def _read_arrow(path: Path, suffix: str) -> Any:
    from pyarrow import csv, json, parquet

    if suffix == ".parquet":
        return parquet.read_table(path)
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
