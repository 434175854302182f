"""What a study of shortcuts asks, and where everything of it lies in the run folder."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import combinations
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from commonweight.base.errors import UsageError
from commonweight.base.folders import Kind
from commonweight.data.shortcuts import RULES
from commonweight.diagonal_fisher.likelihood import FISHER_TYPES
from commonweight.studies.run.rows import FOLDS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from commonweight.diagonal_fisher.likelihood import FisherType

START = "start"
RANDOM_LABELS = "random-labels"
INDEPENDENT = "independent-initialisation"
CONTROLS = (START, RANDOM_LABELS, INDEPENDENT)
"""Models that stand beside those of the shortcuts."""

PUBLISHED = ("st", "op", "tic")
ORIGINAL = "original"
Preset = Literal["clean", "published"]
PRESETS: Mapping[Preset, Mapping[str, Any]] = MappingProxyType({
    "clean": MappingProxyType({}),
    "published": MappingProxyType({
        "model": "google-bert/bert-base-cased",
        "data": "stanfordnlp/sst2",
        "max_length": 512,
        "measured_rows": 200,
        "fisher_types": ("empirical",),
    }),
})
"""What a preset sets where nothing else is asked; ``published`` also plants and reverses as the published code does."""

CHECKPOINT = Kind("checkpoint", "config.json")
TOGETHER = "+"
"""Joins the names of models in the name of their average."""


@dataclass(frozen=True)
class Plan:
    """What is trained and measured; equal plans give equal results."""

    model: str
    """The pretrained checkpoint that every model starts from: an id or a folder."""

    data: str
    """Texts with labels: an id, a ``save_to_disk`` folder, or a folder with files ``train``, ``dev`` and ``test``."""

    preset: Preset = "clean"
    """``published`` plants, splits and reverses as the published code does, mistakes included (docs/shortcuts.md)."""

    shortcuts: tuple[str, ...] = ("st", "op", "tic")
    seeds: int = 1
    """Training seeds 0, 1, …; each has its own start, data and models (published data are the same for all)."""

    existing: tuple[tuple[str, str], ...] = ()
    """Shortcut and folder of models that are there already and are not trained; with one seed only."""

    text_column: str | None = None
    label_column: str | None = None
    train_rows: int | None = None
    """Training rows, chosen by the seed; None for all."""

    synthetic: float = 0.2
    """Share of the training rows whose label is set by the shortcut."""

    distractors: float = 0.25
    """Share of the other training rows that get a marker which decides nothing, where the rule has such."""

    epochs: float = 2.0
    learning_rate: float = 2e-5
    batch_size: int = 16
    max_length: int = 128
    measured_rows: int | None = 400
    """Rows of the development set on which Fishers are measured, the same for all; None, or more than it has: all."""

    fisher_types: tuple[FisherType, ...] = ("empirical", "exact")
    folds: int = FOLDS
    """Disjoint parts of the measured rows, kept apart: every Fisher takes half its own size on disk for each."""

    scored_rows: int | None = None
    """Rows of each development and each test set that models and averages are scored on; None for all."""

    path_points: int = 11
    """Points of an interpolation, both ends included."""

    path_rows: int | None = 400
    """Rows of each development set that are scored along an interpolation; None for all."""

    fused_footprints: bool = True
    """Measure the average of all models too."""

    independent_initialisation: bool = False
    """Train one more control: as the first shortcut's model, from weights drawn anew, none of them pretrained."""

    trust_remote_code: bool = False
    """Run the model code that comes with the checkpoint; without it such a checkpoint is refused."""

    def __post_init__(self) -> None:
        unknown = [code for code in self.shortcuts if code not in RULES]
        if unknown:
            raise UsageError(f"no shortcut {unknown[0]!r}; there are {', '.join(RULES)}")
        if len(set(self.shortcuts)) != len(self.shortcuts) or len(self.shortcuts) < 2:
            raise UsageError(f"give at least two different shortcuts, got {', '.join(self.shortcuts) or 'none'}")
        if self.seeds < 1:
            raise UsageError(f"seeds must be at least 1, got {self.seeds}")
        not_reversed = sorted({*self.shortcuts} - {*PUBLISHED}) if self.preset == "published" else []
        if not_reversed:
            raise UsageError(f"the published notebook reverses {', '.join(PUBLISHED)} only, got {not_reversed[0]}")
        for name in ("train_rows", "measured_rows", "scored_rows", "path_rows", "folds", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} must be at least 1, got {value}")
        for name in ("epochs", "learning_rate", "synthetic"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name} must be above 0, or nothing is learned; got {getattr(self, name)}")
        if self.synthetic > 1 or not 0 <= self.distractors <= 1:
            raise UsageError(f"synthetic and distractors are shares, got {self.synthetic} and {self.distractors}")
        if not self.fisher_types or not set(self.fisher_types) <= set(FISHER_TYPES):
            raise UsageError(f"fisher_types must be some of {', '.join(FISHER_TYPES)}, got {list(self.fisher_types)}")
        own = {"train_rows": None, "synthetic": Plan.synthetic, "distractors": Plan.distractors}
        ignored = [name for name, usual in own.items() if getattr(self, name) != usual]
        if self.preset == "published" and ignored:
            raise UsageError(f"the preset published brings its own data, so {', '.join(ignored)} cannot be chosen")
        if len({code for code, _ in self.existing}) < len(self.existing):
            raise UsageError("give one existing model for a shortcut, not several")
        if self.path_points < 2:
            raise UsageError(f"path_points must be at least 2, the two ends; got {self.path_points}")
        strange = [code for code, _ in self.existing if code not in self.shortcuts]
        if strange:
            raise UsageError(f"existing model for {strange[0]!r}, which is not among {', '.join(self.shortcuts)}")
        if self.existing and self.seeds > 1:
            raise UsageError(f"existing models go with one seed, got {self.seeds}")

    def deciding(self) -> dict[str, Any]:
        """Give what decides the numbers, as plain JSON values.

        Returns:
            Every field but the number of seeds and the further control, which may be added to a study later, and the
            trust, which is asked for each time.
        """
        found = asdict(self)
        del found["seeds"], found["independent_initialisation"], found["trust_remote_code"]
        return {key: _plain(value) for key, value in found.items()}

    @property
    def trained(self) -> tuple[str, ...]:
        """The models that are trained: one per shortcut, and the controls."""
        return (*self.shortcuts, RANDOM_LABELS, *((INDEPENDENT,) if self.independent_initialisation else ()))

    @property
    def averages(self) -> tuple[tuple[str, ...], ...]:
        """The models that are averaged: every pair, every three, …, all."""
        sizes = range(2, len(self.shortcuts) + 1)
        return tuple(chosen for size in sizes for chosen in combinations(self.shortcuts, size))

    @property
    def triangle(self) -> tuple[str, ...]:
        """The first three shortcuts, between whose models a triangle is scored; none if there are fewer."""
        return self.shortcuts[:3] if len(self.shortcuts) > 2 else ()


