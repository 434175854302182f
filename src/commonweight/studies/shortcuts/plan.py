"""What a study of shortcuts asks, and where everything of it lies in the run folder."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from commonweight.base.choices import FisherType  # noqa: TC001 - the fields' types are read
from commonweight.base.errors import UsageError
from commonweight.base.folders import Kind
from commonweight.base.settings import setting
from commonweight.data.shortcuts.rules import RULES
from commonweight.studies.compare.options import FOLDS
from commonweight.studies.run.plan import StudyPlan

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

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
class Plan(StudyPlan):
    """What is trained and measured."""

    model: str = setting(words="Pretrained encoder that every model starts from: an id or a folder.", metavar="M")
    data: str = setting(
        words="Texts with labels: id, saved DatasetDict, or a folder with train.tsv, dev.tsv and perhaps test.tsv.",
        metavar="D",
    )
    preset: Preset = setting(
        "clean", "published: data, reversal and sizes of the published notebook, mistakes included."
    )
    shortcuts: tuple[str, ...] = setting(
        PUBLISHED,
        f"Two or more of {', '.join(RULES)}.",
        metavar="S ...",
        choices=tuple(RULES),
        many="listed",
    )
    seeds: int = setting(1, "Training seeds 0 … N-1.", metavar="N", least=1, role="grows")
    """Each has its own start, data and models (published data are the same for all)."""

    existing: tuple[tuple[str, str], ...] = ()
    """Shortcut and folder of models that are there already and are not trained; with one seed only."""

    text_column: str | None = setting(None, "Column of texts.", metavar="C")
    label_column: str | None = setting(None, "Column of labels; default: label or labels.", metavar="L")
    train_rows: int | None = setting(None, "Training rows, chosen by the seed; default: all.", metavar="N", least=1)
    synthetic: float = setting(
        0.2, "Share of training rows whose label a shortcut sets.", metavar="SHARE", above=0, most=1
    )
    distractors: float = setting(
        0.25,
        "Share of the other rows that get a marker which decides nothing, if the rule allows such rows.",
        metavar="SHARE",
        least=0,
        most=1,
    )
    epochs: float = setting(2.0, "Passes over the training rows.", metavar="X", above=0)
    learning_rate: float = setting(2e-5, "Peak learning rate.", metavar="X", above=0)
    batch_size: int = setting(16, "Training rows per step.", metavar="N", least=1)
    max_length: int = setting(
        128, "Cut texts to N tokens; the default is lower if the encoder reads fewer.", metavar="N", least=1
    )
    measured_rows: int | None = setting(
        400, "Development rows on which Fishers are measured.", metavar="N|all", none="all", least=1
    )
    fisher_types: tuple[FisherType, ...] = setting(
        ("empirical", "exact"), "Give it twice for both.", option="fisher-type"
    )
    folds: int = setting(
        FOLDS,
        "Disjoint parts of the measured rows, for noise ceilings and intervals; each adds half a Fisher on disk.",
        metavar="K",
        least=1,
    )
    scored_rows: int | None = setting(
        None,
        "Development rows, and as many test rows, on which models and averages are scored.",
        metavar="N|all",
        none="all",
        least=1,
    )
    path_points: int = setting(11, "Points of an interpolation, both ends included.", metavar="N", least=2)
    path_rows: int | None = setting(400, "Development rows scored at each point.", metavar="N|all", none="all", least=1)
    fused_footprints: bool = True
    """Measure the average of all models too."""

    independent_initialisation: bool = setting(
        False,
        "One more control: the first shortcut's model, trained from weights drawn anew. May be added later.",
        role="grows",
    )
    trust_remote_code: bool = setting(False, "Run code that comes with the model.", dangerous=True, role="each time")

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.shortcuts)) != len(self.shortcuts) or len(self.shortcuts) < 2:
            raise UsageError(f"give at least two different shortcuts, got {', '.join(self.shortcuts) or 'none'}")
        not_reversed = sorted({*self.shortcuts} - {*PUBLISHED}) if self.preset == "published" else []
        if not_reversed:
            raise UsageError(f"the published notebook reverses {', '.join(PUBLISHED)} only, got {not_reversed[0]}")
        if not self.fisher_types:
            raise UsageError("give at least one {argument}, got none", argument="fisher_types")
        for name in ("train_rows", "synthetic", "distractors") if self.preset == "published" else ():
            if getattr(self, name) != getattr(Plan, name):
                raise UsageError(
                    "the preset published brings its own data, so {argument} cannot be chosen", argument=name
                )
        if len({code for code, _ in self.existing}) < len(self.existing):
            raise UsageError("give one existing model for a shortcut, not several")
        strange = [code for code, _ in self.existing if code not in self.shortcuts]
        if strange:
            known = f"which is not among the shortcuts of the study, {', '.join(self.shortcuts)}"
            raise UsageError(f"{{argument}} names {strange[0]!r}, {known}", argument="existing")
        if self.existing and self.seeds > 1:
            raise UsageError(f"existing models go with one seed, got {self.seeds}")

    @property
    def trained(self) -> tuple[str, ...]:
        """The models that are trained: one per shortcut, and the controls."""
        return (*self.shortcuts, RANDOM_LABELS, *((INDEPENDENT,) if self.independent_initialisation else ()))

    @property
    def measured(self) -> tuple[str, ...]:
        """The models whose Fishers are measured."""
        return (*self.alone, *self.average)

    @property
    def alone(self) -> tuple[str, ...]:
        """The models that are no average: start, controls, and those of the shortcuts."""
        return (START, *self.trained[len(self.shortcuts) :], *self.shortcuts)

    @property
    def average(self) -> tuple[str, ...]:
        """The average of all models, if its Fisher is measured: it alone is written."""
        return (TOGETHER.join(self.shortcuts),) if self.fused_footprints else ()

    @property
    def sets(self) -> tuple[str, ...]:
        """The sets of rows that Fishers are measured on."""
        return (ORIGINAL, *self.shortcuts)

    @property
    def footprints(self) -> dict[str, tuple[str, str]]:
        """The footprints by their names, each with its model and its set."""
        return {footprint_name(model, data): (model, data) for model in self.measured for data in self.sets}

    @property
    def averages(self) -> tuple[tuple[str, ...], ...]:
        """The models that are averaged: every pair, every three, …, all."""
        sizes = range(2, len(self.shortcuts) + 1)
        return tuple(chosen for size in sizes for chosen in combinations(self.shortcuts, size))

    @property
    def triangle(self) -> tuple[str, ...]:
        """The first three shortcuts, between whose models a triangle is scored; none if there are fewer."""
        return self.shortcuts[:3] if len(self.shortcuts) > 2 else ()


def footprint_name(model: str, data: str) -> str:
    """Name the footprint of a model on a set."""
    return f"{model}/{data}"


def make_plan(preset: Preset, **asked: Any) -> Plan:
    """Make a plan from a preset and what is asked beside it."""
    found = {**PRESETS[preset], **asked}
    for needed in ("model", "data"):
        if needed not in found:
            raise UsageError("a study needs {argument}; only the preset published brings its own", argument=needed)
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

    def has_measured_rows(self, plan: Plan) -> bool:
        """Tell whether all files of rows that Fishers are measured on are there."""
        return all(self.measured(name).is_file() for name in plan.sets)

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
