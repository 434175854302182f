"""The examples of additions run, one after the other; they register things, so in a process of their own."""

import re
import subprocess
import sys
from pathlib import Path

TEXT = (Path(__file__).parents[1] / "docs/how-to/extend.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (Add .*?)\n(.*?)(?=^## |\Z)", TEXT, flags=re.DOTALL | re.MULTILINE))


def blocks(text):
    return re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)


def run(program):
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)


def test_every_example_runs_and_checks_itself():
    assert SECTIONS
    assert sum(len(blocks(text)) for text in SECTIONS.values()) == len(blocks(TEXT))
    assert all("assert " in "".join(blocks(text)) for text in SECTIONS.values())
    done = run("\n\n".join(blocks(TEXT)))
    assert done.returncode == 0, done.stderr


def test_what_is_added_takes_about_ten_lines():
    for title, text in SECTIONS.items():
        lines = [line for line in blocks(text)[0].splitlines() if line.strip() and "import" not in line]
        assert len(lines) <= 12, title


def test_a_method_is_an_option_of_the_command_too():
    added = blocks(SECTIONS["Add a fusion method"])[0]
    shown = run(f"{added}\nfrom commonweight.cli.main import run\nrun(['fuse', '--help'])").stdout
    assert "--limit X" in shown
    assert "|limited]" in shown
