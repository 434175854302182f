"""What a localisation asks, what it is made of, and where everything of it lies in the run folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from commonweight.base.errors import UsageError
from commonweight.base.settings import check_settings, setting
from commonweight.studies.compare.options import MeasureOptions, TrialOptions
from commonweight.studies.run.record import StudyKind

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

LOCALISATION = StudyKind("localisation", ("torch", "transformers", "datasets"))
Map = Literal["saliency", "fisher", "change", "adam_v"]
FEWER = 5
"""Null sets at fractions other than the primary one, if there are not fewer at that."""


@dataclass(frozen=True)
class LocaliseOptions(TrialOptions):
    """How sets are chosen, what they are compared with, and what a verdict asks."""

    map: Map = setting(
        "saliency",
        "What chooses the weights: Fisher times squared change, Fisher, size of the change, or Adam's second moment.",
    )
    fractions: tuple[float, ...] = setting(
        (0.01, 0.05, 0.2),
        "Shares of the weights to choose.",
        metavar="Q ...",
        above=0,
        below=1,
        many="listed",
    )
    primary: float = setting(0.01, "The one of them that is judged.", metavar="Q", above=0, below=1)
    draws: int = setting(
        19, f"Null sets of each kind at the primary fraction; at others {FEWER} at most.", metavar="N", least=2
    )
    least_share: float = setting(
        0.5, "A set suffices, or is necessary, whole if its share is at least this.", metavar="X", above=0, most=1
    )
    equivalence: float = setting(
        0.1, "Share of the gain below which a cost counts as none (specific).", metavar="X", above=0, most=1
    )

    def __post_init__(self) -> None:
        check_settings(self)
        listed = ", ".join(f"{each:g}" for each in self.fractions)
        if len(set(self.fractions)) < len(self.fractions):
            raise UsageError(f"{{argument}} must be different numbers, got {listed}", argument="fractions")
        if self.primary not in self.fractions:
            raise UsageError(
                f"{{argument}} must be one of the fractions, {listed}, got {self.primary:g}", argument="primary"
            )

    def draws_at(self, fraction: float) -> int:
        """Tell how many null sets of each kind there are."""
        return self.draws if fraction == self.primary else min(FEWER, self.draws)

    @classmethod
    def of_settings(cls, settings: Mapping[str, Any]) -> LocaliseOptions:
        """Read what decides the results of a run from its record."""
        names = ("map", "primary", "draws", "resamples", "least_share", "equivalence")
        return cls(
            **{name: settings[name] for name in names},
            fractions=tuple(settings["fractions"]),
            measure=MeasureOptions(seed=settings["sets_seed"]),
        )


@dataclass(frozen=True)
class Places:
    """Where everything of a run lies."""

    run: Path

    def footprint(self, model: str, kind: str) -> Path:
        """Name the folder of a model's footprint."""
        return self.run / "footprints" / model / kind

    def chosen(self, model: str, fraction: float) -> Path:
        """Name the folder of the set that a model's map chooses."""
        return self.run / "sets" / f"{fraction:g}" / model

    def scores(self, model: str, fraction: float | None) -> Path:
        """Name the file of scores of a model: of it and its base, or with the sets of a fraction."""
        return self.run / "scores" / model / ("model" if fraction is None else f"{fraction:g}")
