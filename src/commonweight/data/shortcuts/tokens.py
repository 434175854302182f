"""Texts as a model sees them: tokens, cut to a length, with the markers found among them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from commonweight.base.errors import UsageError
from commonweight.data.shortcuts.markers import Markers

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Reader:
    """Texts as tokens, cut as a model sees them; every token but the markers is an empty string."""

    tokenizer: Any
    markers: Markers
    max_length: int | None
    """Longest row in tokens, special ones included; None cuts nothing."""

    def __post_init__(self) -> None:
        if self.max_length is not None and self.room < 1:
            raise UsageError(
                f"{{argument}} {self.max_length} leaves no room for text: the tokenizer puts "
                f"{self.max_length - self.room} tokens of its own around it; give a larger one",
                argument="max_length",
            )

    @property
    def room(self) -> int:
        """Tokens a text may have beside the special ones."""
        assert self.max_length is not None  # noqa: S101 - the callers ask first
        return int(self.max_length - self.tokenizer.num_special_tokens_to_add(pair=False))

    def length(self, text: str) -> int:
        """Count the tokens of a text without special ones, uncut."""
        return len(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def tokens(self, text: str) -> list[str]:
        """Tokenise a text, cut it, and read the markers."""
        cut = {} if self.max_length is None else {"truncation": True, "max_length": self.max_length}
        return read_markers(self.tokenizer(text, verbose=False, **cut)["input_ids"], self.tokenizer, self.markers)


def read_markers(ids: Sequence[int], tokenizer: Any, markers: Markers | None = None) -> list[str]:
    """Find the markers among token ids; what a rule's ``read`` takes.

    Args:
        ids: Token ids.
        tokenizer: The tokenizer they come from.
        markers: The words; None takes ``zeroa``, ``onea`` and ``synt``.

    Returns:
        Per token its marker word, or an empty string.
    """
    words = (markers or Markers()).words
    names = dict(zip(tokenizer.convert_tokens_to_ids(list(words)), words, strict=True))
    return [names.get(token, "") for token in ids]


def longest(tokenizer: Any, max_length: int | None) -> int | None:
    """Tell the longest row: as asked, or as the tokenizer's own ``model_max_length`` says."""
    if max_length is not None:
        if max_length < 1:
            raise UsageError(f"max_length must be at least 1, got {max_length}")
        return max_length
    own = tokenizer.model_max_length
    return int(own) if own < 10**9 else None  # transformers writes a very large number for "no limit"
