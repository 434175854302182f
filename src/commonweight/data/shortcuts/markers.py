"""The marker words that shortcuts are written with: into a tokenizer, into a text, and found again among its tokens.

Words are what white space separates. Boundary b lies behind the first b words; a marker is written right behind the
word before it (at boundary 0: before the first word), between plain spaces, and no white space of the text is lost.
"""

from __future__ import annotations

import copy
import re
from dataclasses import astuple, dataclass, fields
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING, Any

from commonweight.base.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


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
        """Read #0 and #1 in the order in which they appear, as 0 and 1; other tokens, C among them, are passed over."""
        kind = {self.zero: 0, self.one: 1}
        return [kind[token] for token in tokens if token in kind]

    def held_by(self, text: str) -> str | None:
        """Find the first marker that stands in a text as a word of its own."""
        found = self._pattern.search(text)
        return found[0] if found else None

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return re.compile(rf"(?<!\w)({'|'.join(map(re.escape, self.words))})(?!\w)")


WORD = re.compile(r"\S+")
PROBE = ("the", "film", "is", "very", "good")
# Byte-level BPE and SentencePiece write a word's space in front of it, so a marker takes the space to its left. Older
# Llama tokenizers put a space of their own behind an added token: there the marker takes the space to its right, too.
SPACES = ((True, False), (True, True), (False, False), (False, True))
"""Which spaces an added token may swallow, left and right, in the order in which it is tried."""


def add_markers(tokenizer: Any, markers: Markers | None = None) -> int:
    """Add the marker words to a tokenizer, so that the words around them become the same tokens as without them.

    Which spaces the new tokens swallow is found by trying on a copy; words the tokenizer already has as added tokens
    stay as they are. The model's embeddings must then be resized to ``len(tokenizer)``.

    Args:
        tokenizer: A Hugging Face tokenizer, fast or slow; changed in place.
        markers: The words; None takes ``zeroa``, ``onea`` and ``synt``.

    Returns:
        How many tokens are new.

    Raises:
        UsageError: If the tokenizer does not keep a marker as one token.

    Example:
        >>> from transformers import ByT5Tokenizer
        >>> tokenizer = ByT5Tokenizer()
        >>> add_markers(tokenizer), add_markers(tokenizer)
        (3, 0)
        >>> tokenizer.convert_ids_to_tokens(tokenizer("a onea b")["input_ids"])
        ['a', 'onea', ' ', 'b', '</s>']
    """
    markers = markers or Markers()
    known = tokenizer.get_added_vocab()
    words = [word for word in markers.words if word not in known]
    before = len(tokenizer)
    probe = [word for word in PROBE if word not in markers.words]
    if words:
        plain = _ids(tokenizer, probe)
        best, most = SPACES[0], -1
        for spaces in SPACES:
            trial = copy.deepcopy(tokenizer)
            _add(trial, words, *spaces)
            same = _undisturbed(trial, words[0], probe, plain)
            if same > most:
                best, most = spaces, same
            if most == len(probe):
                break
        _add(tokenizer, words, *best)
    for word, number in zip(markers.words, tokenizer.convert_tokens_to_ids(list(markers.words)), strict=True):
        if _ids(tokenizer, [probe[0], word, probe[1]]).count(number) != 1:
            raise UsageError(
                f"the tokenizer does not keep the marker {word!r} as one token between words; choose another word with "
                "markers=Markers(…)"
            )
    return len(tokenizer) - before


def insert(text: str, words: Sequence[str], boundaries: Sequence[int]) -> str:
    """Write words into a text.

    Args:
        text: The text.
        words: The words, in order.
        boundaries: Per word, how many words of the text come before it; ascending.

    Returns:
        The new text. Without the new words, its words are those of the old one, in their order.

    Raises:
        UsageError: If there are not as many boundaries as words, or they are not ascending or out of range.

    Example:
        >>> insert("it 's  good", ["zeroa", "onea"], [0, 2])
        "zeroa it 's onea  good"
    """
    ends = [0, *(found.end() for found in WORD.finditer(text))]
    if len(words) != len(boundaries) or list(boundaries) != sorted(boundaries):
        raise UsageError(f"expected one boundary per word, ascending; got {list(boundaries)} for {list(words)}")
    if boundaries and not 0 <= boundaries[0] <= boundaries[-1] < len(ends):
        raise UsageError(f"boundaries of {text!r} lie in 0..{len(ends) - 1}, got {list(boundaries)}")
    parts, done = [], 0
    for boundary, group in groupby(zip(boundaries, words, strict=True), key=lambda pair: pair[0]):
        new = " ".join(word for _, word in group)
        parts += [text[done : ends[boundary]], f" {new}" if boundary else new]
        done = ends[boundary]
        if done < len(text) and text[done] != " ":  # slow tokenizers know a word by plain spaces only
            parts.append(" ")
    return "".join([*parts, text[done:]])


def _ids(tokenizer: Any, words: Sequence[str]) -> list[int]:
    return list(tokenizer(" ".join(words), add_special_tokens=False, verbose=False)["input_ids"])


def _add(tokenizer: Any, words: Sequence[str], left: bool, right: bool) -> None:
    from tokenizers import AddedToken

    tokenizer.add_tokens([
        AddedToken(word, single_word=True, lstrip=left, rstrip=right, normalized=False) for word in words
    ])


def _undisturbed(tokenizer: Any, word: str, probe: Sequence[str], plain: Sequence[int]) -> int:
    """Count the places behind a word of the probe where the marker leaves all other tokens as they were."""
    number = tokenizer.convert_tokens_to_ids(word)
    found = 0
    for place in range(1, len(probe) + 1):
        ids = _ids(tokenizer, [*probe[:place], word, *probe[place:]])
        found += number in ids and [token for token in ids if token != number] == list(plain)
    return found


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
