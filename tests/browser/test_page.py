"""The report as a person meets it: in a browser, from a file, by mouse, by keyboard and by screen reader."""

import csv
import io
import json
from pathlib import Path

import pytest
import torch
from report.pages import bare, evil_page, folded, masks, page_of
from safetensors.torch import save_file

from commonweight.base.text import number, printable
from commonweight.cli.main import run as run_command
from commonweight.report.files import new_figure, write_figures
from commonweight.report.html import Picture, render
from commonweight.verdicts.words import SHORT

AXE_RUN = """() => axe.run(document, {runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22a", "wcag22aa"]})
  .then((found) => found.violations.map((each) => [each.id, each.nodes.map((node) => node.html.slice(0, 200))]))"""


@pytest.fixture(scope="module")
def table():
    return folded()


@pytest.fixture
def page(table, tmp_path):
    figure = new_figure(3, 2)
    figure.subplots().plot([1, 2], [2, 1])
    (drawing,) = write_figures([("figure", figure)], tmp_path, forms=["svg"])
    return page_of(table, pictures=[Picture("A line", drawing)])


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_violates_wcag(show, axe, page, scheme, width):
    tab = show(page, scheme=scheme, width=width, bypass=True)  # the policy would refuse axe, too
    tab.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    tab.evaluate(axe)
    assert tab.evaluate(AXE_RUN) == []
    assert tab.evaluate("document.documentElement.scrollWidth") <= width


def test_dark_and_light_differ_and_figures_follow(show, page):
    def inks(scheme):
        tab = show(page, scheme=scheme)
        get = "(name) => getComputedStyle(document.querySelector(name)).{}"
        return tab.evaluate(get.format("backgroundColor"), "body"), tab.evaluate(get.format("color"), ".drawing svg")

    light, dark = inks("light"), inks("dark")
    assert light[0] != dark[0]
    assert light[1] != dark[1]


def test_scripts_and_styles_of_others_are_refused(show, page):
    text = render(page)
    added = text.replace("</main>", "<script>window.taken = 1</script><p id='p' style='color: red'>x</p></main>")
    assert added != text
    tab = show(added, listen=False)  # refusals are told on the console
    tab.evaluate(
        "(s => { s.textContent = 'window.taken = 2'; document.body.append(s); })(document.createElement('script'))"
    )
    tab.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.taken = 3\">')")
    assert tab.evaluate("window.taken") is None
    assert tab.evaluate("getComputedStyle(document.getElementById('p')).color") != "rgb(255, 0, 0)"
    assert tab.evaluate("fetch('data:,x').then(() => 'sent', () => 'refused')") == "refused"


def test_names_run_nothing_and_are_shown_as_they_are(show):
    page = evil_page()
    tab = show(page)
    assert tab.locator("h1").text_content() == printable(page.answer.question)
    assert tab.locator("#map tbody th").first.text_content() == page.overlaps[0].tables[0].names[0]
    assert tab.evaluate("document.querySelectorAll('img').length") == 0


def test_from_heat_map_to_layer_curve_by_keyboard(show, table, page):
    tab = show(page)
    tab.locator("#map td[tabindex='0']").focus()
    tab.keyboard.press("ArrowDown")
    tab.keyboard.press("ArrowRight")
    assert "model 1 and model 2" in tab.locator("#readout").text_content()
    tab.keyboard.press("Enter")
    assert tab.locator("#depth-title").text_content() == "Layer by layer: model 1 and model 2"
    assert "The layer curve and the network show model 1 and model 2." in tab.locator("#curve-readout").text_content()
    label = tab.locator("#curve > svg").get_attribute("aria-label")
    assert "of model 1 and model 2 in 3 modules" in label
    assert tab.locator("#map td[aria-selected='true']").count() == 2
    assert tab.locator("#curve .dot").count() == 3 + 2  # and two in the legend
    for _ in range(8):
        tab.keyboard.press("Tab")
        if tab.evaluate("document.activeElement.matches('#tree tbody tr')"):
            break
    while not tab.evaluate("document.activeElement.matches('#tree tbody tr')"):
        tab.keyboard.press("Tab")
    tab.keyboard.press("End")
    tab.keyboard.press("Enter")
    assert tab.locator("#module").input_value() == "4"
    estimate = table.estimate("corrected", "model 1", "model 2", "head")
    assert number(estimate.value, 3) in tab.locator("#readout").text_content()


