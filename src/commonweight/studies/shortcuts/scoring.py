"""What the models of a study score: alone, averaged (every pair, every three, all), and on the ways between them."""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import torch

from commonweight.base.errors import IntegrityError, UsageError
from commonweight.base.progress import track
from commonweight.data.batching import Encoded, TokenBatches, encode
from commonweight.data.shortcuts import ShortcutData
from commonweight.data.shortcuts.keyed import keyed
from commonweight.data.table import choose_rows
from commonweight.fusion.folders import fuse_checkpoints
from commonweight.fusion.modules import fused_at
from commonweight.fusion.paths import RANDOM, interpolation_path, random_direction, simplex_path
from commonweight.models.checkpoint import quiet_transformers
from commonweight.studies.run.folder import read_json, write_json
from commonweight.studies.shortcuts.plan import ORIGINAL, START, TOGETHER

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from commonweight.base.text import Note
    from commonweight.studies.shortcuts.plan import Plan, SeedFolder

BATCH = 128

CONTROL = "row by row"
"""How random directions are drawn; walks whose file says nothing of it, or something else, are taken again."""

TRIANGLE_STEPS = 6
"""Along each side: 28 points, among them the corners, the middles of the sides and the centre."""


@dataclass(frozen=True)
class Score:
    """How well a model does on rows."""

    accuracy: float
    loss: float
    """Mean cross-entropy in nats."""


@dataclass(frozen=True)
class ScoredRows:
    """Encoded rows that models are scored on."""

    rows: Sequence[Encoded]
    pad_id: int

    @property
    def constant(self) -> float:
        """Accuracy of the best constant answer."""
        return max(Counter(row.label for row in self.rows).values()) / len(self.rows)

    def chosen(self, count: int | None, seed: int) -> ScoredRows:
        """Choose some rows."""
        if count is None or count >= len(self.rows):
            return self
        return ScoredRows([self.rows[i] for i in choose_rows(len(self.rows), count, seed)], self.pad_id)


def load_classifier(place: Path, *, trust: bool = False) -> Any:
    """Load a model of the study."""
    from transformers import AutoModelForSequenceClassification

    with quiet_transformers():
        model = AutoModelForSequenceClassification.from_pretrained(place, trust_remote_code=trust)
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def scored_sets(plan: Plan, folder: SeedFolder, part: str) -> dict[str, ScoredRows]:
    """Encode the sets that models are scored on."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder.model(START), trust_remote_code=plan.trust_remote_code)
    accepted = {"input_ids", "attention_mask", "token_type_ids"} & set(tokenizer.model_input_names)

    def encoded(code: str, split: str) -> ScoredRows:
        data = ShortcutData.load(folder.data(code))
        rows, settings = data[f"{split}_{part}"], data.record["settings"]
        texts = [(text,) for text in rows[settings["text_column"]]]
        labels = list(rows[settings["label_column"]])
        found, _ = encode(tokenizer, texts, range(len(texts)), labels, accepts=accepted, max_length=plan.max_length)
        return ScoredRows(found, tokenizer.pad_token_id)

    return {
        ORIGINAL: encoded(plan.shortcuts[0], "original"),
        **{code: encoded(code, "synthetic") for code in plan.shortcuts},
    }


def path_sets(plan: Plan, folder: SeedFolder) -> dict[str, ScoredRows]:
    """Encode the development rows that are scored along paths."""
    return {name: rows.chosen(plan.path_rows, folder.seed) for name, rows in scored_sets(plan, folder, "dev").items()}


def accuracies(
    models: Sequence[Any], points: Iterable[Sequence[float]], sets: Mapping[str, ScoredRows]
) -> dict[str, list[float]]:
    """Score the fusions of models at many points."""
    found: dict[str, list[float]] = {name: [] for name in sets}
    for weights in track([*points], "scoring mixtures", unit="mixture"):
        with fused_at(models, weights) as model:
            for name, rows in sets.items():
                found[name].append(score(model, rows).accuracy)
    return found


def score(model: Any, scored: ScoredRows) -> Score:
    """Score a classifier."""
    model.eval()
    device = next(model.parameters()).device
    right, loss = 0, 0.0
    with torch.inference_mode():
        for batch in TokenBatches(scored.rows, BATCH, scored.pad_id, device=device):
            labels = batch.pop("labels")
            del batch["source_row"]
            logits = model(**batch).logits.float()
            right += int((logits.argmax(-1) == labels).sum())
            loss += float(torch.nn.functional.cross_entropy(logits, labels, reduction="sum"))
    return Score(right / len(scored.rows), loss / len(scored.rows))


def write_average(plan: Plan, folder: SeedFolder, note: Note) -> None:
    """Write the uniform average of all models, if its Fisher is measured; what is there already stays."""
    # The other averages, as many as there are subsets, are scored in memory and never written.
    for name in plan.average:
        if not folder.model(name).exists():
            note(f"seed {folder.seed}: averaging {', '.join(plan.shortcuts)}")
            fuse_checkpoints([folder.model(code) for code in plan.shortcuts], output=folder.model(name), note=note)


@contextlib.contextmanager
def average_of(folder: SeedFolder, chosen: Sequence[str], *, trust: bool = False) -> Iterator[Any]:
    """Make the uniform average of some models in memory; one that was written is read."""
    written = folder.model(TOGETHER.join(chosen))
    if written.exists():
        yield load_classifier(written, trust=trust)
        return
    with fused_at([load_classifier(folder.model(name), trust=trust) for name in chosen]) as model:
        yield model


def are_scored(plan: Plan, folder: SeedFolder) -> bool:
    """Tell whether every model and every average was scored."""
    return set(_scored(plan)) <= set(_former(folder))


def _former(folder: SeedFolder) -> dict[str, Any]:
    """The scores that are there: model -> set -> accuracy and loss."""
    return dict(read_json(folder.scores)["scores"]) if folder.scores.is_file() else {}


def _scored(plan: Plan) -> dict[str, tuple[str, ...]]:
    """The name of every model and every average that is scored, and which models it is the average of."""
    return {TOGETHER.join(chosen): chosen for chosen in (*((name,) for name in plan.alone), *plan.averages)}


def score_models(plan: Plan, folder: SeedFolder, note: Note) -> None:
    """Score every model and every average on the original rows and on every shortcut's synthetic rows."""
    # What was scored before is not scored again.
    if are_scored(plan, folder):
        return
    sets = {
        f"{name} {part}": found.chosen(plan.scored_rows, folder.seed)
        for part in ("dev", "test")
        for name, found in scored_sets(plan, folder, part).items()
    }
    for data in [data for data, found in sets.items() if any(row.label < 0 for row in found.rows)]:
        note(f"seed {folder.seed}: {data} has rows without labels, and is not scored")
        del sets[data]
    former = _former(folder)
    scores: dict[str, Any] = {}
    for name, chosen in _scored(plan).items():
        if name in former:
            scores[name] = former[name]
            continue
        note(f"seed {folder.seed}: scoring {name}")
        with average_of(folder, chosen, trust=plan.trust_remote_code) as model:
            scores[name] = {data: asdict(score(model, rows)) for data, rows in sets.items()}
    constant = {data: rows.constant for data, rows in sets.items()}
    write_json(folder.scores, {"constant_answer": constant, "scores": scores})


