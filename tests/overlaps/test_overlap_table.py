"""The table: ratios derived from additive terms, totals that can disagree, and its views."""

import json
import math
import subprocess
import sys
from dataclasses import FrozenInstanceError
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import torch
from damage import content, reseal
from reference import measures as reference

from commonweight import OverlapTable, overlap
from commonweight import overlap as room
from commonweight.base.errors import IntegrityError, MeasurementError, UsageError
from commonweight.footprints.footprint import Footprint, Spread, layer_of

SHAPES = {
    "embed.weight": (6, 3),
    "body.0.dense.weight": (3, 3),
    "body.0.dense.bias": (3,),
    "body.0.norm.weight": (3,),
    "body.1.dense.weight": (3, 3),
    "body.1.dense.bias": (3,),
    "scale": (),
}
LAYERS = ("embed", "body.0.dense", "body.0.norm", "body.1.dense", "scale")
DRAWS = {
    "fisher": lambda noise: noise**2,
    "supermask": lambda noise: noise > 0,
    "activity": lambda noise: noise,
}
DEFINITIONS = {
    "fisher": reference.fisher_overlap,
    "supermask": reference.jaccard_index,
    "activity": reference.cosine_similarity,
}


def footprint(seed=0, kind="fisher", **changes):
    generator = torch.Generator().manual_seed(seed)
    tensors = {name: DRAWS[kind](torch.randn(shape, generator=generator)) for name, shape in SHAPES.items()}
    tensors.update({name: torch.as_tensor(value) for name, value in changes.items()})
    metadata = {"fisher_type": "empirical"} if kind == "fisher" else {}
    return Footprint(kind, tensors, 100 + seed, metadata, spread={"": Spread(10.0, 2.0)} if seed != 2 else {})


def table(n=2, kind="fisher"):
    return overlap({name: footprint(seed, kind) for seed, name in enumerate("abcd"[:n])})


def layers_defined(found, a, b):
    """Over how many layers the layer mean of a pair goes."""
    return next(row.value for row in found.records() if (row.quantity, row.a, row.b) == ("layers", a, b))


def flat(found):
    return {name: found[name].double().reshape(-1).tolist() for name in found.names}


@pytest.mark.parametrize("kind", DRAWS)
def test_every_number_agrees_with_the_loops(kind):
    a, b, c = (footprint(seed, kind) for seed in range(3))
    found = overlap({"a": a, "b": b, "c": c})
    measure = DEFINITIONS[kind]
    for i, j, x, y in [(0, 1, a, b), (0, 2, a, c), (1, 2, b, c)]:
        by_layer = reference.by_group(measure, flat(x), flat(y), layer_of)
        assert tuple(by_layer) == found.layers == LAYERS
        for layer, value in by_layer.items():
            assert found.by_layer[layer][i, j] == pytest.approx(value, abs=1e-12, nan_ok=True)
        for name, value in reference.by_group(measure, flat(x), flat(y), str).items():
            assert found.by_parameter[name][i, j] == pytest.approx(value, abs=1e-12, nan_ok=True)
        whole = reference.by_group(measure, flat(x), flat(y), lambda name: "")[""]
        assert found.pooled[i, j] == pytest.approx(whole, abs=1e-12)
        mean, count = reference.mean_of_defined(by_layer.values())
        assert found.layer_mean[i, j] == pytest.approx(mean, abs=1e-12)
        assert layers_defined(found, found.names[i], found.names[j]) == count


def test_matrices_are_symmetric_with_ones_on_the_diagonal():
    found = table(3)
    for matrix in (found.pooled, found.layer_mean, *found.by_layer.values(), *found.by_parameter.values()):
        assert matrix.shape == (3, 3)
        assert matrix.dtype == np.float64
        assert (matrix == matrix.T).all()
        assert np.allclose(np.diagonal(matrix), 1, atol=1e-15)