def test_numbers_are_those_of_the_run(show, table, page):
    tab = show(page)
    rows = tab.locator("#tree tbody tr").all()
    found = {row.locator("td").first.get_attribute("title"): row.locator("td").all_text_contents() for row in rows}
    for name, cells in found.items():
        depth = None if name == "whole network" else name.count(".") + 1
        of, layer = (table, None) if depth is None else (table.roll_up(depth), name)
        estimate = of.estimate("corrected", "model 0", "model 1", layer)
        assert cells[1] == number(estimate.value, 3)
        assert cells[2] == f"[{number(estimate.low, 3)}, {number(estimate.high, 3)}]"
        assert cells[-1] == of.verdict(("model 0", "model 1"), layer=layer).short.partition(" (")[0]
    tab.select_option("#quantity", label="raw overlap")
    cell = tab.locator("#map tbody tr").nth(0).locator("td").nth(2)
    assert cell.text_content() == number(float(table.pooled[0, 2]), 2)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of two small networks on rows of numbers."""
    place = tmp_path_factory.mktemp("reported")
    (place / "reported.py").write_text(
        "from torch import nn\n\n\ndef net():\n    return nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 2))\n"
    )
    for seed, name in enumerate("ab"):
        torch.manual_seed(seed)
        layers = {"0": torch.nn.Linear(3, 6), "2": torch.nn.Linear(6, 2)}
        save_file(torch.nn.ModuleDict(layers).state_dict(), place / f"{name}.safetensors")
    rows = [",".join(f"{value:.3f}" for value in row) for row in torch.randn(64, 3).tolist()]
    table = [f"{row},{number % 2}" for number, row in enumerate(rows)]
    (place / "rows.csv").write_text("\n".join(["u,v,w,label", *table]) + "\n")
    command = ["compare", "a=reported:net", "b=reported:net", "--checkpoint", "a.safetensors"]
    command += ["--checkpoint", "b.safetensors", "--data", "rows.csv", "-o", "run", "-q"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.syspath_prepend(place)
        assert run_command([*command, *(word for column in "uvw" for word in ("--input-column", column))]) == 0
    return place / "run"


def test_numbers_are_those_in_the_files_of_the_run(show, run):
    tab = show((run / "report.html").read_text(encoding="utf-8"))
    study, record = (json.loads((run / name).read_text()) for name in ("study.json", "run.json"))
    records = [dict(zip(study["records"]["columns"], row, strict=True)) for row in study["records"]["rows"]]
    pair = tuple(study["names"])
    corrected = {
        each["name"]: each
        for each in records
        if (each["a"], each["b"], each["quantity"]) == (*pair, "corrected") and each["level"] in {"pooled", "layer"}
    }
    verdicts = {each["layer"] or "": each["answer"] for each in study["verdicts"]}
    shown = [row.locator("td").all_text_contents() for row in tab.locator("#tree tbody tr").all()]
    assert [name.lstrip("▾") for name, *_ in shown] == ["whole network", "0", "2"]
    for layer, (_, overlap, interval, *_, verdict) in zip(("", "0", "2"), shown, strict=True):
        ends = [float(end) for end in interval.strip("[]").split(", ")]
        wanted = [corrected[layer][end] for end in ("value", "low", "high")]
        assert [float(overlap), *ends] == pytest.approx(wanted, abs=6e-4)
        assert verdict == SHORT[verdicts[layer]]
    origin = dict(
        zip(*(tab.locator(f"#origin {part}").all_text_contents() for part in ("dt", "dd")), strict=True),
    )
    assert record["versions"].items() <= origin.items()
    assert int(origin["folds"]) == record["asked"]["settings"]["folds"] == study["folds"]["count"]
    assert origin["state"] == record["status"]


def test_inconclusive_cells_are_hatched(show, table, page):
    tab = show(page)
    for module, name in enumerate(tab.locator("#module option").all_text_contents()):
        tab.select_option("#module", str(module))
        hatched = tab.locator("#map td.hatched").count() // 2
        cells = tab.locator("#map td[role='gridcell']").evaluate_all("(all) => all.map((each) => each.ariaLabel || '')")
        assert hatched * 2 == sum("inconclusive" in label for label in cells), name


def test_the_network_folds_sorts_and_is_searched(show, page):
    tab = show(page)
    assert tab.locator("#tree tbody tr").count() == 5
    body = tab.locator("#tree tbody tr").nth(1)
    body.focus()
    tab.keyboard.press("ArrowLeft")
    assert tab.locator("#tree tbody tr").count() == 3
    assert tab.locator("#tree tbody tr").nth(1).get_attribute("aria-expanded") == "false"
    tab.keyboard.press("ArrowRight")
    tab.locator("#tree thead button").nth(1).click()
    assert tab.locator("#tree thead th").nth(1).get_attribute("aria-sort") == "descending"
    shown = [float(cell.lstrip("<>")) for cell in tab.locator("#tree tbody td:nth-child(2)").all_text_contents()]
    assert shown == sorted(shown, reverse=True)
    assert len(shown) == 3
    tab.fill("#find", "BODY.1")
    assert tab.locator("#tree tbody tr").count() == 1
    assert tab.locator("#tree-readout").text_content() == "1 of 5 modules"


def test_csv_has_every_module(show, table, page):
    tab = show(page)
    with tab.expect_download() as waiting:
        tab.click("#download")
    rows = [*csv.reader(io.StringIO(Path(waiting.value.path()).read_text(encoding="utf-8")))]
    assert rows[0][:4] == [
        "module",
        "overlap, noise taken out",
        "overlap, noise taken out, low",
        "overlap, noise taken out, high",
    ]
    assert [row[0] for row in rows[1:]] == ["whole network", "body", "body.0", "body.1", "head"]
    assert float(rows[-1][1]) == pytest.approx(
        table.estimate("corrected", "model 0", "model 1", "head").value, rel=1e-3
    )


@pytest.mark.parametrize(("count", "layers"), [(2, 1), (2, 400), (40, 8), (40, 400)])
def test_large_runs_load_in_a_second_and_stay_small(show, count, layers):
    tab = show(bare(masks(count, layers)))
    assert tab.locator("#map td[role='gridcell']").count() == count * (count + 1)
    took = []
    for _ in range(3):  # other processes may take the cores meanwhile
        tab.reload()
        took.append(tab.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd"))
    assert 0 < min(took) < 1000
    data = tab.evaluate("document.getElementById('data').textContent.length")
    assert data < 2_000_000


def test_it_prints_without_controls(show, page):
    tab = show(page)
    tab.emulate_media(media="print")
    assert not tab.locator("#controls").is_visible()
    assert tab.locator("#map table").is_visible()


def test_without_script_it_says_where_the_numbers_are(chromium, page, tmp_path):
    place = tmp_path / "report.html"
    place.write_text(render(page), encoding="utf-8")
    context = chromium.new_context(java_script_enabled=False, offline=True)
    tab = context.new_page()
    tab.goto(place.as_uri())
    assert "Every number is also in the tables below" in tab.locator("noscript").inner_text()
    assert not tab.locator("#overlap").is_visible()
    context.close()
