"""The models of one seed: their shared initialisation, those trained from it, and those that are there already."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import random
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from commonweight.base.errors import IntegrityError, MeasurementError, NotComparableError, UsageError
from commonweight.base.folders import check_room, replacing
from commonweight.base.names import first_of
from commonweight.base.progress import steps
from commonweight.base.records import json_file
from commonweight.base.text import silent
from commonweight.data.columns import NAMELESS
from commonweight.data.shortcuts import Markers, add_markers
from commonweight.data.shortcuts.keyed import keyed
from commonweight.fusion.checkpoints import Source, open_checkpoint
from commonweight.fusion.compatible import check_configs, check_same
from commonweight.fusion.tensors import is_finite
from commonweight.models.checkpoint import quiet_transformers, refuse_code
from commonweight.models.config import check_within, read_config
from commonweight.models.identity import first_line, weight_files
from commonweight.models.tokenizer import BESIDE, TOKENIZER_FILES
from commonweight.overlaps.alignment import NEAR, alignment_of_samples
from commonweight.studies.compare.prepare import length_limit
from commonweight.studies.shortcuts.plan import CHECKPOINT, INDEPENDENT, START, Plan, seed_folders

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from commonweight.base.text import Note
    from commonweight.footprints.weight_sample import Sample
    from commonweight.fusion.tensors import Tensors
    from commonweight.studies.shortcuts.plan import Preset, SeedFolder

CHECKPOINTS = 4
"""How often a training is saved, so that it can be resumed."""

COPIES = 6
"""Weights, and as much as twice them of the optimizer's state; a new checkpoint is written before the last one goes."""

NAMES = ("id2label", "label2id")
"""What a ``config.json`` says about its classes."""

SAFE = "model.safetensors"

TEXTS = ("generation_config.json", "chat_template.jinja", *TOKENIZER_FILES, *BESIDE)
"""Names of the files of generation settings and tokenizers."""

OURS = "the shared initialisation"

REMEDY = "give the checkpoint it was fine-tuned from, head and markers included, as the model of the study"


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
        _save(model, tokenizer, place)


def _save(model: Any, tokenizer: Any, place: Path) -> None:
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

    if Path(checkpoint).is_dir():
        read_config(Path(checkpoint))
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
    if tokenizer.pad_token is None:
        raise UsageError(
            f"the tokenizer of {checkpoint!r} has no token for padding, so texts of different lengths make no batch. "
            "Set one (tokenizer.pad_token = tokenizer.eos_token and model.config.pad_token_id to its number), save "
            "both to a folder, and give that folder"
        )
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


