"""The overlap of several footprints: every pair, every layer, any depth, from one pass over the tensors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from commonweight import text
from commonweight.errors import UsageError
from commonweight.footprint.footprint import Footprint, layer_of
from commonweight.overlaps import layout, record
from commonweight.overlaps._named import Named
from commonweight.overlaps.alignment import Alignment, alignment_of
from commonweight.overlaps.compatible import LeftOut, check_named, common_parameters
from commonweight.overlaps.gram import parameter_gram
from commonweight.overlaps.measures import MEASURES

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from numpy.typing import NDArray

    from commonweight.footprint.footprint import Kind

    Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False, repr=False)
class OverlapTable:
    """Overlaps of n footprints. Holds the additive Gram terms; every ratio is derived from them.

    Undefined is nan (two empty masks, a zero Fisher, a zero vector).

    Example:
        >>> from torch import tensor
        >>> a = Footprint("fisher", {"in.weight": tensor([1.0, 0.0]), "out.weight": tensor([98.0, 1.0])}, count=8)
        >>> b = Footprint("fisher", {"in.weight": tensor([0.0, 1.0]), "out.weight": tensor([98.0, 1.0])}, count=8)
        >>> table = overlap({"a": a, "b": b})
        >>> {layer: round(values[0, 1].item(), 4) for layer, values in table.by_layer.items()}
        {'in': 0.0, 'out': 1.0}
        >>> round(table.pooled[0, 1].item(), 4), round(table.layer_mean[0, 1].item(), 4)
        (0.99, 0.5)
    """

    names: tuple[str, ...]
    """Names of the footprints, in the order of every matrix."""

    kind: Kind
    """Kind of the footprints, which decides the measure."""

    terms: Mapping[str, Array]
    """Per parameter, in model order, the Gram matrix ``[n, n]``: they add over parameters."""

    left_out: tuple[LeftOut, ...]
    """Parameters that were not compared, and why."""

    alignment: Alignment
    """Whether the models come from a common start."""

    counts: Mapping[str, int]
    """Examples behind each footprint."""

    effective_examples: Mapping[str, float]
    """Effective examples of each footprint; nan where not measured."""

    label_rules: Mapping[str, str | None]
    """Label rule of each footprint; None where it has none."""

    depth: int | None = None
    """How many parts of the module path name a layer; None for the module that owns the parameter."""

    def __post_init__(self) -> None:
        for gram in self.terms.values():
            _frozen(gram)

    def __repr__(self) -> str:
        return (
            f"OverlapTable({self.measure} of {', '.join(self.names)}; "
            f"{len(self.layers)} layers, {len(self.terms)} parameters)"
        )

    @property
    def measure(self) -> str:
        """``fisher_overlap``, ``jaccard_index`` or ``cosine_similarity`` (signed)."""
        return MEASURES[self.kind].name

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers, in model order; ``""`` is the whole network (depth 0)."""
        return tuple(self._layer_terms)

    @cached_property
    def by_layer(self) -> Mapping[str, Array]:
        """Per layer the overlaps ``[n, n]``, normalised within the layer; read them beside ``trace_share``."""
        return self._ratios("layer", self._layer_terms)

    @cached_property
    def by_parameter(self) -> Mapping[str, Array]:
        """Per parameter the overlaps ``[n, n]``, normalised within the parameter."""
        return self._ratios("parameter", self.terms)

    @cached_property
    def pooled(self) -> Array:
        """Overlaps ``[n, n]`` of all weights as one vector: the formula on the summed Gram matrix."""
        return _frozen(MEASURES[self.kind].from_gram(self._total))

    @cached_property
    def layers_defined(self) -> NDArray[np.int64]:
        """In how many layers each overlap is defined, ``[n, n]``."""
        return np.asarray(sum(np.isfinite(overlap).astype(np.int64) for overlap in self.by_layer.values()))

    @cached_property
    def layer_mean(self) -> Array:
        """Mean ``[n, n]`` of ``by_layer`` over the layers where it is defined; nan where it is in none."""
        total = sum(np.nan_to_num(overlap, nan=0.0) for overlap in self.by_layer.values())
        return _frozen(np.asarray(total / np.where(self.layers_defined > 0, self.layers_defined, np.nan)))

    @cached_property
    def trace_share(self) -> Mapping[str, Array]:
        """Per layer the share ``[n]`` of each footprint's total ``G_ii``; nan for an empty footprint.

        Of the trace for a Fisher, of the kept weights for a mask, of the squared norm for an activity.
        """
        return self._shares("layer", self._layer_terms)

    @cached_property
    def parameter_share(self) -> Mapping[str, Array]:
        """As ``trace_share``, per parameter."""
        return self._shares("parameter", self.terms)

    def roll_up(self, depth: int) -> OverlapTable:
        """Merge layers along the module tree. Exact: the terms add.

        Args:
            depth: How many parts of the module path to keep, from the top; 0 is the whole network as one layer. A
                table that is rolled up already stays at least as coarse.

        Returns:
            A new table with fewer, larger layers; ``pooled`` is the same, ``layer_mean`` is over the new layers.

        Raises:
            UsageError: If ``depth`` is not a whole number of at least 0.

        Example:
            >>> from torch import ones
            >>> a = Footprint("fisher", {"body.0.weight": ones(2), "body.1.weight": ones(2), "head.bias": ones(1)}, 8)
            >>> overlap({"a": a, "b": a}).roll_up(1).layers
            ('body', 'head')
        """
        if isinstance(depth, bool) or not isinstance(depth, int) or depth < 0:
            raise UsageError(f"depth must be a whole number of at least 0, got {depth!r}")
        return replace(self, depth=depth if self.depth is None else min(depth, self.depth))

    def pair(self, a: str, b: str) -> OverlapTable:
        """Take the table of two of the footprints.

        Args:
            a: Name of a footprint.
            b: Name of another.

        Returns:
            A new table with ``names == (a, b)``.

        Raises:
            UsageError: If the names are not two different footprints of this table.
        """
        if a == b or not {a, b} <= set(self.names):
            raise UsageError(f"expected two of {', '.join(map(repr, self.names))}, got {a!r} and {b!r}")
        chosen = np.ix_([self.names.index(a), self.names.index(b)], [self.names.index(a), self.names.index(b)])
        return replace(
            self,
            names=(a, b),
            terms={parameter: gram[chosen] for parameter, gram in self.terms.items()},
            alignment=Alignment((a, b), self.alignment.distance[chosen]),
            counts={name: self.counts[name] for name in (a, b)},
            effective_examples={name: self.effective_examples[name] for name in (a, b)},
            label_rules={name: self.label_rules[name] for name in (a, b)},
        )

    def to_frame(self) -> pd.DataFrame:
        """Give one row per layer and pair.

        Holds no totals, so that sums and means over the rows stay right; ``roll_up(0).to_frame()`` gives the pooled
        overlaps in the same columns.

        Returns:
            Columns ``layer``, ``a``, ``b``, ``overlap``, ``trace_share_a``, ``trace_share_b``; undefined is nan.
        """
        import pandas as pd

        rows = [
            (layer, self.names[i], self.names[j], overlap[i, j], self.trace_share[layer][i], self.trace_share[layer][j])
            for layer, overlap in self.by_layer.items()
            for i, j in combinations(range(len(self.names)), 2)
        ]
        return pd.DataFrame(rows, columns=["layer", "a", "b", "overlap", "trace_share_a", "trace_share_b"])

    def to_json(self) -> str:
        """Write the table as JSON: the terms, and all that is derived from them; nan is null.

        Returns:
            Text that :meth:`from_json` reads back without loss.
        """
        return record.to_json(self)

    @classmethod
    def from_json(cls, written: str) -> OverlapTable:
        """Read back a table that :meth:`to_json` wrote.

        Args:
            written: The JSON text.

        Returns:
            The table.

        Raises:
            IntegrityError: If the text is not such a table, whole and of this format version.
        """
        return cls(**record.fields_from_json(written))

    def to_markdown(self, by: str | int = "layer", decimals: int = 4) -> str:
        """Write the table for people: overlaps with shares and both totals, the footprints, what to beware of.

        Args:
            by: ``layer``, ``parameter``, or a depth of the module tree, as :meth:`roll_up` takes it.
            decimals: Digits after the point, from 1 to 9.

        Returns:
            GitHub Markdown. Undefined is a dash; ``1.0000`` and ``0.0000`` stand only for exactly that.

        Raises:
            UsageError: If ``by`` or ``decimals`` is none of these.
        """
        return text.to_markdown(layout.blocks(self, by, decimals))

    def _repr_html_(self) -> str:
        return text.to_html(layout.blocks(self))

    @cached_property
    def _layer_terms(self) -> dict[str, Array]:
        merged: dict[str, Array] = {}
        for parameter, gram in self.terms.items():
            layer = layer_of(parameter)
            if self.depth is not None:
                layer = ".".join(layer.split(".")[: self.depth])
            merged[layer] = merged[layer] + gram if layer in merged else gram
        return merged

    @cached_property
    def _total(self) -> Array:
        return np.asarray(sum(self.terms.values()))

    def _ratios(self, what: str, terms: Mapping[str, Array]) -> Mapping[str, Array]:
        from_gram = MEASURES[self.kind].from_gram
        return Named(what, {name: _frozen(from_gram(gram)) for name, gram in terms.items()})

    def _shares(self, what: str, terms: Mapping[str, Array]) -> Mapping[str, Array]:
        whole = np.diagonal(self._total)
        whole = np.where(whole > 0, whole, np.nan)
        return Named(what, {name: _frozen(np.diagonal(gram) / whole) for name, gram in terms.items()})


