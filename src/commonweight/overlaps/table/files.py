"""The files of an overlap table: ``overlap.json``, and beside it ``overlap.safetensors`` where there are folds.

The record holds the facts and the additive terms, from which all is derived again, and ``records`` for other readers,
which are not read back; nan is null. The arrays are the sums over folds, ``full``, ``half``, ``null`` and ``traces``,
each stacked over the parameters in the order of ``terms``; the record tells their SHA-256.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from commonweight.base.errors import IntegrityError, UsageError
from commonweight.base.folders import write_whole
from commonweight.base.records import Format, folder_record, sealed, without_nan
from commonweight.footprints.copies import RowCounts
from commonweight.footprints.footprint import KINDS, Spread
from commonweight.overlaps.alignment import Alignment
from commonweight.overlaps.chance import MaskFacts
from commonweight.overlaps.compatible import LeftOut
from commonweight.overlaps.resampling.ratios import FoldTerms, Resampled
from commonweight.overlaps.resampling.splits import splits_of
from commonweight.overlaps.table.numbers import to_columns

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from commonweight.overlaps.table.numbers import Row

RECORD = "overlap.json"
ARRAYS = "overlap.safetensors"
FORMAT = "commonweight-overlap"
VERSION = 5
TABLE = Format(FORMAT, (VERSION,), "an overlap table", "compute it again", most_bytes=2**30)


def to_record(table: Mapping[str, Any], measure: str, rows: Sequence[Row]) -> dict[str, Any]:
    """Describe a table, given by its fields."""
    alignment, masks, folds, sizes = (table[name] for name in ("alignment", "masks", "resampled", "sizes"))
    record = {
        "format": FORMAT,
        "version": VERSION,
        "measure": measure,
        **{name: table[name] for name in ("kind", "names", "depth", "counts", "effective_sample_size", "fisher_types")},
        "spread": {
            name: {layer: [spread.total, spread.squares] for layer, spread in layers.items()}
            for name, layers in table["spread"].items()
        },
        "rows": {name: list(counts) for name, counts in table["rows"].items()},
        "left_out": [{"parameter": item.parameter, "reason": item.reason} for item in table["left_out"]],
        "shared_initialisation": alignment.sentence(),
        "models": alignment.models,
        "weight_distance": alignment.distance.tolist(),
        "weight_matrices": {name: terms.tolist() for name, terms in alignment.matrices.items()},
        "masks": masks
        and {"sizes": masks.sizes, "starts": masks.starts, "moved": masks.moved, "flipped": masks.flipped},
        "folds": folds and {"count": folds.folds, "splits": splits_of(folds.folds).words},
        "terms": {parameter: gram.tolist() for parameter, gram in table["terms"].items()},
        "sizes": sizes and {parameter: gram.tolist() for parameter, gram in sizes.items()},
        "records": to_columns(rows),
    }
    found: dict[str, Any] = without_nan(record)
    return found


def to_text(record: Mapping[str, Any]) -> str:
    """Write a record as JSON, one line per entry."""
    lines = (
        f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False, allow_nan=False)}" for key, value in record.items()
    )
    return "{\n" + ",\n".join(lines) + "\n}\n"


def write(folder: Path, record: dict[str, Any], resampled: Resampled | None) -> None:
    """Write both files, the record last: while it is not there, there is no table."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file: expected a folder for {RECORD}; choose another place")
    folder.mkdir(parents=True, exist_ok=True)
    for name in (RECORD, ARRAYS):
        (folder / name).unlink(missing_ok=True)
    if resampled is not None:
        stacks = [terms.arrays for terms in resampled.terms.values()]
        arrays = save_arrays({  # which takes the order in memory for that of the entries
            name: np.ascontiguousarray([each[name] for each in stacks]) for name in stacks[0]
        })
        write_whole(folder / ARRAYS, arrays)
        record = {**record, "folds": {**record["folds"], "sha256": hashlib.sha256(arrays).hexdigest()}}
    write_whole(folder / RECORD, to_text(sealed(record)).encode())


def read(folder: Path) -> dict[str, Any]:
    """Read the fields of a table."""
    record = folder_record(folder, RECORD, TABLE, ())
    try:
        arrays = _arrays(folder, record["folds"]["sha256"]) if record["folds"] else None
        return _fields(record, arrays)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise IntegrityError(
            f"the overlap table in {folder} is damaged or was edited by hand ({error!r}): compute it again"
        ) from None