def test_trace_shares_are_shares_of_the_trace():
    a, b = footprint(0), footprint(1)
    found = overlap({"a": a, "b": b})
    for layer in found.layers:
        expected = [a.trace(layer) / a.trace(), b.trace(layer) / b.trace()]
        assert found.trace_share[layer] == pytest.approx(expected, rel=1e-6)
    assert sum(found.trace_share.values()) == pytest.approx([1, 1])
    shares = [row for row in found.records("parameter") if row.quantity == "trace_share"]
    assert [sum(row.value for row in shares if row.a == name) for name in "ab"] == pytest.approx([1, 1])


def test_pooled_and_layer_mean_can_disagree():
    big = {"big.weight": torch.tensor([97.0, 0.0])}
    a = Footprint("fisher", {**big, "small.weight": torch.tensor([3.0, 0.0])}, 1)
    b = Footprint("fisher", {**big, "small.weight": torch.tensor([0.0, 3.0])}, 1)
    found = overlap({"a": a, "b": b})
    assert found.pooled[0, 1] == pytest.approx(0.97)
    assert found.layer_mean[0, 1] == pytest.approx(0.5)
    assert found.by_layer["small"][0, 1] == 0
    assert found.trace_share["small"] == pytest.approx([0.03, 0.03])
    same = overlap({"a": a, "b": a})
    assert same.pooled[0, 1] == same.layer_mean[0, 1] == 1


def test_undefined_layers_are_nan_and_not_counted():
    nothing = footprint(1, **{"embed.weight": torch.zeros(6, 3)})
    found = overlap({"a": footprint(0), "b": nothing})
    assert np.isnan(found.by_layer["embed"][0, 1])
    assert np.isnan(found.by_layer["embed"][1, 1])
    assert found.by_layer["embed"][0, 0] == 1
    assert [layers_defined(found, *pair) for pair in ("aa", "ab", "bb")] == [5, 4, 4]
    assert np.isfinite(found.layer_mean).all()
    assert found.trace_share["embed"][1] == 0


def test_an_empty_footprint_is_nan_throughout():
    empty = Footprint(
        "fisher", {name: torch.zeros(shape) for name, shape in SHAPES.items()}, 1, {"fisher_type": "empirical"}
    )
    found = overlap({"a": footprint(0), "empty": empty})
    assert np.isnan(found.pooled[0, 1])
    assert np.isnan(found.layer_mean[0, 1])
    assert layers_defined(found, "a", "empty") == 0
    assert np.isnan(found.trace_share["embed"][1])
    assert found.pooled[0, 0] == 1


@pytest.mark.parametrize("kind", DRAWS)
@pytest.mark.parametrize("depth", [0, 1, 2, 3, 9])
def test_rolling_up_equals_measuring_the_merged_layers(kind, depth):
    a, b = footprint(0, kind), footprint(1, kind)
    found = overlap({"a": a, "b": b}).roll_up(depth)

    def group_of(name):
        return ".".join(layer_of(name).split(".")[:depth])

    expected = reference.by_group(DEFINITIONS[kind], flat(a), flat(b), group_of)
    assert found.layers == tuple(expected)
    for layer, value in expected.items():
        assert found.by_layer[layer][0, 1] == pytest.approx(value, abs=1e-12, nan_ok=True)
    assert found.pooled[0, 1] == table(2, kind).pooled[0, 1]
    assert sum(found.trace_share.values()) == pytest.approx([1, 1])


def test_layers_of_every_depth():
    found = table()
    assert found.roll_up(0).layers == ("",)
    assert found.roll_up(1).layers == ("embed", "body", "scale")
    assert found.roll_up(2).layers == ("embed", "body.0", "body.1", "scale")
    assert found.roll_up(3).layers == LAYERS


def test_rolling_up_a_rolled_up_table():
    found = table()
    assert found.roll_up(2).roll_up(1).to_json() == found.roll_up(1).to_json()
    assert found.roll_up(1).roll_up(2).layers == found.roll_up(1).layers
    assert found.roll_up(0).by_layer[""][0, 1] == found.pooled[0, 1] == found.roll_up(0).layer_mean[0, 1]
    assert found.roll_up(1).layer_mean[0, 1] != found.layer_mean[0, 1]
    assert found.layers == LAYERS  # the old table is as it was