def has_walks(place: Path) -> bool:
    """Tell whether a file holds walks with controls as they are drawn now."""
    try:
        return bool(read_json(place).get("control") == CONTROL)
    except (UsageError, IntegrityError):
        return False


def walk(plan: Plan, folder: SeedFolder, note: Note) -> None:
    """Score along the line between every two models, and from each as far in a random direction."""
    # A shortcut can break before the task does on any way out of a model; only what breaks earlier on the way to
    # another model than on a random one, as long tensor by tensor and through the same entries, has to do with the
    # other model. Only the two models of a path, and the end of its control, are in memory.
    if has_walks(folder.paths):
        return
    if folder.paths.is_file():
        note(f"seed {folder.seed}: random directions are not drawn {CONTROL} in {folder.paths}; walks are taken again")
    sets = path_sets(plan, folder)
    paths = []
    for pair in combinations(plan.shortcuts, 2):
        ends = {code: load_classifier(folder.model(code), trust=plan.trust_remote_code) for code in pair}
        note(f"seed {folder.seed}: walking from {pair[0]} to {pair[1]}")
        shown = {name: sets[name] for name in (ORIGINAL, *pair)}
        paths.append(_walk(plan, pair, tuple(ends.values()), shown))
        for a, b in (pair, pair[::-1]):
            note(f"seed {folder.seed}: walking from {a} in a random direction, as far as to {b}")
            control = random_direction(ends[a], ends[b], seed=keyed(folder.seed, a, b), only_moved=True)
            found = _walk(plan, (a, RANDOM), (ends[a], control), {name: sets[name] for name in (ORIGINAL, a)})
            del control  # before the next is made
            paths.append(found | {"as_far_as": b})
        del ends  # before the next two are read
    write_json(folder.paths, {"control": CONTROL, "paths": paths})


def walk_triangle(plan: Plan, folder: SeedFolder, note: Note) -> None:
    """Score the averages of the first three models, with weights all over their triangle."""
    if not plan.triangle or folder.triangle.is_file():
        return
    note(f"seed {folder.seed}: walking between {', '.join(plan.triangle)}")
    sets = path_sets(plan, folder)
    points = simplex_path(steps=TRIANGLE_STEPS)
    models = [load_classifier(folder.model(code), trust=plan.trust_remote_code) for code in plan.triangle]
    found = accuracies(models, points, {name: sets[name] for name in (ORIGINAL, *plan.triangle)})
    write_json(folder.triangle, {"corners": plan.triangle, "points": points, "accuracy": found})


def _walk(
    plan: Plan, names: tuple[str, ...], models: tuple[Any, ...], sets: Mapping[str, ScoredRows]
) -> dict[str, Any]:
    points = interpolation_path(points=plan.path_points)
    found = accuracies(models, points, sets)
    return {"from": names[0], "to": names[1], "points": [weights[1] for weights in points], "accuracy": found}
