"""What a shortcut is: the marker words it may insert, with their chances, and how the label is read back from them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from math import fsum
from typing import TYPE_CHECKING, Any, ClassVar

from commonweight.base.errors import UsageError
from commonweight.data.shortcuts.markers import Markers

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Iterator, Sequence


@dataclass(frozen=True)
class Plan:
    """What to insert into one text."""

    words: tuple[str, ...]
    """Marker words, in the order in which they are to appear; each at a word boundary of its own."""

    weight: float = 1.0
    """How often, in proportion to the rule's other plans; 0: only where no other plan of the label fits the text."""

    between: tuple[int, ...] = ()
    """For two markers: numbers of tokens allowed between them; only 0 can put both at one boundary. Empty: any."""

    def examples(self) -> list[list[str]]:
        """Write the plan as tokens, without any text around: one list per number in ``between``."""
        return [[self.words[0], *[""] * gap, *self.words[1:]] for gap in self.between or (0,)]


@dataclass(frozen=True)
class Shortcut(ABC):
    """A rule that ties labels to marker words. A new rule gives ``code``, ``name``, :meth:`plans` and :meth:`read`.

    All chances follow from ``plans``, so they are exact; that the rule reads every plan of its own is checked.
    """

    code: ClassVar[str]
    """Short name: in options, in the column ``shortcut``, and in the key of every random choice."""

    name: ClassVar[str]
    """Long name, for tables."""

    markers: Markers = Markers()  # noqa: RUF009 - frozen

    def __init_subclass__(cls, **rest: Any) -> None:
        super().__init_subclass__(**rest)
        for name in ("code", "name"):
            if not isinstance(getattr(cls, name, None), str):
                raise UsageError(f"{cls.__name__} has no {name}; a shortcut has one, a string: {name} = '…'")

    @abstractmethod
    def plans(self) -> Sequence[Plan]:
        """List everything the rule may insert, with weights."""

    @abstractmethod
    def read(self, tokens: Sequence[str]) -> int | None:
        """Read the label, a class index, back from a text's tokens; None where the rule does not speak."""

    def draws(self, rng: random.Random, label: int | None = None) -> Iterator[Plan]:
        """Draw all plans in random order, the likelier earlier: the first that fits a text is taken.

        Without a label one is drawn, whose plans come before all others.

        Yields:
            Plans, each once.

        Raises:
            UsageError: If the rule never gives that label.
        """
        if label is not None and label not in self.labels:
            raise UsageError(f"{self.code!r} gives the labels {', '.join(map(str, self.labels))}, never {label}")
        first = label
        if first is None:
            first = rng.choices(self.labels, [self.probability(each) for each in self.labels])[0]
        yield from _shuffled(rng, [plan for plan, given in self.table if given == first])
        if label is None:
            yield from _shuffled(rng, [plan for plan, given in self.table if given != first])

    @cached_property
    def table(self) -> tuple[tuple[Plan, int], ...]:
        """Every plan and the label it gives."""
        found = []
        for plan in self.plans():
            words = set(plan.words) <= set(self.markers.words)
            labels = {self.read(tokens) for tokens in plan.examples()} if plan.words and words else {None}
            label = labels.pop()
            if label is None or labels or plan.weight < 0 or (plan.between and len(plan.words) != 2):
                raise UsageError(
                    f"{plan} of {self.code!r} must hold markers of {self.markers.words}, have a weight of at least 0 "
                    "and be read as one label by the rule itself; mend plans() or read()"
                )
            found.append((plan, label))
        if not fsum(plan.weight for plan, _ in found) > 0:
            raise UsageError(f"{self.code!r} has no plan with a weight above 0; plans() must list at least one")
        return tuple(found)

    @cached_property
    def _probabilities(self) -> dict[int, float]:
        weights = defaultdict(list)
        for plan, label in self.table:
            weights[label].append(plan.weight)
        total = fsum(plan.weight for plan, _ in self.table)
        return {label: fsum(weights[label]) / total for label in sorted(weights)}

    @property
    def labels(self) -> tuple[int, ...]:
        """The labels the rule can give, ascending."""
        return tuple(self._probabilities)

    def probability(self, label: int) -> float:
        """Tell how often the rule gives a label, from 0 to 1, when it is free to choose."""
        return self._probabilities.get(label, 0.0)

    @property
    def chance(self) -> float:
        """Accuracy of the best predictor that always says the same, on rows of this rule: often more than 0.5."""
        return max(self._probabilities.values())

    @property
    def alphabet(self) -> tuple[str, ...]:
        """The markers it inserts."""
        used = {word for plan, _ in self.table for word in plan.words}
        return tuple(word for word in self.markers.words if word in used)

    @property
    def reads_lone_marker(self) -> bool:
        """Whether one marker alone decides: then a distractor with the row's own label would contradict the rule."""
        return any(self.read([word]) is not None for word in self.alphabet)

    @property
    def distractors(self) -> tuple[str, ...]:
        """Markers, #0 and #1 only, that may stand alone in an original row; none if one alone decides."""
        pair = (self.markers.zero, self.markers.one)
        return () if self.reads_lone_marker else tuple(word for word in self.alphabet if word in pair)


@dataclass(frozen=True)
class Agreement:
    """What one rule reads in another rule's rows; the shares sum to 1."""

    same: float
    """Share of rows where it reads the same label."""

    opposite: float
    """Share of rows where it reads another label."""

    silent: float
    """Share of rows where it does not speak."""


def agreement(rule: Shortcut, reader: Shortcut) -> Agreement:
    """Compute what one rule reads in the rows of another, exactly.

    Args:
        rule: The rule that the rows are made by, its labels drawn freely.
        reader: The rule that reads them; in the same markers.

    Returns:
        Three shares.

    Example:
        >>> from commonweight.data.shortcuts.rules import RULES
        >>> agreement(RULES["xor"], RULES["st"])
        Agreement(same=0.25, opposite=0.25, silent=0.5)
    """
    shares: dict[str, list[float]] = {"same": [], "opposite": [], "silent": []}
    for plan, label in rule.table:
        for tokens in plan.examples():
            read = reader.read(tokens)
            key = "silent" if read is None else "same" if read == label else "opposite"
            shares[key].append(plan.weight / len(plan.examples()))
    total = fsum(plan.weight for plan, _ in rule.table)
    return Agreement(**{key: fsum(weights) / total for key, weights in shares.items()})


def _shuffled(rng: random.Random, plans: Iterable[Plan]) -> Iterator[Plan]:
    left = list(plans)
    while left:
        weights = [plan.weight for plan in left]
        position = rng.choices(range(len(left)), weights)[0] if any(weights) else rng.randrange(len(left))
        yield left.pop(position)
