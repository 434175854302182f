"""A Fisher measured until its noise ceiling is high enough: no row twice, the same numbers, and a curve."""

import json
from collections import namedtuple
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import commonweight
from commonweight import Estimate, Footprint
from commonweight.base import UsageError
from commonweight.base.folders import SPARE
from commonweight.base.text import to_markdown
from commonweight.data.table import open_table
from commonweight.diagonal_fisher import collector
from commonweight.diagonal_fisher.collector import FisherCollector
from commonweight.diagonal_fisher.row_digest import row_digests
from commonweight.footprints.folds import fold_of
from commonweight.models.options import LoadedModel
from commonweight.overlaps import noise_ceiling
from commonweight.report.footprint import summary
from commonweight.studies.compare.measure import measure
from commonweight.studies.compare.options import ColumnOptions, MeasureOptions
from commonweight.studies.compare.until_noise_ceiling import (
    Convergence,
    Point,
    measure_until,
    planned,
    step_ends,
    until_outlook,
)

OPTIONS = MeasureOptions(columns=ColumnOptions(input_column=("u", "v", "w")))


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


def test_it_stops_at_the_noise_ceiling_with_what_measuring_those_rows_gives(loaded, rows, tmp_path):
    said = []
    found, curve = measure_until(loaded, open_table(rows), OPTIONS, 0.9, folder=tmp_path / "f", note=said.append)
    assert curve.is_reached
    passed = [point.noise_ceiling.value >= 0.9 for point in curve.points]
    assert passed == [False] * (len(passed) - 2) + [True, True]
    count = curve.points[-1].examples
    assert found.count == count < 400
    assert found.metadata["until_noise_ceiling"] == json.loads(json.dumps(curve.record()))
    assert found.metadata["until_noise_ceiling"]["points"][-1]["examples"] == count
    chosen = open_table(rows, examples=count)
    at_once = measure(loaded, chosen, OPTIONS, folder=tmp_path / "once")
    for name in found:
        assert torch.allclose(found[name], at_once[name], rtol=1e-5, atol=1e-9)
        for one, other in zip(found.folds, at_once.folds, strict=True):
            assert one.count == other.count
            assert torch.allclose(one.tensors[name], other.tensors[name], rtol=1e-2, atol=1e-9)
    assert found.metadata["data"] == at_once.metadata["data"]
    assert found.metadata["folds"] == at_once.metadata["folds"]
    assert found.effective_sample_size == pytest.approx(at_once.effective_sample_size, rel=1e-6)
    assert noise_ceiling(found).pooled.value == pytest.approx(curve.points[-1].noise_ceiling.value, abs=1e-3)
    assert commonweight.overlap({"a": found, "b": at_once}).pooled[0, 1] == pytest.approx(1, abs=1e-6)
    assert {path.name for path in tmp_path.iterdir()} == {"f", "once"}
    text = to_markdown(curve.blocks())
    assert f"reached with {count} of 400 examples, in two steps in a row" in text
    assert "too high on average" in text
    assert any("noise ceiling 0." in sentence for sentence in said)


def test_no_row_is_measured_twice(loaded, rows, tmp_path, monkeypatch):
    measured = []

    def noted(batch):
        measured.append(row_digests(batch))
        return measured[-1]

    monkeypatch.setattr(collector, "row_digests", noted)
    found, _ = measure_until(loaded, open_table(rows), OPTIONS, 0.999, folder=tmp_path / "f")
    assert found.count == 400
    assert len(measured) > 1
    assert len(torch.cat(measured).unique()) == len(torch.cat(measured)) == 400


def test_the_end_of_the_data_is_said(loaded, rows, tmp_path):
    _, curve = measure_until(loaded, open_table(rows, examples=100), OPTIONS, 0.9999, folder=tmp_path / "f")
    assert not curve.is_reached
    assert curve.points[-1].examples == 100
    text = to_markdown(curve.blocks())
    assert "rows that --examples allows ended before the noise ceiling was reached: with all 100 examples" in text
    assert "Allow more of the 400 rows with --examples" in text
    assert "data ended" not in text
    assert "too low on average" in text
    assert "too high" not in text
    assert (
        Footprint.load(tmp_path / "f").metadata["data"]["selection"]
        == open_table(rows, examples=100).identity["selection"]
    )


