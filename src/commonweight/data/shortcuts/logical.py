"""Four rules that are a formula of bits, #0 for 0 and #1 for 1: OR, AND, XOR and AND-OR.

From the code of Zaman et al. (2024), https://arxiv.org/abs/2311.07682. Each reads its own number of markers only, so a
lone marker says nothing.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

from commonweight.data.shortcuts.shortcut import Plan, Shortcut

if TYPE_CHECKING:
    from collections.abc import Sequence

    from commonweight.data.shortcuts.markers import Markers


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
    """List every way to write #0 or #1 at each of several places, with equal weights.

    Args:
        markers: The words.
        places: How many places.

    Returns:
        ``2 ** places`` plans.
    """
    return [Plan(words) for words in product((markers.zero, markers.one), repeat=places)]
