"""What the reproductions leave: a JSON of every number, and tables that are made from it alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from commonweight.base.text import to_markdown

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from commonweight.base.text import Block

RESULTS = Path(__file__).parent / "results"


def offer_tables(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tables", action="store_true", help="write the tables anew from the JSON; measure nothing")


def write_record(name: str, record: Any, indent: int | None = 1) -> None:
    separators = (",", ":") if indent is None else None
    text = json.dumps(record, indent=indent, separators=separators, ensure_ascii=False, allow_nan=False)
    (RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def read_record(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def write_tables(name: str, blocks: Sequence[Block]) -> None:
    """Write the tables, and print them."""
    markdown = to_markdown(list(blocks))
    (RESULTS / f"{name}.md").write_text(markdown, encoding="utf-8")
    print(markdown)
