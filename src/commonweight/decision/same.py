"""The preflight on tensors: the same names, shapes and types in every model, equal whole numbers and masks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from commonweight.decision.differences import by_value, differ, first_of, quoted
from commonweight.errors import NotComparableError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from commonweight.decision.tensors import Tensors


def check_same(models: Sequence[Tensors]) -> None:
    """Check that weight k of one model is weight k of the others, as far as names, shapes and types tell.

    Nothing is read.

    Args:
        models: Those to fuse, and the base.

    Raises:
        NotComparableError: If a tensor is missing in one, or differs in shape or type; it names the first differences,
            how many there are, and the remedy.

    Example:
        >>> from commonweight.decision.tensors import of_module
        >>> a, b = (of_module(torch.nn.Linear(2, width), name) for name, width in (("a", 2), ("b", 3)))
        >>> check_same([a, b])
        Traceback (most recent call last):
        ...
        commonweight.errors.NotComparableError: 'a' and 'b' do not have the same weights, 2 differences: weight (shape
        [2, 2] in 'a', [3, 2] in 'b'); bias (shape [2] in 'a', [3] in 'b'). Fuse fine-tuned copies of one checkpoint,
        with heads of one size
    """
    missing, shapes, dtypes = [], [], []
    for key in dict.fromkeys(key for model in models for key in model.facts):
        holders = {model.name: model.facts[key] for model in models if key in model.facts}
        if len(holders) < len(models):
            missing.append(f"{key} (only in {quoted(holders)})")
        elif differ({name: facts.shape for name, facts in holders.items()}):
            shapes.append(f"{key} (shape {by_value({name: list(facts.shape) for name, facts in holders.items()})})")
        elif differ({name: facts.dtype for name, facts in holders.items()}):
            dtypes.append(f"{key} ({by_value({name: _short(facts.dtype) for name, facts in holders.items()})})")
    names = quoted(model.name for model in models)
    if missing or shapes:
        remedy = "Fuse fine-tuned copies of one checkpoint, with heads of one size"
        if missing and not shapes:
            remedy = "Fuse models of one class, head included, saved by one release of the library"
        raise NotComparableError(f"{names} do not have the same weights, {first_of(missing + shapes)}. {remedy}")
    if dtypes:
        raise NotComparableError(
            f"{names} are stored in different types, {first_of(dtypes)}. Save them in one type first, such as "
            "model.to(torch.bfloat16).save_pretrained(folder)"
        )


def check_whole_numbers(models: Sequence[Tensors]) -> list[str]:
    """Check that tensors of whole numbers and bits are equal; a single number (a count of batches) may differ.

    Args:
        models: As :func:`check_same` passed them.

    Returns:
        Names of the single numbers that differ; a fusion keeps those of the first model.

    Raises:
        NotComparableError: If a longer one differs: it is a table or a mask, and an average of it means nothing.
    """
    counters = []
    for key, facts in models[0].facts.items():
        if facts.is_floating:
            continue
        first = models[0].read(key)
        for model in models[1:]:
            if torch.equal(first, model.read(key).to(first.device)):
                continue
            if first.numel() > 1:
                raise NotComparableError(
                    f"{key} holds {_short(facts.dtype)} and differs between {models[0].name!r} and {model.name!r}: "
                    "only floating weights can be averaged. Fuse models that have it equal, and quantised ones before "
                    "they are quantised"
                )
            counters.append(key)
            break
    return counters


def check_masks(models: Sequence[Tensors]) -> None:
    """Check that floating masks are equal: an average of two would be none.

    A mask is a buffer, or a tensor called ``..._mask``, in which all models have no more than the same two values: 0
    and 1, or any two that every model has both of.

    Args:
        models: As :func:`check_same` passed them.

    Raises:
        NotComparableError: If some differ; they are named.
    """
    wrong = []
    for key, facts in models[0].facts.items():
        if not facts.is_floating or not (facts.is_buffer or key.endswith("_mask")):
            continue
        first = models[0].read(key)
        if all(torch.equal(first, model.read(key).to(first.device)) for model in models[1:]):
            continue
        values = [set(model.read(key).unique().tolist()) for model in models]
        every = set().union(*values)
        if every <= {0.0, 1.0} or (len(every) == 2 and all(len(one) == 2 for one in values)):
            wrong.append(key)
    if wrong:
        raise NotComparableError(
            f"{quoted(model.name for model in models)} have different masks, {first_of(wrong)}: an average of masks is "
            "none. Fuse models with equal masks, or write the masks into the weights first "
            "(torch.nn.utils.prune.remove)"
        )


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
