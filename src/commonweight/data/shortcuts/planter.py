"""Put the markers of a rule into a text, and check by tokenising that the rule reads its label back."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, replace
from functools import cached_property
from math import inf
from typing import TYPE_CHECKING, Any

from commonweight.base.errors import UsageError
from commonweight.data.shortcuts.markers import WORD, Markers, insert, longest, read_markers
from commonweight.data.shortcuts.shortcut import Plan

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator, Sequence

    from commonweight.data.shortcuts.shortcut import Shortcut


@dataclass(frozen=True)
class Planted:
    """A text with markers in it."""

    text: str
    words: tuple[str, ...]
    """The markers, in order of appearance."""

    boundaries: tuple[int, ...]
    """Per marker, how many of the text's own words stand before it; ascending."""

    label: int | None
    """What the rule reads; None for a distractor."""


@dataclass(frozen=True)
class Unfit:
    """Why markers cannot be put into a text."""

    reason: str


@dataclass(frozen=True)
class Planter:
    """Plants markers so that a tokenizer, cutting to ``max_length``, keeps all of them.

    Example:
        >>> from random import Random
        >>> from transformers import ByT5Tokenizer
        >>> from commonweight.data.shortcuts import RULES, add_markers
        >>> tokenizer = ByT5Tokenizer()
        >>> added = add_markers(tokenizer)
        >>> Planter(tokenizer).plant("a charming journey", RULES["op"], Random(1), label=1)
        Planted(text='onea a zeroa charming journey', words=('onea', 'zeroa'), boundaries=(0, 1), label=1)
    """

    tokenizer: Any
    """A Hugging Face tokenizer that knows the markers, see ``add_markers``."""

    markers: Markers = Markers()  # noqa: RUF009 - frozen
    max_length: int | None = None
    """Longest row in tokens; None takes the tokenizer's own limit, if it has one."""

    @cached_property
    def limit(self) -> int | None:
        """Longest row in tokens, special ones included; None cuts nothing."""
        return longest(self.tokenizer, self.max_length)

    @cached_property
    def room(self) -> float:
        """Tokens a text may have beside the special ones."""
        if self.limit is None:
            return inf
        own = self.tokenizer.num_special_tokens_to_add(pair=False)
        if self.limit <= own:
            raise UsageError(
                f"{{argument}} {self.limit} leaves no room for text: the tokenizer puts {own} tokens of its own around "
                "it; give a larger one",
                argument="max_length",
            )
        return int(self.limit - own)

    def plant(self, text: str, rule: Shortcut, rng: random.Random, label: int | None = None) -> Planted | Unfit:
        """Plant a rule, at boundaries that are drawn with equal chance.

        Args:
            text: The text.
            rule: The rule, in the planter's markers.
            rng: Where chance comes from.
            label: What the rule must say; None lets it choose, and take another label where the first fits nowhere.

        Returns:
            The text with markers and its label, read back from its tokens; or why that cannot be.

        Raises:
            UsageError: If the rule has other markers, or never gives that label.
        """
        if rule.markers != self.markers:
            raise UsageError(f"{rule.code!r} is written in {rule.markers}, expected {self.markers}; give both the same")
        if (reason := self.refusal(text)) is not None:
            return Unfit(reason)

        def right(tokens: list[str]) -> bool:
            found = rule.read(tokens)
            return found is not None and label in {None, found}

        for plan in rule.draws(rng, label):
            if (planted := self._place(text, plan, rng, right)) is not None:
                return replace(planted, label=rule.read(self._tokens(planted.text)))
        wanted = "" if label is None else f" with label {label}"
        return Unfit(f"{rule.code}{wanted} fits nowhere: {len(text.split()) + 1} word boundaries{self._cut(text)}")

    def distract(self, text: str, word: str, rules: Sequence[Shortcut], rng: random.Random) -> Planted | Unfit:
        """Plant one marker about which some rules stay silent."""
        if (reason := self.refusal(text)) is not None:
            return Unfit(reason)

        def right(tokens: list[str]) -> bool:
            return all(rule.read(tokens) is None for rule in rules)

        planted = self._place(text, Plan((word,)), rng, right)
        return planted or Unfit(f"a distractor fits nowhere{self._cut(text)}")

    def refusal(self, text: str) -> str | None:
        """Tell why nothing can be planted in a text; None if it is fine."""
        if not text.split():
            return "the text is empty"
        if (word := self.markers.held_by(text)) is not None:
            return f"the text already holds the marker {word!r}"
        return None

    def _place(self, text: str, plan: Plan, rng: random.Random, right: Callable[[list[str]], bool]) -> Planted | None:
        for boundaries in self._tries(text, plan, rng):
            planted = insert(text, plan.words, boundaries)
            tokens = self._tokens(planted)
            places = [place for place, token in enumerate(tokens) if token]
            whole = tuple(tokens[place] for place in places) == plan.words
            if whole and (not plan.between or places[1] - places[0] - 1 in plan.between) and right(tokens):
                return Planted(planted, plan.words, boundaries, None)
        return None

    def _tries(self, text: str, plan: Plan, rng: random.Random) -> Iterator[tuple[int, ...]]:
        window = self._window(text, len(plan.words))
        if plan.between:
            yield from _near(window, plan.between, rng)
            return
        while len(window) >= len(plan.words):
            yield tuple(sorted(rng.sample(window, len(plan.words))))
            # Only reached if a marker was cut off all the same: words in front of it took more tokens than alone.
            window = window[1:] if self._cuts_left else window[:-1]

    def _window(self, text: str, count: int) -> range:
        """Find the boundaries where ``count`` markers survive the cut: those with few enough tokens before them."""
        words = list(WORD.finditer(text))
        last = len(words)
        if self.room == inf or self._length(text) + count <= self.room:
            return range(last + 1)
        if count > self.room:
            return range(0)

        def length(kept: int) -> int:
            return self._length(
                text[words[last - kept].start() :] if self._cuts_left else text[: words[kept - 1].end()]
            )

        fit = bisect_right(range(1, last + 1), self.room - count, key=length)
        return range(last - fit, last + 1) if self._cuts_left else range(fit + 1)

    def _length(self, text: str) -> int:
        """Count the tokens of a text without special ones, uncut."""
        return len(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def _tokens(self, text: str) -> list[str]:
        """Tokenise a text, cut it as a model sees it, and read the markers."""
        cut = {} if self.limit is None else {"truncation": True, "max_length": self.limit}
        return read_markers(self.tokenizer(text, verbose=False, **cut)["input_ids"], self.tokenizer, self.markers)

    @property
    def _cuts_left(self) -> bool:
        return bool(self.tokenizer.truncation_side == "left")

    def _cut(self, text: str) -> str:
        window = self._window(text, 1)
        if len(window) > len(text.split()):
            return ""
        return f", {len(window)} of them within {self.limit} tokens"


def _near(window: range, gaps: Sequence[int], rng: random.Random) -> list[tuple[int, int]]:
    """List pairs of boundaries at most as many words apart as tokens are allowed, in random order."""
    least, most = (0 if 0 in gaps else 1), max(gaps)
    pairs = [
        (first, second) for first in window for second in range(first + least, min(first + most, window.stop - 1) + 1)
    ]
    rng.shuffle(pairs)
    return pairs
