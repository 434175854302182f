"""Similarities of tasks as JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from commonweight.errors import IntegrityError
from commonweight.overlaps._named import Named
from commonweight.overlaps.record import as_array, as_lists
from commonweight.record import Format, record_of

if TYPE_CHECKING:
    from commonweight.overlaps.similarity import TaskSimilarity

FORMAT = "commonweight-similarity"
VERSION = 1
SIMILARITIES = Format(FORMAT, (VERSION,), "a table of similarities", "compute them again")
APPROACHES = ("first_layer", "every_layer", "probed")


def to_json(found: TaskSimilarity) -> str:
    """Write similarities as JSON.

    Args:
        found: The similarities.

    Returns:
        JSON text with the format's name and version; nan is null.
    """
    record = {
        "format": FORMAT,
        "version": VERSION,
        "approach": found.approach,
        "tasks": list(found.tasks),
        "layers": [
            {
                "layer": layer,
                "similarity": as_lists(found.values[layer]),
                "null": as_lists(found.null[layer]),
                "p": as_lists(found.p[layer]),
            }
            for layer in found.layers
        ],
    }
    return json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False)


def fields_from_json(text: str) -> dict[str, Any]:
    """Read back what :func:`to_json` wrote.

    Args:
        text: JSON text.

    Returns:
        The arguments of :class:`~commonweight.overlaps.similarity.TaskSimilarity`.

    Raises:
        IntegrityError: If the text is not JSON, of another format or version, or does not hold together.
    """
    record = record_of(text, "the table of similarities", SIMILARITIES, ())
    try:
        return _fields(record)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise IntegrityError(
            f"the similarities are damaged or were edited by hand ({error!r}): compute them again"
        ) from None


def _fields(record: dict[str, Any]) -> dict[str, Any]:
    tasks = tuple(str(task) for task in record["tasks"])
    layers = tuple(str(each["layer"]) for each in record["layers"])
    if record["approach"] not in APPROACHES or len(set(tasks)) != len(tasks) or len(set(layers)) != len(layers):
        raise ValueError("approach, tasks or layers")
    matrices = {
        field: Named("layer", {str(each["layer"]): as_array(each[key], len(tasks)) for each in record["layers"]})
        for field, key in (("values", "similarity"), ("null", "null"), ("p", "p"))
    }
    return {"approach": record["approach"], "tasks": tasks, "layers": layers, **matrices}
