"""Rules that choose among prior tasks: from what is known of each to one alpha each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from commonweight.base.text import number

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Choice = tuple[Array, str]  # one alpha per prior task, of the sum 1 or all 0; and why

TIE = 1e-9
"""Values that differ by no more than this are equal: the difference is rounding."""


@dataclass(frozen=True)
class Question:
    """What is known of the prior tasks of a task, at one layer or of the whole network; at least one of them."""

    priors: tuple[str, ...]
    """Their names, from the earliest."""

    similarity: Array
    """Of each to the task; nan where undefined."""

    beats_null: NDArray[np.bool_]
    """Whether each similarity is better than its null."""

    null: Array
    """The null of each."""

    truth: Array
    """A known similarity of each; nan where there is none."""

    temperature: float
    """Of the softmax."""

    seed: tuple[int, ...]
    """Of a random choice."""


def most_similar(question: Question) -> Choice:
    """Choose the prior task of highest similarity, if it is better than its null."""
    return _not_above_null(question) or _extreme(question, question.similarity, "most similar")


def softmax(question: Question) -> Choice:
    """Share the alphas out by similarity, if the best prior task is better than its null."""
    if refused := _not_above_null(question):
        return refused
    powers = np.exp((question.similarity - np.nanmax(question.similarity)) / question.temperature)
    powers = np.nan_to_num(powers, nan=0.0)
    return powers / powers.sum(), f"softmax of the similarities at temperature {question.temperature:g}"


def least_similar(question: Question) -> Choice:
    """Choose the prior task of lowest similarity: a control, without a null."""
    return _extreme(question, -question.similarity, "least similar")


def random(question: Question) -> Choice:
    """Choose any prior task: a control."""
    chosen = int(np.random.default_rng(question.seed).integers(len(question.priors)))
    return _one(question, chosen), f"drawn at random: {question.priors[chosen]!r}"


def previous(question: Question) -> Choice:
    """Choose the latest prior task: a control."""
    return _one(question, len(question.priors) - 1), f"the task before: {question.priors[-1]!r}"


def mean(question: Question) -> Choice:
    """Choose all prior tasks alike: a control."""
    count = len(question.priors)
    return np.full(count, 1 / count), f"all {count} prior tasks alike"


def oracle(question: Question) -> Choice:
    """Choose the prior task that is nearest by a known truth: a control."""
    return _extreme(question, question.truth, "nearest by the known truth")


RULES: dict[str, Callable[[Question], Choice]] = {
    "most_similar": most_similar,
    "softmax": softmax,
    "least_similar": least_similar,
    "random": random,
    "previous": previous,
    "mean": mean,
    "oracle": oracle,
}


def _not_above_null(question: Question) -> Choice | None:
    if np.isnan(question.similarity).all():
        return _undefined(question)
    best = int(np.flatnonzero(question.similarity >= np.nanmax(question.similarity) - TIE)[0])
    value, null = float(question.similarity[best]), float(question.null[best])
    if question.beats_null[best]:
        return None
    return (
        np.zeros(len(question.priors)),
        f"the best prior task, {question.priors[best]!r}, is not above its null (similarity {number(value)}, null "
        f"{number(null)})",
    )


def _extreme(question: Question, values: Array, words: str) -> Choice:
    if np.isnan(values).all():
        return _undefined(question)
    equal = np.flatnonzero(values >= np.nanmax(values) - TIE)  # nan is not
    best = int(equal[0])
    names = ", ".join(repr(question.priors[index]) for index in equal)
    tie = f"; the earliest of {len(equal)} equals: {names}" if len(equal) > 1 else ""
    return _one(question, best), f"{words}: {question.priors[best]!r}{tie}"


def _undefined(question: Question) -> Choice:
    return np.zeros(len(question.priors)), "no prior task has a defined similarity"


def _one(question: Question, chosen: int) -> Array:
    return np.asarray(np.eye(len(question.priors))[chosen])