@pytest.mark.parametrize("depth", [-1, 1.0, True, "2", None])
def test_depths_refused(depth):
    with pytest.raises(UsageError, match="depth must be a whole number of at least 0, got"):
        table().roll_up(depth)


def test_a_table_is_frozen():
    found = table()
    with pytest.raises(FrozenInstanceError):
        found.kind = "activity"
    for array in (found.pooled, found.terms["scale"], found.by_layer["embed"], found.trace_share["embed"]):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0.5
    with pytest.raises(TypeError):
        found.by_layer["embed"] = found.pooled


def test_an_unknown_layer_or_parameter_is_guessed():
    found = table()
    with pytest.raises(KeyError) as caught:
        found.by_layer["body.0.nrom"]
    assert caught.value.args[0] == (
        "no layer 'body.0.nrom' in this table; there are 'embed', 'body.0.dense', 'body.0.norm', 'body.1.dense', "
        "'scale'; did you mean 'body.0.norm'?"
    )
    for values, what in (
        (found.trace_share, "layer"),
        (found.by_parameter, "parameter"),
    ):
        with pytest.raises(KeyError, match=f"no {what} 'emebd' in this table; there are 'embed"):
            values["emebd"]
    assert "emebd" not in found.by_layer
    assert found.by_layer.get("emebd") is None
    assert dict(found.by_layer).keys() == set(LAYERS)
    assert len(found.by_layer) == len(LAYERS)
    assert repr(found.trace_share).startswith("{'embed': array(")


def test_what_is_known_of_the_footprints():
    found = table(3)
    assert found.counts == {"a": 100, "b": 101, "c": 102}
    assert found.effective_sample_size["a"] == 50
    assert math.isnan(found.effective_sample_size["c"])
    assert found.fisher_types == {"a": "empirical", "b": "empirical", "c": "empirical"}
    assert table(kind="supermask").fisher_types == {"a": None, "b": None}
    assert repr(found) == "OverlapTable(fisher_overlap of a, b, c; 5 layers, 7 parameters)"


@pytest.mark.parametrize(
    ("kind", "measure"),
    [("fisher", "fisher_overlap"), ("supermask", "jaccard_index"), ("activity", "cosine_similarity")],
)
def test_the_kind_decides_the_measure(kind, measure):
    assert table(kind=kind).measure == measure


def test_faulty_entries_are_named():
    with pytest.raises(MeasurementError, match=r"footprint 'b', parameter 'scale': entries must be .* got -1"):
        overlap({"a": footprint(0), "b": footprint(1, scale=-1.0)})


# --- frame


def test_frame():
    found = table(3)
    frame = found.to_frame()
    assert list(frame.columns) == ["layer", "a", "b", "overlap", "trace_share_a", "trace_share_b"]
    assert len(frame) == len(LAYERS) * 3
    assert list(frame[["a", "b"]].drop_duplicates().itertuples(index=False, name=None)) == [
        ("a", "b"),
        ("a", "c"),
        ("b", "c"),
    ]
    row = frame[(frame.layer == "body.0.norm") & (frame.a == "a") & (frame.b == "c")].iloc[0]
    assert row.overlap == found.by_layer["body.0.norm"][0, 2]
    assert row.trace_share_a == found.trace_share["body.0.norm"][0]
    assert row.trace_share_b == found.trace_share["body.0.norm"][2]


def test_means_over_the_frame_are_layer_means_since_it_holds_no_totals():
    found = table(3)
    means = found.to_frame().groupby(["a", "b"]).overlap.mean()
    assert means["a", "c"] == pytest.approx(found.layer_mean[0, 2])
    with_total = pd.concat([found.to_frame(), found.roll_up(0).to_frame()])
    assert with_total.groupby(["a", "b"]).overlap.mean()["a", "c"] != pytest.approx(found.layer_mean[0, 2], abs=1e-6)


