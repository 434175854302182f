"""A fusion in words: grids for the terminal, and the model card that goes with the fused checkpoint."""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, Any

from commonweight.text import DASH, Block, Grid, to_markdown

if TYPE_CHECKING:
    from collections.abc import Mapping

FORMULAS = {
    "average": "weighted average",
    "task_arithmetic": "task arithmetic (Ilharco et al. 2023)",
    "fisher": "Fisher-weighted average (Matena & Raffel 2022)",
}
_UNITS = {"norm": "its root mean square", "trace": "its mean", "none": "nothing"}
_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def blocks(record: Mapping[str, Any], folder: str | None = None, *, digits: int | None = None) -> list[Block]:
    """Say what was fused, or what would be.

    Args:
        record: As :func:`commonweight.decision.record.describe` gives it.
        folder: Where the fused checkpoint is; None if nothing was written.
        digits: How many digits of a hash are shown; None for all.

    Returns:
        One grid of models, one of facts, and a paragraph for whatever deserves attention.
    """
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
    told.append(record["common_start"]["sentence"])
    told += [_sentence(note) for note in record["notes"] if note != record["common_start"]["sentence"]]
    if folder is not None:
        told.append(f"Written to {folder}")
    return told


def model_card(record: Mapping[str, Any], title: str) -> str:
    """Write the model card: a YAML header the Hub understands, and how the checkpoint was made.

    Args:
        record: As :func:`blocks` takes it.
        title: What the fused model is called.

    Returns:
        The text of ``README.md``.
    """
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
