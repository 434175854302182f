"""Models that are there already take part in a study as they are, if they can read its texts."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from commonweight.base.errors import NotComparableError, UsageError
from commonweight.base.folders import check_room, replacing
from commonweight.base.names import first_of
from commonweight.base.text import silent
from commonweight.data.columns import NAMELESS
from commonweight.data.shortcuts import Markers
from commonweight.fusion.checkpoints import Source, open_checkpoint
from commonweight.fusion.compatible import check_configs
from commonweight.fusion.tensors import is_finite
from commonweight.models.identity import weight_files
from commonweight.overlaps.alignment import NEAR, alignment_of_samples
from commonweight.studies.shortcuts.plan import CHECKPOINT, START
from commonweight.studies.shortcuts.start import make_start

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from commonweight.base.text import Note
    from commonweight.footprints.weight_sample import Sample
    from commonweight.fusion.tensors import Tensors
    from commonweight.studies.shortcuts.plan import Plan, SeedFolder


NAMES = ("id2label", "label2id")
"""What a ``config.json`` says about its classes."""


SAFE = "model.safetensors"


TEXTS = (
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "bpe.codes",
    "spiece.model",
    "spm.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
    "chat_template.jinja",
)
"""Names of the files of generation settings and tokenizers."""


def adopt_existing(plan: Plan, folder: SeedFolder, note: Note) -> None:
    """Take over the plan's existing models; all are checked before the first is copied, and before any training."""
    missing = {code: model for code, model in plan.existing if not folder.model(code).exists()}
    fitting = {
        code: check_existing(model, folder.model(START), note, trust=plan.trust_remote_code)
        for code, model in missing.items()
    }
    for code, existing in fitting.items():
        existing.copy(folder.model(code))
        note(f"seed {folder.seed}: {code} is {missing[code]}")


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
                shutil.copyfile(file, partial / file.name)
            (partial / "config.json").write_text(json.dumps(self.config, indent=2) + "\n", encoding="utf-8")


def check_existing(model: str, start: Path, note: Note = silent, *, trust: bool = False) -> Existing:
    """Check that a checkpoint can take part in a study as it is."""
    from transformers import AutoTokenizer

    folder = Path(model).expanduser()
    if not (folder / "config.json").is_file():
        raise UsageError(f"the existing model {model} is no checkpoint folder: it has no config.json")
    ours, theirs = (json.loads((where / "config.json").read_text(encoding="utf-8")) for where in (start, folder))
    named = _named(ours, theirs)
    for key in ("model_type", "vocab_size", "id2label", "hidden_size", "num_hidden_layers"):
        if ours.get(key) != named.get(key):
            raise UsageError(
                f"the existing model {model} has {key} {named.get(key)!r}, and the study's start {ours.get(key)!r}: "
                "give the checkpoint it was trained from as the model of the study"
            )
    weights = _weights(folder)
    vocabularies = [
        AutoTokenizer.from_pretrained(where, trust_remote_code=trust).get_vocab() for where in (start, folder)
    ]
    if vocabularies[0] != vocabularies[1]:
        words = ", ".join(Markers().words)
        raise UsageError(
            f"the tokenizer of {model} numbers words in another way than the study's start; its vocabulary needs the "
            f"markers {words}, added in this order"
        )
    check_fit(model, folder, start, {OURS: ours, model: named}, note)
    code = folder.glob("*.py") if named.get("auto_map") else ()
    return Existing(named, (*weights, *_texts(folder), *code))