# --- JSON


def saved(found, folder):
    found.save(folder)
    return OverlapTable.load(folder)


@pytest.mark.parametrize("depth", [None, 1])
def test_a_table_comes_back_as_it_was_saved(depth, tmp_path):
    found = overlap(
        {"a": footprint(0), "b": footprint(2, **{"embed.weight": torch.zeros(6, 3), "extra.weight": [1.0]})},
        common_only=True,
    )
    found = found if depth is None else found.roll_up(depth)
    again = saved(found, tmp_path)
    assert again.to_json() == found.to_json()
    assert content(tmp_path / "overlap.json") == json.loads(found.to_json())
    assert (again.names, again.kind, again.left_out) == (found.names, found.kind, found.left_out)
    assert again.layers == found.layers
    for layer in found.layers:
        np.testing.assert_array_equal(again.by_layer[layer], found.by_layer[layer])
    np.testing.assert_array_equal(again.pooled, found.pooled)
    assert math.isnan(again.effective_sample_size["b"])
    assert np.isnan(again.alignment.distance).all()
    assert again.to_markdown() == found.to_markdown()


def records(found, **asked):
    record = json.loads(found.to_json(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    rows = (dict(zip(record["records"]["columns"], row, strict=True)) for row in record["records"]["rows"])
    return [row for row in rows if all(row[key] == value for key, value in asked.items())]


def test_json_names_its_format_and_writes_nan_as_null():
    found = overlap({"a": footprint(0), "b": footprint(2, **{"embed.weight": torch.zeros(6, 3)})})
    record = json.loads(found.to_json())
    assert (record["format"], record["version"], record["measure"]) == ("commonweight-overlap", 5, "fisher_overlap")
    assert [row["value"] for row in records(found, name="embed", quantity="raw")] == [None]
    assert record["effective_sample_size"] == {"a": 50.0, "b": None}
    assert [row["value"] for row in records(found, quantity="layers")] == [5, 4, 4]


@pytest.mark.parametrize("kind", DRAWS)
def test_records_are_the_numbers_of_the_table(kind):
    found = table(3, kind)
    for i, j in ((0, 1), (0, 2), (1, 2)):
        pair = {"a": found.names[i], "b": found.names[j], "quantity": "raw"}
        assert [row["value"] for row in records(found, **pair, level="pooled")] == [found.pooled[i, j]]
        assert [row["value"] for row in records(found, **pair, level="layer_mean")] == [found.layer_mean[i, j]]
        by_layer = {row["name"]: row["value"] for row in records(found, **pair, level="layer")}
        assert by_layer == {layer: values[i, j] for layer, values in found.by_layer.items()}
    shares = {row["name"]: row["value"] for row in records(found, a="b", b=None, quantity="trace_share")}
    assert shares == {layer: values[1] for layer, values in found.trace_share.items()}
    by_parameter = [row for row in found.records("parameter") if row.level == "parameter" and row.quantity == "raw"]
    assert [row.name for row in by_parameter] == [name for name in SHAPES for _ in range(3)]


def change(folder, **changes):
    table().save(folder)
    reseal(folder / "overlap.json", lambda record: {**record, **changes})


def test_records_are_not_read_back(tmp_path):
    change(tmp_path, records={"columns": [], "rows": []})
    assert OverlapTable.load(tmp_path).pooled[0, 1] == table().pooled[0, 1]
    change(tmp_path, terms={**json.loads(table().to_json())["terms"], "scale": [[1.0, 0.1], [0.1, 1.0]]})
    assert OverlapTable.load(tmp_path).pooled[0, 1] != table().pooled[0, 1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "other"}, "is not a commonweight-overlap record"),
        ({"version": 1}, "format version 1, this release reads version 5: .*, or compute it again"),
        ({"names": ["a", "a"]}, "damaged or was edited by hand .*: compute it again"),
        ({"kind": "other"}, "damaged or was edited by hand"),
        ({"depth": -1}, "damaged or was edited by hand"),
        ({"counts": {}}, "damaged or was edited by hand"),
        ({"terms": {"w": [[1.0]]}}, r"damaged or was edited by hand .*shape \[1, 1\], expected \[2, 2\]"),
        ({"terms": {}}, "damaged or was edited by hand"),
        ({"spread": []}, "damaged or was edited by hand"),
        ({"spread": {"a": 3}}, "damaged or was edited by hand"),
        ({"spread": {"a": {"embed": [1.0]}}}, "damaged or was edited by hand"),
        ({"spread": {"a": {"embed": "no"}}}, "damaged or was edited by hand"),
    ],
)
def test_records_refused(changes, message, tmp_path):
    change(tmp_path, **changes)
    with pytest.raises(IntegrityError, match=message):
        OverlapTable.load(tmp_path)


