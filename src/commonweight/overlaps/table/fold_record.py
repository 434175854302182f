"""The sums over folds of a table as JSON: per layer, the upper triangles, each stack as one line of numbers."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from commonweight.overlaps.resampling.splits import splits_of
from commonweight.overlaps.resampling.sums import FoldTerms, Resampled

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from commonweight.base.estimate import Estimate
    from commonweight.overlaps.table.table import OverlapTable


NULL = "null_of_halves"
"""Under another name than the sums of whole Fishers that earlier releases wrote, which are not read."""


def to_record(table: OverlapTable) -> dict[str, Any]:
    """Describe the sums over folds."""
    if table.resampled is None:
        return {}
    rolled = table.resampled.rolled_up()
    return {
        "folds": {
            "count": rolled.folds,
            "splits": splits_of(rolled.folds).words,
            "layers": {
                layer: {NULL if name == "null" else name: _line(array, name) for name, array in terms.arrays.items()}
                for layer, terms in rolled.terms.items()
            },
        }
    }


def derived(table: OverlapTable) -> dict[str, Any]:
    """Give what follows from the sums, for other readers."""
    if table.resampled is None:
        return {}
    which = table.null.which()
    return {
        "noise_ceiling": dict(zip(table.names, map(_number, table.noise_ceiling.pooled.tolist()), strict=True)),
        "pairs": [
            {
                "a": a,
                "b": b,
                **{of: _interval(table.estimate(of, a, b)) for of in ("raw", "corrected", "extrapolated")},
                "null": _number(float(table.null.strictest.pooled[i, j])),
                "null_permutes": str(which[i, j]),
                "above_null": _interval(table.estimate("above_null", a, b)),
            }
            for (i, a), (j, b) in combinations(enumerate(table.names), 2)
        ],
    }


def derived_of_layer(table: OverlapTable, layer: str) -> dict[str, Any]:
    """Give what follows from the sums of one layer, for other readers."""
    if table.resampled is None:
        return {}
    which = table.null.which(layer)
    return {
        "noise_ceiling": [_number(value) for value in table.noise_ceiling.by_layer[layer].tolist()],
        "pairs": [
            {
                "a": a,
                "b": b,
                "corrected": _interval(table.estimate("corrected", a, b, layer)),
                "null": _number(float(table.null.strictest.by_layer[layer][i, j])),
                "null_permutes": str(which[i, j]),
            }
            for (i, a), (j, b) in combinations(enumerate(table.names), 2)
        ],
    }


def from_record(record: dict[str, Any] | None, n: int, layers: set[str]) -> Resampled | None:
    """Read back what :func:`to_record` wrote."""
    if record is None:
        return None
    K = int(record["count"])
    if K < 2 or set(record["layers"]) != layers:
        raise ValueError("folds")
    shapes = {"full": (K, n, n), "half": (K + 1, n, n), "quarter": (K + 1, n, n)}
    terms = {}
    for layer, lines in record["layers"].items():
        pairs = {name: _matrices(lines[name], shape) for name, shape in shapes.items()}
        permuted = (3, K + 1, n, n)
        pairs["null"] = _matrices(lines[NULL], permuted) if NULL in lines else np.full(permuted, np.nan)
        traces = _numbers(lines["traces"]).reshape(K, n)
        terms[layer] = FoldTerms(**pairs, traces=traces)
    return Resampled(K, terms, "layer")


def _line(array: NDArray[np.float64], name: str) -> str:
    if name != "traces":
        above = np.triu_indices(array.shape[-1])
        array = array[..., above[0], above[1]]
    return " ".join(map(repr, array.ravel().tolist()))


def _numbers(line: str) -> NDArray[np.float64]:
    return np.array([float(word) for word in line.split()])


def _matrices(line: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    above = np.triu_indices(shape[-1])
    array = np.empty(shape)
    values = _numbers(line).reshape(*shape[:-2], len(above[0]))
    array[..., above[0], above[1]] = values
    array[..., above[1], above[0]] = values
    return array


def _interval(estimate: Estimate) -> dict[str, float | None]:
    return {name: _number(getattr(estimate, name)) for name in ("value", "low", "high")}


def _number(value: float) -> float | None:
    return value if np.isfinite(value) else None
