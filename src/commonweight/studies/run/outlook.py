"""What a study will take of disk and memory, said before anything is measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from commonweight.base.folders import check_room, free_bytes
from commonweight.base.text import size_words

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from commonweight.footprints.folds import Needs
    from commonweight.models.options import LoadedModel


@dataclass(frozen=True)
class Outlook:
    """Bytes of all that is still missing of a run."""

    place: Path
    """Where it goes."""

    footprints: Mapping[str, Needs]
    """The footprints that will be measured, by name."""

    there: int = 0
    """How many are there already."""

    models: int = 0
    """Bytes of all models that will be written, with what their training keeps beside them."""

    meanwhile: int = 0
    """Bytes at most of what lies beside all that while the work goes on, and goes in the end."""

    thrown_away: int = 0
    """Bytes of former footprints that go before anything is written."""

    model: int = 0
    """Bytes of the largest model in memory."""

    @property
    def disk(self) -> int:
        """Bytes that will be written and stay, but for records, tables and figures."""
        return self.models + sum(needs.disk for needs in self.footprints.values())

    @property
    def most(self) -> int:
        """Bytes at most while the work goes on: what stays, and what does not."""
        return self.disk + self.meanwhile

    @property
    def sums(self) -> int:
        """Bytes of the largest set of sums in memory."""
        return max((needs.memory for needs in self.footprints.values()), default=0)

    @property
    def free(self) -> int:
        """Bytes that are free on that disk."""
        return free_bytes(self.place)

    def check(self) -> None:
        """Check that there is room; a :class:`~commonweight.UsageError` says how much is missing."""
        if self.most > self.thrown_away:
            check_room(self.place, self.most - self.thrown_away)

    def sentence(self) -> str:
        """Say it in one sentence."""
        folds = max((needs.folds for needs in self.footprints.values()), default=1)
        meanwhile = f", at most {size_words(self.meanwhile)} more meanwhile" if self.meanwhile else ""
        return (
            f"{len(self.footprints)} footprint{'' if len(self.footprints) == 1 else 's'}"
            f"{f' with {folds} folds' if folds > 1 else ''} to measure: {size_words(self.disk)} of disk{meanwhile}, "
            f"and {size_words(self.free)} are free; in memory "
            f"{size_words(self.model)} for the model and {size_words(self.sums)} for sums, beside what a forward and "
            "backward pass takes"
        )


def model_bytes(loaded: LoadedModel) -> int:
    """Tell how much memory a model takes."""
    return sum(tensor.nbytes for tensor in (*loaded.model.parameters(), *loaded.model.buffers()))
