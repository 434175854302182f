"""An overlap table as JSON: the additive terms, from which all is derived again, and the ratios for other readers."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from commonweight.base.errors import IntegrityError
from commonweight.base.records import Format, record_of
from commonweight.footprints.copies import RowCounts
from commonweight.footprints.footprint import KINDS, Spread, layer_of
from commonweight.overlaps.alignment import Alignment
from commonweight.overlaps.chance import MaskFacts
from commonweight.overlaps.compatible import LeftOut
from commonweight.overlaps.table import fold_record

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from commonweight.overlaps.table.table import OverlapTable

FORMAT = "commonweight-overlap"
# Version 1: nan is null; "terms" hold one Gram matrix per parameter; "derived" is for other readers and not read back;
# "masks", of supermasks only, holds what chance depends on (tables of earlier releases lack it); "folds", of Fishers
# that all have folds only, holds the sums over these per layer; "spread" holds per footprint and layer the sums of the
# examples' traces and of their squares (tables of earlier releases lack it); "rows" holds per footprint its rows, the
# distinct ones, and those with copies in other folds (tables of earlier releases lack it).
VERSION = 1
TABLE = Format(FORMAT, (VERSION,), "an overlap table", "compute it again")


def to_json(table: OverlapTable) -> str:
    """Write a table as JSON."""
    record = {
        "format": FORMAT,
        "version": VERSION,
        "kind": table.kind,
        "measure": table.measure,
        "names": list(table.names),
        "depth": table.depth,
        "counts": dict(table.counts),
        "effective_sample_size": {name: _number(value) for name, value in table.effective_sample_size.items()},
        "spread": {
            name: {layer: [spread.total, spread.squares] for layer, spread in layers.items()}
            for name, layers in table.spread.items()
        },
        "rows": {name: list(counts) for name, counts in table.rows.items()},
        "fisher_types": dict(table.fisher_types),
        "left_out": [{"parameter": item.parameter, "reason": item.reason} for item in table.left_out],
        "weight_distance": as_lists(table.alignment.distance),
        "weight_matrices": {name: [*map(as_lists, terms)] for name, terms in table.alignment.matrices.items()},
        "terms": {parameter: as_lists(gram) for parameter, gram in table.terms.items()},
        **_masks(table),
        **fold_record.to_record(table),
        "derived": {
            "pooled": as_lists(table.pooled),
            "layer_mean": as_lists(table.layer_mean),
            "layers_defined": table.layers_defined.tolist(),
            "shared_initialisation": table.alignment.sentence(),
            "layers": [
                {
                    "layer": layer,
                    "overlap": as_lists(overlap),
                    "trace_share": as_lists(table.trace_share[layer]),
                    **_beside(table, layer),
                    **fold_record.derived_of_layer(table, layer),
                }
                for layer, overlap in table.by_layer.items()
            ],
            **_beside(table),
            **fold_record.derived(table),
        },
    }
    return json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False)


def _masks(table: OverlapTable) -> dict[str, Any]:
    facts = table.masks
    if facts is None:
        return {}
    return {"masks": {"sizes": dict(facts.sizes), "starts": dict(facts.starts), "flipped": dict(facts.flipped)}}


def _beside(table: OverlapTable, layer: str | None = None) -> dict[str, Any]:
    if table.masks is None:
        return {}
    levels = {"density": table.density, "chance": table.chance, "corrected": table.corrected}
    return {name: as_lists(level.pooled if layer is None else level.by_layer[layer]) for name, level in levels.items()}


def fields_from_json(text: str) -> dict[str, Any]:
    """Read back what :func:`to_json` wrote."""
    record = record_of(text, "the overlap table", TABLE, ())
    try:
        return _fields(record)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise IntegrityError(
            f"the overlap table is damaged or was edited by hand ({error!r}): compute it again"
        ) from None


def _fields(record: dict[str, Any]) -> dict[str, Any]:
    names = tuple(str(name) for name in record["names"])
    kind, depth = record["kind"], record["depth"]
    if kind not in KINDS or len(set(names)) != len(names) or len(names) < 2 or not record["terms"]:
        raise ValueError("kind, names or terms")
    if depth is not None and (not isinstance(depth, int) or depth < 0):
        raise ValueError("depth")
    return {
        "names": names,
        "kind": kind,
        "depth": depth,
        "counts": {name: int(record["counts"][name]) for name in names},
        "effective_sample_size": {name: _float(record["effective_sample_size"][name]) for name in names},
        "spread": {
            name: {layer: Spread(float(total), float(squares)) for layer, (total, squares) in layers.items()}
            for name, layers in record.get("spread", {}).items()
        },
        "rows": {
            name: RowCounts(int(total), int(distinct), int(copied))
            for name, (total, distinct, copied) in record.get("rows", {}).items()
        },
        "fisher_types": {name: record["fisher_types"][name] for name in names},
        "left_out": tuple(LeftOut(str(item["parameter"]), str(item["reason"])) for item in record["left_out"]),
        "alignment": Alignment(
            names,
            as_array(record["weight_distance"], len(names)),
            {
                str(name): np.stack([as_array(terms[place], len(names)) for place in range(2)])
                for name, terms in record.get("weight_matrices", {}).items()
            },
        ),
        "terms": {str(parameter): as_array(gram, len(names)) for parameter, gram in record["terms"].items()},
        "masks": _facts(record.get("masks"), names, tuple(record["terms"])) if kind == "supermask" else None,
        "resampled": fold_record.from_record(record.get("folds"), len(names), set(map(layer_of, record["terms"]))),
    }


def _facts(masks: dict[str, Any] | None, names: tuple[str, ...], parameters: tuple[str, ...]) -> MaskFacts | None:
    if masks is None:  # written before there were chance levels
        return None
    starts = {name: masks["starts"][name] for name in names}
    if not all(start is None or isinstance(start, str) for start in starts.values()):
        raise TypeError("starts")
    return MaskFacts(
        {parameter: int(masks["sizes"][parameter]) for parameter in parameters},
        starts,
        {name: bool(masks["flipped"][name]) for name in names},
    )


def as_array(lists: list[list[float | None]], n: int) -> NDArray[np.float64]:
    """Read a matrix of a record."""
    array = np.array([[_float(value) for value in row] for row in lists], dtype=np.float64)
    if array.shape != (n, n):
        raise ValueError(f"a matrix of shape {list(array.shape)}, expected {[n, n]}")
    return array


def as_lists(array: NDArray[np.float64]) -> Any:
    """Write an array for a record."""
    if array.ndim == 0:
        return _number(float(array))
    return [as_lists(part) for part in array]


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _float(value: float | None) -> float:
    return math.nan if value is None else float(value)
