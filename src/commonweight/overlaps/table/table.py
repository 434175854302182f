"""The overlap of several footprints: every pair, every layer, any depth, from one pass over the tensors."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from commonweight.base import text
from commonweight.base.errors import UsageError
from commonweight.base.names import Named
from commonweight.footprints.footprint import layer_of
from commonweight.overlaps.alignment import alignment_of
from commonweight.overlaps.chance import mask_facts
from commonweight.overlaps.compatible import LeftOut, check_named, common_parameters
from commonweight.overlaps.measures.gram import parameter_gram, shape_of
from commonweight.overlaps.measures.ratio import frozen
from commonweight.overlaps.resampling.same_folds import check_traces, common_folds
from commonweight.overlaps.resampling.sums import Resampled, parameter_folds
from commonweight.overlaps.table import layout, record
from commonweight.overlaps.table import rows as frame
from commonweight.overlaps.table.evidence import verdict
from commonweight.overlaps.table.numbers import Derived

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Literal

    import pandas as pd
    from numpy.typing import NDArray

    from commonweight.footprints.copies import RowCounts
    from commonweight.footprints.footprint import Footprint, Kind, Spread
    from commonweight.overlaps.alignment import Alignment
    from commonweight.overlaps.chance import MaskFacts
    from commonweight.overlaps.resampling.ratios import Quantity
    from commonweight.verdicts.evidence import Pair
    from commonweight.verdicts.verdict import Verdict

    Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False, repr=False)
class OverlapTable(Derived):
    """Overlaps of n footprints. Holds the additive Gram terms; every ratio is derived from them.

    Undefined is nan (two empty masks, a zero Fisher, a zero vector).

    Example:
        >>> from torch import tensor
        >>> from commonweight.footprints.footprint import Footprint
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
    """Whether the models come from a shared initialisation."""

    counts: Mapping[str, int]
    """Examples behind each footprint."""

    effective_sample_size: Mapping[str, float]
    """effective sample size of each footprint; nan where not measured."""

    fisher_types: Mapping[str, str | None]
    """Fisher type of each footprint; None where it has none."""

    depth: int | None = None
    """How many parts of the module path name a layer; None for the module that owns the parameter."""

    masks: MaskFacts | None = None
    """Of supermasks, the sizes and score initialisations on which chance depends; None for other kinds."""

    resampled: Resampled | None = None
    """Of Fishers that all have folds, the additive sums over these; None for others."""

    spread: Mapping[str, Mapping[str, Spread]] = field(default_factory=dict)
    """Per footprint and layer that owns parameters, how its trace is spread over examples; lacks what was not measured
    (tables of earlier releases hold none)."""

    rows: Mapping[str, RowCounts] = field(default_factory=dict)
    """Per footprint how many of its rows are distinct, and how many have copies in other folds; lacks what was not
    measured (tables of earlier releases hold none)."""

    def __post_init__(self) -> None:
        for gram in self.terms.values():
            frozen(gram)

    def __repr__(self) -> str:
        return (
            f"OverlapTable({self.measure} of {', '.join(self.names)}; "
            f"{len(self.layers)} layers, {len(self.terms)} parameters)"
        )

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
            >>> from commonweight.footprints.footprint import Footprint
            >>> a = Footprint("fisher", {"body.0.weight": ones(2), "body.1.weight": ones(2), "head.bias": ones(1)}, 8)
            >>> overlap({"a": a, "b": a}).roll_up(1).layers
            ('body', 'head')
        """
        if isinstance(depth, bool) or not isinstance(depth, int) or depth < 0:
            raise UsageError(f"depth must be a whole number of at least 0, got {depth!r}")
        return replace(self, depth=depth if self.depth is None else min(depth, self.depth))

    def effective_sample_size_of(self, name: str, layer: str | None = None) -> float:
        r"""Give the effective sample size of one footprint in one layer: another layer's say nothing about it.

        A layer that :meth:`roll_up` merged of several has a lower bound, since what is stored does not say which
        examples the traces of two layers have in common: with :math:`T_l, S_l` the sums of the examples' traces in
        layer l and of their squares,

        .. math:: (\textstyle\sum_l T_l)^2 / (\sum_l \sqrt{S_l})^2

        never above the true number (Minkowski's inequality) nor below the least of its layers. All weights, where none
        were left out, have ``effective_sample_size``. A layer's number is of all its parameters that were measured. It
        is never more than the footprint has distinct rows.

        Args:
            name: Name of a footprint.
            layer: One of ``layers``; None for all weights that were compared.

        Returns:
            At least 1; nan where it was not measured or the layer's Fisher is zero.

        Raises:
            UsageError: If there is no such footprint.
            KeyError: If there is no such layer.

        Example:
            >>> from torch import ones
            >>> from commonweight.footprints.footprint import Footprint, Spread
            >>> spread = {"": Spread(9.0, 9.0), "a": Spread(6.0, 6.0), "b": Spread(3.0, 1.5)}
            >>> a = Footprint("fisher", {"a.w": ones(2), "b.w": ones(1)}, 9, spread=spread)
            >>> table = overlap({"one": a, "two": a})
            >>> table.effective_sample_size_of("one"), table.effective_sample_size_of("one", "a")
            (9.0, 6.0)
        """
        if name not in self.names:
            raise UsageError(f"no footprint {name!r} in this table; it has {', '.join(map(repr, self.names))}")
        members = tuple(self.terms) if layer is None else Named("layer", self.members)[layer]
        if len(members) == len(self.terms) and not self.left_out:
            return self.effective_sample_size[name]
        known = self.spread.get(name, {})
        owners = tuple(dict.fromkeys(map(layer_of, members)))
        if not all(owner in known for owner in owners):
            return math.nan
        most = self.rows[name].distinct if name in self.rows else math.inf
        if len(owners) == 1:
            return min(known[owners[0]].effective_sample_size, most)
        lengths = math.fsum(math.sqrt(known[owner].squares) for owner in owners)
        total = math.fsum(known[owner].total for owner in owners)
        return min((total / lengths) ** 2, most) if lengths > 0 else math.nan

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
            alignment=self.alignment.of((a, b)),
            counts={name: self.counts[name] for name in (a, b)},
            effective_sample_size={name: self.effective_sample_size[name] for name in (a, b)},
            fisher_types={name: self.fisher_types[name] for name in (a, b)},
            masks=None if self.masks is None else self.masks.of((a, b)),
            resampled=None if self.resampled is None else self.resampled.of((self.names.index(a), self.names.index(b))),
            spread={name: self.spread[name] for name in (a, b) if name in self.spread},
            rows={name: self.rows[name] for name in (a, b) if name in self.rows},
        )

    def verdict(
        self,
        first: Pair,
        second: Pair | None = None,
        *,
        layer: str | None = None,
        layers: tuple[str, str] | None = None,
        same_rows: bool | None = None,
        of: Quantity = "corrected",
    ) -> Verdict:
        r"""Say what overlaps of Fishers with folds support.

        One pair: is its overlap above its null, the strictest of three permutations? Two pairs: which shares more? One
        pair and two layers l and m: in which does it share more? Layers have nulls of their own, so there

        .. math:: O(l) - O(m) \quad \text{and} \quad [O(l) - N(l)] - [O(m) - N(m)]

        must both exclude 0, on the same side.

        Args:
            first: Names of two footprints.
            second: Names of two, to compare the first two with.
            layer: A layer; None for all weights pooled.
            layers: Two layers, to compare one pair in.
            same_rows: Of two pairs, whether both were measured on the same source rows, which a table does not know.
            of: Of two pairs, which overlap, as :meth:`estimate` takes it. Raw ones decide nothing: noise lowers them,
                and not all alike.

        Returns:
            ``above its null`` or ``not above its null``, else ``shares more`` or ``shares less``, of the first pair or
            layer; ``inconclusive`` where something is lacking. The estimate is corrected - null, or first - second.

        Raises:
            UsageError: If a pair is not two names of different footprints, both layers are one or are given with a
                second pair, the table has no folds for what is asked, or ``same_rows`` is no bool for two pairs.
            KeyError: If there is no such layer.

        Example:
            >>> import torch
            >>> from commonweight import fisher
            >>> _ = torch.manual_seed(0)
            >>> rows = (torch.randn(200, 40), torch.randint(2, (200,)))
            >>> model = torch.nn.Linear(40, 20)
            >>> prints = {"a": fisher(model, [rows], folds=8)}
            >>> _ = model.weight.data.add_(0.01 * torch.randn(20, 40))
            >>> prints["b"] = fisher(model, [rows], folds=8)
            >>> prints["c"] = fisher(torch.nn.Linear(40, 20), [rows], folds=8)
            >>> table = overlap(prints)
            >>> table.verdict(("a", "b")).answer
            'above its null'
            >>> found = table.verdict(("a", "b"), ("a", "c"), same_rows=True)
            >>> found.answer, found.lacking[0].code
            ('inconclusive', 'shared initialisation')
        """
        return verdict(self, first, second, layer, layers, same_rows, of)

    def to_frame(self, by: Literal["layer", "parameter"] = "layer") -> pd.DataFrame:
        """Give one row per layer (or parameter) and pair.

        Holds no totals, so that sums and means over the rows stay right; ``roll_up(0).to_frame()`` gives the pooled
        overlaps in the same columns.

        Args:
            by: What a row is of.

        Returns:
            Columns ``layer`` (or ``parameter``), ``a``, ``b``, ``overlap``, ``trace_share_a``, ``trace_share_b``; of
            supermasks also ``density_a``, ``density_b``, ``chance``, ``corrected``; of Fishers with folds ends of
            intervals, ``noise_ceiling_a``, ``noise_ceiling_b``, ``corrected``, ``extrapolated``, ``null``,
            ``null_permutes``.
        """
        return frame.to_frame(self, by)

    def to_json(self) -> str:
        """Write terms and ratios as JSON, for :meth:`from_json`; the sums over folds only per layer; nan is null."""
        return record.to_json(self)

    @classmethod
    def from_json(cls, written: str) -> OverlapTable:
        """Read back what :meth:`to_json` wrote; an IntegrityError if it is not whole and of this format version."""
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


def overlap(
    footprints: Mapping[str, Footprint],
    *unnamed: Footprint,
    common_only: bool = False,
    mixed_rules: bool = False,
    intervals: bool = True,
) -> OverlapTable:
    """Compute how much footprints coincide: every pair, overall and per layer, by the measure that fits their kind.

    Fishers take the Fisher overlap, supermasks the Jaccard index, activities the cosine similarity. Tensors are read a
    slice at a time; memory does not depend on the size of the model.

    Args:
        footprints: At least two footprints of one kind, by the names they shall have in the table.
        *unnamed: None: without names, as in ``overlap(f_a, f_b)``, footprints are refused.
        common_only: Compare only the parameters with equal name and shape; the table lists the others.
        mixed_rules: Compare footprints of different Fisher types or losses.
        intervals: Where all are Fishers with folds, read these too, for noise ceilings, corrected overlaps, nulls and
            intervals; it takes several times as long.

    Returns:
        The table.

    Raises:
        UsageError: If there are fewer than two footprints, or names or values are of the wrong type.
        NotComparableError: If they differ in kind, in their fold maps, or in what the options do not allow.
        MeasurementError: If a footprint holds entries that its kind does not allow.

    Example:
        >>> from torch import tensor
        >>> from commonweight.footprints.footprint import Footprint
        >>> a = Footprint("supermask", {"fc.weight": tensor([1, 1, 0, 0])}, count=100)
        >>> b = Footprint("supermask", {"fc.weight": tensor([1, 1, 1, 0])}, count=100)
        >>> table = overlap({"a": a, "b": b})
        >>> table.measure, round(table.pooled[0, 1].item(), 4)
        ('jaccard_index', 0.6667)
    """
    check_named(footprints, *unnamed)
    common = common_parameters(footprints, common_only=common_only, mixed_rules=mixed_rules)
    first = next(iter(footprints.values()))
    sizes = {parameter: math.prod(shape_of(first.tensors, parameter)) for parameter in common.parameters}
    rules = {name: footprint.metadata.get("fisher_type") for name, footprint in footprints.items()}
    terms = {parameter: parameter_gram(footprints, parameter) for parameter in common.parameters}
    folds = common_folds(footprints, common.parameters) if intervals and first.kind == "fisher" else 0
    owners = {layer_of(parameter) for parameter in common.parameters}
    over_folds = {}
    for parameter in common.parameters if folds else ():
        over_folds[parameter] = parameter_folds(footprints, parameter)
        check_traces(
            tuple(footprints), parameter, np.diagonal(terms[parameter]), over_folds[parameter].traces.sum(axis=0)
        )
    return OverlapTable(
        names=tuple(footprints),
        kind=first.kind,
        terms=terms,
        left_out=common.left_out,
        alignment=alignment_of(footprints),
        counts={name: footprint.count for name, footprint in footprints.items()},
        effective_sample_size={name: footprint.effective_sample_size for name, footprint in footprints.items()},
        fisher_types={name: None if rule is None else str(rule) for name, rule in rules.items()},
        masks=mask_facts(footprints, sizes) if first.kind == "supermask" else None,
        resampled=Resampled(folds, over_folds) if folds else None,
        spread={
            name: {layer: spread for layer, spread in footprint.spread.items() if layer in owners}
            for name, footprint in footprints.items()
        },
        rows={name: footprint.rows for name, footprint in footprints.items() if footprint.rows is not None},
    )
