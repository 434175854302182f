"""Gram matrices of packed masks, counted as bits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from footprints.masked import trained
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.first_notebook import jaccard_index as notebook_jaccard
from reference.masks import kept_by_both
from sklearn.metrics import jaccard_score

from commonweight.footprints.footprint import Footprint
from commonweight.footprints.of_masks import supermask_footprint
from commonweight.footprints.packed import PackedMasks
from commonweight.overlaps.measures import gram
from commonweight.overlaps.measures import gram as popcount
from commonweight.overlaps.table.table import overlap


@pytest.fixture(params=["counted", "looked up"])
def counting(request, monkeypatch):
    """Both ways to count, whatever the release of NumPy."""
    if request.param == "counted" and np.lib.NumpyVersion(np.__version__) < "2.0.0b1":
        pytest.skip("NumPy counts bits from release 2 on")
    monkeypatch.setattr(
        popcount, "count_ones", popcount._counted if request.param == "counted" else popcount._looked_up
    )


def masks(count, n, density=0.5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(n, generator=generator) < density for _ in range(count)]


def footprints(rows, *, packed=True):
    named = {f"task {i}": {"w": row} for i, row in enumerate(rows)}
    return {
        name: Footprint("supermask", PackedMasks.of(tensors) if packed else tensors, 0)
        for name, tensors in named.items()
    }


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 5), st.integers(0, 300), st.floats(0, 1), st.integers(0, 99))
def test_it_is_the_number_kept_by_both(count, n, density, seed):
    rows = masks(count, n, density, seed)
    packed = [np.packbits(row.numpy()) for row in rows]
    found = popcount.popcount_gram([packed], count)
    expected = [[kept_by_both(a.tolist(), b.tolist()) for b in rows] for a in rows]
    assert found.tolist() == expected


@pytest.mark.parametrize(
    ("count", "n"), [(2, 70_000), (3, 64 * popcount.BLOCK), (2, 64 * popcount.BLOCK + 1), (60, 1000)]
)
def test_many_blocks_and_many_masks(counting, count, n):
    rows = masks(count, n, 0.8)
    rows[0][:] = True  # the largest counts there are
    X = torch.stack(rows).double()
    found = popcount.popcount_gram([[np.packbits(row.numpy()) for row in rows]], count)
    assert found.tolist() == (X @ X.T).tolist()


def test_slices_and_threads_change_nothing(counting, monkeypatch):
    rows = [np.packbits(row.numpy()) for row in masks(3, 40_000)]
    whole = popcount.popcount_gram([rows], 3)
    parts = [[row[start : start + 1001] for row in rows] for start in range(0, len(rows[0]), 1001)]
    assert popcount.popcount_gram(parts, 3).tolist() == whole.tolist()
    monkeypatch.setattr(popcount.torch, "get_num_threads", lambda: 3)
    monkeypatch.setattr(popcount, "ROWS", 1)
    assert popcount.popcount_gram([rows], 3).tolist() == whole.tolist()
    assert popcount.popcount_gram([], 3).tolist() == np.zeros((3, 3)).tolist()


def test_packed_and_dense_masks_give_one_table(monkeypatch):
    rows = masks(4, 5000)
    monkeypatch.setattr(gram, "BYTES_PER_SLICE", 100)
    dense, packed = overlap(footprints(rows, packed=False)), overlap(footprints(rows))
    mixed = overlap({**footprints(rows), "task 0": footprints(rows, packed=False)["task 0"]})
    assert dense.terms["w"].tolist() == packed.terms["w"].tolist() == mixed.terms["w"].tolist()
    assert dense.terms["w"].dtype == packed.terms["w"].dtype


def test_masks_on_disk_are_read_in_slices(tmp_path, monkeypatch):
    rows = masks(2, 3000)
    stored = {name: Footprint.load(f.save(tmp_path / name)) for name, f in footprints(rows).items()}
    largest = []
    read = type(stored["task 0"].tensors).packed

    def watched(self, name, start, stop):
        part = read(self, name, start, stop)
        largest.append(len(part))
        return part

    monkeypatch.setattr(type(stored["task 0"].tensors), "packed", watched)
    monkeypatch.setattr(gram, "BYTES_PER_SLICE", 64)
    assert overlap(stored).pooled[0, 1] == overlap(footprints(rows)).pooled[0, 1]
    assert max(largest) == 64


def test_as_scikit_learn_and_the_notebook_have_it():
    rows = masks(3, 4000, 0.3)
    table = overlap(footprints(rows))
    for i in range(3):
        for j in range(3):
            a, b = rows[i].numpy(), rows[j].numpy()
            assert table.pooled[i, j] == pytest.approx(jaccard_score(a, b), abs=1e-15)
            assert table.pooled[i, j] == pytest.approx(notebook_jaccard(a, b), abs=1e-15)
            assert table.pooled[i, j] == pytest.approx(notebook_jaccard(a.astype(np.float32), b), abs=1e-15)


def test_two_empty_masks_are_undefined_and_not_0_as_in_the_notebook():
    empty = torch.zeros(10, dtype=torch.bool)
    table = overlap(footprints([empty, empty, ~empty]))
    assert np.isnan(table.pooled[0, 1])
    assert notebook_jaccard(empty.numpy(), empty.numpy()) == 0
    assert table.pooled[0, 2] == 0
    assert table.pooled[2, 2] == 1


def test_a_mask_and_its_complement_share_nothing():
    (mask,) = masks(1, 999)
    assert overlap(footprints([mask, ~mask])).pooled[0, 1] == 0
    assert overlap(footprints([mask, mask.clone()])).pooled[0, 1] == 1


def test_every_pair_is_filled_in_and_symmetric():
    net = trained()
    table = overlap({task: supermask_footprint(net, task) for task in net.tasks})
    for layer, values in table.by_layer.items():
        assert np.array_equal(values, values.T), layer
        assert np.array_equal(np.diagonal(values), np.ones(3))
        for i, a in enumerate(net.tasks):
            for j, b in enumerate(net.tasks):
                name = f"{layer}.weight"
                expected = notebook_jaccard(net.mask(a, name).numpy(), net.mask(b, name).numpy())
                assert values[i, j] == pytest.approx(expected, abs=1e-15)


def test_names_are_matched_whole():
    """A name that another begins with is not counted with it."""
    one = {"fc.1.weight": torch.ones(8, dtype=torch.bool), "fc.10.weight": torch.zeros(8, dtype=torch.bool)}
    table = overlap({name: Footprint("supermask", PackedMasks.of(one), 0) for name in "ab"})
    assert table.by_layer["fc.1"][0, 1] == 1
    assert np.isnan(table.by_layer["fc.10"][0, 1])
