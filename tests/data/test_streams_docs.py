"""The page about streams: its examples run and say what is said."""

import re
from pathlib import Path

from commonweight import open_images
from commonweight.data.images import SCENARIOS

PAGE = (Path(__file__).parents[2] / "docs" / "streams.md").read_text(encoding="utf-8")


def test_the_examples_run(capsys):
    blocks = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    assert len(blocks) == 2
    names = {}
    for block in blocks:
        exec(compile(block, "streams.md", "exec"), names)
        said = re.search(r"print\(\w+\.names\)  # (.*)", block).group(1)
        assert capsys.readouterr().out.strip() == said
    assert tuple(names["task"].train.inputs.shape) == (1442, 1, 8, 8)
    assert names["stream"].truth().shape == (5, 5)
    assert names["mine"][2].train.inputs.max() == 0.5


def test_the_tables_name_what_there_is():
    images = open_images("digits")
    assert f"{len(images.train)} and {len(images.test)}" in PAGE
    found = dict(re.findall(r"^\| `(\w+)` \| `(\w+)` \|", PAGE, flags=re.MULTILINE))
    assert found == {name: made.__name__ for name, made in SCENARIOS.items()}