@pytest.mark.parametrize(("written", "message"), [("not json", "is not JSON"), ("[]", "is not a commonweight-overlap")])
def test_other_files_are_refused(written, message, tmp_path):
    (tmp_path / "overlap.json").write_text(written)
    with pytest.raises(IntegrityError, match=message):
        OverlapTable.load(tmp_path)
    with pytest.raises(UsageError, match="is not a folder"):
        OverlapTable.load(tmp_path / "nowhere")


# --- text


def two_known():
    a = Footprint("fisher", {"x|y.weight": torch.tensor([1.0, 1.0]), "z.weight": torch.tensor([0.0])}, 200)
    b = Footprint("fisher", {"x|y.weight": torch.tensor([3.0, 0.0]), "z.weight": torch.tensor([1.0])}, 200)
    return overlap({"a": a, "<b>": b})


def test_markdown_for_two():
    assert two_known().to_markdown() == (
        "**Fisher overlap of a and \\<b>**\n"
        "\n"
        "| layer | overlap | trace share, a | trace share, \\<b> |\n"
        "|---|---:|---:|---:|\n"
        "| x\\|y | 0.7071 | 1.0000 | 0.7500 |\n"
        "| z | – | 0.0000 | 0.2500 |\n"
        "| **pooled** | **0.6124** |  |  |\n"
        "| **layer mean (1 of 2 layers)** | **0.7071** |  |  |\n"
        "\n"
        "**The footprints**\n"
        "\n"
        "| footprint | examples | effective sample size | Fisher type |\n"
        "|---|---:|---:|---:|\n"
        "| a | 200 | – | – |\n"
        "| \\<b> | 200 | – | – |\n"
        "\n"
        "These are raw overlaps: they mix sharing with sampling noise. Noise ceilings and intervals need folds in "
        "every footprint, as from fisher(..., folds=8), and intervals that are not left out.\n"
        "\n"
        "Whether the models come from a shared initialisation was not measured: the footprints hold no weight "
        "samples that can "
        "be compared, and without a shared initialisation overlaps are not to be read as sharing.\n"
    )


def test_markdown_by_parameter_and_depth():
    found = table()
    by_parameter = found.to_markdown(by="parameter", decimals=2)
    assert "| parameter | overlap |" in by_parameter
    assert f"| body.0.dense.bias | {found.by_parameter['body.0.dense.bias'][0, 1]:.2f} |" in by_parameter
    assert "body.0.dense.bias" not in found.to_markdown()
    assert found.to_markdown(by=1) == found.roll_up(1).to_markdown()
    assert "| whole network |" in found.to_markdown(by=0)


