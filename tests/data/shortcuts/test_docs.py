"""The page about shortcuts: its examples run, and its table is what the rules compute."""

import re
from pathlib import Path

from commonweight.data.shortcuts import RULES, agreement

PAGE = (Path(__file__).parents[3] / "docs" / "shortcuts.md").read_text(encoding="utf-8")


def test_the_examples_run(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    assert len(blocks) == 3
    names = {}
    for block in blocks:
        exec(compile(block, "shortcuts.md", "exec"), names)
    _, built, own = blocks
    said = re.search(r"# (10% of split .*)", built).group(1)
    assert said in capsys.readouterr().out
    assert len(names["unshared"]) == len(names["data"]["original_dev"]) == 100
    rule = own.partition("class ")[2].partition("\n\n\nmine")[0]
    assert len([line for line in rule.splitlines() if line.strip()]) <= 10
    assert set(names["mine"]["synthetic_dev"]["shortcut"]) == {"cf"}


def test_the_table_is_what_the_rules_compute():
    rows = [line.strip("| ").split(" | ") for line in PAGE.splitlines() if re.match(r"\| `\w+` \|", line)]
    assert [row[0].strip("`") for row in rows] == list(RULES)
    for code, _, _, one, constant, reads, lone in rows:
        rule = RULES[code.strip("`")]
        shares = agreement(rule, RULES["st"])
        assert one == shown(rule.probability(1), 4)
        assert constant == shown(rule.chance, 4)
        assert reads.split(" / ") == [shown(share, 3) for share in (shares.same, shares.opposite, shares.silent)]
        assert lone == ("yes" if rule.reads_lone_marker else "no")


def shown(value, decimals):
    return f"{value:.{decimals}f}".removeprefix("0")