def fine_tune(start: Path, rows: Any, text: str, label: str, plan: Plan, seed: int, place: Path) -> None:
    """Fine-tune a checkpoint; a training that was interrupted goes on from its last checkpoint."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding, Trainer
    from transformers.trainer_callback import PrinterCallback, ProgressCallback, TrainerCallback

    class Counting(TrainerCallback):  # type: ignore[misc,unused-ignore]
        """Counts steps where the other loops do."""

        def on_step_end(self, *_: Any, **__: Any) -> None:
            advance()

    unfinished = place.with_name(f".{place.name}.training")
    with quiet_transformers(), _random_state_kept():
        tokenizer: Any = AutoTokenizer.from_pretrained(start, trust_remote_code=plan.trust_remote_code)
        model: Any = AutoModelForSequenceClassification.from_pretrained(start, trust_remote_code=plan.trust_remote_code)
        check_room(place, COPIES * sum(weight.numel() * weight.element_size() for weight in model.parameters()))
        encoded = rows.map(
            lambda some: tokenizer(some[text], truncation=True, max_length=plan.max_length) | {"labels": some[label]},
            batched=True,
            remove_columns=rows.column_names,
            load_from_cache_file=False,
            keep_in_memory=True,
        )
        in_all = math.ceil(-(-len(encoded) // plan.batch_size) * plan.epochs)
        arguments = _arguments(plan, seed, unfinished, save_every=max(1, round(in_all / CHECKPOINTS)))
        collator = DataCollatorWithPadding(tokenizer)
        trainer = Trainer(model=model, args=arguments, train_dataset=encoded, data_collator=collator)
        trainer.remove_callback(PrinterCallback)  # it writes to stdout
        trainer.remove_callback(ProgressCallback)
        trainer.add_callback(Counting())
        with steps(f"training {place.name}", in_all, "step") as advance:
            trainer.train(resume_from_checkpoint=_last_whole(unfinished))
        broken = [name for name, weight in trainer.model.named_parameters() if not weight.isfinite().all()]
        if broken:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise MeasurementError(
                f"training {place.name} left {broken[0]} not finite: start another run with a learning rate below "
                f"{plan.learning_rate:g}"
            )
        _save(trainer.model, tokenizer, place)
    shutil.rmtree(unfinished, ignore_errors=True)


def _last_whole(unfinished: Path) -> str | None:
    """Find the newest checkpoint that was written to its end; those that were not are removed."""
    whole: dict[int, Path] = {}
    for folder in unfinished.glob("checkpoint-*"):
        needed = ("config.json", "optimizer.pt", "scheduler.pt", "trainer_state.json")
        is_whole = all((folder / name).is_file() for name in needed) and any(folder.glob("rng_state*.pth"))
        try:
            json_file(folder / "trainer_state.json", "")
        except IntegrityError:
            is_whole = False
        if is_whole and any(folder.glob("*.safetensors")):
            whole[int(folder.name.rpartition("-")[2])] = folder
        else:
            shutil.rmtree(folder)
    return str(whole[max(whole)]) if whole else None


@contextlib.contextmanager
def _random_state_kept() -> Iterator[None]:
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])


def _arguments(plan: Plan, seed: int, folder: Path, *, save_every: int) -> Any:
    from transformers import TrainingArguments

    devices = max(1, torch.cuda.device_count())
    if plan.batch_size % devices:
        raise UsageError(
            f"a batch of {plan.batch_size} rows cannot be shared out evenly to {devices} GPUs; choose another batch "
            "size, or hide some with CUDA_VISIBLE_DEVICES"
        )
    is_named = "train_sampling_strategy" in {field.name for field in dataclasses.fields(TrainingArguments)}
    by_length = {"train_sampling_strategy": "group_by_length"} if is_named else {"group_by_length": True}
    return TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=plan.batch_size // devices,
        logging_nan_inf_filter=False,
        num_train_epochs=plan.epochs,
        learning_rate=plan.learning_rate,
        seed=seed,
        data_seed=seed,
        save_strategy="steps",
        save_steps=save_every,
        save_total_limit=1,
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
        **({} if plan.preset == "published" else by_length),
    )


def adopt_existing(plan: Plan, folder: SeedFolder, note: Note) -> None:
    """Take over the plan's existing models; all are checked before the first is copied, and before any training."""
    missing = [(code, model) for code, model in plan.existing if not folder.model(code).exists()]
    trust = plan.trust_remote_code
    fitting = [check_existing(model, folder.model(START), note, trust=trust) for _, model in missing]
    for (code, model), existing in zip(missing, fitting, strict=True):
        existing.copy(folder.model(code))
        note(f"seed {folder.seed}: {code} is {model}")


def rehearse_existing(plan: Plan, folder: SeedFolder, labels: Sequence[str], note: Note, *, anew: bool = False) -> None:
    """Check the plan's existing models and take none; a start that is not there is made beside, and goes again."""
    missing = [model for code, model in plan.existing if anew or not folder.model(code).exists()]
    if not missing:
        return
    with TemporaryDirectory() as beside:
        start = folder.model(START)
        if anew or not start.exists():
            start = Path(beside) / START
            make_start(plan.model, labels, folder.seed, start, plan.preset, trust=plan.trust_remote_code)
        for model in missing:
            check_existing(model, start, note, trust=plan.trust_remote_code)


@dataclass(frozen=True)
class Existing:
    """A checkpoint that fits the start."""

    config: Mapping[str, Any]
    files: tuple[Path, ...]
    """Weights, generation settings and tokenizer."""

    def copy(self, place: Path) -> None:
        """Copy it into the study: weights, configuration and tokenizer, and nothing else from its folder."""
        check_room(place, sum(file.stat().st_size for file in self.files))
        place.parent.mkdir(parents=True, exist_ok=True)
        with replacing(place, CHECKPOINT) as partial:
            partial.mkdir()
            for file in self.files:
                shutil.copyfile(check_within(file.parent, file), partial / file.name)
            (partial / "config.json").write_text(json.dumps(self.config, indent=2) + "\n", encoding="utf-8")


def check_existing(model: str, start: Path, note: Note = silent, *, trust: bool = False) -> Existing:
    """Check that a checkpoint can take part in a study as it is."""
    from transformers import AutoTokenizer

    folder = Path(model).expanduser()
    if not (folder / "config.json").is_file():
        raise UsageError(f"the existing model {model} is no checkpoint folder: it has no config.json")
    ours, theirs = (read_config(where) for where in (start, folder))
    ours = ours | {"id2label": _labels(ours)}
    named = _named(ours, theirs)
    for key in ("model_type", "vocab_size", "id2label", "hidden_size", "num_hidden_layers"):
        if ours.get(key) != named.get(key):
            raise UsageError(
                f"the existing model {model} has {key} {named.get(key)!r}, and the study's start {ours.get(key)!r}: "
                "give the checkpoint it was trained from as the model of the study"
            )
    weights = _weights(folder)
    own, other = (AutoTokenizer.from_pretrained(where, trust_remote_code=trust) for where in (start, folder))
    if own.get_vocab() != other.get_vocab():
        words = ", ".join(Markers().words)
        raise UsageError(
            f"the tokenizer of {model} numbers words in another way than the study's start; its vocabulary needs the "
            f"markers {words}, added in this order"
        )
    check_fit(model, folder, start, {OURS: ours, model: named}, note)
    code = folder.glob("*.py") if named.get("auto_map") else ()
    texts = (folder / name for name in TEXTS if (folder / name).is_file())  # a training leaves other files there
    return Existing(named, (*weights, *texts, *code))