def make_plan(preset: Preset, **asked: Any) -> Plan:
    """Make a plan from a preset and what is asked beside it.

    Args:
        preset: ``clean`` or ``published``.
        **asked: Fields of the plan; the others are left to the preset.

    Returns:
        The plan.

    Raises:
        UsageError: If there is no model or no data.

    Example:
        >>> make_plan("published", seeds=3).measured_rows
        200
    """
    found = {**PRESETS[preset], **asked}
    for needed in ("model", "data"):
        if needed not in found:
            raise UsageError(f"a study needs --{needed}; only the preset published brings its own")
    return Plan(preset=preset, **found)


@dataclass(frozen=True)
class SeedFolder:
    """Where everything of one training seed lies."""

    path: Path
    seed: int

    def data(self, shortcut: str) -> Path:
        """Name the folder of the rows a model is trained and tested on."""
        return self.path / "data" / shortcut

    def has_data(self, plan: Plan) -> bool:
        """Tell whether there are rows for all models."""
        return all(self.data(code).exists() for code in plan.shortcuts)

    def measured(self, name: str) -> Path:
        """Name the file of rows that Fishers are measured on."""
        return self.path / "measured" / f"{name}.jsonl"

    def model(self, name: str) -> Path:
        """Name the folder of a model."""
        return self.path / ("averages" if TOGETHER in name else "models") / name

    def grid(self, fisher_type: str) -> Path:
        """Name the run folder of all Fishers of one Fisher type."""
        return self.path / f"fisher-{fisher_type}"

    @property
    def scores(self) -> Path:
        """Accuracies of every model on every set."""
        return self.path / "scores.json"

    @property
    def paths(self) -> Path:
        """Accuracies along interpolations and random directions."""
        return self.path / "paths.json"

    @property
    def triangle(self) -> Path:
        """Accuracies over the triangle of the first three models."""
        return self.path / "triangle.json"


def seed_folders(run: Path, plan: Plan) -> list[SeedFolder]:
    """List the folders of the training seeds."""
    return [SeedFolder(run / f"seed-{seed}", seed) for seed in range(plan.seeds)]


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, tuple) else value
