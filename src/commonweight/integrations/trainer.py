"""Fisher overlap and weight change while a transformers Trainer trains, in the Trainer's own logs."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from torch import nn
from transformers import TrainerCallback

from commonweight.base.errors import NotComparableError, UsageError, check_kind
from commonweight.base.names import first_of
from commonweight.diagonal_fisher.measure import fisher
from commonweight.diagonal_fisher.sharded import is_sharded
from commonweight.footprints.footprint import Footprint
from commonweight.overlaps.measures.gram import cosine_ratio, gram_of
from commonweight.overlaps.table.table import overlap

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

Weights = Mapping[str, "Tensor"]


class OverlapCallback(TrainerCallback):  # type: ignore[misc,unused-ignore]
    r"""Log how far a model in training has moved: the overlap of its Fisher with a reference, and its weights' change.

    At the start of training (step 0), and then as ``every`` says, it measures the diagonal Fisher on ``batches`` and
    logs through ``trainer.log``, so the numbers reach ``trainer.state.log_history`` and every tracker that the Trainer
    reports to. With :math:`\theta` the weights of the moment, :math:`\theta_0` those at the start and
    :math:`\theta'` those of ``other``, it logs

    * ``fisher_overlap``: the Fisher overlap with ``reference``, all weights pooled, raw; 1 where the two are
      proportional. Noise of few examples lowers it.
    * ``fisher_overlap_layer_mean``: the mean over the layers.
    * ``weight_cosine``: the cosine of :math:`\theta` and :math:`\theta_0`.
    * ``weight_change``: :math:`\|\theta - \theta_0\| / \|\theta_0\|`.
    * ``change_cosine``, with ``other``: the cosine of :math:`\theta - \theta_0` and :math:`\theta' - \theta_0`. Not
      logged while nothing has changed.
    * ``overlap_seconds``: what this measurement took.

    Weights are those that are trained. Each time costs about 1.1 to 2 ordinary passes over ``batches``, and the check
    of the rules, which counts where rows are few. Memory: on the CPU a copy of the trained weights and their Fisher
    from the start on, with ``other`` one more copy; while it measures, one more Fisher on the device. The model is left
    as it was: mode, gradients, buffers, random state. So the same seed trains the same weights with and without it.

    Several processes share each measurement, each on its own copy of the model. Sharded models (FSDP) are refused. A
    training that is resumed starts anew: its start is the checkpoint.

    Args:
        trainer: The Trainer that it is added to.
        batches: As for :func:`commonweight.fisher`, and gone through again each time: a list, or a DataLoader that
            gives the same rows each time. Fewer rows cost less.
        every: A number of steps; or ``"evaluate"`` or ``"save"``, after every evaluation or checkpoint.
        reference: A Fisher to overlap with, measured on the same parameters, with the same Fisher type and loss. None:
            that of the model at the start of training.
        other: Another model, or its weights by name, whose change is compared.
        **options: ``fisher_type``, ``loss``, ``include``, ``exclude``, ``seed`` and ``samples``, as for
            :func:`commonweight.fisher`.

    Raises:
        UsageError: If ``every`` is none of these, ``batches`` can be gone through only once, or ``reference`` is no
            Fisher.
        NotComparableError: At the start of training, if ``reference`` or ``other`` does not fit the model.

    Example:
        >>> import tempfile, torch
        >>> from transformers import BertConfig, BertForSequenceClassification, PrinterCallback, Trainer
        >>> from transformers import TrainingArguments
        >>> from commonweight.integrations import OverlapCallback
        >>> sizes = dict(vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
        >>> rows = [{"input_ids": torch.arange(4) + i, "labels": i % 2} for i in range(8)]
        >>> trainer = Trainer(
        ...     BertForSequenceClassification(BertConfig(**sizes)),
        ...     TrainingArguments(tempfile.mkdtemp(), max_steps=2, use_cpu=True, report_to="none", disable_tqdm=True),
        ...     train_dataset=rows,
        ... )
        >>> trainer.remove_callback(PrinterCallback)
        >>> trainer.add_callback(OverlapCallback(trainer, [trainer.data_collator(rows)], every=2))
        >>> _ = trainer.train()
        >>> [entry["step"] for entry in trainer.state.log_history if "fisher_overlap" in entry]
        [0, 2]
    """

    def __init__(
        self,
        trainer: Any,
        batches: Iterable[Any],
        *,
        every: int | Literal["evaluate", "save"] = "evaluate",
        reference: Footprint | None = None,
        other: nn.Module | Weights | None = None,
        **options: Any,
    ) -> None:
        is_count = isinstance(every, int) and not isinstance(every, bool) and every >= 1
        if not is_count and every not in {"evaluate", "save"}:
            raise UsageError(f"every must be a number of steps of at least 1, 'evaluate' or 'save', got {every!r}")
        if isinstance(batches, Iterator):
            raise UsageError(
                f"batches are gone through again and again, and a {type(batches).__name__} can be only once; give a "
                "list or a DataLoader"
            )
        if reference is not None:
            check_kind("reference", reference, Footprint, "measure one with fisher()")
            if reference.kind != "fisher":
                raise UsageError(f"reference must be a footprint of kind fisher, got {reference.kind}")
        self._trainer = trainer
        self._batches = batches
        self._every = every
        self._given = reference
        self._other = dict(other.named_parameters()) if isinstance(other, nn.Module) else other
        self._options = options
        self._reference: Footprint | None = None
        self._start: Weights = {}

    def on_train_begin(self, _args: Any, _state: Any, control: Any, *, model: nn.Module, **_: Any) -> None:
        """Remember the start, and log the first point."""
        if is_sharded(model):
            raise UsageError(
                "the model is sharded by fully_shard, and OverlapCallback compares weights that are whole: train "
                "without it, or measure after the training with fisher()"
            )
        self._start = {
            name: weight.detach().to("cpu", copy=True)
            for name, weight in model.named_parameters()
            if weight.requires_grad
        }
        if self._other is not None:
            _check_other(self._start, self._other)
        self._reference = self._given
        self._log(control, model)

    def on_step_end(self, _args: Any, state: Any, control: Any, *, model: nn.Module, **_: Any) -> None:
        """Log every so many steps."""
        if isinstance(self._every, int) and state.global_step % self._every == 0:
            self._log(control, model)

    def on_evaluate(self, _args: Any, _state: Any, control: Any, *, model: nn.Module, **_: Any) -> None:
        """Log after an evaluation."""
        if self._every == "evaluate":
            self._log(control, model)

    def on_save(self, _args: Any, _state: Any, control: Any, *, model: nn.Module, **_: Any) -> None:
        """Log after a checkpoint was saved."""
        if self._every == "save":
            self._log(control, model)

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """Let the copies go: an evaluation after training logs nothing."""
        self._start, self._reference = {}, None

    def _log(self, control: Any, model: nn.Module) -> None:
        if not self._start:  # outside of training
            return
        due = control.should_log  # which trainer.log resets, and the Trainer's own loss may be due at this step
        self._trainer.log(self._measure(model))
        control.should_log = due

    def _measure(self, model: nn.Module) -> dict[str, float]:
        began = time.perf_counter()
        now = fisher(model, self._batches, **self._options)
        if self._reference is None:
            on_cpu = {name: values.to("cpu", copy=True) for name, values in now.items()}
            self._reference = Footprint("fisher", on_cpu, now.count, now.metadata)
        table = overlap({"reference": self._reference, "now": now}, intervals=False)
        values = {
            "fisher_overlap": float(table.pooled[0, 1]),
            "fisher_overlap_layer_mean": float(table.layer_mean[0, 1]),
            **self._change(model),
        }
        values = {name: value for name, value in values.items() if not math.isnan(value)}
        return values | {"overlap_seconds": time.perf_counter() - began}

    def _change(self, model: nn.Module) -> dict[str, float]:
        """Compare the weights of the moment with those at the start, and the change with that of the other model."""
        gram = np.zeros((4, 4))
        for name, weight in model.named_parameters():
            if name in self._start:
                start, now = (values.detach().cpu().double().reshape(-1) for values in (self._start[name], weight))
                other = start if self._other is None else self._other[name].detach().cpu().double().reshape(-1)
                gram += gram_of([[start, now, now - start, other - start]], 4, _as_they_are)
        cosines = cosine_ratio(gram)
        found = {
            "weight_cosine": float(cosines[0, 1]),
            "weight_change": math.sqrt(gram[2, 2] / gram[0, 0]) if gram[0, 0] else math.nan,
        }
        return found if self._other is None else found | {"change_cosine": float(cosines[2, 3])}


def _as_they_are(_: int, __: Tensor) -> None:
    """Leave a row of weights as it is."""


def _check_other(start: Weights, other: Weights) -> None:
    wrong = [
        f"{name} (not there)" if name not in other else f"{name} (shape {list(other[name].shape)}, not {list(w.shape)})"
        for name, w in start.items()
        if name not in other or other[name].shape != w.shape
    ]
    if wrong:
        raise NotComparableError(
            f"the other model does not have the weights that are trained, {first_of(wrong)}; give a model of the same "
            "class and sizes, or leave other out"
        )