def _named(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """Give classes without names those of the start, if there are as many; two where nothing is said, as is usual."""
    names = _labels(theirs)
    is_nameless = all(NAMELESS.fullmatch(str(name)) for name in names.values())
    if not is_nameless or names.keys() != ours["id2label"].keys():
        return theirs | {"id2label": names}
    return theirs | {key: ours[key] for key in NAMES if key in ours}


def _labels(config: Mapping[str, Any]) -> dict[str, str]:
    """Names of classes, as transformers fills in what a configuration does not say."""
    unnamed = config.get("num_labels")
    return config.get("id2label") or {
        str(number): f"LABEL_{number}" for number in range(2 if unnamed is None else unnamed)
    }


def _weights(folder: Path) -> list[Path]:
    index = folder / f"{SAFE}.index.json"
    if (folder / SAFE).is_file():
        return [folder / SAFE]
    if index.is_file():
        return [index, *weight_files(folder)]
    raise UsageError(
        f"the existing model {folder} has no {SAFE}; load it and write it again with save_pretrained(…), which writes "
        "safetensors"
    )


def check_fit(model: str, folder: Path, start: Path, configs: Mapping[str, Mapping[str, Any]], note: Note) -> None:
    """Check that a model can stand beside models trained from the start; headers first, then the weights."""
    ours, theirs = (open_checkpoint(Source(name, place)).tensors for name, place in ((OURS, start), (model, folder)))
    _check_types(model, ours, theirs)
    try:
        check_configs(configs)
        check_same([ours, theirs])
    except NotComparableError as error:
        raise UsageError(f"the existing model {model} cannot stand beside {OURS}: {error}; {REMEDY}") from error
    for key, facts in theirs.facts.items():
        if facts.is_floating and not is_finite(theirs.read(key)):
            raise UsageError(
                f"the existing model {model} holds nan or infinity in {key}, expected finite weights: give it as it "
                "was before its training broke, or leave it out, and it is trained"
            )
    _check_start(model, ours.sample(), theirs.sample(), note)


def _check_types(model: str, ours: Tensors, theirs: Tensors) -> None:
    both = [key for key in ours.facts if key in theirs.facts]
    if narrow := next((key for key in both if theirs.facts[key].dtype != ours.facts[key].dtype), None):
        stored, wanted = (str(one.facts[narrow].dtype).removeprefix("torch.") for one in (theirs, ours))
        raise UsageError(
            f"the existing model {model} is stored as {stored} ({narrow}), expected {wanted} as {OURS} is: overlaps "
            "and averages need one type, and what training changed can be below the precision of a narrower one. Give "
            f"it as it was trained, or load it with dtype=torch.{wanted}, write it with save_pretrained, and give that "
            "folder"
        )


def _check_start(model: str, ours: Sample, theirs: Sample, note: Note) -> None:
    both = {OURS: ours, model: theirs}
    found = alignment_of_samples(both)
    distance = float(found.distance[0, 1])
    reading = found.reading(OURS, model)
    if reading == "no shared initialisation":
        raise UsageError(
            f"the existing model {model} comes from another start: the relative distance of its weights from those of "
            f"{OURS} is {distance:.2f}, expected at most {NEAR} (0 is equal, unrelated weights are about 1); overlaps "
            f"and averages with it would mean nothing: {REMEDY}"
        )
    if reading == "unclear":
        note(
            f"{model} is far from {OURS} (relative weight distance {distance:.2f}), a shared initialisation is unclear"
        )
    strange = []
    for key in ours[0]:
        one = alignment_of_samples({n: ({key: sample[key]}, {key: scale[key]}) for n, (sample, scale) in both.items()})
        if one.reading(OURS, model) == "no shared initialisation":
            strange.append(f"{key} ({float(one.distance[0, 1]):.2f})")
    if strange:
        note(
            f"{model} has matrices unlike those of {OURS}, {first_of(strange)}; if they were drawn under another seed, "
            f"its averages with other models know little: {REMEDY}"
        )
