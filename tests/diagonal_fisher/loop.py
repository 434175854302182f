"""Every example alone, in a loop: the definition that a Fisher is held against."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from diagonal_fisher.zoo import CLASSES
from reference.fisher import loop_fisher
from torch import Tensor, nn

import commonweight
from commonweight.footprints.folds import fold_of

D = torch.float64


class VectorNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(6))

    def forward(self, x):
        return x * self.weight


def y(size=8):
    return torch.arange(size) % CLASSES


def randn(*shape):
    return torch.randn(*shape, dtype=D)


def cut(x, i):
    return tuple(v[i : i + 1] for v in x) if isinstance(x, tuple) else x[i : i + 1]


def examples_of(batches, shared=()):
    for batch in batches:
        if isinstance(batch, dict):
            for i in range(len(batch["labels"])):
                yield {
                    key: value[i : i + 1] if isinstance(value, Tensor) and key not in shared else value
                    for key, value in batch.items()
                }
        else:
            for i in range(len(batch[1])):
                yield cut(batch[0], i), batch[1][i : i + 1]


def nll(model, example):
    if isinstance(example, dict):
        labels = example["labels"]
        out = model(**{key: value for key, value in example.items() if key != "labels"})
    else:
        inputs, labels = example
        out = model(*inputs) if isinstance(inputs, tuple) else model(inputs)
    out = out if isinstance(out, Tensor) else out.logits
    return [F.cross_entropy(out.flatten(0, -2), labels.flatten(), ignore_index=-100, reduction="sum")]


def seq2seq_nll(model, example):
    logits = model(**example).logits
    return [F.cross_entropy(logits.flatten(0, 1), example["labels"].flatten(), ignore_index=-100, reduction="sum")]


def model_label_nll(model, example):
    log_prob = model(example[0]).log_softmax(-1)
    return [log_prob[0, c].detach().exp().sqrt() * -log_prob[0, c] for c in range(CLASSES)]


def gaps(footprint, reference):
    """Largest difference of square roots for every parameter, as a share of that parameter's own largest."""
    assert set(footprint) == set(reference)
    network = max(float(value.max()) for value in reference.values() if value.numel()) ** 0.5
    found = {}
    for name, value in reference.items():
        if not value.numel():
            continue
        own = max(float(value.max()), float(footprint[name].max())) ** 0.5
        difference = float((footprint[name].double().sqrt() - value.sqrt()).abs().max())
        # What is below the rounding of the network's largest gradient is zero but for rounding.
        found[name] = difference / own if own > 1e-12 * network else 0.0
    return found


def wrong(footprint, reference, tolerance=1e-6):
    return {name: value for name, value in gaps(footprint, reference).items() if not value < tolerance}


def assert_exact(model, batches, *, loss="classification", nll=nll, shared=(), tolerance=1e-6, **options):
    footprint = commonweight.fisher(model, batches, loss=loss, **options)
    reference, traces = loop_fisher(model, list(examples_of(batches, shared)), nll)
    assert wrong(footprint, reference, tolerance) == {}, footprint.metadata["generic"]
    assert footprint.count == len(traces)
    assert footprint.trace() == pytest.approx(sum(traces) / len(traces), rel=max(1e-6, tolerance))
    for number, fold in enumerate(footprint.folds):
        here = [row for i, row in enumerate(examples_of(batches, shared)) if fold_of(i, len(footprint.folds)) == number]
        assert wrong(fold.tensors, loop_fisher(model, here, nll)[0], tolerance) == {}, number
    return footprint


def in_sizes(batch, sizes):
    size = len(batch["labels"]) if isinstance(batch, dict) else len(batch[1])
    ends = list(itertools.accumulate(sizes))
    assert ends[-1] == size
    for first, last in zip([0, *ends], ends, strict=False):
        if isinstance(batch, dict):
            yield {key: value[first:last] for key, value in batch.items()}
        else:
            yield batch[0][first:last], batch[1][first:last]
