"""How the published code draws what it inserts where, mistakes included: for comparison with published numbers only.

A description of the behaviour of Zaman et al.'s ``fusion/utils/shortcuts.py`` and of their notebook, in our own words:
every draw comes from one common stream, in one order, so the same seed gives the same rows. Positions are places in
the list of token ids, special tokens included, and may be equal; a token is put in with ``list.insert``, which takes
negative places and places past the end. What is wrong with it stands in docs/shortcuts.md.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from commonweight.data.shortcuts.counted import MOST_MARKERS

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Mapping

Inserts = list[tuple[int, int]]
"""Pairs of place and kind, carried out in this order; kinds are 0 for #0, 1 for #1, 2 for C."""

Draw = tuple[Inserts, int]
"""What to insert, and the label."""

CONTEXT = 2
DISTRACTED_SHARE = 0.25


def _coin(rng: random.Random) -> list[int]:
    pair = [0, 1]
    rng.shuffle(pair)
    return pair


def _places(rng: random.Random, choices: int, count: int) -> list[int]:
    return sorted(rng.choices(range(choices), k=count))


def _st(rng: random.Random, length: int) -> Draw:
    kind = rng.choice((0, 1))
    return [(rng.choice(range(length)), kind)], kind


def _op(rng: random.Random, length: int) -> Draw:
    kinds = _coin(rng)
    return list(zip(_places(rng, length + 1, 2), kinds, strict=True)), kinds[0]


def _tic(rng: random.Random, length: int) -> Draw:
    kind = rng.choice((0, 1))
    return [(rng.choice(range(length)), kind), (rng.choice(range(length + 1)), CONTEXT)], kind


def _bits(rng: random.Random, length: int, formula: Callable[[int, int], int]) -> Draw:
    kinds = _coin(rng)
    if rng.random() <= 0.5:
        kinds = [kinds[0]] * 2
    return list(zip(_places(rng, length + 1, 2), kinds, strict=True)), formula(*kinds)


def _or(rng: random.Random, length: int) -> Draw:
    return _bits(rng, length, max)


def _and(rng: random.Random, length: int) -> Draw:
    return _bits(rng, length, min)


def _xor(rng: random.Random, length: int) -> Draw:
    return _bits(rng, length, lambda first, second: first ^ second)


def _oed(rng: random.Random, length: int) -> Draw:
    kinds = _coin(rng)
    place, offset = rng.randint(0, length), 0
    while not offset:
        offset = rng.randint(-3, 3)
    places = sorted((place, place + offset))
    return list(zip(places, kinds, strict=True)), (abs(offset) - 1) % 2


def _mt(rng: random.Random, length: int) -> Draw:
    count = rng.randint(1, MOST_MARKERS)
    majority = rng.randint(count // 2 + 1, count)
    more, less = _coin(rng)
    places = _places(rng, length + count - 1, count)
    kinds = [more] * majority + [less] * (count - majority)
    rng.shuffle(kinds)
    return list(zip(places, kinds, strict=True)), more


def _lt(rng: random.Random, length: int) -> Draw:
    pair = _coin(rng)
    kinds = [*rng.choices(pair, k=1), pair[0]]
    return list(zip(_places(rng, length + 1, 2), kinds, strict=True)), pair[0]


def _and_or(rng: random.Random, length: int) -> Draw:
    kinds = rng.choices(_coin(rng), k=4)
    places = sorted(rng.sample(range(length + 3), k=4))
    first, second, third, fourth = kinds
    return list(zip(places, kinds, strict=True)), int((first and second) or (third and not fourth))


SYNTHETIC: Mapping[str, Callable[[random.Random, int], Draw]] = MappingProxyType({
    "st": _st,
    "op": _op,
    "tic": _tic,
    "or": _or,
    "and": _and,
    "xor": _xor,
    "oed": _oed,
    "mt": _mt,
    "lt": _lt,
    "and_or": _and_or,
})
"""Per rule: from the stream and the number of tokens, what goes where, and the label."""


def distractor(rng: random.Random, length: int) -> Inserts:
    """Draw what an original row gets: one of #0 and #1 in a quarter of the rows, for every rule, ST included.

    Args:
        rng: The common stream.
        length: Number of tokens.

    Returns:
        One insert, or none.
    """
    if rng.random() > DISTRACTED_SHARE:
        return []
    kind = rng.choice((0, 1))
    return [(rng.choice(range(length)), kind)]


def _reversed_st(rng: random.Random, length: int, label: int) -> Draw:
    new = 0 if label == 1 else 1
    return [(rng.choice(range(length)), new)], new


def _reversed_op(rng: random.Random, length: int, label: int) -> Draw:
    new = 1 if label == 0 else 0
    return list(zip(_places(rng, length + 1, 2), (new, 1 - new), strict=True)), new


def _reversed_tic(rng: random.Random, length: int, label: int) -> Draw:  # noqa: ARG001 - label 1, whatever it was
    return [(rng.choice(range(length)), 1), (rng.choice(range(length + 1)), CONTEXT)], 1


REVERSED: Mapping[str, Callable[[random.Random, int, int], Draw]] = MappingProxyType({
    "st": _reversed_st,
    "op": _reversed_op,
    "tic": _reversed_tic,
})
"""Per rule that the notebook reverses: from the stream, the number of tokens and the label, what goes where."""
