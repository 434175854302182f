"""The study of shortcuts made small: three shortcuts planted in reviews of the package's own making, tiny encoders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from commonweight.base.folders import Kind, replacing
from commonweight.base.text import Note, silent
from commonweight.data.reviews import LABELS, reviews
from commonweight.data.shortcuts.record import without_bars
from commonweight.studies.demo.encoder import LONGEST, make_start, make_tokenizer, save
from commonweight.studies.shortcuts.plan import CHECKPOINT, Plan
from commonweight.studies.shortcuts.run import run_study

if TYPE_CHECKING:
    from pathlib import Path

    from commonweight.studies.shortcuts.results import ShortcutStudy

SAVED = Kind("saved data set", "dataset_dict.json")
AMBIGUOUS = 0.1
"""Share of reviews whose label is a fair coin: no model reaches zero loss, so no handful of rows carries the Fisher."""


@dataclass(frozen=True)
class ShortcutDemoSize:
    """How much is trained and measured."""

    training_rows: int = 6000
    held_out_rows: int = 1000
    measured_rows: int = 1000
    epochs: float = 3.0


def run_shortcut_demo(
    folder: Path, *, size: ShortcutDemoSize | None = None, seed: int = 0, note: Note = silent
) -> ShortcutStudy:
    """Plant, train, measure, compare, average; what is there from an earlier demonstration is not done again."""
    size = size or ShortcutDemoSize()
    if not (folder / "reviews").exists():
        _write_reviews(folder / "reviews", size, seed)
    if not (folder / "encoder").exists():
        with replacing(folder / "encoder", CHECKPOINT) as beside:
            save(make_start(seed), make_tokenizer(), beside)
    plan = Plan(
        model=str(folder / "encoder"),
        data=str(folder / "reviews"),
        epochs=size.epochs,
        learning_rate=1e-3,
        batch_size=32,
        max_length=LONGEST,
        measured_rows=size.measured_rows,
        fisher_types=("empirical",),
        path_points=6,
        path_rows=300,
    )
    study = run_study(folder / "run", plan, note=note)
    assert study is not None  # noqa: S101 - all steps were asked for
    return study


def _write_reviews(place: Path, size: ShortcutDemoSize, seed: int) -> None:
    import datasets

    classes = datasets.ClassLabel(names=list(LABELS))
    features = datasets.Features({"text": datasets.Value("string"), "label": classes})
    splits: dict[str, Any] = {}
    start = 0
    for name, count in (
        ("train", size.training_rows),
        ("validation", size.held_out_rows),
        ("test", size.held_out_rows),
    ):
        rows = reviews(count, seed=seed, ambiguous=AMBIGUOUS, start=start)
        columns = {"text": [row["text"] for row in rows], "label": [row["label"] for row in rows]}
        splits[name] = datasets.Dataset.from_dict(columns, features=features)
        start += count
    place.parent.mkdir(parents=True, exist_ok=True)
    with without_bars(), replacing(place, SAVED) as beside:
        datasets.DatasetDict(splits).save_to_disk(str(beside))