def test_data_without_a_limit_end_as_data(loaded, rows, tmp_path):
    _, curve = measure_until(loaded, open_table(rows), OPTIONS, 0.9999, folder=tmp_path / "f")
    text = to_markdown(curve.blocks())
    assert "The data ended before the noise ceiling was reached: with all 400 examples" in text
    assert "--examples" not in text


def curve_of(*steps, target=0.9):
    """A curve from (examples, effective sample size, noise ceiling)."""
    points = [Point(count, effective, Estimate(value, (), "folds")) for count, effective, value in steps]
    return Convergence(target, tuple(points), steps[-1][0], 4000)


@pytest.mark.parametrize(
    ("steps", "reached"),
    [
        ([(64, 30, 0.95)], False),
        ([(64, 30, 0.95), (128, 60, 0.95)], True),
        ([(64, 30, 0.95), (128, 60, 0.85)], False),
        ([(64, 30, 0.85), (128, 60, 0.95)], False),
        ([(64, 30, 0.95), (128, 60, 0.85), (256, 90, 0.95)], False),
        ([(64, 19, 0.95), (128, 60, 0.95)], False),
        ([(64, 30, 0.95), (128, 19, 0.95)], False),
        ([(64, 30, 0.85), (128, 60, 0.95), (140, 65, 0.95)], False),  # 12 more rows confirm nothing
        ([(64, 30, 0.95), (128, 60, 0.85), (140, 65, 0.95)], False),
        ([(1024, 30, 0.85), (2048, 60, 0.95), (4000, 90, 0.95)], True),
    ],
)
def test_it_is_reached_in_two_steps_in_a_row(steps, reached):
    curve = curve_of(*steps)
    assert curve.is_reached is reached
    assert ("is reached with" in to_markdown(curve.blocks())) is reached


def test_one_step_alone_is_called_that():
    text = to_markdown(curve_of((64, 30, 0.85), (128, 60, 0.95)).blocks())
    assert "before the noise ceiling was confirmed: with all 128 examples it is 0.9500, at least" in text
    assert "two steps in a row must be enough" in text


def test_where_effective_sample_size_fall_is_shown():
    """What a demonstration's network gave: loud examples came in after the mark of .94 had been passed."""
    curve = curve_of((256, 46.3, 0.921), (512, 86.5, 0.946), (1024, 14.4, 0.859), target=0.94)
    assert not curve.is_reached
    text = to_markdown(curve.blocks())
    assert "From 512 to 1024 examples the effective sample size fell from 86.5 to 14.4" in text
    assert '"loud examples" in docs/evidence.md' in text
    assert "fell" not in to_markdown(curve_of((64, 30, 0.95), (128, 60, 0.95)).blocks())


def test_the_steps_are_known_beforehand(loaded, rows, tmp_path):
    table = open_table(rows, examples=300, seed=3)
    said = planned(table, OPTIONS, 0.9)
    _, curve = measure_until(loaded, table, OPTIONS, 0.9999, folder=tmp_path / "f")
    *before, last = (str(point.examples) for point in curve.points)
    assert "at least 0.9, with an effective sample size of 20 or more" in said
    assert f"Steps: {', '.join(before)} and {last} rows; at most 300 are measured" in said


def test_what_makes_no_sense_is_refused(loaded, rows, tmp_path):
    table = open_table(rows)
    for target in (0, 1, 1.5, -1):
        with pytest.raises(UsageError, match=r"above 0 and below 1, such as 0\.95"):
            measure_until(loaded, table, OPTIONS, target, folder=tmp_path / "f")
    with pytest.raises(UsageError, match="a noise ceiling needs folds"):
        measure_until(loaded, open_table(rows, examples=5), OPTIONS, 0.9, folder=tmp_path / "f")
    assert list(tmp_path.iterdir()) == []


def test_it_stops_inside_a_choice_of_rows_and_names_those_it_measured(loaded, rows, tmp_path):
    table = open_table(rows, examples=300, seed=3)
    found, curve = measure_until(loaded, table, OPTIONS, 0.9, folder=tmp_path / "f")
    assert curve.is_reached
    assert found.count < 300
    chosen = open_table(rows, examples=found.count, seed=3)
    assert found.metadata["data"]["selection"] == chosen.identity["selection"]
    at_once = measure(loaded, chosen, OPTIONS)
    assert all(torch.allclose(found[name], at_once[name], rtol=1e-5, atol=1e-9) for name in found)


