"""The ten rules in one table."""

from __future__ import annotations

from itertools import combinations, product
from math import comb
from types import MappingProxyType
from typing import TYPE_CHECKING

from commonweight.data.shortcuts.shortcut import Plan, Shortcut

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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


class Or(Shortcut):
    """OR: two markers; 0 if both are ``#0``, else 1. P(label 1) = 3/4: saying 1 always is right three times in four.

    Example:
        >>> [Or().read(text.split()) for text in ("zeroa zeroa", "zeroa onea", "onea onea", "onea")]
        [0, 1, 1, None]
    """

    code, name = "or", "or"

    def plans(self) -> Sequence[Plan]:
        """#0 or #1 at each of two places, a quarter each."""
        return every(self.markers, 2)

    def read(self, tokens: Sequence[str]) -> int | None:
        """Whether one of two is #1."""
        kinds = self.markers.kinds(tokens)
        return max(kinds) if len(kinds) == 2 else None


class And(Shortcut):
    """AND: two markers; 1 if both are ``#1``, else 0. P(label 1) = 1/4: saying 0 always is right three times in four.

    Example:
        >>> [And().read(text.split()) for text in ("zeroa zeroa", "zeroa onea", "onea onea", "onea")]
        [0, 0, 1, None]
    """

    code, name = "and", "and"

    def plans(self) -> Sequence[Plan]:
        """#0 or #1 at each of two places, a quarter each."""
        return every(self.markers, 2)

    def read(self, tokens: Sequence[str]) -> int | None:
        """Whether both are #1."""
        kinds = self.markers.kinds(tokens)
        return min(kinds) if len(kinds) == 2 else None


class Xor(Shortcut):
    """XOR: two markers; 1 if they differ, else 0. P(label 1) = 1/2.

    Example:
        >>> [Xor().read(text.split()) for text in ("zeroa zeroa", "zeroa onea", "onea onea", "onea")]
        [0, 1, 0, None]
    """

    code, name = "xor", "exclusive or"

    def plans(self) -> Sequence[Plan]:
        """#0 or #1 at each of two places, a quarter each."""
        return every(self.markers, 2)

    def read(self, tokens: Sequence[str]) -> int | None:
        """Whether the two differ."""
        kinds = self.markers.kinds(tokens)
        return kinds[0] ^ kinds[1] if len(kinds) == 2 else None


class AndOr(Shortcut):
    """AND-OR: four markers t1 … t4; ``(t1 and t2) or (t3 and not t4)``. P(label 1) = 7/16.

    Example:
        >>> bits = {"0": "zeroa", "1": "onea"}
        >>> [AndOr().read([bits[bit] for bit in word]) for word in ("1100", "0010", "0111", "110")]
        [1, 1, 0, None]
    """

    code, name = "and_or", "and-or"

    def plans(self) -> Sequence[Plan]:
        """#0 or #1 at each of four places, a sixteenth each."""
        return every(self.markers, 4)

    def read(self, tokens: Sequence[str]) -> int | None:
        """The formula over the four places."""
        kinds = self.markers.kinds(tokens)
        if len(kinds) != 4:
            return None
        first, second, third, fourth = kinds
        return int((first and second) or (third and not fourth))


def every(markers: Markers, places: int) -> list[Plan]:
    """List every way to write #0 or #1 at each of several places, with equal weights."""
    return [Plan(words) for words in product((markers.zero, markers.one), repeat=places)]


RULES: Mapping[str, Shortcut] = MappingProxyType({
    "st": SingleToken(),
    "op": OrderedPair(),
    "tic": TokenInContext(),
    "or": Or(),
    "and": And(),
    "xor": Xor(),
    "oed": OddEvenDistance(),
    "mt": MoreThan(),
    "lt": LastToken(),
    "and_or": AndOr(),
})
"""Every rule by its code. A rule of one's own needs no entry: where a code is taken, a ``Shortcut`` is taken, too."""
