"""Three rules about numbers and places of markers: OED, MT and LT.

From the code of Zaman et al. (2024), https://arxiv.org/abs/2311.07682. MT and LT read any number of markers, even one.
"""

from __future__ import annotations

from itertools import combinations
from math import comb
from typing import TYPE_CHECKING

from commonweight.data.shortcuts.logical import every
from commonweight.data.shortcuts.shortcut import Plan, Shortcut

if TYPE_CHECKING:
    from collections.abc import Sequence


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
