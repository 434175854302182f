"""The examples of docs/fusion.md run, and what it says of defaults is so."""

import re
from pathlib import Path

from commonweight.cli.main import group
from commonweight.fusion import METHODS

TEXT = (Path(__file__).parents[2] / "docs" / "fusion.md").read_text(encoding="utf-8")


def test_the_python_runs():
    examples = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    assert len(examples) == 3
    names = {}
    for example in examples:
        exec(compile(example, "docs/fusion.md", "exec"), names)
    assert len(names["curve"]) == len(names["control"]) == 5


def test_every_method_and_normalization_is_described():
    for method in METHODS:
        assert f"| `{method}` |" in TEXT
    _, kind = METHODS["fisher"].parameters()["normalize"]
    assert all(f'"{normalize}"' in TEXT for normalize in kind.choices)
    assert f"{METHODS['fisher'].floor:g}".replace("e-0", "e-") in TEXT


def test_the_commands_are_such():
    options = {option for p in group.get_command(None, "fuse").params for option in p.opts}
    lines = [line for line in TEXT.splitlines() if line.startswith("commonweight fuse")]
    assert len(lines) == 5
    for line in lines:
        assert {word for word in line.split() if word.startswith("-")} <= options
    assert "`--dry-run`" in TEXT
    assert "--dry-run" in options
