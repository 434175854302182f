"""Evidence: what is known of an estimate, as plain facts. The rules judge it, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from commonweight.base.estimate import Estimate
    from commonweight.footprints.copies import RowCounts

Pair = tuple[str, str]
"""Names of two footprints."""


class Corrected(NamedTuple):
    """A corrected overlap behind the estimate."""

    pair: Pair
    layer: str | None
    overlap: Estimate


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What is known of an estimate. A fact that is None is not asked for."""

    estimate: Estimate

    single: bool
    """Whether the estimate is one overlap less its null; else it is a difference of two overlaps."""

    aligned: Collection[bool | None]
    """Whether the models of each overlap have a shared initialisation; None is unclear or not measured."""

    effective_sample_size: Collection[float] | None
    """Of every Fisher behind the estimate; nan where not measured."""

    same_rows: bool | None = None
    """Whether both sides were measured on the same source rows."""

    noise_taken_out: bool | None = None
    """Whether the overlaps are corrected."""

    not_learned: tuple[str, ...] | None = None
    """Models that did not learn their own shortcut."""

    one_and_the_same: tuple[Pair, ...] | None = None
    """Pairs whose two footprints hold the same numbers."""

    rows: tuple[tuple[str, RowCounts | None], ...] | None = None
    """Of every footprint its name and how many of its rows are distinct; None was not counted."""

    corrected: tuple[Corrected, ...] | None = None

    one_network: tuple[Pair, ...] | None = None
    """Pairs whose two models have the same weights."""

    beyond: Estimate | None = None
    """The same difference of corrected - null."""

    left_out: int | None = None
    """How many parameters were not compared."""

    strange: tuple[str, ...] | None = None
    """Layers without a shared initialisation in models that have one."""

    strange_share: float = 0.0
    """The most of a trace that these layers hold, from 0 to 1."""

    noise_ceilings: tuple[float, ...] | None = None

    controls: Mapping[str, Estimate] = field(default_factory=dict)
    """The same contrast with a control in place of a model."""
