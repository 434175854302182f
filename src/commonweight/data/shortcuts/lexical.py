"""Three rules about which markers occur and in which order: ST, OP and TiC.

Described by Bastings et al. (2022), https://arxiv.org/abs/2111.07367.
#0, #1 and C are the words of :class:`~commonweight.data.shortcuts.markers.Markers`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from commonweight.data.shortcuts.shortcut import Plan, Shortcut

if TYPE_CHECKING:
    from collections.abc import Sequence


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