def test_all_rows_are_taken_in_the_order_they_were_opened_with(loaded, rows, tmp_path):
    found, _ = measure_until(loaded, open_table(rows, seed=4), OPTIONS, 0.9, folder=tmp_path / "f")
    assert found.metadata["data"]["selection"] == open_table(rows, examples=found.count, seed=4).identity["selection"]


def test_too_few_effective_sample_size_do_not_stop_it(loaded, rows, tmp_path):
    """A few loud rows agree by chance; the same mark stops at once where rows weigh alike."""
    table = open_table(rows)
    _, plain = measure_until(loaded, table, OPTIONS, 0.2, folder=tmp_path / "plain")
    assert [point.examples for point in plain.points] == [64, 128]
    lines = [json.loads(line) for line in Path(rows).read_text().splitlines()]
    for index, line in enumerate(lines):
        line.update({name: line[name] * (60 if index % 16 == 0 else 0.05) for name in "uvw"})
        line["label"] = int(index % 3 == 0)
    (tmp_path / "loud.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    loud = open_table(str(tmp_path / "loud.jsonl"))
    linear = LoadedModel(torch.nn.Linear(3, 2), {"name": "linear"})
    _, curve = measure_until(linear, loud, OPTIONS, 0.2, folder=tmp_path / "loud")
    assert curve.points[0].noise_ceiling.value >= 0.2
    assert curve.points[0].effective < 20
    assert len(curve.points) > 1
    _, short = measure_until(
        linear, open_table(str(tmp_path / "loud.jsonl"), examples=64), OPTIONS, 0.2, folder=tmp_path / "short"
    )
    assert not short.is_reached
    text = to_markdown(short.blocks())
    assert f"the effective sample size of {short.points[-1].effective:.1f} is below 20" in text


def test_copies_reach_no_noise_ceiling(loaded, rows, tmp_path):
    """Forty rows, ten times: halves that hold the same rows agree; with one source row per row they do not."""
    lines = [json.loads(line) for line in Path(rows).read_text().splitlines()[:40]] * 10
    (tmp_path / "copied.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    numbered = [{**line, "source_row": place % 40} for place, line in enumerate(lines)]
    (tmp_path / "numbered.jsonl").write_text("".join(json.dumps(line) + "\n" for line in numbered))
    found, curve = measure_until(
        loaded, open_table(str(tmp_path / "copied.jsonl")), OPTIONS, 0.9, folder=tmp_path / "copied"
    )
    last = curve.points[-1]
    assert last.noise_ceiling.value > 0.9
    assert last.effective > 20
    assert not curve.is_reached
    assert (last.examples, last.rows.distinct, last.rows.copied) == (400, 40, 400)
    assert found.rows == last.rows
    assert found.metadata["until_noise_ceiling"]["points"][-1]["rows"] == {"total": 400, "distinct": 40, "copied": 400}
    text = to_markdown(curve.blocks())
    assert "before the noise ceiling could count" in text
    assert "400 of 400 rows have copies in other folds (40 are distinct)" in text
    assert "40; 400 rows have copies in other folds" in to_markdown(summary(found, "f"))
    numbers = open_table(str(tmp_path / "numbered.jsonl"))
    once, honest = measure_until(loaded, numbers, OPTIONS, 0.9999, folder=tmp_path / "numbered")
    assert honest.points[-1].rows == (400, 40, 0)
    assert honest.points[-1].effective <= 40
    assert honest.points[-1].noise_ceiling.value < last.noise_ceiling.value
    assert "40; 0 rows have copies in other folds" in to_markdown(summary(once, "f"))


class Certain(torch.nn.Module):
    """A model whose weights change nothing."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(3, 2)

    def forward(self, inputs):
        return 0 * self.linear(inputs)


def test_a_noise_ceiling_of_nothing_is_called_undefined(rows, tmp_path):
    loaded = LoadedModel(Certain(), {"name": "certain"})
    found, curve = measure_until(loaded, open_table(rows, examples=70), OPTIONS, 0.9, folder=tmp_path / "f")
    text = to_markdown(curve.blocks())
    assert "noise ceiling is undefined" in text
    assert "Fisher of all 70 examples is zero. Look at the labels" in text
    assert "below 0.9" not in text
    assert "more rows" not in text
    assert found.metadata["until_noise_ceiling"]["points"][-1]["noise_ceiling"] is None


def test_folds_are_rounded_once(rows, tmp_path):
    """Only in the end, to bfloat16: not in every step."""
    torch.manual_seed(0)
    wide = torch.nn.Sequential(torch.nn.Linear(3, 1400), torch.nn.Tanh(), torch.nn.Linear(1400, 2))
    loaded = LoadedModel(wide, {"name": "wide"})
    found, curve = measure_until(loaded, open_table(rows, examples=200), OPTIONS, 0.9999, folder=tmp_path / "f")
    assert len(curve.points) == 3
    exact = measure(loaded, open_table(rows, examples=200), OPTIONS)
    for one, other in zip(found.folds, exact.folds, strict=True):
        short, full = one.tensors["0.weight"], other.tensors["0.weight"]
        assert short.dtype == torch.bfloat16
        assert ((short.float() - full).abs() <= 2**-8 * 1.001 * full).all()


def test_it_takes_the_disk_and_the_memory_it_says_and_leaves_nothing_else(loaded, rows, tmp_path):
    expected = until_outlook(loaded, open_table(rows), OPTIONS, 0.9999, folder=tmp_path / "f")
    assert list(tmp_path.iterdir()) == []
    measure_until(loaded, open_table(rows), OPTIONS, 0.9999, folder=tmp_path / "f")
    shards = [shard for shard in (tmp_path / "f").glob("*.safetensors") if not shard.name.startswith("rows-")]
    assert sum(tensor.nbytes for shard in shards for tensor in load_file(shard).values()) == expected.disk
    assert [path.name for path in tmp_path.iterdir()] == ["f"]
    one = sum(parameter.nbytes for parameter in loaded.model.parameters())
    assert expected.memory["sums"] == (8 + 2) * one  # every fold, the whole, and the fold that is being measured
    with pytest.raises(UsageError, match=r"exists already"):
        measure_until(loaded, open_table(rows), OPTIONS, 0.9999, folder=tmp_path / "f")


def test_a_disk_without_room_for_the_result_is_refused(loaded, rows, tmp_path, monkeypatch):
    table = open_table(rows)
    expected = until_outlook(loaded, table, OPTIONS, 0.9, folder=tmp_path / "f")
    Usage = namedtuple("Usage", "total used free")
    free = SPARE + expected.disk
    monkeypatch.setattr("commonweight.base.folders.shutil.disk_usage", lambda _: Usage(1, 1, free - 1))
    with pytest.raises(UsageError, match=r"f needs .* of disk.*make room"):
        until_outlook(loaded, table, OPTIONS, 0.9, folder=tmp_path / "f")
    monkeypatch.setattr("commonweight.base.folders.shutil.disk_usage", lambda _: Usage(1, 1, free))
    until_outlook(loaded, table, OPTIONS, 0.9, folder=tmp_path / "f")


def test_when_memory_runs_out_it_starts_again_with_smaller_batches(loaded, rows, tmp_path, monkeypatch):
    table = open_table(rows, examples=100)
    expected, _ = measure_until(loaded, table, OPTIONS, 0.9999, folder=tmp_path / "e")
    added = FisherCollector.update
    sizes, said = [], []

    def update(self, batch):
        sizes.append(batch.size)
        if len(sizes) > 10 and batch.size > 4:
            raise torch.OutOfMemoryError
        added(self, batch)

    monkeypatch.setattr(FisherCollector, "update", update)
    found, _ = measure_until(loaded, table, OPTIONS, 0.9999, folder=tmp_path / "f", note=said.append)
    assert any("memory ran out; measuring again with 4 rows per batch" in sentence for sentence in said)
    assert found.count == 100
    assert all(torch.allclose(found[name], expected[name], rtol=1e-5, atol=1e-9) for name in found)


@pytest.mark.parametrize("folds", [2, 8, 40])
@pytest.mark.parametrize("count", [257, 259, 500, 1000])
def test_every_step_ends_with_rows_of_every_fold_and_all_rows_are_taken(folds, count):
    source = [3 * row for row in range(count)]
    ends = step_ends(source, folds)
    assert ends[-1] == count
    assert {fold_of(row, folds) for row in source[: ends[0]]} == set(range(folds))
    assert (ends[0] == 64) is (folds < 40)
    assert ends[0] == 64 or {fold_of(row, folds) for row in source[: ends[0] - 1]} != set(range(folds))
    assert all(b == 2 * a for a, b in pairwise(ends[:-1]))
    assert len(ends) == 1 or ends[-2] < ends[-1] <= 2 * ends[-2]
