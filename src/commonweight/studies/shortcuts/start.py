"""The common start of all models of one seed: the pretrained checkpoint with markers in its vocabulary and a head."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from commonweight.data.shortcuts import Markers, add_markers
from commonweight.errors import UsageError
from commonweight.nn.checkpoint import quiet_transformers
from commonweight.place import replacing
from commonweight.studies.shortcuts.plan import CHECKPOINT

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from commonweight.studies.shortcuts.plan import Preset


def make_start(checkpoint: str, labels: Sequence[str], seed: int, place: Path, preset: Preset) -> None:
    """Write the starting checkpoint; new embeddings, and a head where there is none, are drawn under the seed.

    Args:
        checkpoint: The pretrained checkpoint, an id or a folder; its weights are read from ``safetensors`` only.
        labels: Names of the classes.
        seed: The training seed.
        place: The folder to be made.
        preset: How markers are added to the vocabulary.

    Raises:
        UsageError: If the checkpoint cannot be read as a classifier.
    """
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    names = {"id2label": dict(enumerate(labels)), "label2id": {name: number for number, name in enumerate(labels)}}
    with quiet_transformers(), torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint)
            model: Any = AutoModelForSequenceClassification.from_pretrained(
                checkpoint, num_labels=len(labels), use_safetensors=True, dtype=torch.float32, **names
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise UsageError(
                f"{checkpoint!r} cannot be read as a classifier of {len(labels)} classes: {error}. Expected the id or "
                "folder of an encoder with safetensors weights"
            ) from error
        if preset == "published":
            tokenizer.add_tokens(list(Markers().words))  # plain tokens, found inside words too
        else:
            add_markers(tokenizer)
        if len(tokenizer) > model.get_input_embeddings().num_embeddings:
            model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        place.parent.mkdir(parents=True, exist_ok=True)
        with replacing(place, CHECKPOINT) as folder:
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
