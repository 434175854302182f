"""The README is short, its Python runs, and its numbers are those of the pages and results it stands on."""

import json
import re
from pathlib import Path

import pytest
from diagonal_fisher.zoo import ZOO

from commonweight.cli.main import group

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FINDINGS = (ROOT / "docs" / "findings.md").read_text(encoding="utf-8")
FISHER = (ROOT / "docs" / "fisher.md").read_text(encoding="utf-8")


def test_it_is_short():
    assert len(README.splitlines()) <= 120


def test_the_python_example_runs(capsys):
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len([line for line in example.splitlines() if line.strip()]) <= 12
    names = {}
    exec(compile(example, "README.md", "exec"), names)
    assert capsys.readouterr().out == names["table"].to_markdown() + "\n"
    assert 0 < names["table"].pooled[0, 1] < 1


def test_the_number_of_models_is_that_of_the_zoo():
    assert int(re.search(r"on\s(\d+)\ssmall\smodels", README).group(1)) == len(ZOO)


def test_the_table_of_commands_holds_every_command():
    listed = re.findall(r"^\| `commonweight ([\w-]+)", README, flags=re.MULTILINE)
    assert sorted(listed) == sorted(group.list_commands(None))


def test_it_has_three_findings():
    section = README.partition("## Three findings")[2].partition("\n## ")[0]
    assert len(re.findall(r"^- \*\*", section, flags=re.MULTILINE)) == 3


def test_the_finding_on_starts_is_in_the_committed_result():
    (value,) = re.findall(r"\*\*(\+\.\d+ ± \.\d+)\*\*", README)
    assert value in FINDINGS.partition("## Many tasks in one network")[2].partition("\n## ")[0]


def test_the_table_of_two_halves_is_the_committed_result():
    result = (ROOT / "reproductions" / "results" / "sst2_halves.md").read_text(encoding="utf-8")
    rows = [line for line in result.partition("**The footprints**")[0].splitlines() if line.startswith("|")]
    assert len(rows) > 10
    for row in rows:
        assert row in FINDINGS
    record = json.loads((ROOT / "reproductions" / "results" / "sst2_halves.json").read_text(encoding="utf-8"))
    shown = re.search(r"accuracies\son\sdev\s(\.\d+)\sand\s(\.\d+)", FINDINGS)
    for text, value in zip(shown.groups(), record["accuracy"].values(), strict=True):
        assert float(text) == pytest.approx(value, abs=5e-4)


def test_the_speed_table_is_the_committed_result():
    results = json.loads((ROOT / "benchmarks" / "results" / "fisher.json").read_text(encoding="utf-8"))
    header = next(line for line in FISHER.splitlines() if line.startswith("| case | asked of commonweight |"))
    contenders = [cell.strip() for cell in header.strip("|").split("|")][2:]
    assert contenders[0] == "commonweight"
    for name, case in results["time"].items():
        row = next(line for line in FISHER.splitlines() if line.startswith(f"| {name} |"))
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert cells[1] == f"{case['bound']:.2f}"
        for cell, contender in zip(cells[2:], contenders, strict=True):
            expected = f"{case['ratio'][contender]['median']:.2f}" if contender in case["ratio"] else "–"
            assert cell.strip("* ") == expected
