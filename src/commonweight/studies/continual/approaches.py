"""The approaches of the study, one word each: ``classic``, ``transfer``, ``transfer-random``, ``classic-double``."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, get_args

from commonweight.base.choices import PriorRule, SimilarityName
from commonweight.base.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

Kind = Literal["classic", "classic-double", "transfer", "initialised"]
KINDS: tuple[Kind, ...] = get_args(Kind)
PRIORS: tuple[PriorRule, ...] = get_args(PriorRule)
SIMILARITIES: tuple[SimilarityName, ...] = get_args(SimilarityName)
BY_SIMILARITY: tuple[PriorRule, ...] = ("most_similar", "softmax", "least_similar")
ONE_PRIOR = "one_prior"
USUAL_BETA: Mapping[str, float] = MappingProxyType({"transfer": 0.25, "initialised": 0.5})
"""Strength of the influence by kind, where nothing else is asked: what served best on rotated and on permuted MNIST
(docs/supermasks.md has the numbers)."""


@dataclass(frozen=True)
class Approach:
    """How the mask of a task is trained."""

    kind: Kind
    """``classic``: alone. ``classic-double``: alone, with twice the steps. ``transfer``: prior tasks influence the mask
    throughout training. ``initialised``: they influence its start only."""

    prior: PriorRule = "most_similar"
    """Which prior tasks have influence."""

    similarity: SimilarityName = "every_layer"
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
    """Read an approach from its word: a kind, and joined by hyphens in any order what differs from the usual."""
    if word in KINDS[:2]:
        return Approach(word)
    kind, *parts = word.split("-")
    if kind not in KINDS[2:]:
        raise UsageError(f"no approach {word!r}: it starts with one of {', '.join(KINDS)}{_guess(kind, KINDS)}")
    said = [_read_part(word, part) for part in parts]
    asked = dict(said)
    if len(asked) < len(said):
        raise UsageError(f"approach {word!r} says the same thing twice; give one prior, one similarity, one beta")
    found = Approach(kind, **asked)
    if found.beta is not None and not (0 <= found.beta < 1 or (found.beta == 1 and kind == "initialised")):
        raise UsageError(
            f"approach {word!r}: beta is from 0 to below 1, got {found.beta:g}; 1 leaves nothing to train, or for "
            "'initialised' a start that is the prior tasks' alone"
        )
    if "similarity" in asked and not found.by_similarity:
        raise UsageError(f"approach {word!r}: {found.prior} asks no similarity; leave {found.similarity!r} out")
    return found


def _read_part(word: str, part: str) -> tuple[str, Any]:
    """Give the field of an approach that a part of its word sets, and its value."""
    if part in PRIORS:
        return "prior", part
    if part in SIMILARITIES:
        return "similarity", part
    if part == ONE_PRIOR:
        return "per_layer", False
    if beta := re.fullmatch(r"beta(\d*\.?\d+)", part):
        return "beta", float(beta[1])
    words = (*PRIORS, *SIMILARITIES, ONE_PRIOR)
    raise UsageError(f"approach {word!r}: {part!r} is none of {', '.join(words)}, and not betaX{_guess(part, words)}")


def _guess(word: str, words: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(word, words, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
