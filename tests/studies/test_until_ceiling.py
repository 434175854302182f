"""A Fisher measured until its ceiling is high enough: no row twice, the same as measuring those rows, and a curve."""

import json
from itertools import pairwise

import pytest
import torch

import commonweight
from commonweight import Footprint, UsageError
from commonweight.data.table import open_table
from commonweight.footprint.folds import fold_of
from commonweight.nn.source import LoadedModel
from commonweight.overlaps import ceiling
from commonweight.studies.measure import MeasureOptions, measure
from commonweight.studies.prepare import ColumnOptions
from commonweight.studies.until_ceiling import measure_until, step_ends
from commonweight.text import to_markdown
from commonweight.view.convergence import convergence

OPTIONS = MeasureOptions(columns=ColumnOptions(inputs=("u", "v", "w")))


@pytest.fixture
def loaded():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
    return LoadedModel(model, {"name": "mine", "class": "Sequential"})


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    place = tmp_path_factory.mktemp("rows") / "n.jsonl"
    generator = torch.Generator().manual_seed(1)
    lines = [
        json.dumps({"u": u, "v": v, "w": w, "label": int(u + 0.5 * noise > 0)})
        for u, v, w, noise in torch.randn(400, 4, generator=generator).tolist()
    ]
    place.write_text("\n".join(lines) + "\n")
    return str(place)


def test_it_stops_at_the_ceiling_with_what_measuring_those_rows_gives(loaded, rows, tmp_path):
    said = []
    found, curve = measure_until(loaded, open_table(rows), OPTIONS, 0.9, folder=tmp_path / "f", note=said.append)
    assert curve.is_reached
    assert [point.ceiling.value >= 0.9 for point in curve.points] == [False] * (len(curve.points) - 1) + [True]
    count = curve.points[-1].examples
    assert found.count == count < 400
    assert found.metadata["until_ceiling"] == json.loads(json.dumps(curve.record()))
    assert found.metadata["until_ceiling"]["points"][-1]["examples"] == count
    chosen = open_table(rows, examples=count)
    at_once = measure(loaded, chosen, OPTIONS, folder=tmp_path / "once")
    for name in found:
        assert torch.allclose(found[name], at_once[name], rtol=1e-5, atol=1e-9)
        for one, other in zip(found.folds, at_once.folds, strict=True):
            assert one.count == other.count
            assert torch.allclose(one.tensors[name], other.tensors[name], rtol=1e-2, atol=1e-9)
    assert found.metadata["data"] == at_once.metadata["data"]
    assert found.metadata["folds"] == at_once.metadata["folds"]
    assert found.effective_examples == pytest.approx(at_once.effective_examples, rel=1e-6)
    assert ceiling(found).pooled.value == pytest.approx(curve.points[-1].ceiling.value, abs=1e-3)
    assert commonweight.overlap({"a": found, "b": at_once}).pooled[0, 1] == pytest.approx(1, abs=1e-6)
    assert {path.name for path in tmp_path.iterdir()} == {"f", "once"}
    text = to_markdown(convergence(curve))
    assert f"reached with {count} of 400 examples" in text
    assert any("ceiling 0." in sentence for sentence in said)


def test_no_row_is_measured_twice(loaded, rows, tmp_path):
    seen = []
    handle = loaded.model.register_forward_hook(lambda _, args, __: seen.append(args[0].detach().clone()))
    options = MeasureOptions(columns=OPTIONS.columns, verify=False)
    found, _ = measure_until(loaded, open_table(rows), options, 0.999, folder=tmp_path / "f")
    handle.remove()
    measured = torch.cat([batch for batch in seen if len(batch) > 1])
    assert found.count == 400
    assert len({tuple(row) for row in measured.tolist()}) == len(measured)


def test_the_end_of_the_data_is_said(loaded, rows, tmp_path):
    _, curve = measure_until(loaded, open_table(rows, examples=100), OPTIONS, 0.9999, folder=tmp_path / "f")
    assert not curve.is_reached
    assert curve.points[-1].examples == 100
    text = to_markdown(convergence(curve))
    assert "data ended before the ceiling was reached: with all 100 examples" in text
    assert (
        Footprint.load(tmp_path / "f").metadata["data"]["selection"]
        == open_table(rows, examples=100).identity["selection"]
    )


def test_what_makes_no_sense_is_refused(loaded, rows, tmp_path):
    table = open_table(rows)
    for target in (0, 1, 1.5, -1):
        with pytest.raises(UsageError, match=r"above 0 and below 1, such as 0\.95"):
            measure_until(loaded, table, OPTIONS, target, folder=tmp_path / "f")
    with pytest.raises(UsageError, match="a ceiling needs folds"):
        measure_until(loaded, open_table(rows, examples=5), OPTIONS, 0.9, folder=tmp_path / "f")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("folds", [2, 4, 8])
@pytest.mark.parametrize("count", [70, 129, 131, 500, 1000])
def test_every_step_holds_every_fold_and_all_rows_are_taken(folds, count):
    source = [3 * row for row in range(count)]
    ends = step_ends(source, folds, first=16)
    assert ends[-1] == count
    starts = [0, *ends[:-1]]
    for start, end in zip(starts, ends, strict=True):
        assert {fold_of(row, folds) for row in source[start:end]} == set(range(folds))
    assert all(b >= 2 * a for a, b in pairwise(ends[:-1]))