def _arrays(folder: Path, expected: str) -> dict[str, NDArray[np.float64]]:
    path = folder / ARRAYS
    try:
        written = path.read_bytes()
        if hashlib.sha256(written).hexdigest() == expected:
            arrays: dict[str, NDArray[np.float64]] = load_arrays(written)
            return arrays
    except (OSError, SafetensorError) as error:
        raise IntegrityError(f"{path} cannot be read ({error}): compute the table again") from None
    raise IntegrityError(f"{path} is not the file that {RECORD} was written with: compute the table again")


def as_matrix(lists: Sequence[Sequence[float | None]], n: int) -> NDArray[np.float64]:
    """Read a matrix ``[n, n]`` of a record, in which null is nan."""
    array = np.array(lists, dtype=np.float64)
    if array.shape != (n, n):
        raise ValueError(f"a matrix of shape {list(array.shape)}, expected {[n, n]}")
    return array


def _fields(record: dict[str, Any], arrays: Mapping[str, NDArray[np.float64]] | None) -> dict[str, Any]:
    names, kind, depth = tuple(map(str, record["names"])), record["kind"], record["depth"]
    if kind not in KINDS or len(set(names)) != len(names) or len(names) < 2 or not record["terms"]:
        raise ValueError("kind, names or terms")
    if depth is not None and (not isinstance(depth, int) or depth < 0):
        raise ValueError("depth")
    n, parameters = len(names), tuple(map(str, record["terms"]))
    return {
        "names": names,
        "kind": kind,
        "depth": depth,
        "counts": {name: int(record["counts"][name]) for name in names},
        "effective_sample_size": {name: _float(record["effective_sample_size"][name]) for name in names},
        "spread": {
            name: {layer: Spread(float(total), float(squares)) for layer, (total, squares) in layers.items()}
            for name, layers in record["spread"].items()
        },
        "rows": {
            name: RowCounts(int(total), int(distinct), int(copied))
            for name, (total, distinct, copied) in record["rows"].items()
        },
        "fisher_types": {name: record["fisher_types"][name] for name in names},
        "left_out": tuple(LeftOut(str(item["parameter"]), str(item["reason"])) for item in record["left_out"]),
        "alignment": Alignment(
            names,
            as_matrix(record["weight_distance"], n),
            {
                str(name): np.stack([as_matrix(apart, n), as_matrix(size, n)])
                for name, (apart, size) in record["weight_matrices"].items()
            },
            {str(name): str(model) for name, model in record["models"].items()},
        ),
        "terms": {parameter: as_matrix(gram, n) for parameter, gram in record["terms"].items()},
        "sizes": {parameter: as_matrix(record["sizes"][parameter], n) for parameter in parameters}
        if kind == "change"
        else None,
        "masks": _masks(record["masks"], names, parameters) if kind == "supermask" else None,
        "resampled": None if arrays is None else _resampled(int(record["folds"]["count"]), arrays, parameters, n),
    }


def _masks(masks: dict[str, Any], names: tuple[str, ...], parameters: tuple[str, ...]) -> MaskFacts:
    starts = {name: masks["starts"][name] for name in names}
    if not all(start is None or isinstance(start, str) for start in starts.values()):
        raise TypeError("starts")
    return MaskFacts(
        {parameter: int(masks["sizes"][parameter]) for parameter in parameters},
        starts,
        {name: {str(prior): str(draw) for prior, draw in masks["moved"][name].items()} for name in names},
        {name: bool(masks["flipped"][name]) for name in names},
    )


def _resampled(K: int, arrays: Mapping[str, NDArray[np.float64]], parameters: tuple[str, ...], n: int) -> Resampled:
    shapes = {"full": (K, n, n), "half": (K + 1, n, n), "null": (3, K + 1, n, n), "traces": (K, n)}
    for name, shape in shapes.items():
        if arrays[name].shape != (len(parameters), *shape):
            raise ValueError(f"{name} of shape {list(arrays[name].shape)}")
    terms = {
        parameter: FoldTerms(**{name: arrays[name][place] for name in shapes})
        for place, parameter in enumerate(parameters)
    }
    return Resampled(K, terms)


def _float(value: float | None) -> float:
    return np.nan if value is None else float(value)
