"""Does an existing model fit a study's start? The same function of the same weights, and fine-tuned from these."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from commonweight.decision.checkpoint import open_checkpoint
from commonweight.decision.configs import check_configs
from commonweight.decision.differences import first_of
from commonweight.decision.source import Source
from commonweight.decision.start import common_start, sample_of
from commonweight.decision.tensors import is_finite
from commonweight.errors import NotComparableError, UsageError
from commonweight.overlaps.alignment import NEAR

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from commonweight.decision.start import Sample
    from commonweight.decision.tensors import Tensors
    from commonweight.studies.measure import Note

OURS = "the common start"
REMEDY = "give the checkpoint it was fine-tuned from, head and markers included, as the model of the study"


def check_fit(model: str, folder: Path, start: Path, configs: Mapping[str, Mapping[str, Any]], note: Note) -> None:
    """Check that a model can stand beside models trained from the start; headers first, then the weights.

    Args:
        model: What errors call it.
        folder: Its checkpoint.
        start: The start's.
        configs: What the configurations of the start and the model say, by name.
        note: Hears of a start that is unclear, and of matrices that have nothing in common with the start's.

    Raises:
        UsageError: If it computes something else of its weights, lacks some or has others, has them in another type or
            with nan in them, or comes from another start.
    """
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
    _check_start(model, sample_of(ours), sample_of(theirs), note)


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
    found = common_start((OURS, model), (ours, theirs))
    distance = float(found.distance[0, 1])
    reading = found.reading(OURS, model)
    if reading == "no common start":
        raise UsageError(
            f"the existing model {model} comes from another start: the relative distance of its weights from those of "
            f"{OURS} is {distance:.2f}, expected at most {NEAR} (0 is equal, unrelated weights are about 1); overlaps "
            f"and averages with it would mean nothing: {REMEDY}"
        )
    if reading == "unclear":
        note(f"{model} is far from {OURS} (relative weight distance {distance:.2f}), a common start is unclear")
    strange = []
    for key in ours[0]:
        one = common_start((OURS, model), [({key: sample[key]}, {key: scale[key]}) for sample, scale in (ours, theirs)])
        if one.reading(OURS, model) == "no common start":
            strange.append(f"{key} ({float(one.distance[0, 1]):.2f})")
    if strange:
        note(
            f"{model} has matrices unlike those of {OURS}, {first_of(strange)}; if they were drawn under another seed, "
            f"its averages with other models know little: {REMEDY}"
        )
