"""``study.json``: what a study found, as every study writes it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from commonweight.base.records import without_nan
from commonweight.base.text import csv_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from commonweight.base.estimate import Estimate
    from commonweight.studies.run.plan import StudyPlan

RESULT = "study.json"


def result_text(form: str, version: int, plan: StudyPlan, **found: Any) -> str:
    """Write what was found beside the plan that it answers; undefined numbers are null."""
    record = {"format": form, "version": version, "plan": plan.deciding() | plan.growing(), **found}
    return json.dumps(without_nan(record), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def recorded(value: Estimate) -> dict[str, Any]:
    """Describe an estimate in plain values."""
    return {"values": list(value.replicates), "mean": value.value, "half_width_95": value.half_width()}


def to_csv(record: Any) -> str:
    """Write every estimate of a result as a row: where it stands, the mean, half its interval, its values."""
    rows = (
        (name, *(found[key] for key in ("mean", "half_width_95")), " ".join(map(_plain, found["values"])))
        for name, found in _estimates(record, ())
    )
    return csv_text(("name", "mean", "half_width_95", "values"), rows)


def _plain(value: float | None) -> str:
    return "" if value is None else repr(value)


def _estimates(record: Any, place: tuple[str, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(record, dict):
        if set(record) == {"values", "mean", "half_width_95"}:
            yield "/".join(place), record
            return
        for key, value in record.items():
            yield from _estimates(value, (*place, str(key)))
    elif isinstance(record, list):
        for index, value in enumerate(record):
            yield from _estimates(value, (*place, str(index)))