def _frozen(array: Array) -> Array:
    array.flags.writeable = False
    return array


def overlap(
    footprints: Mapping[str, Footprint], *, common_only: bool = False, mixed_rules: bool = False
) -> OverlapTable:
    """Compute how much footprints coincide: every pair, overall and per layer, by the measure that fits their kind.

    Fishers take the Fisher overlap, supermasks the Jaccard index, activities the cosine similarity. Tensors are read a
    slice at a time; memory does not depend on the size of the model.

    Args:
        footprints: At least two footprints of one kind, by the names they shall have in the table.
        common_only: Compare only the parameters with equal name and shape; the table lists the others.
        mixed_rules: Compare footprints of different label rules or losses.

    Returns:
        The table.

    Raises:
        UsageError: If there are fewer than two footprints, or names or values are of the wrong type.
        NotComparableError: If they differ in kind, or in what the options do not allow.
        MeasurementError: If a footprint holds entries that its kind does not allow.

    Example:
        >>> from torch import tensor
        >>> a = Footprint("supermask", {"fc.weight": tensor([1, 1, 0, 0])}, count=100)
        >>> b = Footprint("supermask", {"fc.weight": tensor([1, 1, 1, 0])}, count=100)
        >>> table = overlap({"a": a, "b": b})
        >>> table.measure, round(table.pooled[0, 1].item(), 4)
        ('jaccard_index', 0.6667)
    """
    check_named(footprints)
    common = common_parameters(footprints, common_only=common_only, mixed_rules=mixed_rules)
    rules = {name: footprint.metadata.get("label_rule") for name, footprint in footprints.items()}
    return OverlapTable(
        names=tuple(footprints),
        kind=next(iter(footprints.values())).kind,
        terms={parameter: parameter_gram(footprints, parameter) for parameter in common.parameters},
        left_out=common.left_out,
        alignment=alignment_of(footprints),
        counts={name: footprint.count for name, footprint in footprints.items()},
        effective_examples={name: footprint.effective_examples for name, footprint in footprints.items()},
        label_rules={name: None if rule is None else str(rule) for name, rule in rules.items()},
    )
