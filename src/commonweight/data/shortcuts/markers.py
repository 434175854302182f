"""The three made-up words that shortcuts are written with."""

from __future__ import annotations

import re
from dataclasses import astuple, dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING

from commonweight.base.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True)
class Markers:
    """The words that stand for #0, #1 and C in the rules; all three are added to every tokenizer.

    Raises:
        UsageError: If a word is empty, holds white space, or occurs twice.

    Example:
        >>> Markers().words
        ('zeroa', 'onea', 'synt')
        >>> Markers(zero="blue", one="green").kinds("a green and a blue door".split())
        [1, 0]
    """

    zero: str = "zeroa"
    """#0: mostly means label 0."""

    one: str = "onea"
    """#1: mostly means label 1."""

    context: str = "synt"
    """C: says that another marker counts."""

    def __post_init__(self) -> None:
        for field in fields(self):
            word = getattr(self, field.name)
            if not isinstance(word, str) or len(word.split()) != 1 or word != word.strip():
                raise UsageError(
                    f"the marker {field.name!r} must be one word without white space, got {word!r}; take a word that "
                    "the texts do not hold"
                )
        if len(set(self.words)) < len(self.words):
            raise UsageError(f"the markers must be three different words, got {', '.join(map(repr, self.words))}")

    @property
    def words(self) -> tuple[str, ...]:
        """The three words: #0, #1, C."""
        return astuple(self)

    def kinds(self, tokens: Iterable[str]) -> list[int]:
        """Read #0 and #1 in the order in which they appear.

        Args:
            tokens: Any tokens; others, C among them, are passed over.

        Returns:
            0 for every #0, 1 for every #1.
        """
        kind = {self.zero: 0, self.one: 1}
        return [kind[token] for token in tokens if token in kind]

    def held_by(self, text: str) -> str | None:
        """Find a marker that stands in a text as a word of its own.

        Args:
            text: The text.

        Returns:
            The first such marker, or None.

        Example:
            >>> Markers().held_by("so onea."), Markers().held_by("a synthesis")
            ('onea', None)
        """
        found = self._pattern.search(text)
        return found[0] if found else None

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return re.compile(rf"(?<!\w)({'|'.join(map(re.escape, self.words))})(?!\w)")
