"""One row becomes another: synthetic, distracted or contradicted. Each depends on seed, source row and rule only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from commonweight.data.shortcuts.keyed import generator
from commonweight.data.shortcuts.planter import Planted, Planter, Unfit
from commonweight.data.shortcuts.rows import CONTRADICTED, DISTRACTED, SYNTHETIC, Dropped, Row
from commonweight.errors import UsageError

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Collection, Iterable

    from commonweight.data.shortcuts.mixture import Mixture
    from commonweight.data.shortcuts.shortcut import Shortcut


@dataclass(frozen=True)
class RowMaker:
    """Makes rows of one kind of a source split; what cannot be made is listed in ``dropped``."""

    mixture: Mixture
    planter: Planter
    seed: int
    purpose: str
    """Part of every key, so that row 7 of the train and of the dev rows do not share their chances."""

    name: str
    """What the rows are called in ``dropped``."""

    dropped: list[Dropped] = field(default_factory=list)

    def synthetic(self, row: Row) -> Row | None:
        """Plant the shortcut; it sets the label.

        Args:
            row: An original row.

        Returns:
            The new row; None if it holds no plan of the rule.
        """
        rule, rng = self._rule(row, SYNTHETIC)
        return self._made(row, self.planter.plant(row.text, rule, rng), SYNTHETIC, rule.code)

    def distracted(self, row: Row) -> Row | None:
        """Plant one marker that decides nothing; the label stays.

        Args:
            row: An original row.

        Returns:
            The new row; None if it holds no marker.
        """
        rng = self._rng(row, DISTRACTED, self.mixture.code)
        word = rng.choice(self.mixture.distractors)
        return self._made(row, self.planter.distract(row.text, word, self.mixture.parts, rng), DISTRACTED, "")

    def contradicted(self, row: Row) -> Row | None:
        """Plant the shortcut of another label than the row's; the label follows it.

        Args:
            row: An original row.

        Returns:
            The new row; None if it holds no plan of such a label.
        """
        rule, rng = self._rule(row, CONTRADICTED)
        others = [label for label in rule.labels if label != row.label]
        planted: Planted | Unfit = Unfit(f"{rule.code} gives no label but {row.label}")
        for label in rng.sample(others, len(others)):
            planted = self.planter.plant(row.text, rule, rng, label)
            if isinstance(planted, Planted):
                break
        return self._made(row, planted, CONTRADICTED, rule.code)

    def original(self, row: Row) -> Row:
        """Leave a row as it is.

        Args:
            row: An original row.

        Returns:
            The same.
        """
        return row

    def every(self, jobs: Iterable[tuple[Callable[[Row], Row | None], Row]]) -> list[Row]:
        """Make many rows.

        Args:
            jobs: Pairs of one of the methods above and an original row.

        Returns:
            Those that could be made, in order.

        Raises:
            UsageError: If there is none.
        """
        made = [new for make, row in jobs if (new := make(row)) is not None]
        if not made:
            why = f"; the last: {self.dropped[-1].reason}" if self.dropped else ""
            raise UsageError(f"no row of {self.name} can hold {self.mixture.code!r}{why}")
        return made

    def _rng(self, row: Row, kind: str, code: str) -> random.Random:
        return generator(self.seed, self.purpose, kind, code, row.source_row)

    def _rule(self, row: Row, kind: str) -> tuple[Shortcut, random.Random]:
        rule = self.mixture.pick(self._rng(row, "mixture", self.mixture.code))
        return rule, self._rng(row, kind, rule.code)

    def _made(self, row: Row, planted: Planted | Unfit, kind: str, code: str) -> Row | None:
        if isinstance(planted, Unfit):
            self.dropped.append(Dropped(self.name, row.source_row, planted.reason))
            return None
        return Row(planted.text, row.label if planted.label is None else planted.label, row.source_row, kind, code)


def check_labels(mixture: Mixture, classes: Collection[int]) -> None:
    """Check that every label of the rules is a class.

    Args:
        mixture: The rules.
        classes: Numbers of the classes there are.

    Raises:
        UsageError: If one is not.
    """
    strangers = [label for label in mixture.labels if label not in classes]
    if strangers:
        raise UsageError(
            f"{mixture.code!r} gives the labels {', '.join(map(str, mixture.labels))}, and the data have the classes "
            f"{', '.join(map(str, sorted(classes)))}; number the classes from 0"
        )
