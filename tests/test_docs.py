"""The pages: their examples run, their links lead somewhere, and their lines are short enough to read."""

import importlib.util
import re
import unicodedata
from pathlib import Path

import pytest
import torch

import commonweight
from commonweight import integrations
from commonweight.cli.main import group
from commonweight.diagonal_fisher import RULES
from commonweight.verdicts import NEEDS

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("[!_]*.md")),
    *sorted((ROOT / "docs").glob("[!_]*/**/*.md")),
]
LONGEST = 120


def text_of(name):
    return (ROOT / name).read_text(encoding="utf-8")


def blocks_of(text):
    return re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)


def run(page, examples, names=None):
    names = {} if names is None else names
    for example in examples:
        exec(compile(example, page, "exec"), names)
    return names


def prose(text):
    """Lines that are read as sentences: no code, tables, images or headings."""
    outside = re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE)
    return [line for line in outside.splitlines() if not re.match(r"\s*\||!\[|#|<!--|    ", line)]


def anchors(text):
    """The anchors of a page's headings, as GitHub makes them."""
    for heading in re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE):
        plain = re.sub(r"\[(.*?)\]\(.*?\)", r"\1", heading).lower()
        kept = "".join(c for c in plain if c in "-_ " or unicodedata.category(c)[0] in "LN")
        yield kept.strip().replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_line_of_prose_is_long(page):
    lines = [re.sub(r"\]\(.*?\)", "]", line) for line in prose(page.read_text(encoding="utf-8"))]
    assert [line for line in lines if len(line) > LONGEST] == []


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith("http"):
            continue
        name, _, anchor = target.partition("#")
        found = (page.parent / name).resolve() if name else page
        assert found.exists(), target
        if anchor:
            assert anchor in set(anchors(found.read_text(encoding="utf-8"))), target


def test_the_examples_of_the_diagonal_fisher_run(capsys):
    torch.manual_seed(0)
    run("docs/fisher.md", blocks_of(text_of("docs/fisher.md")))
    assert "(95 %, 8 folds)" in capsys.readouterr().out


def test_the_examples_of_supermasks_run():
    run("docs/supermasks.md", blocks_of(text_of("docs/supermasks.md")))


def test_the_examples_of_integrations_run(capsys):
    names = run("docs/integrations.md", blocks_of(text_of("docs/integrations.md")))
    said = capsys.readouterr().out
    logged = [entry for entry in names["trainer"].state.log_history if "fisher_overlap" in entry]
    assert [entry["step"] for entry in logged] == [0, 10, 20]
    assert "the second task moved the weights at a price of" in said
    assert "20 {'raw/pooled/first/second': " in said
    assert set(re.findall(r"`(\w+)`", text_of("docs/integrations.md"))) >= set(integrations.__all__)


def test_the_page_of_findings_runs(capsys):
    (example,) = blocks_of(text_of("docs/findings.md"))
    names = run("docs/findings.md", [example])
    assert capsys.readouterr().out == names["masks"].to_markdown() + "\n"
    assert 0 < names["masks"].pooled[0, 1] < 1
    assert names["net"].tasks == ("0-identity", "1-permuted")


def test_how_to_read_a_table_runs(capsys):
    (example,) = blocks_of(text_of("docs/read-a-table.md"))
    names = run("docs/read-a-table.md", [example])
    said = capsys.readouterr().out
    assert "corrected" in said
    assert "noise ceiling" in said
    verdict = names["table"].verdict(("films", "food"))
    assert said.splitlines()[-1] == str(verdict)
    for name in ("pooled", "layer_mean", "by_layer", "roll_up", "noise_ceiling", "null", "estimate", "to_frame"):
        assert hasattr(names["table"], name)
        assert f"`table.{name}" in text_of("docs/read-a-table.md")


def test_how_to_read_a_table_is_one_screen():
    assert len(text_of("docs/read-a-table.md").splitlines()) <= 60


