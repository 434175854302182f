"""The Python examples of the pages that have no test of their own run, page by page."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize("page", ["fisher.md", "supermasks.md"])
def test_the_examples_run(page):
    examples = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    assert examples
    names = {}
    for example in examples:
        exec(compile(example, f"docs/{page}", "exec"), names)
