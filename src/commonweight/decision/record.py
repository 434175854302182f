"""What is recorded of a fusion: plain JSON values, the machine's half of the model card."""

from __future__ import annotations

import math
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from commonweight import __version__
from commonweight.decision.start import in_words
from commonweight.footprint.files import RECORD as FOOTPRINT_RECORD
from commonweight.nn.identity import hash_files

if TYPE_CHECKING:
    from commonweight.decision.plan import Plan
    from commonweight.footprint.footprint import Footprint

FORMAT = "commonweight-fusion"
VERSION = 1
RECORD = "fusion.json"
_OF_FOOTPRINT = ("label_rule", "loss", "data")


def describe(plan: Plan, command: str) -> dict[str, Any]:
    """Describe a fusion before it is computed.

    Args:
        plan: The fusion.
        command: What was asked, as it can be asked again.

    Returns:
        Plain JSON values: the models with the SHA-256 of their files, the method and its numbers, the common start.
    """
    fusion, recipe = plan.fusion, plan.fusion.recipe
    facts = fusion.models[0].facts
    models = []
    opened = list((plan.footprints or {}).items())
    for position, weight in enumerate(recipe.weights):
        model = {**plan.identities[position], "weight": weight}
        if opened:
            model["footprint"] = _of_footprint(*opened[position])
        models.append(model)
    dtypes = sorted({str(fact.dtype).removeprefix("torch.") for fact in facts.values() if fact.is_floating})
    apart = plan.start.distance.tolist()
    return {
        "format": FORMAT,
        "version": VERSION,
        "method": recipe.method,
        "scale": recipe.scale,
        "floor": recipe.floor,
        "normalize": recipe.normalize,
        "models": models,
        "base": plan.identities[-1] if plan.base is not None else None,
        "common_start": {
            "sentence": in_words(plan.start),
            "names": list(plan.start.names),
            "distance": [[None if math.isnan(value) else value for value in row] for row in apart],
        },
        "tensors": len(facts),
        "entries": sum(_entries(fact.shape) for fact in facts.values()),
        "dtype": dtypes[0] if len(dtypes) == 1 else dtypes,
        "plain_average": list(fusion.without_fisher),
        "from_first": list(fusion.counters),
        "notes": list(plan.notes),
        "command": command,
        "versions": {"commonweight": __version__, "torch": torch.__version__, "python": platform.python_version()},
    }


def dead_share(plan: Plan) -> dict[str, int] | None:
    """Count the weights whose Fisher was at the floor in every model, after all tensors were computed.

    Args:
        plan: The fusion.

    Returns:
        ``dead`` and ``entries``, of the tensors a Fisher covers; None without Fishers.
    """
    if plan.fusion.fishers is None:
        return None
    facts, dead = plan.fusion.models[0].facts, plan.fusion.dead
    return {"dead": sum(dead.values()), "entries": sum(_entries(facts[key].shape) for key in dead)}


def _entries(shape: tuple[int, ...]) -> int:
    count = 1
    for length in shape:
        count *= length
    return count


def _of_footprint(name: str, footprint: Footprint) -> dict[str, Any]:
    file = Path(name).expanduser() / FOOTPRINT_RECORD
    return {
        "name": name,
        "count": footprint.count,
        **{key: footprint.metadata.get(key) for key in _OF_FOOTPRINT},
        "sha256": hash_files([file])[FOOTPRINT_RECORD] if file.is_file() else None,
    }
