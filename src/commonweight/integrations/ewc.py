"""Elastic weight consolidation in a transformers Trainer: the penalty is added to the training loss."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from commonweight.base.errors import UsageError, check_kind
from commonweight.transfer.ewc import ewc_penalty

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, nn

    from commonweight.footprints.footprint import Footprint


@dataclass(frozen=True)
class EarlierTask:
    """What holds the weights of an earlier task in place; the arguments of :func:`commonweight.ewc_penalty`.

    Example:
        >>> import torch, commonweight
        >>> model = torch.nn.Linear(2, 3)
        >>> rows = (torch.tensor([[1.0, 2.0], [3.0, 0.0]]), torch.tensor([0, 2]))
        >>> anchor = {name: p.detach().clone() for name, p in model.named_parameters()}
        >>> earlier = EarlierTask(commonweight.fisher(model, [rows], fisher_type="exact"), anchor, strength=100.0)
        >>> earlier.penalty(model).item()
        0.0
    """

    footprint: Footprint
    """Fisher of the earlier task, measured at the end of its training."""

    anchor: Mapping[str, Tensor]
    """The model's weights of that moment by parameter name, as copies."""

    strength: float = 1.0
    """The factor lambda of the penalty, at least 0."""

    def penalty(self, model: nn.Module) -> Tensor:
        """Charge a model for moving these weights.

        Args:
            model: The model in training.

        Returns:
            A number, at least 0, as :func:`commonweight.ewc_penalty` gives it.
        """
        return ewc_penalty(model, self.footprint, self.anchor, strength=self.strength)

    def held_for(self, model: nn.Module) -> EarlierTask:
        """Bring the Fisher and the anchor to the device of each weight, out of the files they may be in."""
        places = {name: parameter.device for name, parameter in model.named_parameters()}
        tensors = {name: values.to(places[name]) for name, values in self.footprint.items()}
        anchor = {name: self.anchor[name].to(places[name]) for name in tensors}
        return replace(self, footprint=replace(self.footprint, tensors=tensors), anchor=anchor)


class EWCTrainerMixin:
    """Add the EWC penalty of earlier tasks to the loss of a Trainer, written before it among the bases of a class.

    The penalty is part of the training loss that the Trainer logs and differentiates, and of no evaluation loss. It is
    counted once for each optimiser step, also with gradient accumulation: where the Trainer divides the loss by the
    number of accumulated batches, it divides the penalty too, and where it does not, the mixin does.

    Source: Kirkpatrick et al. (2017), https://arxiv.org/abs/1612.00796, equation 3; for several tasks the penalties are
    added. Cost: for each batch one pass over the weights, and on the device two copies of the weights for each task.

    Args:
        *args: Of the Trainer.
        earlier: The earlier tasks; none of them is plain training.
        **kwargs: Of the Trainer.

    Raises:
        UsageError: If ``earlier`` is no list of earlier tasks, or one of them is not what ``ewc_penalty`` takes.
        NotComparableError: If a footprint or an anchor does not fit the model.

    Example:
        >>> from transformers import Trainer
        >>> from commonweight.integrations import EWCTrainerMixin
        >>> class EWCTrainer(EWCTrainerMixin, Trainer):
        ...     pass
        >>> # EWCTrainer(model=model, args=arguments, train_dataset=rows, earlier=[EarlierTask(footprint, anchor)])
    """

    model: nn.Module
    model_accepts_loss_kwargs: bool
    compute_loss_func: Any
    current_gradient_accumulation_steps: int
    """These four are the Trainer's."""

    def __init__(self, *args: Any, earlier: Sequence[EarlierTask], **kwargs: Any) -> None:
        if isinstance(earlier, EarlierTask):
            raise UsageError("earlier must be a list of EarlierTask, got a single one; put it in a list")
        for task in earlier:
            check_kind("each of earlier", task, EarlierTask, "make it with EarlierTask(footprint, anchor, strength)")
        super().__init__(*args, **kwargs)
        self._given = tuple(earlier)
        self._held: tuple[EarlierTask, ...] | None = None
        with torch.no_grad():
            for task in self._given:
                task.penalty(self.model)  # refuses what does not fit before anything is trained

    def compute_loss(self, model: nn.Module, inputs: Any, return_outputs: bool = False, **kwargs: Any) -> Any:
        """Compute the loss, with the penalties in training.

        Args:
            model: The model, as the Trainer has wrapped it.
            inputs: One batch.
            return_outputs: Whether to return the outputs beside the loss.
            **kwargs: What the Trainer passes on, such as ``num_items_in_batch``.

        Returns:
            The loss, or the loss and the outputs.
        """
        found = super().compute_loss(model, inputs, return_outputs=return_outputs, **kwargs)  # type: ignore[misc]
        if not model.training:
            return found
        loss, *rest = found if return_outputs else (found,)
        if self._held is None:
            self._held = tuple(task.held_for(self.model) for task in self._given)
        for task in self._held:
            loss = loss + task.penalty(self.model) / self._share(kwargs.get("num_items_in_batch"))
        return (loss, *rest) if return_outputs else loss

    def _share(self, items: object) -> int:
        """By what a penalty is divided: batches of one optimiser step, where the Trainer does not divide by them."""
        is_scaled = getattr(self, "loss_is_scaled_for_ga", None)  # not in the oldest releases
        if is_scaled is None:
            is_scaled = (self.model_accepts_loss_kwargs and items is not None) or self.compute_loss_func is not None
        return self.current_gradient_accumulation_steps if is_scaled else 1
