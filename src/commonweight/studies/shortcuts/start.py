"""The shared initialisation of one seed's models: the pretrained checkpoint with markers and a head."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch

from commonweight.base.errors import UsageError
from commonweight.base.folders import replacing
from commonweight.data.shortcuts import Markers, add_markers
from commonweight.data.shortcuts.keyed import keyed
from commonweight.models.checkpoint import quiet_transformers, refuse_code
from commonweight.models.identity import first_line
from commonweight.studies.compare.prepare import length_limit
from commonweight.studies.shortcuts.plan import CHECKPOINT, INDEPENDENT, START, Plan, seed_folders

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from commonweight.studies.shortcuts.plan import Preset, SeedFolder


def make_start(
    checkpoint: str, labels: Sequence[str], seed: int, place: Path, preset: Preset, *, trust: bool = False
) -> None:
    """Write the starting checkpoint."""
    # A head is drawn under the seed where there is none, and embeddings of the markers where the table has no rows for
    # them. A table with spare rows keeps them as they are: the markers take the first of them, and nothing is drawn.
    from transformers import AutoModelForSequenceClassification

    names = {"id2label": dict(enumerate(labels)), "label2id": {name: number for number, name in enumerate(labels)}}
    with quiet_transformers(), torch.random.fork_rng():
        torch.manual_seed(seed)
        config, tokenizer = read_encoder(checkpoint, trust=trust)
        check_head(checkpoint, config, len(labels))
        try:
            model: Any = AutoModelForSequenceClassification.from_pretrained(
                checkpoint,
                num_labels=len(labels),
                use_safetensors=True,
                dtype=torch.float32,
                trust_remote_code=trust,
                **names,
            )
        except (OSError, ValueError, RuntimeError) as error:
            refuse_code(checkpoint, error)
            why = f"as a classifier of {len(labels)} classes: {first_line(error)}"
            raise UsageError(_unreadable(checkpoint, why)) from error
        if preset == "published":
            tokenizer.add_tokens(list(Markers().words))  # plain tokens, found inside words too
        else:
            add_markers(tokenizer)
        if len(tokenizer) > model.get_input_embeddings().num_embeddings:
            model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        if model.config.pad_token_id is None:
            model.config.pad_token_id = tokenizer.pad_token_id  # else it reads no two texts at once
        place.parent.mkdir(parents=True, exist_ok=True)
        with replacing(place, CHECKPOINT) as folder:
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)


@contextlib.contextmanager
def independent_initialisation(folder: SeedFolder, *, trust: bool = False) -> Iterator[Path]:
    """Draw all weights of the start anew, for a model that has no shared initialisation with any other."""
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    start = folder.model(START)
    with TemporaryDirectory(dir=folder.path, prefix=f".{INDEPENDENT}-") as place:
        with quiet_transformers(), torch.random.fork_rng():
            torch.manual_seed(keyed("independent-start", folder.seed))
            model: Any = AutoModelForSequenceClassification.from_config(
                AutoConfig.from_pretrained(start, trust_remote_code=trust),
                dtype=torch.float32,
                trust_remote_code=trust,
            )
            model.save_pretrained(place)
            AutoTokenizer.from_pretrained(start, trust_remote_code=trust).save_pretrained(place)
        yield Path(place)


def read_encoder(checkpoint: str, *, trust: bool = False) -> tuple[Any, Any]:
    """Read and check what a start is made of, but for the weights: whatever can be said before the data are known."""
    from transformers import AutoConfig, AutoTokenizer

    try:
        with quiet_transformers():
            config = AutoConfig.from_pretrained(checkpoint, trust_remote_code=trust)
            tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=trust)
    except (OSError, ValueError, RuntimeError) as error:
        refuse_code(checkpoint, error)
        raise UsageError(_unreadable(checkpoint, f"as an encoder: {first_line(error)}")) from error
    folder = Path(checkpoint)
    if folder.is_dir() and not any(folder.glob("*.safetensors")):
        raise UsageError(_unreadable(checkpoint, "as an encoder: it holds no weights of that format"))
    _check_padding(checkpoint, tokenizer)
    return config, tokenizer


def check_head(checkpoint: str, config: Any, classes: int) -> None:
    """Check that a checkpoint has no head, or one that fits the data."""
    is_classifier = any("ForSequenceClassification" in name for name in config.architectures or ())
    if is_classifier and config.num_labels != classes:
        raise UsageError(
            f"{checkpoint!r} is a classifier already: its head has {config.num_labels} classes, the data {classes}: "
            "give the encoder without a head"
        )


def with_usual_length(run: Path, plan: Plan) -> Plan:
    """Cut texts to the usual length, or to what the encoder reads where that is less."""
    start = seed_folders(run, plan)[0].model(START)
    config, tokenizer = read_encoder(str(start) if start.exists() else plan.model, trust=plan.trust_remote_code)
    limit = length_limit(config, tokenizer, None)
    return replace(plan, max_length=min(Plan.max_length, limit or Plan.max_length))


def _unreadable(checkpoint: str, why: str) -> str:
    why = why.rstrip(".")
    return f"{checkpoint!r} cannot be read {why}. Expected the id or folder of an encoder with safetensors weights"


def _check_padding(checkpoint: str, tokenizer: Any) -> None:
    if tokenizer.pad_token is None:
        raise UsageError(
            f"the tokenizer of {checkpoint!r} has no token for padding, so texts of different lengths make no batch. "
            "Set one (tokenizer.pad_token = tokenizer.eos_token and model.config.pad_token_id to its number), save "
            "both to a folder, and give that folder"
        )
