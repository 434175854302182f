"""Small Fishers with folds, for the tests of noise ceilings, corrected overlaps and intervals."""

import torch

from commonweight.base.seeds import keyed
from commonweight.footprints.folds import FOLD_MAP
from commonweight.footprints.footprint import Fold, Footprint

SHAPES = {"body.weight": (3, 4), "body.bias": (3,), "head.weight": (2, 2, 2), "scale": ()}


def fisher(examples, shapes=None, folds=8, seed=0, counts=None, fold_map=FOLD_MAP):
    """A footprint of given per-example Fishers: a function from a generator, count and shape to ``[count, *shape]``."""
    generator = torch.Generator().manual_seed(seed)
    counts = counts or [4 + (k * 7 + seed) % 3 for k in range(folds)]
    drawn = {
        name: [examples(generator, count, shape) for count in counts] for name, shape in (shapes or SHAPES).items()
    }
    parts = tuple(
        Fold(count, {name: each[k].double().mean(0) for name, each in drawn.items()}) for k, count in enumerate(counts)
    )
    tensors = {name: torch.cat(each).double().mean(0) for name, each in drawn.items()}
    facts = {"fisher_type": "empirical", "folds": {"count": folds, "map": fold_map}}
    return Footprint("fisher", tensors, sum(counts), facts, folds=parts, row_digests=rows(counts))


def rows(counts):
    """Digests of rows that are all different; the first of a fold are the same in every footprint."""
    return {
        f"fold-{k:03d}": torch.tensor([keyed(k, place) for place in range(count)]) for k, count in enumerate(counts)
    }


def squares(generator, count, shape):
    return torch.randn((count, *shape), generator=generator).square()


def plain(footprint, names):
    """As the loops want it: per fold its count and its values as one list."""
    return [
        (fold.count, [value for name in names for value in fold.tensors[name].reshape(-1).tolist()])
        for fold in footprint.folds
    ]
