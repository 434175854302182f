"""The page of a run: whole, escaped, without a request; its numbers are those of the table."""

import base64
import hashlib
import json
import re
from itertools import combinations

import numpy as np
import pytest
from report.pages import EVIL, evil_page, folded, masks, page_of

from commonweight.base.errors import IntegrityError
from commonweight.report.files import new_figure, write_figures
from commonweight.report.html import Overlaps, Picture, island, render
from commonweight.report.html import pictures as drawn
from commonweight.report.html.island import MOST_NUMBERS, significant


def data_of(text):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1])


def test_script_and_style_are_the_ones_that_the_policy_names():
    text = render(page_of(folded()))
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)[1].replace("&#39;", "'")
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    styles = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    assert (len(scripts), len(styles)) == (1, 1)
    for kind, part in (("script", scripts[0]), ("style", styles[0])):
        digest = base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_nothing_is_asked_of_the_network():
    text = render(page_of(folded()))
    assert not re.search(r'(src|href)="(?!#|data:)', text)
    assert "@import" not in text
    assert "url(" not in re.search(r"<style>(.*?)</style>", text, re.DOTALL)[1]


def test_no_name_ends_the_data_or_becomes_markup():
    text = render(evil_page())
    assert text.count("<script") == 2  # the data and ours
    assert "<img" not in text
    assert "\u2028" not in re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1]
    found = data_of(text)[0]
    assert found["title"] == EVIL
    assert found["names"] == [f"{EVIL}a", f"{EVIL}b"]


def test_numbers_are_those_of_the_table():
    table = folded()
    (found,) = data_of(render(page_of(table)))
    assert found["names"] == list(table.names)
    pairs = [*combinations(table.names, 2)]
    for module, name in enumerate(found["modules"]):
        depth = name.count(".") + 1 if module else None
        of = table if depth is None else table.roll_up(depth)
        layer = None if depth is None else name
        for quantity in found["quantities"]:
            if quantity["of"] != "pairs":
                continue
            for place, pair in enumerate(pairs):
                estimate = of.estimate(quantity["key"], *pair, layer)
                assert quantity["values"][module][place] == pytest.approx(estimate.value, rel=1e-3)
                if quantity["mapped"]:
                    assert quantity["low"][module][place] == pytest.approx(estimate.low, rel=1e-3, abs=1e-5)
        for place, pair in enumerate(pairs):
            said = found["answers"][found["verdicts"][module][place]]
            assert said == of.verdict(pair, layer=layer).short.partition(" (")[0]
    shares = next(each for each in found["quantities"] if each["key"] == "trace_share")
    head = found["modules"].index("head")
    assert shares["values"][head] == pytest.approx(table.trace_share["head"].tolist(), rel=1e-3)
    assert shares["values"][0] == [1.0, 1.0, 1.0]


def test_modules_are_a_tree_in_the_order_of_the_model():
    (found,) = data_of(render(page_of(folded())))
    assert found["modules"] == ["whole network", "body", "body.0", "body.1", "head"]
    assert found["labels"] == ["whole network", "body", "0", "1", "head"]
    assert found["levels"] == [1, 2, 3, 3, 2]
    assert not found["merged"]


def test_own_weights_of_a_module_stand_beside_its_parts():
    shapes = {"body.scale": (3,), "body.0.weight": (3, 3), "body.1.weight": (3, 3)}
    table = folded(2, shapes)
    (found,) = data_of(render(page_of(table)))
    assert found["modules"] == ["whole network", "body", "body.(own weights)", "body.0", "body.1"]
    raw = next(each for each in found["quantities"] if each["key"] == "raw")
    own, whole = (raw["values"][found["modules"].index(name)][0] for name in ("body.(own weights)", "body"))
    assert own == pytest.approx(table.by_layer["body"][0, 1], rel=1e-3)
    assert whole == pytest.approx(table.roll_up(1).by_layer["body"][0, 1], rel=1e-3)


def test_seeds_are_averaged_with_an_interval():
    tables = [masks(3, 4, seed) for seed in range(3)]
    (found,) = json.loads(island.island([Overlaps("masks", tables)]))
    raw = next(each for each in found["quantities"] if each["key"] == "raw")
    values = [float(table.pooled[0, 1]) for table in tables]
    assert found["seeds"] == 3
    assert raw["values"][0][0] == pytest.approx(np.mean(values), rel=1e-3)
    assert raw["low"][0][0] < np.mean(values) < raw["high"][0][0]
    assert "verdicts" not in found


@pytest.mark.parametrize(("count", "layers", "merged"), [(2, 400, False), (40, 8, False), (40, 400, True)])
def test_deep_networks_of_many_footprints_become_blocks(count, layers, merged):
    (found,) = json.loads(island.island([Overlaps("all", [masks(count, layers)])]))
    assert found["merged"] == merged
    assert sum(len(row) for each in found["quantities"] for row in each["values"]) < MOST_NUMBERS


@pytest.mark.parametrize(
    ("value", "kept"), [(0.123456, 0.1235), (0.999999, 0.99999), (1.0, 1.0), (-0.99999999, -0.99999), (np.nan, None)]
)
def test_four_digits_never_make_almost_exactly(value, kept):
    assert significant(value) == kept


def test_figures_lose_style_and_script_and_follow_the_page(tmp_path):
    def draw():
        figure = new_figure(2, 1)
        ax = figure.subplots()
        ax.set_title(EVIL.replace("$", ""))
        ax.text(0.5, 0.5, "light words", color="w")
        ax.axhspan(0, 0.5, color="0.9")
        yield "f", figure

    (path,) = write_figures(draw(), tmp_path, forms=["svg"])
    path.write_text(path.read_text().replace("</svg>", '<script>alert(1)</script><a href="http://x"/></svg>'))
    text = drawn.inline(Picture("words & <more>", path), 3)
    assert "style" not in text
    assert "<script" not in text
    assert "http" not in text
    assert 'aria-label="words &amp; &lt;more&gt;"' in text
    assert all(name.startswith("f3-") for name in re.findall(r' id="([^"]*)"', text))
    assert text.count("#ffffff") == 1  # the light words, not the paper
    assert re.search(r'<text[^>]*fill="#ffffff"[^>]*>light words', text)
    assert "currentColor" in text
    assert "#e6e6e6" not in text
    assert 'fill-opacity="0.15"' in text


def test_a_damaged_figure_is_refused(tmp_path):
    (tmp_path / "f.svg").write_text("<svg")
    with pytest.raises(IntegrityError, match="cannot be read"):
        drawn.inline(Picture("a", tmp_path / "f.svg"), 0)


def test_a_page_without_overlaps_or_folds_is_whole():
    table = folded(2)
    page = page_of(table)
    assert "<script" not in render(type(page)(page.answer))
    plain = type(table)(**{**{each: getattr(table, each) for each in table.__dataclass_fields__}, "resampled": None})
    (found,) = data_of(render(page_of(plain)))
    assert [each["key"] for each in found["quantities"]] == ["raw", "trace_share"]
