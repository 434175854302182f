"""A fusion in words: grids for the terminal, and the model card that goes with the fused checkpoint."""

from __future__ import annotations

import hashlib
import json
import math
import platform
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from commonweight.base.text import DASH, Block, Grid, to_markdown
from commonweight.base.version import __version__
from commonweight.footprints.files import RECORD as FOOTPRINT_RECORD
from commonweight.fusion.initialisation import in_words
from commonweight.models.identity import hash_files

if TYPE_CHECKING:
    from collections.abc import Mapping

    from commonweight.footprints.footprint import Footprint
    from commonweight.fusion.plan import Plan


FORMULAS = {
    "average": "weighted average",
    "task_arithmetic": "task arithmetic (Ilharco et al. 2023)",
    "fisher": "Fisher-weighted average (Matena & Raffel 2022)",
}


_UNITS = {"norm": "its root mean square", "trace": "its mean", "none": "nothing"}


_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def blocks(record: Mapping[str, Any], folder: str | None = None, *, digits: int | None = None) -> list[Block]:
    """Say what was fused, or what would be."""
    rows = [
        (model["name"], f"{model['weight']:g}", content_hash(model)[:digits], *_footprint(record, model))
        for model in record["models"]
    ]
    if record["base"] is not None:
        rows.append((record["base"]["name"], "base", content_hash(record["base"])[:digits], *_footprint(record, {})))
    header = ("model", "weight", "SHA-256", *(["Fisher of"] if record["method"] == "fisher" else []))
    facts = [
        ("method", FORMULAS[record["method"]]),
        *([("scale", f"{record['scale']:g}")] if record["scale"] is not None else []),
        *([("floor", f"{record['floor']:g}")] if record["floor"] is not None else []),
        *([("each Fisher divided by", _UNITS[record["normalize"]])] if record["normalize"] is not None else []),
        *_dead(record),
        ("tensors", str(record["tensors"])),
        ("numbers", str(record["entries"])),
        ("type", record["dtype"] if isinstance(record["dtype"], str) else ", ".join(record["dtype"])),
        ("commonweight", record["versions"]["commonweight"]),
    ]
    told: list[Block] = [Grid("Models", tuple(header), tuple(rows)), Grid("Fusion", ("", ""), tuple(facts))]
    told.append(record["shared_initialisation"]["sentence"])
    told += [_sentence(note) for note in record["notes"] if note != record["shared_initialisation"]["sentence"]]
    if folder is not None:
        told.append(f"Written to {folder}")
    return told


def model_card(record: Mapping[str, Any], title: str) -> str:
    """Write the model card: a YAML header the Hub understands, and how the checkpoint was made."""
    sources = [*record["models"], *([record["base"]] if record["base"] is not None else [])]
    bases = list(dict.fromkeys(_model_id(source["name"]) for source in sources))
    head = ["---", "base_model:", *(f"- {json.dumps(name)}" for name in bases)]
    head += ["base_model_relation: merge", "library_name: transformers", "tags:", "- merge", "- commonweight", "---"]
    heading = f"# {' '.join(title.split())}"
    made = (
        "Made by fusing the weights of these checkpoints; nothing was trained. `fusion.json` holds the full record.\n"
        "Measure it on everything these could do before you rely on it: what an average loses, it loses in silence."
    )
    fence = "```"
    command = f"{fence}\n{record['command']}\n{fence}"
    return "\n".join(head) + f"\n\n{heading}\n\n{made}\n\n{to_markdown(blocks(record))}\nThe command:\n\n{command}\n"


def content_hash(identity: Mapping[str, Any]) -> str:
    """Name the weights of a checkpoint by one hash.

    Args:
        identity: With ``weights``, the SHA-256 by file name.

    Returns:
        That of the file where there is one; of several, the SHA-256 of their hashes, joined in the order of their
        names; a dash if they are not known.

    Example:
        >>> content_hash({"weights": {"model.safetensors": "ab12"}})
        'ab12'
    """
    hashes = [found for _, found in sorted((identity.get("weights") or {}).items())]
    if len(hashes) < 2:
        return hashes[0] if hashes else DASH
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


def _footprint(record: Mapping[str, Any], model: Mapping[str, Any]) -> list[str]:
    if record["method"] != "fisher":
        return []
    found = model.get("footprint")
    return [DASH if found is None else f"{found['count']} examples, {found['name']}"]


def _dead(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    found = record.get("dead")
    if found is None:
        return []
    share = 100 * found["dead"] / found["entries"] if found["entries"] else 0.0
    return [("weights at the floor in all Fishers", f"{found['dead']} ({share:.1f} %)")]


def _model_id(name: str) -> str:
    """Give an id for the header: the Hub refuses cards whose base is a path."""
    plain = name.partition("@")[0]
    if _ID.fullmatch(plain) and not plain.startswith("."):
        return plain
    last = [part for part in plain.split("/") if part not in {"", ".", ".."}]
    return re.sub(r"[^\w.-]", "-", last[-1]) if last else "model"


def _sentence(note: str) -> str:
    text = note[0].upper() + note[1:]
    return text if text.endswith(".") else text + "."


FORMAT = "commonweight-fusion"


VERSION = 1


RECORD = "fusion.json"


_OF_FOOTPRINT = ("fisher_type", "loss", "data")


def describe(plan: Plan, command: str) -> dict[str, Any]:
    """Describe a fusion before it is computed."""
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
        "shared_initialisation": {
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
    """Count the weights whose Fisher was at the floor in every model, after all tensors were computed."""
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