def test_markdown_for_three_has_both_matrices_and_a_column_per_pair():
    found = overlap({"a": footprint(0), "b": footprint(1), "c": footprint(2, **{"embed.weight": torch.zeros(6, 3)})})
    text = found.to_markdown()
    pooled, mean = found.pooled, found.layer_mean
    assert text.startswith("Fisher overlap of a, b and c\n\n**Pooled**\n\n|  | a | b | c |\n")
    assert text.count("Fisher overlap") == 1
    assert f"| a | 1.0000 | {pooled[0, 1]:.4f} | {pooled[0, 2]:.4f} |" in text
    assert "**Layer mean (number of layers)**" in text
    assert f"| b | {mean[1, 0]:.4f} (5) | 1.0000 (5) | {mean[1, 2]:.4f} (4) |" in text
    assert "| layer | a and b | a and c | b and c |" in text
    assert f"| embed | {found.by_layer['embed'][0, 1]:.4f} | – | – |" in text
    assert f"| **pooled** | **{pooled[0, 1]:.4f}** | **{pooled[0, 2]:.4f}** |" in text
    shares = " | ".join(f"{share:.4f}" for share in found.trace_share["embed"])
    assert f"**Trace share by layer**\n\n| layer | a | b | c |\n|---|---:|---:|---:|\n| embed | {shares} |" in text


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("supermask", "Jaccard index of a and b** layer overlap chance corrected density, a density, b share of kept"),
        ("activity", "Cosine similarity of a and b** layer overlap share of squared norm, a"),
    ],
)
def test_other_kinds_are_called_by_their_names(kind, words):
    text = " ".join(table(kind=kind).to_markdown().replace("|", " ").split())
    assert words in text
    assert "Fisher type" not in text
    assert "trace share" not in text


def test_almost_one_is_not_written_as_one():
    a = Footprint("fisher", {"w": torch.tensor([1.0, 1e-6])}, 1)
    b = Footprint("fisher", {"w": torch.tensor([1.0, 0.0])}, 1)
    assert "| w | >0.9999 | 1.0000 | 1.0000 |" in overlap({"a": a, "b": b}).to_markdown()
    assert ">0.9999" not in overlap({"a": a, "b": a}).to_markdown()


def test_what_was_left_out_is_listed():
    more = {f"more.{i}.weight": [1.0] for i in range(12)}
    text = overlap({"a": footprint(0), "b": footprint(1, **more)}, common_only=True).to_markdown()
    assert "12 parameters were not compared: more.0.weight (only in 'b'); more.1.weight (only in 'b')" in text
    assert "more.9.weight (only in 'b'); and 2 more." in text
    assert "more.10" not in text
    assert "1 parameter was not compared: one (only in 'b')." in (
        overlap({"a": footprint(0), "b": footprint(1, one=1.0)}, common_only=True).to_markdown()
    )
    assert "not compared" not in table().to_markdown()


@pytest.mark.parametrize("by", ["module", None, True, 1.5])
def test_by_refused(by):
    with pytest.raises(UsageError, match="by must be 'layer', 'parameter' or a depth such as 2, got"):
        table().to_markdown(by=by)


