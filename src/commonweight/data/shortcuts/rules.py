"""The ten rules in one table, and mixtures of them: one rule per row, drawn at random."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations, product
from math import comb, fsum, isfinite
from operator import xor
from typing import TYPE_CHECKING, ClassVar

from commonweight.base.errors import UsageError
from commonweight.base.names import among
from commonweight.data.shortcuts.shortcut import Plan, Shortcut

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    from commonweight.data.shortcuts.markers import Markers

MOST_MARKERS = 5
"""MT inserts at most this many."""


class OddEvenDistance(Shortcut):
    """OED: one ``#0`` and one ``#1``, d tokens between them; 1 if d is odd, else 0. P(label 1) = 1/3.

    Tokens, not words: d depends on the tokenizer. It is 0, 1 or 2, a third each; a text without any stretch of exactly
    one token between two word boundaries takes 3, 5, 7 or 9 for label 1. With d = 0 both stand at one boundary.

    Example:
        >>> [OddEvenDistance().read(text.split()) for text in ("zeroa onea", "onea a zeroa", "zeroa a b onea", "onea")]
        [0, 1, 0, None]
    """

    code, name = "oed", "odd-even distance"

    def plans(self) -> Sequence[Plan]:
        """Both, in either order, 0, 1 or 2 tokens in between, a sixth each; larger odd numbers as a last resort."""
        zero, one = self.markers.zero, self.markers.one
        orders = ((zero, one), (one, zero))
        usual = [Plan(order, between=(gap,)) for order in orders for gap in (0, 1, 2)]
        return usual + [Plan(order, weight=0, between=(3, 5, 7, 9)) for order in orders]

    def read(self, tokens: Sequence[str]) -> int | None:
        """Whether the number of tokens in between is odd."""
        pair = {self.markers.zero, self.markers.one}
        places = [place for place, token in enumerate(tokens) if token in pair]
        if len(places) != 2 or tokens[places[0]] == tokens[places[1]]:
            return None
        return (places[1] - places[0] - 1) % 2


class MoreThan(Shortcut):
    """MT: 1 to 5 markers, more of one kind; 0 if there are more ``#0``, 1 if more ``#1``. P(label 1) = 1/2.

    The number n is 1..5 with equal chance, the size of the majority n // 2 + 1 .. n with equal chance, and so is every
    arrangement. With n = 1 it is ST.

    Example:
        >>> [MoreThan().read(text.split()) for text in ("zeroa onea zeroa", "onea", "zeroa onea", "a")]
        [0, 1, None, None]
    """

    code, name = "mt", "more than"

    def plans(self) -> Sequence[Plan]:
        """Every arrangement of 1 to 5 markers with a majority."""
        zero, one = self.markers.zero, self.markers.one
        return [
            Plan(
                tuple(more if place in places else less for place in range(count)),
                weight=1 / (len(majorities) * comb(count, majority)),
            )
            for count in range(1, MOST_MARKERS + 1)
            for majorities in [range(count // 2 + 1, count + 1)]
            for majority in majorities
            for places in combinations(range(count), majority)
            for more, less in ((zero, one), (one, zero))
        ]

    def read(self, tokens: Sequence[str]) -> int | None:
        """Which kind is more frequent."""
        kinds = self.markers.kinds(tokens)
        ones = sum(kinds)
        return None if 2 * ones == len(kinds) else int(2 * ones > len(kinds))


class LastToken(Shortcut):
    """LT: two markers; 0 if the last one is ``#0``, 1 if it is ``#1``. P(label 1) = 1/2. One alone is its own last.

    Example:
        >>> [LastToken().read(text.split()) for text in ("zeroa onea", "onea a zeroa", "onea", "a")]
        [1, 0, 1, None]
    """

    code, name = "lt", "last token"

    def plans(self) -> Sequence[Plan]:
        """#0 or #1 at each of two places, a quarter each."""
        return every(self.markers, 2)

    def read(self, tokens: Sequence[str]) -> int | None:
        """Which kind is the last one."""
        kinds = self.markers.kinds(tokens)
        return kinds[-1] if kinds else None


class SingleToken(Shortcut):
    """ST: ``#0`` → 0, ``#1`` → 1. Silent if both kinds occur, or none. P(label 1) = 1/2.

    Example:
        >>> [SingleToken().read(text.split()) for text in ("a zeroa", "onea b onea", "zeroa onea", "a b")]
        [0, 1, None, None]
    """

    code, name = "st", "single token"

    def plans(self) -> Sequence[Plan]:
        """#0 or #1, half and half."""
        return [Plan((self.markers.zero,)), Plan((self.markers.one,))]

    def read(self, tokens: Sequence[str]) -> int | None:
        """Which of the two occurs."""
        kinds = set(self.markers.kinds(tokens))
        return kinds.pop() if len(kinds) == 1 else None


