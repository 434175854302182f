"""The approaches of the study, one word each: ``classic``, ``transfer``, ``transfer-random``, ``classic-double``."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, cast, get_args

from commonweight.base.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

Kind = Literal["classic", "classic-double", "transfer", "initialised"]
Prior = Literal["most_similar", "softmax", "least_similar", "random", "previous", "mean", "oracle"]
Similarity = Literal["first_layer", "every_layer", "probed"]
KINDS: tuple[Kind, ...] = get_args(Kind)
PRIORS: tuple[Prior, ...] = get_args(Prior)
SIMILARITIES: tuple[Similarity, ...] = get_args(Similarity)
BY_SIMILARITY: tuple[Prior, ...] = ("most_similar", "softmax", "least_similar")
ONE_PRIOR = "one_prior"
USUAL_BETA: Mapping[str, float] = MappingProxyType({"transfer": 0.25, "initialised": 0.5})
"""Strength of the influence by kind, where nothing else is asked: what served best on rotated and on permuted MNIST
(docs/supermasks.md has the numbers)."""

_BETA = re.compile(r"beta(\d*\.?\d+)")


@dataclass(frozen=True)
class Approach:
    """How the mask of a task is trained."""

    kind: Kind
    """``classic``: alone. ``classic-double``: alone, with twice the steps. ``transfer``: prior tasks influence the mask
    throughout training. ``initialised``: they influence its start only."""

    prior: Prior = "most_similar"
    """Which prior tasks have influence."""

    similarity: Similarity = "every_layer"
    """Which similarity chooses them, where one does."""

    per_layer: bool = True
    """Whether each layer has its own prior; else all layers have that of the mean similarity."""

    beta: float | None = None
    """Strength of the influence, from 0 to 1; None takes the plan's."""

    def strength(self, asked: float | None) -> float:
        """Say how strong the influence of prior tasks is."""
        usual = USUAL_BETA.get(self.kind, 0.0)
        return next(beta for beta in (self.beta, asked if self.has_priors else None, usual) if beta is not None)

    @property
    def passes(self) -> int:
        """How often the plan's epochs are done."""
        return 2 if self.kind == "classic-double" else 1

    @property
    def has_priors(self) -> bool:
        """Whether prior tasks have any influence."""
        return self.kind in {"transfer", "initialised"}

    @property
    def by_similarity(self) -> bool:
        """Whether a similarity chooses the priors."""
        return self.has_priors and self.prior in BY_SIMILARITY

    @property
    def needs_classic(self) -> bool:
        """Whether the similarity of a task is known only once a classic network has learned it."""
        return self.by_similarity and self.similarity != "probed"

    @property
    def name(self) -> str:
        """The word for it, with what is not usual joined to its kind."""
        words: list[str] = [self.kind]
        if self.has_priors:
            words += [self.prior] if self.prior != "most_similar" else []
            words += [self.similarity] if self.by_similarity and self.similarity != "every_layer" else []
            words += [] if self.per_layer else [ONE_PRIOR]
            words += [] if self.beta is None else [f"beta{self.beta:g}"]
        return "-".join(words)


def read_approach(word: str) -> Approach:
    """Read an approach from its word: a kind, and joined by hyphens in any order what differs from the usual.

    Args:
        word: ``classic``, ``classic-double``, or ``transfer`` or ``initialised`` with any of a prior
            (``most_similar``, ``softmax``, ``least_similar``, ``random``, ``previous``, ``mean``, ``oracle``), a
            similarity (``every_layer``, ``first_layer``, ``probed``), ``one_prior`` and ``beta0.5``.

    Returns:
        The approach.

    Raises:
        UsageError: If a part is unknown, given twice, or without effect.

    Example:
        >>> read_approach("transfer-probed-one_prior").similarity, read_approach("transfer-every_layer").name
        ('probed', 'transfer')
    """
    if word in KINDS[:2]:
        return Approach(word)
    kind, *parts = word.split("-")
    if kind not in KINDS[2:]:
        raise UsageError(f"no approach {word!r}: it starts with one of {', '.join(KINDS)}{_guess(kind, KINDS)}")
    prior: list[str] = [part for part in parts if part in PRIORS]
    similarity: list[str] = [part for part in parts if part in SIMILARITIES]
    betas = [match[1] for part in parts if (match := _BETA.fullmatch(part))]
    one_prior = parts.count(ONE_PRIOR)
    unknown = [part for part in parts if part not in {*PRIORS, *SIMILARITIES, ONE_PRIOR} and not _BETA.fullmatch(part)]
    if unknown:
        words = (*PRIORS, *SIMILARITIES, ONE_PRIOR)
        guess = _guess(unknown[0], words)
        raise UsageError(f"approach {word!r}: {unknown[0]!r} is none of {', '.join(words)}, and not betaX{guess}")
    if max(len(prior), len(similarity), len(betas), one_prior) > 1:
        raise UsageError(f"approach {word!r} says the same thing twice; give one prior, one similarity, one beta")
    beta = float(betas[0]) if betas else None
    if beta is not None and not (0 <= beta < 1 or (beta == 1 and kind == "initialised")):
        raise UsageError(
            f"approach {word!r}: beta is from 0 to below 1, got {beta:g}; 1 leaves nothing to train, or for "
            "'initialised' a start that is the prior tasks' alone"
        )
    found = Approach(
        kind,
        cast("Prior", prior[0] if prior else "most_similar"),
        cast("Similarity", similarity[0] if similarity else "every_layer"),
        per_layer=not one_prior,
        beta=beta,
    )
    if similarity and not found.by_similarity:
        raise UsageError(f"approach {word!r}: {found.prior} asks no similarity; leave {similarity[0]!r} out")
    return found


def _guess(word: str, words: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(word, words, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
