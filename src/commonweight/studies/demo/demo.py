"""The demonstration: two tiny encoders from one start, one taught films, one taught food; which weights share what?

Everything is made here: the reviews, the tokenizer, the start. The comparison itself is
:func:`commonweight.studies.compare.compare` on the saved checkpoints and files, as on any others.
"""

from __future__ import annotations

import copy
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from commonweight.base.errors import UsageError
from commonweight.base.folders import check_writable, is_leftover
from commonweight.base.text import Note, silent
from commonweight.data.reviews import DOMAINS, best_accuracy, best_loss, label_of, reviews
from commonweight.studies.compare.compare import Comparison, compare
from commonweight.studies.compare.options import CompareOptions, MeasureOptions
from commonweight.studies.demo.encoder import encode_reviews, make_start, make_tokenizer, save, train
from commonweight.studies.shortcuts.scoring import Score, ScoredRows, score

if TYPE_CHECKING:
    from pathlib import Path

    from commonweight.data.reviews import Domain, Review

START = "start"
RECORD = "demo.json"
AMBIGUOUS = 0.1


@dataclass(frozen=True)
class DemoSize:
    """How much is trained and measured."""

    training_rows: int = 6000
    held_out_rows: int = 4000
    steps: int = 600
    folds: int = 8


@dataclass(frozen=True)
class Demo:
    """What the demonstration found."""

    scores: dict[str, dict[str, Score]]
    """Model -> domain of held-out rows -> score."""

    best: dict[str, Score]
    """Domain -> the best that can be expected on its held-out rows, given how many are truly ambiguous."""

    comparison: Comparison


def run_demo(folder: Path, *, size: DemoSize | None = None, seed: int = 0, note: Note = silent) -> Demo:
    """Train, measure, compare."""
    size = size or DemoSize()
    check_demo_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RECORD).write_text(json.dumps({"seed": seed, "ambiguous": AMBIGUOUS} | asdict(size)) + "\n")
    tokenizer = make_tokenizer()
    held_out = {domain: _held_out(domain, size, seed) for domain in DOMAINS}
    encoded = {domain: ScoredRows(encode_reviews(tokenizer, rows), 0) for domain, rows in held_out.items()}
    start = make_start(seed)
    models = {START: start}
    for domain in DOMAINS:
        note(f"training a copy of the start on {size.training_rows} {domain} reviews, {size.steps} steps")
        rows = reviews(size.training_rows, seed=seed, domain=domain, ambiguous=AMBIGUOUS)
        model = copy.deepcopy(start)
        train(model, encode_reviews(tokenizer, rows), steps=size.steps, seed=seed, learning_rate=5e-4)
        models[domain] = model
    for name, model in models.items():
        model.eval()
        save(model, tokenizer, folder / "models" / name)
    for domain, rows in held_out.items():
        _write_rows(folder / "data" / f"{domain}.jsonl", rows)
    comparison = compare(
        [str(folder / "models" / name) for name in models],
        [str(folder / "data" / f"{domain}.jsonl") for domain in DOMAINS],
        folder / "comparison",
        CompareOptions(measure=MeasureOptions(folds=size.folds)),
        fresh=True,
        note=note,
    )
    return Demo(
        scores={name: {domain: score(model, encoded[domain]) for domain in DOMAINS} for name, model in models.items()},
        best={domain: _best(rows) for domain, rows in held_out.items()},
        comparison=comparison,
    )


def check_demo_folder(folder: Path) -> None:
    """Check that the demonstration may write to a folder."""
    try:
        if folder.is_file():
            raise UsageError(f"{folder} is a file; the demonstration needs a folder")
        if folder.is_dir() and not all(map(is_leftover, folder.iterdir())) and not (folder / RECORD).is_file():
            raise UsageError(f"{folder} holds something that is not a demonstration; choose another folder")
    except OSError as error:
        raise UsageError(f"{folder} cannot be looked into: {error}; choose another folder") from error
    check_writable(folder / "comparison")


def _held_out(domain: Domain, size: DemoSize, seed: int) -> list[Review]:
    """Reviews that differ from each other: copies in other folds would pass for agreement."""
    rows = reviews(2 * size.held_out_rows, seed=seed, domain=domain, ambiguous=AMBIGUOUS, start=size.training_rows)
    distinct = {row["text"]: row for row in reversed(rows)}
    return list(reversed(distinct.values()))[: size.held_out_rows]


def _best(rows: list[Review]) -> Score:
    ambiguous = sum(label_of(row["text"]) is None for row in rows) / len(rows)
    return Score(best_accuracy(ambiguous), best_loss(ambiguous))


def _write_rows(path: Path, rows: list[Review]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"text": row["text"], "label": row["label"]}) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
