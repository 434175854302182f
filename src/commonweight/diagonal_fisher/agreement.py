"""Does a model give the labels of its data? Noted while a Fisher is measured: inverted labels would not show in it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from commonweight.diagonal_fisher.batch import Batch
    from commonweight.diagonal_fisher.likelihood import Likelihood
    from commonweight.footprints.footprint import Footprint

MOST_ROWS = 4096
"""Rows that are looked at: enough to tell right from wrong."""

SURE = 3.0
"""Standard deviations below what guessing would give."""


@dataclass
class Agreement:
    """Of the first rows, whether the class that the model finds likeliest is the label."""

    right: dict[int, bool] = field(default_factory=dict)
    """By source row."""

    classes: int = 0

    def look(self, likelihood: Likelihood, outputs: Any, batch: Batch) -> None:
        """Look at a batch; rows that were seen before count once."""
        if len(self.right) >= MOST_ROWS or all(row in self.right for row in batch.source_rows):
            return
        if (found := likelihood.right(outputs, batch)) is not None:
            rows, self.classes = found
            self.right.update(zip(batch.source_rows, rows.tolist(), strict=True))

    def record(self) -> dict[str, int] | None:
        """Give what a footprint keeps, ``right`` of ``rows`` rows; None where labels are no classes or absent."""
        if not self.right:
            return None
        return {"right": sum(self.right.values()), "rows": len(self.right), "classes": self.classes}


def beware_of_labels(footprints: Mapping[str, Footprint]) -> list[str]:
    """Warn of models that give the labels of their data more rarely than guessing would."""
    said = []
    for name, footprint in footprints.items():
        found = footprint.metadata.get("agreement")
        if not found:
            continue
        right, rows, share = found["right"], found["rows"], 1 / found["classes"]
        if right < rows * share - SURE * math.sqrt(rows * share * (1 - share)):
            said.append(
                f"The model of {name} gives the label of {right} of {rows} rows, and guessing would of "
                f"{round(rows * share)}: it was trained on labels that are inverted or numbered otherwise, or on "
                "another task"
            )
    return said
