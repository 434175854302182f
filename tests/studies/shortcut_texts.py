"""Review texts and a tiny start on disk, for studies of shortcuts that train in seconds."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import datasets
from filelock import FileLock

from commonweight.data.reviews import LABELS, reviews
from commonweight.studies.demo.encoder import LONGEST, make_start, make_tokenizer, save
from commonweight.studies.shortcuts.plan import Plan
from commonweight.studies.shortcuts.run import run_study

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from commonweight.studies.shortcuts.results import ShortcutStudy
    from commonweight.studies.shortcuts.run import Step

CODES = ("st", "op", "tic")
SIZES = {"train": (0, 240), "validation": (240, 320), "test": (320, 400)}


def tiny_plan(folder: Path, **changes: object) -> Plan:
    """Write the texts and the start, and plan a study of them."""
    if not (folder / "texts").exists():
        features = datasets.Features({
            "text": datasets.Value("string"),
            "label": datasets.ClassLabel(names=list(LABELS)),
        })
        splits = {}
        for name, (start, stop) in SIZES.items():
            rows = reviews(stop - start, start=start)
            columns = {key: [row[key] for row in rows] for key in ("text", "label")}
            splits[name] = datasets.Dataset.from_dict(columns, features=features)
        datasets.DatasetDict(splits).save_to_disk(str(folder / "texts"))
        save(make_start(0), make_tokenizer(), folder / "encoder")
    options = {
        "model": str(folder / "encoder"),
        "data": str(folder / "texts"),
        "shortcuts": ("st", "op"),
        "synthetic": 0.5,
        "epochs": 1.0,
        "learning_rate": 1e-3,
        "batch_size": 16,
        "max_length": LONGEST,
        "measured_rows": 24,
        "folds": 4,
        "fisher_types": ("empirical",),
        "path_points": 3,
        "path_rows": 40,
    }
    return Plan(**options | changes)  # type: ignore[arg-type]


def finished_study(
    factory: pytest.TempPathFactory, name: str, *, until: Step = "overlap", **changes: object
) -> tuple[Path, Plan, ShortcutStudy | None]:
    """Do a study once for all processes of pytest; give a copy of its run, its plan, and what it found."""
    base = factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with FileLock(f"{shared}.lock"):
        plan = tiny_plan(shared, **changes)
        run_study(shared / "run", plan, until=until)
    run = factory.mktemp(name) / "run"
    shutil.copytree(shared / "run", run)
    return run, plan, run_study(run, plan, until=until)


def triangle(factory: pytest.TempPathFactory) -> tuple[Path, Plan, ShortcutStudy]:
    """Give a finished study of three shortcuts."""
    run, plan, found = finished_study(factory, "triangle", shortcuts=CODES, path_points=2, path_rows=20)
    assert found is not None
    return run, plan, found
