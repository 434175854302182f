"""The examples of docs/trust.md run."""

import re
from pathlib import Path

import torch

import commonweight

TEXT = (Path(__file__).parents[2] / "docs/trust.md").read_text(encoding="utf-8")


def test_examples_run(capsys):
    torch.manual_seed(0)
    space = {}
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        exec(compile(block, "docs/trust.md", "exec"), space)
    shown = capsys.readouterr().out
    assert "(95 %, 8 folds)" in shown
    assert space["table"].layers == ("weight", "bias")


def test_what_it_names_is_there():
    table = commonweight.overlaps.OverlapTable
    for name in ("estimate", "contrast", "ceiling", "corrected", "extrapolated", "null"):
        assert hasattr(table, name)
        assert name in TEXT
