"""The split-half noise ceiling of a single Fisher: what sampling noise alone leaves of an overlap of 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from commonweight.base.errors import UsageError
from commonweight.base.estimate import Estimate
from commonweight.base.names import Named
from commonweight.footprints.footprint import IMPORTANCES, by_layer
from commonweight.overlaps.measures.gram import gram_matrices
from commonweight.overlaps.resampling.ratios import FoldRatios, Resampled
from commonweight.overlaps.resampling.same_folds import check_traces, common_folds
from commonweight.overlaps.resampling.sums import fold_terms

if TYPE_CHECKING:
    from collections.abc import Mapping

    from commonweight.footprints.footprint import Footprint

FEWEST = 2
"""Folds of which halves can be made."""


@dataclass(frozen=True)
class NoiseCeilings:
    """The noise ceilings of one Fisher."""

    pooled: Estimate
    """Of all weights as one, with its replicates over folds."""

    by_layer: Mapping[str, Estimate]
    """Of the weights of each layer."""


def noise_ceiling(footprint: Footprint) -> NoiseCeilings:
    r"""Measure how much two halves of the examples of one Fisher overlap.

    Over balanced splits of the folds into halves H and H',

    .. math::
        \frac{\sum_h \langle \sqrt{F_H}, \sqrt{F_{H'}} \rangle}
             {\sum_h \sqrt{\mathrm{tr} F_H \, \mathrm{tr} F_{H'}}},

    the same number as ``OverlapTable.noise_ceiling``, from one footprint alone: 1 without sampling noise, and lower the
    fewer examples there are; it is that of *half* of them.

    Args:
        footprint: A Fisher or saliency with folds, in memory or on disk; it is read a slab at a time.

    Returns:
        The noise ceilings, with jackknife intervals where there are 3 folds or more.

    Raises:
        UsageError: If it is no Fisher, or has fewer than 2 folds.

    Example:
        >>> import torch, commonweight
        >>> model = torch.nn.Linear(6, 3)
        >>> batch = (torch.randn(200, 6), torch.randint(3, (200,)))
        >>> found = noise_ceiling(commonweight.fisher(model, [batch], folds=8))
        >>> 0.9 < found.pooled.value <= 1.01, found.pooled.count
        (True, 8)
    """
    if footprint.kind not in IMPORTANCES or len(footprint.folds) < FEWEST:
        raise UsageError(
            f"a noise ceiling needs a Fisher with at least {FEWEST} folds, got kind {footprint.kind!r} with "
            f"{len(footprint.folds)} folds: measure with folds, such as fisher(..., folds=8)"
        )
    alone = {"footprint": footprint}
    common_folds(alone, footprint.names)
    grams = gram_matrices(alone, footprint.names)
    terms = fold_terms(alone, grams)
    for name, gram in grams.items():
        check_traces(tuple(alone), name, np.diagonal(gram), terms[name].traces.sum(axis=0))
    ratios = FoldRatios(Resampled(len(footprint.folds), terms), grams)

    def of(parameters: tuple[str, ...]) -> Estimate:
        found = ratios.noise_ceiling(parameters)[:, 0]
        return Estimate(float(found[0]), tuple(found[1:].tolist()), "folds")

    layers = {layer: of(members) for layer, members in by_layer(footprint.names).items()}
    return NoiseCeilings(of(footprint.names), Named("layer", layers))
