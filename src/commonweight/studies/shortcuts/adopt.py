"""Models that are there already take part in a study as they are, if they can read its texts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from commonweight.data.shortcuts import Markers
from commonweight.errors import UsageError
from commonweight.place import replacing
from commonweight.studies.shortcuts.plan import CHECKPOINT


def adopt(model: str, start: Path, place: Path) -> None:
    """Copy a checkpoint into a study.

    Args:
        model: Its folder.
        start: The study's start: the model must have its classes, and its tokenizer the same numbers for all words.
        place: The folder to be made.

    Raises:
        UsageError: If it is no checkpoint, or reads or answers in another way than the start.
    """
    from transformers import AutoTokenizer

    folder = Path(model).expanduser()
    if not (folder / "config.json").is_file():
        raise UsageError(f"the existing model {model} is no checkpoint folder: it has no config.json")
    ours, theirs = (json.loads((where / "config.json").read_text(encoding="utf-8")) for where in (start, folder))
    for key in ("model_type", "vocab_size", "id2label", "hidden_size", "num_hidden_layers"):
        if ours.get(key) != theirs.get(key):
            raise UsageError(
                f"the existing model {model} has {key} {theirs.get(key)!r}, and the study's start {ours.get(key)!r}: "
                "give the checkpoint it was trained from as the model of the study"
            )
    vocabularies = [AutoTokenizer.from_pretrained(where).get_vocab() for where in (start, folder)]
    if vocabularies[0] != vocabularies[1]:
        words = ", ".join(Markers().words)
        raise UsageError(
            f"the tokenizer of {model} numbers words in another way than the study's start; its vocabulary needs the "
            f"markers {words}, added in this order"
        )
    place.parent.mkdir(parents=True, exist_ok=True)
    with replacing(place, CHECKPOINT) as partial:
        shutil.copytree(folder, partial)
