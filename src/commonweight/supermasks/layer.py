"""A masked weight: the parametrisation that stands between a frozen weight and the layer that uses it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from commonweight.base.errors import MeasurementError, UsageError
from commonweight.supermasks.bits import Bits
from commonweight.supermasks.influence import Influence, direction, mixed
from commonweight.supermasks.rules import TopK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from commonweight.supermasks.rules import MaskRule
    from commonweight.supermasks.selection import Selection
    from commonweight.supermasks.starts import ScoreStart


class MaskedWeight(nn.Module):
    """One weight's masks: scores of unfinished tasks, packed bits of finished ones.

    Registered with ``torch.nn.utils.parametrize`` on the layer's weight. Per task i it holds the parameter
    ``scores{i}``, and once the task is finished the buffer ``bits{i}``.
    """

    def __init__(self, rule: MaskRule, start: ScoreStart, selection: Selection, shape: torch.Size) -> None:
        super().__init__()
        self.rule = rule
        self.start = start
        self.shape = shape
        self._selection = selection
        self._scored: set[int] = set()
        self._influences: dict[int, Influence] = {}

    def forward(self, weight: Tensor) -> Tensor:
        """Mask a weight."""
        made = self._selection.made
        if made is None:
            return self._masked(weight)
        key = (self, torch.is_grad_enabled())  # what was made without a gradient must not serve where one is wanted
        if key not in made:
            made[key] = self._masked(weight)
        return made[key]

    def _masked(self, weight: Tensor) -> Tensor:
        selection = self._selection
        if selection.unmasked:
            return weight
        if selection.mixture is not None:
            masks = [self.bits(task) for task in selection.mixture.tasks]
            return _Superposed.apply(weight, selection.mixture.weights, masks)  # type: ignore[no-any-return, no-untyped-call]
        task = selection.current()
        if task in selection.finished:
            kept = torch.empty_like(weight).copy_(self._packed(task).unpack().view(torch.uint8))
            return kept.mul_(weight)  # a fifth of the time of a product of two types
        return _Kept.apply(weight, self.effective(task), self.rule)  # type: ignore[no-any-return, no-untyped-call]

    def add(self, task: int, like: Tensor) -> None:
        """Add a task."""
        self.hold_scores(task, self.start.draw(task, like))

    def hold_scores(self, task: int, scores: Tensor) -> None:
        """Hold scores of a task, instead of any it had."""
        self.register_parameter(f"scores{task}", nn.Parameter(scores, requires_grad=False))
        self._scored.add(task)

    def hold_bits(self, task: int, bits: Bits) -> None:
        """Hold the final mask of a task."""
        self.register_buffer(f"bits{task}", bits.packed)

    def drop_scores(self, task: int) -> None:
        """Let the scores of a task go."""
        self.register_parameter(f"scores{task}", None)
        self._scored.discard(task)

    def scores(self, task: int) -> nn.Parameter | None:
        """Give a task's scores."""
        return self.get_parameter(f"scores{task}") if task in self._scored else None

    def effective(self, task: int) -> Tensor:
        """Give what the rule sees: the scores of an unfinished task, with those of prior tasks mixed in."""
        scores = self.get_parameter(f"scores{task}")
        influence = self._influences.get(task)
        return scores if influence is None else mixed(scores, self._towards(task, influence), influence.beta)

    def bits(self, task: int) -> Bits:
        """Give a task's mask."""
        if task in self._selection.finished:
            return self._packed(task)
        return Bits.of(self.rule.mask(self.effective(task).detach()))

    def start_bits(self, task: int, like: Tensor) -> Bits:
        """Draw the mask a task started from again."""
        return Bits.of(self.rule.mask(self.start.draw(task, like)))

    def influence(self, task: int) -> Influence | None:
        """Give what influences a task."""
        return self._influences.get(task)

    def towards(self, influence: Influence) -> Tensor:
        """Mix prior tasks into one direction."""
        dropped = [prior for prior in influence.alphas if prior not in self._scored]
        if dropped and isinstance(self.rule, TopK) and self.rule.by == "magnitude":
            raise UsageError(
                "masks ranked by magnitude need the scores of prior tasks, and some were dropped: bits have no "
                "magnitude; finish prior tasks with keep_scores=True, or leave their alphas out"
            )
        return direction([(alpha, self._evidence(prior)) for prior, alpha in influence.alphas.items()])

    def set_influence(self, task: int, influence: Influence | None, towards: Tensor | None = None) -> None:
        """Let prior tasks take part in a task, or no longer."""
        self.register_buffer(f"towards{task}", towards, persistent=False)
        self._influences.pop(task, None)
        if influence is not None:
            self._influences[task] = influence

    def move(self, task: int, towards: Tensor, beta: float) -> None:
        """Mix a direction into the scores of a task, once."""
        scores = self.get_parameter(f"scores{task}")
        with torch.no_grad():
            scores.copy_(mixed(scores, towards, beta))

    def consolidate(self, task: int) -> None:
        """Store the mixed scores as the task's own, and end the influence; the mask stays as it is."""
        influence = self._influences.get(task)
        if influence is not None:
            self.move(task, self._towards(task, influence), influence.beta)
            self.set_influence(task, None)

    def check_scores(self, task: int) -> None:
        """Refuse scores that say nothing."""
        if not bool(self.get_parameter(f"scores{task}").isfinite().all()):
            raise MeasurementError(
                f"the scores of {self.start.name} hold nan or infinity: expected finite numbers; the training "
                "diverged, lower the learning rate"
            )

    def _packed(self, task: int) -> Bits:
        return Bits(self.get_buffer(f"bits{task}"), tuple(self.shape))

    def _towards(self, task: int, influence: Influence) -> Tensor:
        held = self._buffers.get(f"towards{task}")
        if held is None:  # the network was just loaded
            held = self.towards(influence)
            self.register_buffer(f"towards{task}", held, persistent=False)
        return held

    def _evidence(self, prior: int) -> Tensor:
        scores = self.scores(prior)
        return self._packed(prior).unpack().float() * 2 - 1 if scores is None else scores

    def extra_repr(self) -> str:
        """Describe the weight."""
        return f"{self.rule}, tasks with scores: {len(self._scored)}"


class _Kept(torch.autograd.Function):
    """``weight * mask``, whose gradient by the scores takes the mask's derivative as 1: gradient * weight."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, scores: Tensor, rule: MaskRule) -> Tensor:
        ctx.save_for_backward(weight)
        return rule.mask(scores, out=torch.empty_like(weight)).mul_(weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, None]:
        (weight,) = ctx.saved_tensors
        return None, gradient * weight, None


class _Superposed(torch.autograd.Function):
    """``weight * sum_i a_i m_i``; masks stay packed, and are unpacked one at a time."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, alphas: Tensor, masks: Sequence[Bits]) -> Tensor:
        ctx.save_for_backward(weight, alphas)
        ctx.masks = masks
        share = torch.zeros(weight.shape, dtype=alphas.dtype, device=weight.device)
        for alpha, mask in zip(alphas.detach(), masks, strict=True):
            share += alpha * mask.unpack()
        return weight * share.to(weight.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, None]:
        weight, alphas = ctx.saved_tensors
        each = gradient.to(alphas.dtype) * weight
        return None, torch.stack([(each * mask.unpack()).sum() for mask in ctx.masks]).to(alphas.dtype), None