class Cells(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.texts = [], []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in {"td", "th", "caption"}:
            self.texts.append(data)


def test_html_is_well_formed_escaped_and_says_the_same():
    parser = Cells()
    parser.feed(two_known()._repr_html_())
    parser.close()
    assert parser.open == []
    assert parser.texts[:9] == [
        "Fisher overlap of a and <b>",
        *("layer", "overlap", "trace share, a", "trace share, <b>"),
        *("x|y", "0.7071", "1.0000", "0.7500"),
    ]


# --- the room as a function


def test_the_room_is_callable():
    footprints = {"a": footprint(0), "b": footprint(1)}
    assert room(footprints).to_json() == overlap(footprints).to_json()


def test_commonweight_overlap_is_callable_whatever_was_imported_before():
    code = (
        "import commonweight\n"
        "from commonweight.overlaps import noise_ceiling\n"
        "import commonweight.base.text\n"
        "from torch import tensor\n"
        "f = commonweight.Footprint('fisher', {'w': tensor([1.0])}, 1)\n"
        "for _ in range(2):\n"
        "    print(commonweight.overlap({'a': f, 'b': f}).pooled[0, 1])\n"
        "import sys\n"
        "print('pandas' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1.0", "1.0", "False"]


# effective sample size of layers


def spread_over(examples, parameters=SHAPES):
    """A footprint whose layers have the given traces ``[n]`` per example, and their loops."""
    whole = [sum(each) for each in zip(*examples.values(), strict=True)]
    sums = {layer: Spread(sum(t), sum(x * x for x in t)) for layer, t in {"": whole, **examples}.items()}
    made = footprint()
    return Footprint("fisher", {name: made[name] for name in parameters}, 100, made.metadata, spread=sums)


def counted(traces):
    return sum(traces) ** 2 / sum(trace * trace for trace in traces)


def some_traces(seed):
    generator = torch.Generator().manual_seed(seed)
    return {layer: torch.randn(30, generator=generator).square().tolist() for layer in LAYERS}


def test_effective_sample_size_of_a_layer_are_its_own(tmp_path):
    traces = {"a": some_traces(0), "b": some_traces(1)}
    found = overlap({name: spread_over(each) for name, each in traces.items()})
    for name, each in traces.items():
        for layer in LAYERS:
            assert found.effective_sample_size_of(name, layer) == pytest.approx(counted(each[layer]), rel=1e-12)
            assert found.effective_sample_size_of(name, layer) == found.spread[name][layer].effective_sample_size
        assert found.effective_sample_size_of(name) == found.effective_sample_size[name]
    assert saved(found, tmp_path).spread == found.spread
    with pytest.raises(UsageError, match="no footprint 'c'"):
        found.effective_sample_size_of("c")
    with pytest.raises(KeyError, match="body"):
        found.effective_sample_size_of("a", "body")


def test_effective_sample_size_of_merged_layers_are_a_lower_bound():
    traces = some_traces(0)
    rolled = overlap({"a": spread_over(traces), "b": spread_over(some_traces(1))}).roll_up(1)
    body = [traces[layer] for layer in LAYERS if layer.startswith("body")]
    together = counted([sum(each) for each in zip(*body, strict=True)])
    found = rolled.effective_sample_size_of("a", "body")
    assert min(map(counted, body)) <= found <= together
    assert found == pytest.approx((sum(map(sum, body)) / sum(math.hypot(*each) for each in body)) ** 2)
    assert rolled.effective_sample_size_of("a", "embed") == pytest.approx(counted(traces["embed"]))
    assert (
        rolled.roll_up(0).effective_sample_size_of("a", "") == rolled.effective_sample_size["a"]
    )  # exact, not a bound
    alike = {layer: [x * (1 + place) for x in traces["embed"]] for place, layer in enumerate(LAYERS)}
    exact = overlap({"a": spread_over(alike), "b": spread_over(alike)}).roll_up(1)
    assert exact.effective_sample_size_of("a", "body") == pytest.approx(counted(alike["embed"]))


def test_effective_sample_size_where_parameters_were_left_out():
    traces = some_traces(0)
    smaller = spread_over(traces, [name for name in SHAPES if not name.startswith("embed")])
    found = overlap({"a": spread_over(traces), "b": smaller}, common_only=True)
    left = [each for layer, each in traces.items() if layer != "embed"]
    assert found.effective_sample_size_of("a") != found.effective_sample_size["a"]
    assert (
        min(map(counted, left))
        <= found.effective_sample_size_of("a")
        <= counted([sum(each) for each in zip(*left, strict=True)])
    )
    assert found.roll_up(0).effective_sample_size_of("a", "") == found.effective_sample_size_of("a")


def test_effective_sample_size_that_were_not_measured():
    found = table()
    assert math.isnan(found.effective_sample_size_of("a", "embed"))
    assert found.effective_sample_size_of("a") == 50.0
    zero = some_traces(0) | {"scale": [0.0] * 30}
    assert math.isnan(overlap({"a": spread_over(zero), "b": spread_over(zero)}).effective_sample_size_of("a", "scale"))
