"""One rule per row, drawn at random: several shortcuts in one data set."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import fsum, isfinite
from typing import TYPE_CHECKING

from commonweight.base.errors import UsageError
from commonweight.base.names import among
from commonweight.data.shortcuts.rules import RULES
from commonweight.data.shortcuts.shortcut import Shortcut

if TYPE_CHECKING:
    import random

    from commonweight.data.shortcuts.markers import Markers


@dataclass(frozen=True)
class Mixture:
    """Rules with weights: each row gets one of them. A single rule is a mixture of one.

    Args:
        rules: Codes or rules, each once, all in the same markers.
        weights: One per rule, above 0; they need not sum to 1. Empty: all alike.

    Raises:
        UsageError: If there is no rule, a code is unknown or occurs twice, markers differ, or the weights do not fit.

    Example:
        >>> both = Mixture(("op", "or"), (3, 1))
        >>> both.code, both.probability(1), both.chance
        ('op+or', 0.5625, 0.5625)
    """

    rules: tuple[Shortcut | str, ...]
    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        rules = tuple(_rule(each) for each in self.rules)
        weights = tuple(map(float, self.weights)) or (1.0,) * len(rules)
        codes = [rule.code for rule in rules]
        if not rules or len(set(codes)) < len(codes):
            raise UsageError(f"a mixture takes at least one rule, each once; got {', '.join(codes) or 'none'}")
        if len(weights) != len(rules) or not all(isfinite(weight) and weight > 0 for weight in weights):
            raise UsageError(
                f"a mixture of {', '.join(codes)} takes {len(rules)} weights above 0, got {self.weights}; leave out a "
                "rule that is not wanted"
            )
        if len({rule.markers for rule in rules}) > 1:
            raise UsageError(f"the rules {', '.join(codes)} have different markers; give all of them the same")
        object.__setattr__(self, "rules", rules)
        object.__setattr__(self, "weights", tuple(weight / fsum(weights) for weight in weights))

    @property
    def parts(self) -> tuple[Shortcut, ...]:
        """The rules."""
        return tuple(_rule(each) for each in self.rules)

    @property
    def code(self) -> str:
        """The codes, joined by ``+``."""
        return "+".join(rule.code for rule in self.parts)

    @property
    def markers(self) -> Markers:
        """The words all its rules are written with."""
        return self.parts[0].markers

    @property
    def labels(self) -> tuple[int, ...]:
        """The labels that occur, ascending."""
        return tuple(sorted({label for rule in self.parts for label in rule.labels}))

    def probability(self, label: int) -> float:
        """Tell how often a label occurs when the rules are free to choose.

        Args:
            label: The label.

        Returns:
            A number from 0 to 1.
        """
        return fsum(w * rule.probability(label) for w, rule in zip(self.weights, self.parts, strict=True))

    @property
    def chance(self) -> float:
        """Accuracy of the best predictor that always says the same."""
        return max(map(self.probability, self.labels))

    @property
    def distractors(self) -> tuple[str, ...]:
        """Markers that may stand alone in an original row: those whose lone marker decides in none of the rules."""
        if any(rule.reads_lone_marker for rule in self.parts):
            return ()
        allowed = {word for rule in self.parts for word in rule.distractors}
        return tuple(word for word in self.markers.words if word in allowed)

    def pick(self, rng: random.Random) -> Shortcut:
        """Draw the rule of one row.

        Args:
            rng: Where chance comes from.

        Returns:
            One of the rules.
        """
        return rng.choices(self.parts, self.weights)[0]


def as_mixture(shortcut: str | Shortcut | Mixture, markers: Markers | None = None) -> Mixture:
    """Take a code, a rule or a mixture, in the markers asked for.

    Args:
        shortcut: What the caller named.
        markers: The words to use; None leaves those of the rule.

    Returns:
        A mixture, of one rule unless a mixture came.

    Raises:
        UsageError: If the code is unknown.
    """
    mixture = shortcut if isinstance(shortcut, Mixture) else Mixture((shortcut,))
    if markers is None:
        return mixture
    return Mixture(tuple(replace(rule, markers=markers) for rule in mixture.parts), mixture.weights)


def _rule(shortcut: Shortcut | str) -> Shortcut:
    if isinstance(shortcut, Shortcut):
        return shortcut
    if shortcut not in RULES:
        raise UsageError(f"no shortcut {shortcut!r}; {among(str(shortcut), RULES)}, or give a Shortcut of your own")
    return RULES[shortcut]
