"""Short reviews from a small grammar: a text task that needs no download and has a known best score.

A review is one clause, or two joined by ``but``, of which the last decides::

    review  := [opening] clause [but clause]
    clause  := the NOUN is [NEGATOR] [INTENSIFIER] ADJECTIVE

Nouns and a third of the adjectives belong to one domain, films or food; the other words serve both. ``not``, ``hardly``
and ``never`` turn an adjective into its opposite, so counting words is not enough: negation has to be learned. An
adjective without polarity (``unusual``) makes the review truly ambiguous: its label is a fair coin. With a share ``a``
of such reviews no model gets below ``a·ln 2`` nats or above ``1 − a/2`` accuracy, in expectation.
"""

from __future__ import annotations

import math
import random
from typing import Literal, TypedDict

from commonweight.base.errors import UsageError

Domain = Literal["films", "food"]
DOMAINS: tuple[Domain, ...] = ("films", "food")
LABELS = ("negative", "positive")

NOUNS: dict[Domain, tuple[str, ...]] = {
    "films": ("film", "movie", "plot", "script", "cast", "acting", "ending", "dialogue", "soundtrack", "camera"),
    "food": ("meal", "soup", "pasta", "dessert", "sauce", "bread", "curry", "salad", "kitchen", "menu"),
}
POSITIVE = ("good", "great", "lovely", "superb", "brilliant", "delightful", "charming", "excellent")
NEGATIVE = ("bad", "poor", "awful", "dreadful", "terrible", "mediocre", "annoying", "disappointing")
POSITIVE_OF: dict[Domain, tuple[str, ...]] = {
    "films": ("gripping", "moving", "funny", "witty"),
    "food": ("tasty", "crisp", "fresh", "juicy"),
}
NEGATIVE_OF: dict[Domain, tuple[str, ...]] = {
    "films": ("boring", "predictable", "clumsy", "dull"),
    "food": ("stale", "greasy", "soggy", "bland"),
}
UNDECIDED = ("unusual", "surprising", "strange", "different")
NEGATORS = ("not", "hardly", "never")
INTENSIFIERS = ("very", "really", "quite", "truly", "so")
OPENINGS = ("honestly", "overall", "frankly", "today")

NEGATED_SHARE = 0.4
INTENSIFIED_SHARE = 0.4
CONTRAST_SHARE = 0.4
OPENED_SHARE = 0.3


_OF_DOMAINS = [word for domain in DOMAINS for of in (NOUNS, POSITIVE_OF, NEGATIVE_OF) for word in of[domain]]
WORDS = ("the", "is", "but", *POSITIVE, *NEGATIVE, *UNDECIDED, *NEGATORS, *INTENSIFIERS, *OPENINGS, *_OF_DOMAINS)
"""Every word a review can hold, each once: a word-level tokenizer made of them never meets an unknown word."""

_POLARITY = {word: 1 for group in (POSITIVE, *POSITIVE_OF.values()) for word in group}
_POLARITY |= {word: -1 for group in (NEGATIVE, *NEGATIVE_OF.values()) for word in group}


class Review(TypedDict):
    """One row of the task."""

    text: str
    label: int
    domain: str
    source_row: int


def review(index: int, *, seed: int = 0, domain: Domain | None = None, ambiguous: float = 0.1) -> Review:
    """Write one review; with the chance ``ambiguous`` no adjective decides it, and its label is a fair coin."""
    if not 0 <= ambiguous <= 1:
        raise UsageError(f"ambiguous is a chance and must lie in 0..1, got {ambiguous}")
    if domain is not None and domain not in DOMAINS:
        raise UsageError(f"domain must be one of {', '.join(DOMAINS)} or None, got {domain!r}")
    draw = random.Random(f"commonweight reviews {seed} {index}")  # noqa: S311
    about = draw.choice(DOMAINS)
    if domain is not None:
        about = domain
    words = [draw.choice(OPENINGS)] if draw.random() < OPENED_SHARE else []
    if draw.random() < CONTRAST_SHARE:
        words += [*_clause(draw, about, decided=True), "but"]
    words += _clause(draw, about, decided=draw.random() >= ambiguous)
    text = " ".join(words)
    label = label_of(text)
    return {
        "text": text,
        "label": draw.randrange(2) if label is None else label,
        "domain": about,
        "source_row": index,
    }


def reviews(
    count: int, *, seed: int = 0, domain: Domain | None = None, ambiguous: float = 0.1, start: int = 0
) -> list[Review]:
    """Write rows ``start`` to ``start + count - 1`` of the data set named by the seed; None mixes films and food."""
    return [review(start + i, seed=seed, domain=domain, ambiguous=ambiguous) for i in range(count)]


def label_of(text: str) -> int | None:
    """Read a review by the grammar: 1 for positive, 0 for negative, None for a truly ambiguous one."""
    last_clause = text.split(" but ")[-1].split()
    adjective = last_clause[-1] if last_clause else ""
    if adjective in UNDECIDED:
        return None
    if adjective not in _POLARITY:
        raise UsageError(f"a review ends in an adjective of the grammar, such as 'good' or 'stale'; got {text!r}")
    negated = any(word in NEGATORS for word in last_clause)
    return int((_POLARITY[adjective] > 0) != negated)


def best_accuracy(ambiguous: float) -> float:
    """Compute the highest expected accuracy: every clear row right, half of the ambiguous ones."""
    return 1 - ambiguous / 2


def best_loss(ambiguous: float) -> float:
    """Compute the lowest expected cross-entropy, in nats per row: none on clear rows, ``ln 2`` on ambiguous ones."""
    return ambiguous * math.log(2)


def _clause(draw: random.Random, domain: Domain, *, decided: bool) -> list[str]:
    words = ["the", draw.choice(NOUNS[domain]), "is"]
    if draw.random() < NEGATED_SHARE:
        words.append(draw.choice(NEGATORS))
    if draw.random() < INTENSIFIED_SHARE:
        words.append(draw.choice(INTENSIFIERS))
    if not decided:
        words.append(draw.choice(UNDECIDED))
    elif draw.random() < 0.5:
        words.append(draw.choice(POSITIVE + POSITIVE_OF[domain]))
    else:
        words.append(draw.choice(NEGATIVE + NEGATIVE_OF[domain]))
    return words
