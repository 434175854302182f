"""A footprint: where a network keeps one piece of knowledge, one tensor per parameter.

Frozen and plain: a mapping from parameter name to tensor, the number of examples behind it, and the metadata that
say how it came about. Where the tensors live, in memory or on disk, is the business of the mapping.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import torch

from commonweight.base.errors import IntegrityError, UsageError, check_kind
from commonweight.base.names import among
from commonweight.base.text import Grid, number, to_html
from commonweight.footprints import files
from commonweight.footprints.copies import RowCounts, beware_of_copies, row_counts
from commonweight.footprints.files import FolderReader, FolderWriter
from commonweight.footprints.packed import Packed, PackedMasks
from commonweight.footprints.slices import shape_of

if TYPE_CHECKING:
    from collections.abc import ItemsView, Iterable, Iterator, KeysView, Sequence
    from pathlib import Path

    from torch import Tensor

ROUNDING = 1e-6
"""Of sums over examples."""

TINY = 1e-300

Kind = Literal["fisher", "saliency", "change", "adam_v", "supermask", "activity"]
KINDS: tuple[Kind, ...] = ("fisher", "saliency", "change", "adam_v", "supermask", "activity")
IMPORTANCES: frozenset[Kind] = frozenset({"fisher", "saliency"})
"""Kinds whose entries are means over examples and at least 0: they may have folds."""

NON_NEGATIVE: frozenset[Kind] = IMPORTANCES | {"adam_v"}
"""Kinds whose entries are at least 0: they are compared by their roots."""

SIGNED: frozenset[Kind] = frozenset({"change", "activity"})
"""Kinds whose entries have a sign, and so has their overlap."""

FACTS = {"fisher_type": "Fisher type", "loss": "loss", "initialisation": "initialisation"}
"""Metadata that say what a footprint is of, and their words; equal where two are compared."""


@dataclass(frozen=True)
class Spread:
    """How a layer's Fisher trace is spread over the examples: ``Σ t`` and ``Σ t²``, ``t`` an example's own trace.

    Both sums add over examples; the ratio is derived.
    """

    total: float
    """Sum over examples of their trace, at least 0, in squared nats per squared weight unit."""

    squares: float
    """Sum over examples of their squared trace, at least 0."""

    def __add__(self, other: Spread) -> Spread:
        return Spread(self.total + other.total, self.squares + other.squares)

    @property
    def effective_sample_size(self) -> float:
        """``(Σ t)² / Σ t²``: from 1 (one example carries all) to the number of examples; nan for a zero Fisher."""
        return self.total * self.total / self.squares if self.squares > 0 else math.nan


@dataclass(frozen=True)
class Fold:
    """The footprint of one fold of the examples: a mean over ``count`` of them."""

    count: int
    tensors: Mapping[str, Tensor]


@dataclass(frozen=True)
class Footprint:
    """One tensor per parameter, and how it came about.

    Example:
        >>> from torch import tensor
        >>> footprint = Footprint("fisher", {"head.weight": tensor([[1.0, 3.0]]), "head.bias": tensor([4.0])}, count=8)
        >>> footprint.names, footprint.layers, footprint.trace(), footprint.trace("head")
        (('head.weight', 'head.bias'), ('head',), 8.0, 8.0)
        >>> footprint.flat()
        tensor([1., 3., 4.])
    """

    kind: Kind
    """``fisher`` (non-negative importances), ``change`` (weights less their initialisation), ``saliency`` (Fisher times
    squared change), ``adam_v`` (Adam's second moment), ``supermask`` (bits) or ``activity`` (one vector per layer)."""

    tensors: Mapping[str, Tensor]
    """One tensor per parameter; for a Fisher the mean over examples, squared nats per squared weight unit; for a
    saliency squared nats, for a change weight units."""

    count: int
    """Number of examples behind it."""

    metadata: Mapping[str, Any] = field(default_factory=dict)
    """Fisher type, loss, model and data identity, routes, fold map, versions, seed: plain JSON values."""

    spread: Mapping[str, Spread] = field(default_factory=dict)
    """Per layer, how the trace is spread over examples; the key ``""`` is the whole network. Empty if not measured."""

    folds: Sequence[Fold] = ()
    """Disjoint parts of the examples, in the order of the fold map; empty when measured in one piece."""

    weight_sample: Mapping[str, Tensor] = field(default_factory=dict)
    """A fixed sample of each weight matrix of the measured model, from which a shared initialisation is recognised."""

    row_digests: Mapping[str, Tensor] = field(default_factory=dict)
    """Per fold (of a footprint in one piece, the only one) a 64-bit digest of the content of each row, ``[n]``, from
    which copies and another order are recognised; empty if not measured."""

    source_rows: Mapping[str, Tensor] = field(default_factory=dict)
    """The same of the source row of each row, which then says alone what is a copy of what; empty where the batches
    gave none."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UsageError(f"kind must be one of {', '.join(KINDS)}, got {self.kind!r}")
        if not isinstance(self.tensors, Mapping):
            raise UsageError(
                "a footprint holds tensors by parameter name, such as {'fc.weight': tensor}, got "
                f"{type(self.tensors).__name__}; name them"
            )
        if strange := [name for name in self.tensors if not isinstance(name, str)]:
            raise UsageError(
                f"a footprint's tensors are named by text, such as 'fc.weight', got {strange[0]!r}; name it so"
            )
        if isinstance(self.tensors, dict):  # others make their tensors when they are asked for
            for name, tensor in self.tensors.items():
                check_kind(f"{name!r} of a footprint", tensor, torch.Tensor, "make it one with torch.as_tensor(...)")
        if not self.tensors:
            raise UsageError("a footprint needs at least one tensor, got none")

    def __getitem__(self, name: str) -> Tensor:
        try:
            return self.tensors[name]
        except KeyError:
            raise KeyError(f"no parameter {name!r} in this footprint; {among(str(name), self.names)}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def keys(self) -> KeysView[str]:
        """Give the parameter names, as a mapping does."""
        return self.tensors.keys()

    def items(self) -> ItemsView[str, Tensor]:
        """Give names and tensors, as a mapping does; stored tensors are read one by one."""
        return self.tensors.items()

    def __len__(self) -> int:
        return len(self.tensors)

    def __contains__(self, name: object) -> bool:
        return name in self.tensors

    def __repr__(self) -> str:
        rule = self.metadata.get("fisher_type")
        return (
            f"Footprint(kind={self.kind!r}, parameters={len(self)}, layers={len(self.layers)}, count={self.count}"
            + (f", fisher_type={rule!r}" if rule else "")
            + (f", folds={len(self.folds)}" if self.folds else "")
            + ")"
        )

    def _repr_html_(self) -> str:
        owned = by_layer(self.names)
        header: tuple[str, ...] = ("layer", "parameters")
        rows: list[tuple[str, ...]] = [(layer, str(len(names))) for layer, names in owned.items()]
        facts = [
            "examples not counted" if self.kind not in IMPORTANCES and not self.count else f"{self.count} examples"
        ]
        if not math.isnan(self.effective_sample_size):
            facts.append(f"{self.effective_sample_size:.1f} effective")
        if self.kind in NON_NEGATIVE:
            traces = self.layer_traces()
            whole = sum(traces.values())
            header = (*header, "trace share")
            rows = [(*row, number(traces[row[0]] / whole if whole else math.nan)) for row in rows]
            facts.append(f"trace {whole:.6g}")
        facts += [f"{words} {self.metadata[key]}" for key, words in FACTS.items() if self.metadata.get(key)]
        if self.folds:
            facts.append(f"{len(self.folds)} folds")
        title = f"Footprint of kind {self.kind} (parameters: {len(self)}, layers: {len(owned)})"
        return to_html([Grid(title, header, tuple(rows)), ", ".join(facts) + "."])

    @property
    def names(self) -> tuple[str, ...]:
        """Parameter names, in the order of the model."""
        return tuple(self.tensors)

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers that own the parameters, in the order of the model."""
        return tuple(by_layer(self.tensors))

    def trace(self, layer: str | None = None) -> float:
        """Sum the entries, in float64: of the whole network or of one layer.

        Args:
            layer: A module path: one of ``layers`` or any module above them; None for the whole network.

        Returns:
            The sum; for a Fisher its trace, at least 0.

        Raises:
            UsageError: If no parameter lies under that path.
        """
        names = [name for name in self.tensors if layer is None or is_under(name, layer)]
        if not names:
            raise UsageError(f"no layer {layer!r} in this footprint; {among(str(layer), self.layers)}")
        return sum(float(self.tensors[name].sum(dtype=torch.float64)) for name in names)

    @property
    def effective_sample_size(self) -> float:
        """``(Σ t)² / Σ t²`` over the examples' traces ``t``, but never more than there are distinct rows (``rows``).

        The bound is all that copies change here: where some rows have many, it is above what the distinct rows would
        have. nan where it was not measured or the Fisher is zero.
        """
        found = self.spread[""].effective_sample_size if "" in self.spread else math.nan
        return found if self.rows is None else min(found, self.rows.distinct)

    @cached_property
    def rows(self) -> RowCounts | None:
        """How many rows are distinct, and how many have copies in other folds; None where it was not measured.

        Rows with one source row are copies of each other, and no others are. Where the batches gave no source rows,
        rows of equal content are taken for copies.

        Example:
            >>> from torch import tensor
            >>> digests = {"fold-000": tensor([7, 8]), "fold-001": tensor([7, 9])}
            >>> Footprint("fisher", {"w": tensor([1.0])}, 4, row_digests=digests).rows
            RowCounts(total=4, distinct=3, copied=2)
        """
        known = self.source_rows or self.row_digests
        return row_counts(list(known.values())) if known else None

    @property
    def copies(self) -> str | None:
        """What to beware of where more than 5 % of the rows have copies in other folds; else None."""
        return None if self.rows is None else beware_of_copies(self.rows)

    def layer_traces(self) -> dict[str, float]:
        """Sum each layer's own parameters; where the spread says it already, no tensor is read.

        Returns:
            Layer -> its sum, in the order of the model; they add up to ``trace()``.
        """
        return {
            layer: self.spread[layer].total / self.count
            if layer in self.spread
            else sum((float(self.tensors[name].sum(dtype=torch.float64)) for name in names), 0.0)
            for layer, names in by_layer(self.names).items()
        }

    def flat(self) -> Tensor:
        """Concatenate all tensors into one vector, parameter by parameter in the order of ``names``.

        Returns:
            A vector with as many entries as the footprint has weights.
        """
        return torch.cat([self.tensors[name].reshape(-1) for name in self.tensors])

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write the footprint to a folder: ``footprint.json`` beside sharded ``*.safetensors``.

        Written under a temporary name, flushed and renamed, so that the folder is there whole or not at all. Supermasks
        are written as bits, eight to a byte.

        Args:
            folder: Where to; must not exist yet.
            overwrite: Replace a footprint that is already there.

        Returns:
            The folder.

        Raises:
            UsageError: If its counts contradict each other.
            MeasurementError: If a supermask holds anything but 0 and 1, or another tensor nan or infinity.
        """
        if (wrong := contradiction(self)) is not None:
            raise UsageError(f"this footprint contradicts itself: {wrong}")
        with FolderWriter(folder, overwrite=overwrite) as writer:
            for index, fold in enumerate(self.folds):
                writer.add(files.fold_group(index), fold.tensors)
            self.write_whole(writer)
        return writer.folder

    def write_whole(self, writer: FolderWriter) -> None:
        """Write all but the folds, which are written already, and give the folder its name."""
        masks = self.kind == "supermask" and not isinstance(self.tensors, Packed)
        writer.add(files.MAIN_GROUP, PackedMasks.of(self.tensors) if masks else self.tensors)
        for group, tensors in (
            (files.WEIGHTS_GROUP, self.weight_sample),
            (files.ROWS_GROUP, self.row_digests),
            (files.SOURCE_ROWS_GROUP, self.source_rows),
        ):
            if tensors:
                writer.add(group, tensors)
        writer.commit(self.record())

    def record(self) -> dict[str, Any]:
        """Describe everything but the tensors in plain JSON values, as ``footprint.json`` holds it.

        Returns:
            Kind, counts, metadata and spread.
        """
        return {
            "kind": self.kind,
            "count": self.count,
            "fold_counts": [fold.count for fold in self.folds],
            "metadata": dict(self.metadata),
            "spread": {layer: [spread.total, spread.squares] for layer, spread in self.spread.items()},
        }

    @classmethod
    def load(cls, folder: str | Path, *, check_hashes: bool = False) -> Footprint:
        """Open a saved footprint; tensors are read from disk when they are asked for.

        Args:
            folder: A folder written by :meth:`save`.
            check_hashes: Recompute every shard's SHA-256 and compare.

        Returns:
            The footprint, its tensors still on disk.

        Raises:
            IntegrityError: If the folder is damaged, incomplete or of another format.
        """
        reader = FolderReader(folder, check_hashes=check_hashes)
        record = reader.record
        if record["kind"] not in KINDS or not reader.group(files.MAIN_GROUP):
            raise IntegrityError(
                f"{reader.folder / files.RECORD}: expected a kind of {', '.join(KINDS)} and at least one tensor, got "
                f"{record['kind']!r} and {len(reader.group(files.MAIN_GROUP))}"
            )
        found = cls(
            kind=record["kind"],
            tensors=reader.group(files.MAIN_GROUP),
            count=record["count"],
            metadata=record["metadata"],
            spread={layer: Spread(*sums) for layer, sums in record["spread"].items()},
            folds=tuple(
                Fold(count, reader.group(files.fold_group(index))) for index, count in enumerate(record["fold_counts"])
            ),
            weight_sample=reader.group(files.WEIGHTS_GROUP, missing_ok=True),
            row_digests=reader.group(files.ROWS_GROUP, missing_ok=True),
            source_rows=reader.group(files.SOURCE_ROWS_GROUP, missing_ok=True),
        )
        if (wrong := contradiction(found)) is not None:
            raise IntegrityError(f"{reader.folder / files.RECORD}: {wrong}; it was damaged or edited: measure again")
        return found


def contradiction(found: Footprint) -> str | None:
    """Say where the counts of a footprint contradict each other; None where they agree."""
    of_folds = [fold.count for fold in found.folds]
    if of_folds and sum(of_folds) != found.count:
        return f"expected {found.count} examples in all folds, got {sum(of_folds)}"
    for what, rows in (("digests of rows", found.row_digests), ("source rows", found.source_rows)):
        digests = sum(math.prod(shape_of(rows, group)) for group in rows)
        if rows and digests != found.count:
            return f"expected {what} of {found.count} examples, got {digests}"
    for layer, spread in found.spread.items():
        if not (0 <= spread.squares < math.inf and 0 <= spread.total < math.inf):
            return f"the spread of {layer!r} is {spread}, expected finite sums from 0"
        # Σ t² ≤ (Σ t)² ≤ n Σ t², up to the rounding of sums, and to what is too small for a number
        square, slack = spread.total * spread.total, 1 + ROUNDING
        if not spread.squares / slack - TINY <= square <= found.count * spread.squares * slack + TINY:
            return f"the spread of {layer!r} is {spread}, which {found.count} traces of at least 0 cannot have"
    return None


def layer_of(name: str) -> str:
    """Name the layer that owns a parameter: the module path without the last part."""
    return name.rpartition(".")[0] or name


def by_layer(parameters: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Group parameters by the layer that owns them; layers come in the order of their first parameter."""
    owned: dict[str, list[str]] = {}
    for name in parameters:
        owned.setdefault(layer_of(name), []).append(name)
    return {layer: tuple(names) for layer, names in owned.items()}


def is_under(name: str, path: str) -> bool:
    """Tell whether a parameter or module lies at or under a module path."""
    return not path or name == path or name.startswith(path + ".")
