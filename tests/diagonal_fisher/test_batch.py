"""What belongs to a batch as a whole is not taken apart by example."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diagonal_fisher.loop import (
    D,
    assert_exact,
    examples_of,
    nll,
    randn,
    wrong,
    y,
)
from diagonal_fisher.zoo import CLASSES
from reference.fisher import loop_fisher
from torch import nn

import commonweight
from commonweight.base import UsageError

# peft asks transformers for an attribute that was renamed
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


class SharedMask(nn.Module):
    """Attention under a mask ``[T, T]`` that all examples share."""

    def __init__(self):
        super().__init__()
        self.query, self.scale, self.head = nn.Linear(6, 6), nn.Parameter(torch.randn(6)), nn.Linear(6, CLASSES)

    def forward(self, x, mask):
        q = self.query(x) * self.scale
        weights = (q @ q.transpose(1, 2)).masked_fill(mask == 0, -1e9).softmax(-1)
        return self.head((weights @ q).tanh()[:, : len(x[0]) // 2 + 1].mean(1))


class SharedPositions(nn.Module):
    """Weights ``[T]`` of the positions, which all examples share."""

    def __init__(self):
        super().__init__()
        self.layer, self.shift = nn.Linear(6, CLASSES), nn.Parameter(torch.zeros(CLASSES))

    def forward(self, x, places):
        return self.layer((x * places[None, :, None]).mean(1)) + self.shift


class Layer(nn.Module):
    """An encoder layer of PyTorch inside a larger model, given the shared mask."""

    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True), nn.Linear(6, CLASSES)

    def forward(self, x, mask):
        return self.head(self.layer(x, src_mask=mask == 0)[:, : len(x[0]) // 2 + 1].mean(1))


class Table(nn.Module):
    """A table of positions, looked up by a module of its own with indices ``[T]``."""

    class Look(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Parameter(torch.randn(12, 6))

        def forward(self, x, places):
            return x + self.table[places.long()]

    def __init__(self):
        super().__init__()
        self.look, self.mix, self.head = Table.Look(), nn.Linear(6, 6), nn.Linear(6, CLASSES)

    def forward(self, x, places):
        return self.head(self.mix(self.look(x, places)).tanh().mean(1))


SHARING = {"mask": SharedMask, "positions": SharedPositions, "layer": Layer, "table": Table}


def sharing_batches(kind, lengths, size):
    batches = []
    for length in lengths:
        extra = (
            {"mask": torch.tril(torch.ones(length, length, dtype=D))}
            if kind in {"mask", "layer"}
            else {"places": torch.arange(float(length), dtype=D)}
        )
        batches.append({"x": randn(size, length, 6), **extra, "labels": y(size)})
    return batches


@pytest.mark.parametrize("kind", SHARING)
@pytest.mark.parametrize("folds", [1, 3])
def test_shared_tensors_as_long_as_a_later_batch(kind, folds):
    torch.manual_seed(0)
    batches = sharing_batches(kind, (5, 6, 7, 8), 8)
    assert_exact(SHARING[kind]().double(), batches, shared=("mask", "places"), folds=folds)


@pytest.mark.parametrize("kind", SHARING)
@pytest.mark.parametrize("folds", [1, 3])
@pytest.mark.parametrize("size", [4, 8])
def test_shared_tensors_as_long_as_the_first_batch(kind, folds, size):
    """Nothing tells them apart there: right, or refused in words."""
    torch.manual_seed(0)
    batches = sharing_batches(kind, (size, *range(5, 9)), size)
    model = SHARING[kind]().double()
    options = {"loss": "classification", "folds": folds}
    try:
        footprint = commonweight.fisher(model, batches, **options)
    except commonweight.CommonweightError:
        return
    reference, _ = loop_fisher(model, list(examples_of(batches, ("mask", "places"))), nll)
    assert wrong(footprint, reference) == {}


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, CLASSES)

    def forward(self, x, scale=1.0, names=None):
        return self.layer(x) * scale


@pytest.mark.parametrize("folds", [1, 2, 4])
def test_plain_values_differ_from_batch_to_batch(folds):
    torch.manual_seed(0)
    batches = [{"x": randn(4, 6), "scale": 1.0 if i % 2 else 3.0, "labels": y(4)} for i in range(8)]
    assert_exact(Scaled().double(), batches, folds=folds)


@pytest.mark.parametrize("folds", [1, 2, 4])
def test_numpy_arrays_among_the_plain_values(folds):
    torch.manual_seed(0)
    batches = [{"x": randn(4, 6), "names": np.arange(4), "labels": y(4)} for _ in range(8)]
    try:
        assert_exact(Scaled().double(), batches, folds=folds)
    except UsageError as error:
        assert "names" in str(error)  # noqa: PT017