def test_the_examples_of_the_method_run(capsys):
    torch.manual_seed(0)
    numbers, layers, pairs, own = blocks_of(text_of("docs/method.md"))
    names = run("docs/method.md", [numbers])
    assert "(95 %, 8 folds)" in capsys.readouterr().out
    run("docs/method.md", [layers], names)
    assert "shared initialisation" in [finding.code for finding in names["verdict"].lacking]
    run("docs/method.md", [pairs], names)
    assert [finding.code for finding in names["verdict"].lacking] == ["shared initialisation"]
    run("docs/method.md", [own], names)


def test_the_method_lists_what_verdicts_take_in_the_order_in_which_it_is_asked():
    table = re.search(r"\| need \|.*?\n\n", text_of("docs/method.md"), re.DOTALL)
    assert table is not None
    listed = [tuple(line.strip("| ").split(" | ")) for line in table[0].strip().splitlines()[2:]]
    assert listed == [(need.code, need.demand, need.contrast, need.single) for need in NEEDS]


def test_the_three_wrong_conclusions_run():
    torch.manual_seed(0)
    network, more_rows, apart, planted = blocks_of(text_of("docs/evidence.md"))
    names = run("docs/evidence.md", [network, more_rows])
    raw, corrected = (names["table"].estimate(of, "once", "again") for of in ("raw", "corrected"))
    assert raw.high < 1
    assert corrected.low < 1 < corrected.high
    table = run("docs/evidence.md", [apart], names)["table"]
    strangers, siblings = (table.estimate("above_null", *pair) for pair in (("a", "b"), ("c", "d")))
    assert strangers.low < 0 < strangers.high
    assert siblings.low > 0
    assert table.shared_initialisation("a", "b") == "no shared initialisation"
    assert table.shared_initialisation("c", "d") == "shared initialisation"
    table = run("docs/evidence.md", [planted], names)["table"]
    assert table.contrast(("a/task", "b/task"), ("a/a", "b/b")).low > 0.1
    itself = table.contrast(("a/a", "a/b"), ("a/a", "b/b"))
    assert itself.low < 0 < itself.high


def test_the_build_counts_every_page_with_code_cells():
    executed = [page for page in PAGES if "```{code-cell}" in page.read_text(encoding="utf-8")]
    (counted,) = re.findall(r"^EXECUTED = (\d+)$", text_of("docs/conf.py"), flags=re.MULTILINE)
    assert len(executed) == int(counted)


def test_the_generated_pages_hold_every_layer_command_and_public_name():
    spec = importlib.util.spec_from_file_location("generated", ROOT / "docs" / "generated.py")
    generated = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generated)
    layers, commands, api = ("\n".join(page()) for page in (generated.layers, generated.commands, generated.api))
    assert layers.count("\n") == len(RULES) + 1
    assert "| `torch.nn.Linear` | `weight`, `bias` |" in layers
    assert [name for name in group.list_commands(None) if f"## commonweight {name}" not in commands] == []
    assert [name for name in commonweight.__all__ if f":: commonweight.{name}\n" not in api] == []


def test_the_pages_that_the_package_names_are_there():
    named = {
        page
        for path in (ROOT / "src").rglob("*.py")
        for page in re.findall(r"docs/[\w-]+\.md", path.read_text(encoding="utf-8"))
    }
    assert named
    assert [page for page in sorted(named) if not (ROOT / page).exists()] == []


def test_every_page_is_part_of_the_site():
    """Or make docs stops at its end, where warnings are errors."""
    index = text_of("docs/index.md")
    listed = {line for block in re.findall(r"```{toctree}\n(.*?)```", index, flags=re.DOTALL) for line in block.split()}
    pages = {str(page.relative_to(ROOT / "docs").with_suffix("")) for page in (ROOT / "docs").rglob("*.md")}
    pages = {page for page in pages if not page.startswith("_")}
    assert pages - {"index"} <= listed