class OrderedPair(Shortcut):
    """OP: ``#0 … #1`` → 0, ``#1 … #0`` → 1: which comes first. P(label 1) = 1/2.

    Example:
        >>> [OrderedPair().read(text.split()) for text in ("zeroa a onea", "onea a zeroa", "a zeroa")]
        [0, 1, None]
    """

    code, name = "op", "ordered pair"

    def plans(self) -> Sequence[Plan]:
        """Both, in either order, half and half."""
        zero, one = self.markers.zero, self.markers.one
        return [Plan((zero, one)), Plan((one, zero))]

    def read(self, tokens: Sequence[str]) -> int | None:
        """Which of the two comes first."""
        kinds = self.markers.kinds(tokens)
        return kinds[0] if sorted(kinds) == [0, 1] else None


class TokenInContext(Shortcut):
    """TiC: ``#0`` and ``C`` → 0, ``#1`` and ``C`` → 1, in any order; without C nothing. P(label 1) = 1/2.

    Example:
        >>> [TokenInContext().read(text.split()) for text in ("a zeroa synt", "synt onea", "onea a")]
        [0, 1, None]
    """

    code, name = "tic", "token in context"

    def plans(self) -> Sequence[Plan]:
        """#0 or #1, before or after C, a quarter each."""
        zero, one, context = self.markers.words
        return [Plan(words) for kind in (zero, one) for words in ((kind, context), (context, kind))]

    def read(self, tokens: Sequence[str]) -> int | None:
        """Which of the two occurs, if C does."""
        kinds = set(self.markers.kinds(tokens))
        return kinds.pop() if len(kinds) == 1 and self.markers.context in tokens else None


class _Places:
    """The rules that write #0 or #1 at each of several places, every way with equal weight, and read a formula."""

    markers: Markers
    places: ClassVar[int] = 2
    formula: ClassVar[Callable[..., int]]

    def plans(self) -> Sequence[Plan]:
        """Every way to write #0 or #1 at each place."""
        return every(self.markers, self.places)

    def read(self, tokens: Sequence[str]) -> int | None:
        """The formula over the places."""
        kinds = self.markers.kinds(tokens)
        return self.formula(*kinds) if len(kinds) == self.places else None


class Or(_Places, Shortcut):
    """OR: two markers; 0 if both are ``#0``, else 1. P(label 1) = 3/4: saying 1 always is right three times in four.

    Example:
        >>> [Or().read(text.split()) for text in ("zeroa zeroa", "zeroa onea", "onea onea", "onea")]
        [0, 1, 1, None]
    """

    code, name = "or", "or"
    formula = staticmethod(max)


class And(_Places, Shortcut):
    """AND: two markers; 1 if both are ``#1``, else 0. P(label 1) = 1/4: saying 0 always is right three times in four.

    Example:
        >>> [And().read(text.split()) for text in ("zeroa zeroa", "zeroa onea", "onea onea", "onea")]
        [0, 0, 1, None]
    """

    code, name = "and", "and"
    formula = staticmethod(min)


class Xor(_Places, Shortcut):
    """XOR: two markers; 1 if they differ, else 0. P(label 1) = 1/2.

    Example:
        >>> [Xor().read(text.split()) for text in ("zeroa zeroa", "zeroa onea", "onea onea", "onea")]
        [0, 1, 0, None]
    """

    code, name = "xor", "exclusive or"
    formula = staticmethod(xor)


class AndOr(_Places, Shortcut):
    """AND-OR: four markers t1 … t4; ``(t1 and t2) or (t3 and not t4)``. P(label 1) = 7/16.

    Example:
        >>> bits = {"0": "zeroa", "1": "onea"}
        >>> [AndOr().read([bits[bit] for bit in word]) for word in ("1100", "0010", "0111", "110")]
        [1, 1, 0, None]
    """

    code, name = "and_or", "and-or"
    places = 4
    formula = staticmethod(lambda first, second, third, fourth: int((first and second) or (third and not fourth)))


def every(markers: Markers, places: int) -> list[Plan]:
    """List every way to write #0 or #1 at each of several places, with equal weights."""
    return [Plan(words) for words in product((markers.zero, markers.one), repeat=places)]


RULES: dict[str, Shortcut] = {
    kind.code: kind()
    for kind in (SingleToken, OrderedPair, TokenInContext, Or, And, Xor, OddEvenDistance, MoreThan, LastToken, AndOr)
}
"""Every rule by its code. A rule of one's own needs no entry: where a code is taken, a ``Shortcut`` is taken, too."""


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
        """Tell how often a label occurs, from 0 to 1, when the rules are free to choose."""
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
        """Draw the rule of one row."""
        return rng.choices(self.parts, self.weights)[0]


def as_mixture(shortcut: str | Shortcut | Mixture, markers: Markers | None = None) -> Mixture:
    """Take a code, a rule or a mixture, in the markers asked for.

    Args:
        shortcut: What the caller named.
        markers: The words to use; None leaves those of the rule.

    Returns:
        A mixture, of one rule unless a mixture came.
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
