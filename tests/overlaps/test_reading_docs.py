"""The examples of docs/reading.md run."""

import re
from pathlib import Path

import torch

import commonweight
from commonweight.verdicts import NEEDS

TEXT = (Path(__file__).parents[2] / "docs/reading.md").read_text(encoding="utf-8")


def test_examples_run(capsys):
    torch.manual_seed(0)
    space = {}
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert len(blocks) == 8
    for block in blocks:
        exec(compile(block, "docs/reading.md", "exec"), space)
        if block.startswith("import torch"):
            assert "(95 %, 8 folds)" in capsys.readouterr().out
        elif "layers=(" in block:
            assert space["verdict"].answer == "inconclusive"
            assert "shared initialisation" in [finding.code for finding in space["verdict"].lacking]
        elif "verdict =" in block:
            assert [finding.code for finding in space["verdict"].lacking] == ["shared initialisation"]
        elif "for count in" in block:
            raw, corrected = (space["table"].estimate(of, "once", "again") for of in ("raw", "corrected"))
            assert raw.high < 1
            assert corrected.low < 1 < corrected.high
        elif "apart =" in block:
            of = {pair: space["table"].estimate("above_null", *pair) for pair in (("a", "b"), ("c", "d"))}
            assert of["a", "b"].low < 0 < of["a", "b"].high
            assert of["c", "d"].low > 0
            assert space["table"].shared_initialisation("a", "b") == "no shared initialisation"
            assert space["table"].shared_initialisation("c", "d") == "shared initialisation"
        elif "def planted" in block:
            table = space["table"]
            assert table.contrast(("a/task", "b/task"), ("a/a", "b/b")).low > 0.1
            itself = table.contrast(("a/a", "a/b"), ("a/a", "b/b"))
            assert itself.low < 0 < itself.high


def test_it_lists_what_verdicts_take_in_the_order_in_which_it_is_asked():
    table = re.search(r"\| need \|.*?\n\n", TEXT, re.DOTALL)
    assert table is not None
    listed = [tuple(line.strip("| ").split(" | ")) for line in table[0].strip().splitlines()[2:]]
    assert listed == [(need.code, need.demand, need.contrast, need.single) for need in NEEDS]


def test_what_it_names_is_there():
    table = commonweight.OverlapTable
    for name in ("estimate", "contrast", "noise_ceiling", "corrected", "null"):
        assert hasattr(table, name)
        assert name in TEXT