def _named(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """Give classes without names those of the start, if there are as many; two where nothing is said, as is usual."""
    names = theirs.get("id2label") or {str(number): f"LABEL_{number}" for number in range(theirs.get("num_labels", 2))}
    is_nameless = all(NAMELESS.fullmatch(str(name)) for name in names.values())
    if not is_nameless or names.keys() != ours["id2label"].keys():
        return theirs | {"id2label": names}
    return theirs | {key: ours[key] for key in NAMES}


def _weights(folder: Path) -> list[Path]:
    index = folder / f"{SAFE}.index.json"
    if index.is_file() and not (folder / SAFE).is_file():
        return [index, *weight_files(folder)]
    if not (folder / SAFE).is_file():
        raise UsageError(
            f"the existing model {folder} has no {SAFE}; load it and write it again with save_pretrained(…), which "
            "writes safetensors"
        )
    return [folder / SAFE]


def _texts(folder: Path) -> list[Path]:
    """List the generation settings and the tokenizer's files; a training leaves other files in the folder."""
    return [folder / name for name in TEXTS if (folder / name).is_file()]


OURS = "the shared initialisation"


REMEDY = "give the checkpoint it was fine-tuned from, head and markers included, as the model of the study"


def check_fit(model: str, folder: Path, start: Path, configs: Mapping[str, Mapping[str, Any]], note: Note) -> None:
    """Check that a model can stand beside models trained from the start; headers first, then the weights."""
    try:
        check_configs(configs)
    except NotComparableError as error:
        raise UsageError(f"the existing model {model} cannot stand beside {OURS}: {error}; {REMEDY}") from error
    ours, theirs = (open_checkpoint(Source(name, place)).tensors for name, place in ((OURS, start), (model, folder)))
    _check_facts(model, ours, theirs)
    for key, facts in theirs.facts.items():
        if facts.is_floating and not is_finite(theirs.read(key)):
            raise UsageError(
                f"the existing model {model} holds nan or infinity in {key}, expected finite weights: give it as it "
                "was before its training broke, or leave it out, and it is trained"
            )
    _check_start(model, ours.sample(), theirs.sample(), note)


def _check_facts(model: str, ours: Tensors, theirs: Tensors) -> None:
    lacking = [key for key in ours.facts if key not in theirs.facts]
    surplus = [key for key in theirs.facts if key not in ours.facts]
    other = [
        f"{key} is {list(theirs.facts[key].shape)}, not {list(facts.shape)}"
        for key, facts in ours.facts.items()
        if key in theirs.facts and theirs.facts[key].shape != facts.shape
    ]
    if lacking or surplus or other:
        found = [*(f"{key} is missing" for key in lacking), *other, *(f"{key} is not in the start" for key in surplus)]
        raise UsageError(
            f"the existing model {model} does not have the weights of {OURS}, {first_of(found)}. Expected all "
            f"{len(ours.facts)} tensors of a classifier, under the names they have there: load it with "
            "AutoModelForSequenceClassification, write it again with save_pretrained, and give that folder; a "
            "checkpoint without a head has to be fine-tuned first"
        )
    narrow = next((key for key, facts in ours.facts.items() if theirs.facts[key].dtype != facts.dtype), None)
    if narrow is not None:
        stored, wanted = (str(one.facts[narrow].dtype).removeprefix("torch.") for one in (theirs, ours))
        raise UsageError(
            f"the existing model {model} is stored as {stored} ({narrow}), expected {wanted} as {OURS} is: overlaps "
            "and averages need one type, and what training changed can be below the precision of a narrower one. Give "
            f"it as it was trained, or load it with dtype=torch.{wanted}, write it with save_pretrained, and give that "
            "folder"
        )


def _check_start(model: str, ours: Sample, theirs: Sample, note: Note) -> None:
    found = alignment_of_samples({OURS: ours, model: theirs})
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
        one = alignment_of_samples({
            name: ({key: sample[key]}, {key: scale[key]}) for name, (sample, scale) in ((OURS, ours), (model, theirs))
        })
        if one.reading(OURS, model) == "no shared initialisation":
            strange.append(f"{key} ({float(one.distance[0, 1]):.2f})")
    if strange:
        note(
            f"{model} has matrices unlike those of {OURS}, {first_of(strange)}; if they were drawn under another seed, "
            f"its averages with other models know little: {REMEDY}"
        )
