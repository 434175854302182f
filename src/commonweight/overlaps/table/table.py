"""The overlap of several footprints: every pair, every layer, any depth, from one pass over the tensors."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from commonweight.base import text
from commonweight.base.errors import UsageError
from commonweight.base.estimate import Estimate
from commonweight.base.names import Named, among
from commonweight.footprints.files import hashes_checked
from commonweight.footprints.footprint import IMPORTANCES, by_layer
from commonweight.footprints.slices import shape_of
from commonweight.footprints.structures import by_structure, spread_of
from commonweight.overlaps.alignment import MOSTLY, alignment_of, reading_of, strange_layers
from commonweight.overlaps.chance import mask_facts
from commonweight.overlaps.compatible import LeftOut, check_named, check_names, common_parameters
from commonweight.overlaps.measures.gram import change_grams, gram_matrices
from commonweight.overlaps.measures.table_of_measures import MEASURES
from commonweight.overlaps.resampling.ratios import Resampled
from commonweight.overlaps.resampling.same_folds import check_traces, common_folds
from commonweight.overlaps.resampling.sums import fold_terms
from commonweight.overlaps.table import files, layout
from commonweight.overlaps.table.evidence import verdict
from commonweight.overlaps.table.numbers import Numbers, Quantity, frozen, mean_over_layers, to_frame

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Literal

    import pandas as pd
    from numpy.typing import NDArray
    from torch import Tensor

    from commonweight.base.choices import Structure
    from commonweight.base.text import Block
    from commonweight.footprints.copies import RowCounts
    from commonweight.footprints.footprint import Footprint, Kind, Spread
    from commonweight.footprints.structures import Rule
    from commonweight.overlaps.alignment import Alignment, Reading, Strange
    from commonweight.overlaps.chance import MaskFacts
    from commonweight.overlaps.resampling.ratios import FoldTerms
    from commonweight.overlaps.table.numbers import By, Levels, Null, Row
    from commonweight.verdicts.evidence import Pair
    from commonweight.verdicts.verdict import Verdict

    Array = NDArray[np.float64]
    Parameters = tuple[str, ...]

THE_SAME = 1e-12
"""Two footprints whose squared distance is less than this, relative to their size, are one and the same: sums over the
same numbers in another order differ by as much as 1e-14."""


@dataclass(frozen=True, eq=False, repr=False)
class OverlapTable:
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

    sizes: Mapping[str, Array] | None = None
    """Of changes, per parameter the Gram matrix ``[n, n]`` of the sizes of their entries; None for other kinds."""

    masks: MaskFacts | None = None
    """Of supermasks, the sizes and score initialisations on which chance depends; None for other kinds."""

    resampled: Resampled | None = None
    """Of Fishers that all have folds, the additive sums over these; None for others."""

    spread: Mapping[str, Mapping[str, Spread]] = field(default_factory=dict)
    """Per footprint and layer that owns parameters, how its trace is spread over examples; lacks what was not
    measured."""

    rows: Mapping[str, RowCounts] = field(default_factory=dict)
    """Per footprint how many of its rows are distinct, and how many have copies in other folds; lacks what was not
    measured."""

    def __post_init__(self) -> None:
        for gram in (*self.terms.values(), *(self.sizes or {}).values()):
            frozen(gram)

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
        return tuple(self.members)

    @cached_property
    def members(self) -> Mapping[str, tuple[str, ...]]:
        """The parameters of each layer."""
        members: dict[str, tuple[str, ...]] = {}
        for layer, parameters in by_layer(self.terms).items():
            shown = layer if self.depth is None else ".".join(layer.split(".")[: self.depth])
            members[shown] = members.get(shown, ()) + parameters
        return members

    @cached_property
    def numbers(self) -> Numbers:
        """Every number of the table, from which all that follows is taken."""
        return Numbers(self.names, self.kind, self.terms, self.members, self.masks, self.resampled, self.sizes)

    @cached_property
    def _judged(self) -> dict[str, Verdict]:
        """Verdicts that were asked for before."""
        return {}

    @property
    def by_layer(self) -> Mapping[str, Array]:
        """Per layer the overlaps ``[n, n]``, normalised within the layer; read them beside ``trace_share``."""
        return self.numbers.levels("raw").by_layer

    @property
    def by_parameter(self) -> Mapping[str, Array]:
        """Per parameter the overlaps ``[n, n]``, normalised within the parameter."""
        return self.numbers.levels("raw").by_parameter

    @property
    def pooled(self) -> Array:
        """Overlaps ``[n, n]`` of all weights as one vector: the formula on the summed Gram matrix."""
        return self.numbers.levels("raw").pooled

    @property
    def layer_mean(self) -> Array:
        """Mean ``[n, n]`` of ``by_layer`` over the layers where it is defined; nan where it is in none."""
        return self.numbers.levels("raw").layer_mean

    @property
    def trace_share(self) -> Mapping[str, Array]:
        """Per layer the share ``[n]`` of each footprint's trace (kept weights, squared norm); nan if it is empty."""
        return self.numbers.levels("trace_share").by_layer

    @property
    def density(self) -> Levels:
        """Fraction of the weights each mask keeps, ``[n]``: ``.by_layer``, ``.by_parameter``, ``.pooled``."""
        return self.numbers.levels("density")

    @property
    def sign_agreement(self) -> Levels:
        r"""Of changes the share ``[n, n]`` of the weights that moved in one direction, each by :math:`|Δ_a Δ_b|`.

        From 0 (all in opposite directions) to 1; unrelated changes are at about 0.5. nan where none moved in both.
        """
        return self.numbers.levels("sign_agreement")

    @property
    def norm_ratio(self) -> Levels:
        """Of changes the length of one over that of the other, ``[n, n]``; nan where the other's is 0."""
        return self.numbers.levels("norm_ratio")

    @property
    def chance(self) -> Levels:
        """Jaccard index ``[n, n]`` of independent masks of these densities; nan where scores did not start so."""
        return self.numbers.levels("chance")

    @property
    def corrected(self) -> Levels:
        """Overlap ``[n, n]``; of supermasks beyond chance, ``(overlap - chance) / (1 - chance)``, nan where chance is.

        Of Fishers with folds between different halves of the examples, over the root of both noise ceilings.
        """
        return self.numbers.levels("corrected")

    @property
    def noise_ceiling(self) -> Levels:
        """Overlap ``[n]`` of two halves of the examples of one and the same Fisher."""
        return self.numbers.levels("noise_ceiling")

    @cached_property
    def null(self) -> Null:
        """Overlap ``[n, n]`` of permuted Fishers, corrected as ``corrected`` is; ``.strictest`` of three."""
        return self.numbers.null()

    def estimate(
        self,
        of: Quantity,
        a: str,
        b: str,
        layer: str | None = None,
        *,
        parameter: str | None = None,
        total: Literal["pooled", "layer_mean"] = "pooled",
    ) -> Estimate:
        """Give one number with its interval, by leaving out fold after fold.

        Args:
            of: ``raw``, ``corrected``, ``null`` (the strictest) or ``above_null`` (corrected - null).
            a: Name of a footprint.
            b: Name of another.
            layer: A layer; None for a total.
            parameter: A parameter instead.
            total: Which total: all weights as one, or the mean over the layers where it is defined.

        Returns:
            The estimate; without folds it has no interval.

        Raises:
            UsageError: If there is no such footprint, quantity or total, or the quantity needs folds.
            KeyError: If there is no such layer or parameter.
        """
        if missing := [name for name in (a, b) if name not in self.names]:
            raise UsageError(f"no footprint {missing[0]!r} in this table; {among(missing[0], self.names)}")
        if total not in {"pooled", "layer_mean"}:
            raise UsageError(f"total must be 'pooled' or 'layer_mean', got {total!r}")
        if of not in get_args(Quantity):
            raise UsageError(f"expected raw, corrected, null or above_null, got {of!r}")
        versions = self.numbers.of(of)
        if layer is None and parameter is None and total == "layer_mean":
            found = mean_over_layers([versions(members) for members in self.members.values()])
        else:
            found = versions(self._parameters(layer, parameter))
        value, *without = found[:, self.names.index(a), self.names.index(b)].tolist()
        return Estimate(value, tuple(without), "folds")

    def contrast(
        self, first: tuple[str, str], second: tuple[str, str], of: Quantity = "corrected", layer: str | None = None
    ) -> Estimate:
        """Give the difference of two overlaps, first - second, with its interval.

        Leaving out a fold leaves out the same source rows on both sides. Two layers are set against each other by
        subtracting their estimates.

        Args:
            first: Names of two footprints.
            second: Names of two others.
            of: As for :meth:`estimate`.
            layer: A layer; None for all weights pooled.

        Returns:
            The difference, fold by fold.

        Raises:
            UsageError: If a pair is not two names of this table, or the quantity needs folds.
            KeyError: If there is no such layer.
        """
        check_names(self.names, first, second)
        return self.estimate(of, *first, layer) - self.estimate(of, *second, layer)

    def shared_initialisation(self, a: str, b: str, layer: str | None = None) -> Reading:
        """Say whether two models share an initialisation, which ``aligned`` of a verdict asks.

        A layer reads as the weight matrix of it in which the models are farthest apart. Layers taken together (all
        weights, or what :meth:`roll_up` merged) read by their summed distance, and have none where layers without one
        hold more than half of a trace. Layers without a matrix, such as normalisations, are read with the whole.

        Args:
            a: Name of a footprint.
            b: Name of another.
            layer: One of ``layers``; None for all weights.

        Returns:
            ``shared initialisation``, ``no shared initialisation``, ``unclear`` or ``not measured``, as
            ``alignment.reading`` says.

        Raises:
            UsageError: If there is no such footprint.
            KeyError: If there is no such layer.

        Example:
            >>> from torch import ones, tensor
            >>> from commonweight import Footprint, overlap
            >>> f = {"body.weight": ones(2), "head.weight": ones(1)}
            >>> a, b = ({"body.weight": tensor([3.0, 2.0]), "head.weight": tensor([w])} for w in (1.0, -1.0))
            >>> table = overlap({name: Footprint("fisher", f, 8, weight_sample=w) for name, w in (("a", a), ("b", b))})
            >>> table.shared_initialisation("a", "b"), table.shared_initialisation("a", "b", "head")
            ('shared initialisation', 'no shared initialisation')
        """
        whole = self.alignment.reading(a, b)  # which also refuses unknown footprints
        parameters = self._parameters(layer)
        if layer is not None and len(by_layer(parameters)) == 1:
            return self.alignment.reading(a, b, parameters)
        if self.strange_layers(a, b, layer).share > MOSTLY:
            return "no shared initialisation"
        if layer is None:
            return whole
        together = float(self.alignment.within(parameters)[self.names.index(a), self.names.index(b)])
        return whole if math.isnan(together) else reading_of(together)

    def strange_layers(self, a: str, b: str, layer: str | None = None) -> Strange:
        """Find the layers in which two models have no shared initialisation, and their share of the trace."""
        return strange_layers(self.alignment, {name: self.terms[name] for name in self._parameters(layer)}, a, b)

    def one_and_the_same(self, a: str, b: str) -> bool:
        """Tell whether two footprints hold the same numbers: ``|x - y|² = G_ii + G_jj - 2 G_ij`` in every parameter."""
        i, j = self.names.index(a), self.names.index(b)
        return all(
            gram[i, i] + gram[j, j] - 2 * gram[i, j] <= THE_SAME * (gram[i, i] + gram[j, j])
            for gram in self.terms.values()
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
        owners = tuple(by_layer(members))
        if not all(owner in known for owner in owners):
            return math.nan
        most = self.rows[name].distinct if name in self.rows else math.inf
        if len(owners) == 1:
            return min(known[owners[0]].effective_sample_size, most)
        lengths = math.fsum(math.sqrt(known[owner].squares) for owner in owners)
        total = math.fsum(known[owner].total for owner in owners)
        return min((total / lengths) ** 2, most) if lengths > 0 else math.nan

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
        key = repr((first, second, layer, layers, same_rows, of))  # True and 1 differ
        if key not in self._judged:
            self._judged[key] = verdict(self, first, second, layer, layers, same_rows, of)
        return self._judged[key]

    def records(self, by: By = "layer") -> list[Row]:
        """Enumerate every quantity of the table: what all its views are made of.

        Args:
            by: ``layer`` or ``parameter``: what is listed below the totals.

        Returns:
            One record per quantity, place, and pair or footprint.

        Example:
            >>> from torch import ones
            >>> from commonweight.footprints.footprint import Footprint
            >>> a = Footprint("fisher", {"fc.weight": ones(2)}, 8)
            >>> rows = overlap({"a": a, "b": a}).records()
            >>> [(row.level, row.value) for row in rows if (row.quantity, row.a, row.b) == ("raw", "a", "b")]
            [('pooled', 1.0), ('layer_mean', 1.0), ('layer', 1.0)]
        """
        return self.numbers.records(by)

    def to_frame(self, by: By = "layer") -> pd.DataFrame:
        """Give one row per layer (or parameter) and pair.

        Holds no totals, so that sums and means over the rows stay right; ``roll_up(0).to_frame()`` gives the pooled
        overlaps in the same columns.

        Args:
            by: What a row is of.

        Returns:
            Columns ``layer`` (or ``parameter``), ``a``, ``b``, ``overlap``, ``trace_share_a``, ``trace_share_b``; of
            supermasks also ``density_a``, ``density_b``, ``chance``, ``corrected``; of changes ``sign_agreement`` and
            ``norm_ratio``; of Fishers with folds
            ``noise_ceiling_a``, ``noise_ceiling_b``, ``corrected``, ``null``, ``null_permutes``, ``above_null``, and
            the ends of their intervals in ``..._low`` and ``..._high``.
        """
        return to_frame(self.records(by), by)

    def to_json(self) -> str:
        """Write facts, terms and records as JSON, for other readers; nan is null. :meth:`save` keeps a table."""
        return files.to_text(self._record())

    def save(self, folder: str | Path) -> None:
        """Write the table into a folder, whole or not at all; one that is there is replaced.

        Args:
            folder: Gets ``overlap.json`` and, of Fishers with folds, ``overlap.safetensors`` with the sums over these;
                other files in it stay.

        Raises:
            UsageError: If ``folder`` is a file.
        """
        files.write(Path(folder), self._record(), self.resampled)

    @classmethod
    def load(cls, folder: str | Path) -> OverlapTable:
        """Read a table that :meth:`save` wrote: it can do all that a fresh one can.

        Args:
            folder: Where it was saved.

        Returns:
            The table.

        Raises:
            UsageError: If there is no such folder.
            IntegrityError: If it holds no table, whole and of this format version.

        Example:
            >>> from tempfile import TemporaryDirectory
            >>> from torch import ones
            >>> from commonweight.footprints.footprint import Footprint
            >>> a = Footprint("fisher", {"fc.weight": ones(2)}, 8)
            >>> with TemporaryDirectory() as folder:
            ...     overlap({"a": a, "b": a}).save(folder)
            ...     print(OverlapTable.load(folder).pooled[0, 1])
            1.0
        """
        return cls(**files.read(Path(folder)))

    def blocks(self, by: str | int = "layer", decimals: int = 4) -> list[Block]:
        """Lay out the table as finished text, for the terminal and Markdown; arguments as :meth:`to_markdown`."""
        if isinstance(by, int) and not isinstance(by, bool):
            return self.roll_up(by).blocks("layer", decimals)
        if by not in {"layer", "parameter"}:
            raise UsageError(f"by must be 'layer', 'parameter' or a depth such as 2, got {by!r}")
        level: By = "layer" if by == "layer" else "parameter"
        records = layout.Records(self.records(level), self.names, len(self.layers), level, decimals)
        return [
            *layout.overlap_blocks(records, self.kind),
            *layout.footprint_blocks(
                records, self.kind, self.counts, self.effective_sample_size, self.fisher_types, self.masks
            ),
            *layout.beware_of_few(self.effective_sample_size),
            *layout.copies(self.rows),
            *(layout.fold_sentences(records.folds) if self.kind in IMPORTANCES else ()),
            *(layout.chance_sentences(self.names, self.masks) if self.masks is not None else ()),
            *(layout.OF_CHANGES if self.sizes is not None else ()),
            self.alignment.sentence(),
            *layout.left_out_sentences(self.left_out),
        ]

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
        return text.to_markdown(self.blocks(by, decimals))

    def __str__(self) -> str:
        return self.to_markdown()

    def _repr_html_(self) -> str:
        return text.to_html(self.blocks())

    def _record(self) -> dict[str, Any]:
        return files.to_record(
            {each.name: getattr(self, each.name) for each in fields(self)}, self.measure, self.records()
        )

    def _parameters(self, layer: str | None = None, parameter: str | None = None) -> Parameters:
        if parameter is not None:
            return Named("parameter", {name: (name,) for name in self.terms})[parameter]
        return tuple(self.terms) if layer is None else Named("layer", self.members)[layer]


def overlap(
    footprints: Mapping[str, Footprint],
    *unnamed: Footprint,
    common_only: bool = False,
    intervals: bool = True,
    structure: Structure | Rule | None = None,
    earlier: OverlapTable | None = None,
) -> OverlapTable:
    """Compute how much footprints coincide: every pair, overall and per layer, by the measure that fits their kind.

    Fishers, saliencies and Adam's second moments take the Fisher overlap, supermasks the Jaccard index, activities and
    changes the cosine similarity; beside that of changes stand their sign agreement and norm ratio. Tensors are read a
    slice at a time; memory does not depend on the size of the model.

    Args:
        footprints: At least two footprints of one kind, by the names they shall have in the table.
        *unnamed: None: without names, as in ``overlap(f_a, f_b)``, footprints are refused.
        common_only: Compare only the parameters with equal name and shape; the table lists the others.
        intervals: Where all are Fishers with folds, read these too, for noise ceilings, corrected overlaps, nulls and
            intervals; it takes several times as long.
        structure: List attention heads (``head``), parts of a fused matrix (``qkv``), neurons (``neuron``) or experts
            (``expert``) as layers, or what a rule of your own cuts out, as
            :func:`~commonweight.footprints.by_structure` says.
        earlier: A table with folds of some of these footprints, by the same names: what it holds of their pairs is
            taken from it, which saves time where there are many.

    Returns:
        The table.

    Raises:
        UsageError: If there are fewer than two footprints, names or values are of the wrong type, or ``earlier`` is not
            a table of some of these footprints.
        NotComparableError: If they differ in kind, Fisher type, loss or fold maps; in parameters, unless
            ``common_only``.
        MeasurementError: If a footprint holds entries that its kind does not allow.
        IntegrityError: If a file that is read is not what was written, by its SHA-256.

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
    groups = _read(footprints, with_folds=intervals)
    if structure is not None:
        footprints = {name: by_structure(each, structure) for name, each in footprints.items()}
    common = common_parameters(footprints, common_only=common_only)
    first = next(iter(footprints.values()))
    entries = {parameter: math.prod(shape_of(first.tensors, parameter)) for parameter in common.parameters}
    rules = {name: footprint.metadata.get("fisher_type") for name, footprint in footprints.items()}
    folds = common_folds(footprints, common.parameters) if intervals and first.kind in IMPORTANCES else 0
    owners = by_layer(common.parameters)
    with hashes_checked(groups):
        if first.kind == "change":
            both = gram_matrices(footprints, common.parameters, change_grams)
            terms, sizes = ({parameter: each[place] for parameter, each in both.items()} for place in (0, 1))
        else:
            terms, sizes = gram_matrices(footprints, common.parameters), None
        over_folds = _fold_terms(footprints, terms, folds, earlier) if folds else {}
    for parameter, found in over_folds.items():
        check_traces(tuple(footprints), parameter, np.diagonal(terms[parameter]), found.traces.sum(axis=0))
    traces_of = [{parameter: float(gram[i, i]) for parameter, gram in terms.items()} for i in range(len(footprints))]
    return OverlapTable(
        names=tuple(footprints),
        kind=first.kind,
        terms=terms,
        left_out=common.left_out,
        alignment=alignment_of(footprints),
        counts={name: footprint.count for name, footprint in footprints.items()},
        effective_sample_size={name: float(each.effective_sample_size) for name, each in footprints.items()},
        fisher_types={name: None if rule is None else str(rule) for name, rule in rules.items()},
        sizes=sizes,
        masks=mask_facts(footprints, entries) if first.kind == "supermask" else None,
        resampled=Resampled(folds, over_folds) if folds else None,
        spread={
            name: {layer: each for layer, each in spread_of(footprint, traces).items() if layer in owners}
            for (name, footprint), traces in zip(footprints.items(), traces_of, strict=True)
        },
        rows={name: footprint.rows for name, footprint in footprints.items() if footprint.rows is not None},
    )


def _fold_terms(
    footprints: Mapping[str, Footprint], terms: Mapping[str, Array], folds: int, earlier: OverlapTable | None
) -> dict[str, FoldTerms]:
    """Sum over folds, with the footprints of an earlier table first: sums of their pairs are known."""
    if earlier is None:
        return fold_terms(footprints, terms)
    names = list(footprints)
    if earlier.resampled is None or earlier.resampled.folds != folds or not set(earlier.names) <= set(names):
        raise UsageError(
            f"earlier is a table of {', '.join(earlier.names)}, expected one with {folds} folds of some of "
            f"{', '.join(names)}: leave {{earlier}} out",
            earlier=None,
        )
    order = [names.index(name) for name in sorted(names, key=lambda name: name not in earlier.names)]
    here = np.ix_(order, order)
    grams = {parameter: gram[here] for parameter, gram in terms.items()}
    places = [earlier.names.index(names[place]) for place in order[: len(earlier.names)]]
    m = len(places)
    known = {}
    for parameter in terms.keys() & earlier.terms.keys():
        if not np.allclose(
            earlier.terms[parameter][np.ix_(places, places)], grams[parameter][:m, :m], rtol=1e-9, atol=0
        ):
            raise UsageError(
                f"earlier is of other footprints than these: {parameter} differs; leave {{earlier}} out", earlier=None
            )
        known[parameter] = earlier.resampled.terms[parameter].of(places)
    ordered = {names[place]: footprints[names[place]] for place in order}
    back = np.argsort(order).tolist()
    return {parameter: found.of(back) for parameter, found in fold_terms(ordered, grams, known).items()}


def _read(footprints: Mapping[str, Footprint], *, with_folds: bool) -> list[Mapping[str, Tensor]]:
    """List the groups of tensors that an overlap reads."""
    groups = [
        group
        for each in footprints.values()
        for group in (each.tensors, each.weight_sample, each.row_digests, each.source_rows)
    ]
    if with_folds and all(each.folds for each in footprints.values()):
        groups += [fold.tensors for each in footprints.values() for fold in each.folds]
    return groups
