"""What a merge check asks, what it is made of, and where everything of it lies in the run folder."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, Literal

from commonweight.base.errors import UsageError
from commonweight.base.settings import check_settings, setting
from commonweight.studies.compare.options import MeasureOptions, TrialOptions
from commonweight.studies.run.record import StudyKind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

MERGE_CHECK = StudyKind("merge-check", ("torch", "transformers", "datasets"))
MethodName = Literal["average", "task_arithmetic", "fisher"]
Members = tuple[str, ...]
"""Models that are merged, in the order of their names."""


@dataclass(frozen=True)
class Trial:
    """A way to merge."""

    method: MethodName
    scale: float | None = None
    """λ of task arithmetic."""

    @property
    def key(self) -> str:
        """Its name in a file."""
        return self.method if self.scale is None else f"{self.method} {self.scale:g}"

    @property
    def label(self) -> str:
        """Its name in a table."""
        return f"λ {self.scale:g}" if self.scale is not None else {"fisher": "Fisher"}.get(self.method, self.method)


@dataclass(frozen=True)
class MergeCheckOptions(TrialOptions):
    """Which merges are tried, and how layers are tested."""

    scales: tuple[float, ...] = setting(
        (0.3, 0.5, 0.8, 1.0), "The λ of task arithmetic that are tried.", metavar="X ...", above=0, many="listed"
    )
    merge_heads: bool = setting(
        False, "Merge the heads too, if they share an initialisation and their labels mean the same."
    )
    depth: int = setting(
        4, "Levels of the module tree that name a layer; 4 is a block of an encoder.", metavar="N", least=1
    )
    draws: int = setting(19, "Random sets that each layer is compared with.", metavar="N", least=2)

    def __post_init__(self) -> None:
        check_settings(self)
        if not self.scales or len(set(self.scales)) < len(self.scales):
            listed = ", ".join(f"{each:g}" for each in self.scales) or "none"
            raise UsageError(f"{{argument}} must be different numbers, at least one, got {listed}", argument="scales")

    @property
    def trials(self) -> tuple[Trial, ...]:
        """Every way to merge."""
        return (Trial("average"), *(Trial("task_arithmetic", scale) for scale in self.scales), Trial("fisher"))

    @classmethod
    def of_settings(cls, settings: Mapping[str, Any]) -> MergeCheckOptions:
        """Read what decides the results of a run from its record."""
        return cls(
            **{name: settings[name] for name in ("depth", "draws", "resamples")},
            scales=tuple(settings["scales"]),
            measure=MeasureOptions(seed=settings["sets_seed"]),
        )


def groups(models: Sequence[str]) -> list[Members]:
    """List what is merged: every pair, and all together."""
    names = sorted(models)
    return list(dict.fromkeys([*combinations(names, 2), tuple(names)]))


@dataclass(frozen=True)
class Places:
    """Where everything of a run lies."""

    run: Path

    def fisher(self, model: str, data: str) -> Path:
        """Name the folder of a model's Fisher on a data set."""
        return self.run / "fishers" / model / data

    def change(self, model: str) -> Path:
        """Name the folder of a model's change."""
        return self.run / "changes" / model

    @property
    def beside(self) -> Path:
        """What is known beside the scores: pairs, and warnings."""
        return self.run / "beside.json"

    @property
    def recipe(self) -> Path:
        """How to merge."""
        return self.run / "recipe.json"

    @property
    def mergekit(self) -> Path:
        """How to merge with mergekit."""
        return self.run / "mergekit.yaml"

    def scores(self, half: str, what: str) -> Path:
        """Name the file of scores on one half of the rows."""
        return self.run / "scores" / half / what
