"""Streamed Gram matrices: equal to the direct product whatever the slices, and never more than a slice in memory."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import measures as reference

from commonweight.base.errors import MeasurementError
from commonweight.footprints import slices
from commonweight.footprints.footprint import Footprint
from commonweight.overlaps.measures import gram


class Stored(slices.Sliceable):
    """Tensors that are read in slices only; remembers the largest slice."""

    def __init__(self, tensors):
        self.tensors = tensors
        self.largest = 0

    def __getitem__(self, name):
        return self.rows(name, 0, None)

    def __iter__(self):
        return iter(self.tensors)

    def __len__(self):
        return len(self.tensors)

    def shape(self, name):
        return tuple(self.tensors[name].shape)

    def rows(self, name, start, stop):
        part = self.tensors[name][start:stop]
        self.largest = max(self.largest, part.numel())
        return part


def footprints(kind, *tensors, store=dict):
    return {f"task {i}": Footprint(kind, store({"w": tensor}), 1) for i, tensor in enumerate(tensors)}


def exponentials(*shape, seed=0, dtype=torch.float32):
    noise = torch.empty(shape, dtype=torch.float64)
    return noise.exponential_(generator=torch.Generator().manual_seed(seed)).to(dtype)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    st.lists(st.integers(0, 5), max_size=4),
    st.integers(1, 70),
    st.integers(2, 4),
    st.sampled_from(["fisher", "activity", "supermask"]),
    st.sampled_from([dict, Stored]),
)
def test_streamed_equals_direct(shape, entries, n, kind, store):
    store = dict if not shape else store
    draws = [exponentials(*shape, seed=seed) for seed in range(n)]
    tensors = [(draw > 0.7) if kind == "supermask" else draw for draw in draws]
    G = gram.parameter_gram(footprints(kind, *tensors, store=store), "w", entries=entries)
    rows = np.stack([tensor.double().reshape(-1).numpy() for tensor in tensors])
    rows = np.sqrt(rows) if kind == "fisher" else rows
    assert G.shape == (n, n)
    assert (G == G.T).all()
    np.testing.assert_allclose(G, rows @ rows.T, rtol=1e-13)
    np.testing.assert_allclose(G, reference.gram(rows.tolist()), rtol=1e-13)


def test_the_square_root_is_taken_for_fishers_only():
    as_fisher = gram.parameter_gram(footprints("fisher", *torch.tensor([[4.0], [9.0]])), "w")
    as_activity = gram.parameter_gram(footprints("activity", *torch.tensor([[4.0], [9.0]])), "w")
    assert as_fisher.tolist() == [[4.0, 6.0], [6.0, 9.0]]
    assert as_activity.tolist() == [[16.0, 36.0], [36.0, 81.0]]


@pytest.mark.parametrize("shape", [(1000, 30), (30, 7, 5, 3), (4097,)])
def test_a_saved_tensor_is_read_a_slice_at_a_time(shape):
    found = footprints("fisher", exponentials(*shape), exponentials(*shape, seed=1), store=Stored)
    gram.parameter_gram(found, "w", entries=128)
    assert {footprint.tensors.largest for footprint in found.values()} <= set(range(64, 129))


def test_reading_the_whole_tensor_would_be_noticed():
    stored = Stored({"w": exponentials(300)})
    assert len(stored["w"]) == stored.largest == 300


@pytest.mark.parametrize("shape", [(1, 1000), (3, 500), (1000,), (), (0, 4), (4, 0)])
def test_no_slice_is_longer_than_asked_even_within_one_huge_row(shape):
    tensor = torch.arange(int(np.prod(shape)), dtype=torch.float32).reshape(shape)
    parts = list(slices.slices({"w": tensor}, "w", entries=64))
    assert all(part.ndim == 1 and part.numel() <= 64 for part in parts)
    assert torch.equal(torch.cat([*parts, torch.empty(0)]), tensor.reshape(-1))


def test_saved_footprints_give_the_same_terms(tmp_path):
    tensors = {"a.weight": exponentials(50, 3), "a.bias": exponentials(7), "scale": exponentials()}
    others = {name: exponentials(*tensor.shape, seed=9) for name, tensor in tensors.items()}
    here = {"a": Footprint("fisher", tensors, 2), "b": Footprint("fisher", others, 2)}
    there = {name: Footprint.load(footprint.save(tmp_path / name)) for name, footprint in here.items()}
    for parameter in tensors:
        expected = gram.parameter_gram(here, parameter, entries=16)
        np.testing.assert_array_equal(gram.parameter_gram(there, parameter, entries=16), expected)
        assert slices.shape_of(there["a"].tensors, parameter) == tuple(tensors[parameter].shape)


def test_bfloat16_is_summed_in_float64():
    ones = torch.ones(2000, dtype=torch.bfloat16)
    assert gram.parameter_gram(footprints("fisher", ones, ones), "w").tolist() == [[2000.0] * 2] * 2


def test_the_footprint_is_left_as_it_was():
    f = torch.tensor([4.0, 9.0], dtype=torch.float64)
    gram.parameter_gram(footprints("fisher", f, f), "w")
    assert f.tolist() == [4.0, 9.0]


@pytest.mark.parametrize(
    ("kind", "bad", "message"),
    [
        (
            "fisher",
            [1.0, -1.0],
            "footprint 'task 1', parameter 'w': entries must be finite and at least 0, got -1; meas",
        ),
        ("fisher", [1.0, float("nan")], "footprint 'task 1', parameter 'w': .* got nan"),
        ("fisher", [float("inf"), 1.0], "footprint 'task 1', parameter 'w': .* got inf"),
        ("supermask", [1.0, 0.5], "footprint 'task 1', parameter 'w': a mask holds only 0 and 1, got 0.5"),
        ("activity", [1.0, float("nan")], "footprint 'task 1', parameter 'w': entries must be finite, got nan"),
        ("activity", [1j, 1.0], "footprint 'task 1', parameter 'w': entries must be real, got torch.complex64"),
    ],
)
def test_refusals_name_footprint_and_parameter(kind, bad, message):
    with pytest.raises(MeasurementError, match=message):
        gram.parameter_gram(footprints(kind, torch.tensor([1.0, 0.0]), torch.tensor(bad)), "w")


def test_negative_activities_are_allowed():
    G = gram.parameter_gram(footprints("activity", torch.tensor([1.0, -1.0]), torch.tensor([1.0, 1.0])), "w")
    assert G.tolist() == [[2.0, 0.0], [0.0, 2.0]]


def test_a_sum_beyond_float64_is_an_error():
    huge = torch.tensor([1e200], dtype=torch.float64)
    with pytest.raises(
        MeasurementError, match=r"footprint 'task 1', parameter 'w': the sum .* too large for float64; sc"
    ):
        gram.parameter_gram(footprints("activity", torch.ones(1), huge), "w")
