"""The README's Python runs, and its tables are the ones that were measured."""

import json
import re
from pathlib import Path

import pytest
from diagonal_fisher.zoo import ZOO

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_python_examples_run(capsys):
    example, of_masks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    lines = [line for line in example.splitlines() if line.strip()]
    assert len(lines) <= 12
    names = {}
    exec(compile(example, "README.md", "exec"), names)
    assert capsys.readouterr().out == names["table"].to_markdown() + "\n"
    assert 0 < names["table"].pooled[0, 1] < 1
    exec(compile(of_masks, "README.md", "exec"), names)
    assert capsys.readouterr().out == names["masks"].to_markdown() + "\n"
    assert 0 < names["masks"].pooled[0, 1] < 1
    assert names["net"].tasks == ("0-identity", "1-permuted")


def test_the_number_of_models_is_that_of_the_zoo():
    assert int(re.search(r"on (\d+) small models", README).group(1)) == len(ZOO)


def test_the_table_is_the_committed_result():
    result = (ROOT / "reproductions" / "results" / "sst2_halves.md").read_text(encoding="utf-8")
    rows = [line for line in result.partition("**The footprints**")[0].splitlines() if line.startswith("|")]
    assert len(rows) > 10
    for row in rows:
        assert row in README
    record = json.loads((ROOT / "reproductions" / "results" / "sst2_halves.json").read_text(encoding="utf-8"))
    shown = re.search(r"accuracies on dev (\.\d+) and (\.\d+)", README)
    for text, value in zip(shown.groups(), record["accuracy"].values(), strict=True):
        assert float(text) == pytest.approx(value, abs=5e-4)


def test_the_speed_table_is_the_committed_result():
    results = json.loads((ROOT / "benchmarks" / "results" / "fisher.json").read_text(encoding="utf-8"))
    for name, case in results["time"].items():
        row = next(line for line in README.splitlines() if line.startswith(f"| {name} |"))
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert cells[1] == f"{case['bound']:.2f}"
        contenders = ["commonweight", "loop", "lean loop", "vmap", "opacus", "backpack", "nngeometry"]
        for cell, contender in zip(cells[2:], contenders, strict=True):
            expected = f"{case['ratio'][contender]['median']:.2f}" if contender in case["ratio"] else "–"
            assert cell.strip("* ") == expected
