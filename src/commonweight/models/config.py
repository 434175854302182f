"""The files of a checkpoint that say what it is, looked at before any library acts on them: a stranger wrote them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from commonweight.base.errors import IntegrityError, UsageError
from commonweight.base.records import json_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

AGAIN = "copy the checkpoint again"

MOST = {
    re.compile(r"(^|_)(layers?|depth)$"): 1000,
    re.compile(r"(_size|_dim|d_model|n_embd|_heads|experts)$"): 2**24,
    re.compile(r"^num_labels$"): 2**20,
}
"""Keys that say how large a model is, and up to which number it is built."""


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _is_mapping(value: Any) -> bool:
    return isinstance(value, dict)


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


FORMS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "architectures": (_is_names, "a list of names"),
    "auto_map": (_is_mapping, "a mapping"),
    "id2label": (_is_mapping, "a mapping"),
    "label2id": (_is_mapping, "a mapping"),
    "num_labels": (_is_count, "a whole number"),
    "quantization_config": (_is_mapping, "a mapping"),
}
"""Keys that this package and transformers rely on, and what they must hold where they are there."""


def read_config(folder: Path, name: str = "config.json") -> dict[str, Any]:
    """Read and check the configuration of a checkpoint."""
    path = folder / name
    if folder.is_dir() and not path.is_file():
        raise UsageError(f"{folder} is a folder but not a checkpoint: it has no {name}")
    config = json_file(path, AGAIN)
    if not isinstance(config, dict) or not config:
        raise IntegrityError(f"{path} is no mapping, or an empty one: {AGAIN}")
    for key, (fits, form) in FORMS.items():
        if config.get(key) is not None and not fits(config[key]):
            raise IntegrityError(f"{path} has {str(config[key])[:40]!r} as {key}, expected {form}: {AGAIN}")
    for key, value in _numbers(config):
        most = max((limit for pattern, limit in MOST.items() if pattern.search(key)), default=value)
        if value > most:
            raise UsageError(f"{path} asks for {key} {value}, expected at most {most}: no such model is built")
    return config


def _numbers(config: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    for key, value in config.items():
        if isinstance(value, dict):
            yield from _numbers(value)
        elif type(value) is int:
            yield key, value


def refuse_quantised(where: str, config: Any) -> None:
    """Refuse a checkpoint of quantised weights, which have no gradient."""
    if getattr(config, "quantization_config", None):
        raise UsageError(
            f"the config.json of {where} has a quantization_config: quantised weights have no gradient; give the "
            "checkpoint as it was before it was quantised"
        )


def check_within(folder: Path, file: Path) -> Path:
    """Check that a file to be copied is one of its folder, and no link that leads out of it."""
    place, target = folder.resolve(), file.resolve()
    blobs = place.parent.parent / "blobs"  # the cache of the Hub holds links to them
    if not target.is_relative_to(place) and not (place.parent.name == "snapshots" and target.parent == blobs):
        raise UsageError(
            f"{file} is a link to {target}, outside of {folder}: it is not copied; put the file itself into the folder"
        )
    return file
