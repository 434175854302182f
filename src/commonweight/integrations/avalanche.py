"""Tasks of a supermask network in an Avalanche strategy: switched, trained and finished as experiences come and go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch.utils.data import DataLoader

from commonweight.base.errors import UsageError
from commonweight.supermasks.network import SupermaskNetwork

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor


class SupermaskPlugin:
    """Let a strategy of Avalanche 0.6 train a :class:`commonweight.SupermaskNetwork`, one task for each task label.

    * Before an experience is trained, its task is added and switched to, and the optimiser gets the task's scores and
      nothing else, with a fresh state.
    * After it, the task's batch-norm statistics are measured anew over the experience, in evaluation mode and through
      its transforms for evaluation (one pass for each batch norm), and the task is finished.
    * Before an experience is evaluated, its task is switched to; afterwards the former one is. A task that was not
      trained yet is evaluated with the mask that it starts from.

    A task is called by its label, ``"0"``, ``"1"``, …: every training experience needs a label of its own, as
    :func:`avalanche.benchmarks.with_task_labels` and ``to_avalanche`` give it.

    Args:
        batch_size: Rows at once while statistics are measured.

    Example:
        >>> from commonweight.integrations import SupermaskPlugin
        >>> # net = SupermaskNetwork(model)
        >>> # strategy = Naive(model=net, optimizer=Adam(net.parameters(), lr=1e-2), plugins=[SupermaskPlugin()])
        >>> # for experience in benchmark.train_stream: strategy.train(experience)
    """

    supports_distributed = False

    def __init__(self, *, batch_size: int = 512) -> None:
        self._batch_size = batch_size
        self._former: str | None = None

    def before_training_exp(self, strategy: Any, **_: Any) -> None:
        """Add the task, switch to it, and give the optimiser its scores."""
        net, task = _network(strategy), _task(strategy.experience)
        if task not in net.tasks:
            net.add_task(task)
        if net.is_finished(task):
            raise UsageError(
                f"the task {task} is finished: each training experience needs a task label of its own, and is trained "
                "once; for more passes give the strategy more train_epochs"
            )
        net.switch(task)
        optimiser = strategy.optimizer
        del optimiser.param_groups[1:]
        optimiser.param_groups[0]["params"] = net.trainable(task)
        optimiser.state.clear()

    def after_training_exp(self, strategy: Any, **_: Any) -> None:
        """Measure the task's statistics with its final mask, and finish it."""
        net, task = _network(strategy), _task(strategy.experience)
        net.reestimate(task, _Inputs(strategy.experience.dataset.eval(), self._batch_size, strategy.device))
        net.finish(task)

    def before_eval(self, strategy: Any, **_: Any) -> None:
        """Remember the task that is on."""
        self._former = _network(strategy).task

    def before_eval_exp(self, strategy: Any, **_: Any) -> None:
        """Switch to the task that is evaluated."""
        net, task = _network(strategy), _task(strategy.experience)
        if task not in net.tasks:
            net.add_task(task)
        net.switch(task)

    def after_eval(self, strategy: Any, **_: Any) -> None:
        """Switch back."""
        _network(strategy).switch(self._former)


class _Inputs:
    """The inputs of a data set on a device, batch by batch; iterable again and again."""

    def __init__(self, rows: Any, batch_size: int, device: Any) -> None:
        self._rows, self._batch_size, self._device = rows, batch_size, device

    def __iter__(self) -> Iterator[Tensor]:
        for inputs, *_ in DataLoader(self._rows, self._batch_size):
            yield inputs.to(self._device)


def _network(strategy: Any) -> SupermaskNetwork:
    if not isinstance(strategy.model, SupermaskNetwork):
        raise UsageError(
            f"the strategy trains a {type(strategy.model).__name__}; the plugin needs SupermaskNetwork(model)"
        )
    return strategy.model


def _task(experience: Any) -> str:
    """Name the task of an experience by its label; without one Avalanche has no such attribute, or raises."""
    try:
        return str(experience.task_label)
    except (AttributeError, ValueError):
        raise UsageError(
            "an experience has no task label, or several: make the benchmark with one for each experience, such as "
            "avalanche.benchmarks.with_task_labels(benchmark) does"
        ) from None
