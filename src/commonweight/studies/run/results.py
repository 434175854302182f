"""``study.json``: what a study found, as every study writes it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from commonweight.base.records import without_nan

if TYPE_CHECKING:
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
