"""The tasks of a network: adding, selecting and finishing them."""

from __future__ import annotations

import abc
import contextlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from commonweight.base.errors import IntegrityError, UsageError
from commonweight.supermasks.conversion import Options, convert
from commonweight.supermasks.layer import Influence
from commonweight.supermasks.selection import Selection

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from commonweight.supermasks.layer import MaskedWeight


class TaskNetwork(nn.Module, abc.ABC):
    """A converted model with tasks, one of which is selected or none; how it is called is the subclass's business.

    Args:
        model: A copy that may be changed.
        options: How it is converted.
    """

    def __init__(self, model: nn.Module, options: Options) -> None:
        super().__init__()
        self._moved: dict[int, set[int]] = {}
        self._selection = Selection()
        self._names = self._selection.names
        self._options = options
        self._parts = convert(model, options, self._selection)
        self.model = self._parts.model

    @abc.abstractmethod
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the selected task's network."""

    def add_task(self, name: str) -> None:
        """Add a task, with scores that are drawn and not trained; the selected task stays what it is."""
        if not isinstance(name, str) or not name:
            raise UsageError(f"a task is called by a non-empty text, got {name!r}")
        if name in self._names:
            raise UsageError(f"there is a task {name!r} already; choose another name, or switch to it")
        index = len(self._names)
        for weight, mask in self._parts.masks.items():
            mask.add(index, self._parts.weight(weight))
        for norm in self._parts.norms.values():
            norm.add(index)
        self._names.append(name)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of all tasks, in the order they were added."""
        return tuple(self._names)

    @property
    def task(self) -> str | None:
        """The selected task, or None."""
        return None if self._selection.task is None else self._names[self._selection.task]

    def switch(self, task: str | None) -> None:
        """Select a task; gradients of all others are dropped, so that no optimiser can move them."""
        # Backward passes belong where the forward pass was: one through a task that is not selected is a UsageError.
        index = None if task is None else self._index(task)
        for parameter in self._trained_beside(index):
            parameter.grad = None
        self._select(index)

    @contextlib.contextmanager
    def on(self, task: str) -> Iterator[None]:
        """Select a task for a while; afterwards the former one is selected again."""
        # Meanwhile the other tasks have no gradients; afterwards they have theirs back, and the task keeps what it got,
        # for an optimiser's step. Its backward passes belong inside: see :meth:`switch`.
        index, former, mixture = self._index(task), self._selection.task, self._selection.mixture
        gradients = [(parameter, parameter.grad) for parameter in self._trained_beside(index)]
        for parameter, _ in gradients:
            parameter.grad = None
        self._select(index)
        try:
            yield
        finally:
            self._select(former)
            self._selection.mixture = mixture
            for parameter, gradient in gradients:
                parameter.grad = gradient

    def trainable(self, task: str) -> list[nn.Parameter]:
        """List what an optimiser of a task gets: its scores and, with ``batch_norm="affine"``, its weights and biases.

        They require a gradient only while the task is selected.

        Args:
            task: The task's name.

        Returns:
            The parameters, in model order; batch norms behind masked weights.

        Raises:
            UsageError: If there is no such task, or it is finished.
        """
        return self._trained(self._unfinished(task))

    def is_finished(self, task: str) -> bool:
        """Say whether a task is finished."""
        return self._index(task) in self._selection.finished

    def finish(self, task: str, *, keep_scores: bool = True) -> None:
        """Finish a task: its mask becomes packed bits, and nothing of it changes any more, in training mode neither."""
        # What :meth:`trainable` gave is let go: an optimiser that still holds it moves nothing of the network. An
        # influence that is on is consolidated first; outputs stay the same to the last bit.
        index = self._unfinished(task)
        for mask in self._parts.masks.values():
            mask.check_scores(index)
        for parameter in self._trained(index):
            parameter.requires_grad_(False)
            parameter.grad = None
        for mask in self._parts.masks.values():
            mask.consolidate(index)
            mask.hold_bits(index, mask.bits(index))
            scores = mask.scores(index)
            if scores is None or not keep_scores:
                mask.drop_scores(index)
            else:
                mask.hold_scores(index, scores.detach().clone())
        for norm in self._parts.norms.values():
            norm.settle(index)
        self._selection.finished.add(index)

    def priors(self, task: str) -> tuple[str, ...]:
        """List the prior tasks that a task took over from, by ``influence`` or ``start_from``, and those they did."""
        # The masks of such tasks agree by construction: their overlap cannot be held against chance.
        found: set[int] = set()
        waiting = [self._index(task)]
        while waiting:
            new = self._moved.get(waiting.pop(), set()) - found
            found |= new
            waiting += new
        return tuple(self._names[index] for index in sorted(found))

    def state(self) -> dict[str, Any]:
        """Describe everything beside tensors."""
        options = self._options
        return {
            "options": {
                "rule": options.rule.spec(),
                "weights": options.weights,
                "scores": options.scores,
                "batch_norm": options.batch_norm,
                "include": options.include,
                "exclude": options.exclude,
                "seed": options.seed,
                "weights_seed": options.weights_seed,
            },
            "tasks": [
                {
                    "name": name,
                    "finished": index in self._selection.finished,
                    "scores": any(mask.scores(index) is not None for mask in self._parts.masks.values()),
                    "moved_towards": sorted(self._moved.get(index, ())),
                    "influences": {
                        weight: {"alphas": list(influence.alphas.items()), "beta": influence.beta}
                        for weight, mask in self._parts.masks.items()
                        if (influence := mask.influence(index)) is not None
                    },
                }
                for index, name in enumerate(self._names)
            ],
        }

    def take_tasks(self, state: dict[str, Any]) -> None:
        """Make room for saved tasks; what their tensors hold until they are loaded means nothing."""
        saved, masks = read_tasks(state, self._parts.masks), self._parts.masks
        here, there = [task.point for task in read_tasks(self.state(), masks)], [task.point for task in saved]
        if here and here != there:
            raise UsageError(
                f"the network has the tasks {here} (name, finished, has scores), the saved one {there}: load into a "
                "network that was just made, or one whose tasks are at the same point"
            )
        for index, task in enumerate(saved):
            if task.name not in self._names:
                self.add_task(task.name)
                for weight, mask in masks.items():
                    if task.finished:
                        mask.hold_bits(index, mask.start_bits(index, self._parts.weight(weight)))
                    if not task.scores:
                        mask.drop_scores(index)
            self._moved[index] = set(task.moved_towards)
            if task.finished:
                self._selection.finished.add(index)
            for weight, mask in masks.items():
                mask.set_influence(index, task.influences.get(weight))

    def _index(self, task: str) -> int:
        if task not in self._names:
            raise UsageError(f"there is no task {task!r}: expected one of {self._names}; add it with add_task")
        return self._names.index(task)

    def _unfinished(self, task: str) -> int:
        index = self._index(task)
        if index in self._selection.finished:
            raise UsageError(f"task {task!r} is finished, and a finished task never changes again; add another task")
        return index

    def _mask(self, name: str) -> MaskedWeight:
        if name not in self._parts.masks:
            raise UsageError(f"{name!r} is not a masked weight: expected one of {list(self._parts.masks)}")
        return self._parts.masks[name]

    def _trained(self, index: int) -> list[nn.Parameter]:
        scores = (mask.scores(index) for mask in self._parts.masks.values())
        affine = (parameter for norm in self._parts.norms.values() for parameter in norm.trained(index))
        return [*(parameter for parameter in scores if parameter is not None), *affine]

    def _trained_beside(self, index: int | None) -> list[nn.Parameter]:
        others = set(range(len(self._names))) - self._selection.finished - {index}
        return [parameter for other in sorted(others) for parameter in self._trained(other)]

    def _select(self, index: int | None) -> None:
        former = self._selection.task
        if former is not None and former != index:
            for parameter in self._trained(former):
                parameter.requires_grad_(False)
        self._selection.task, self._selection.mixture = index, None
        if index is not None and index not in self._selection.finished:
            for parameter in self._trained(index):
                parameter.requires_grad_(True)
                self._selection.watch(parameter, index)

    def extra_repr(self) -> str:
        """Describe the network."""
        tasks = ", ".join(f"{name} (finished)" if self.is_finished(name) else name for name in self._names)
        return f"{self._options.rule}, seed={self._options.seed}, tasks=[{tasks}], task={self.task}"


@dataclass(frozen=True)
class SavedTask:
    """One task of a saved network."""

    name: str
    finished: bool
    scores: bool
    """Whether its scores were kept."""

    moved_towards: frozenset[int]
    """Prior tasks that its scores were moved towards; none in files of before this was recorded."""

    influences: Mapping[str, Influence]
    """Masked weight -> the influence that is on."""

    @property
    def point(self) -> tuple[str, bool, bool]:
        """What two networks must share for the tensors of one to fit the other."""
        return self.name, self.finished, self.scores


def read_tasks(state: Mapping[str, Any], masked: Collection[str]) -> list[SavedTask]:
    """Read the tasks of a saved network."""
    try:
        tasks = [_task(entry, index, masked) for index, entry in enumerate(state["tasks"])]
        _expect(len({task.name for task in tasks}) == len(tasks), "two tasks of one name")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise IntegrityError(f"the tasks of a saved network are damaged ({error!r}): save it again") from None
    return tasks


def _task(entry: Mapping[str, Any], index: int, masked: Collection[str]) -> SavedTask:
    name = entry["name"]
    _expect(isinstance(name, str) and name != "", f"a task called {name!r}")
    _expect(isinstance(entry["finished"], bool) and isinstance(entry["scores"], bool), f"the state of {name!r}")
    moved = frozenset(_saved_prior(prior, index) for prior in entry.get("moved_towards", ()))
    influences = {weight: _influence(each, index) for weight, each in entry["influences"].items()}
    _expect(influences.keys() <= set(masked), f"an influence on {sorted(influences.keys() - set(masked))}")
    return SavedTask(name, entry["finished"], entry["scores"], moved, influences)


def _influence(entry: Mapping[str, Any], index: int) -> Influence:
    alphas = {_saved_prior(prior, index): float(alpha) for prior, alpha in entry["alphas"]}
    beta = float(entry["beta"])
    _expect(bool(alphas) and all(0 < alpha < math.inf for alpha in alphas.values()), f"alphas {alphas}")
    _expect(0 < beta < 1, f"beta {beta}")
    return Influence(alphas, beta)


def _saved_prior(prior: Any, index: int) -> int:
    _expect(isinstance(prior, int) and not isinstance(prior, bool) and 0 <= prior < index, f"prior task {prior!r}")
    return int(prior)


def _expect(condition: bool, what: str) -> None:
    if not condition:
        raise ValueError(what)


def read_alphas(
    alphas: Mapping[str, Mapping[str, float]],
    beta: float,
    *,
    task: int,
    tasks: Sequence[str],
    finished: Collection[int],
    masked: Collection[str],
) -> dict[str, Influence]:
    """Read alphas by name."""
    if isinstance(beta, bool) or not isinstance(beta, (int, float)) or not 0 <= beta <= 1:
        raise UsageError(f"beta must be from 0 (classic) to 1 (prior tasks alone), got {beta!r}")
    influences = {}
    for name, row in alphas.items():
        if name not in masked:
            raise UsageError(f"alphas for {name!r}: expected names of masked weights, which are {list(masked)}")
        entries = {_prior(prior, task, tasks, finished): _alpha(name, prior, value) for prior, value in row.items()}
        positive = {index: value for index, value in entries.items() if value > 0}
        if positive and beta > 0:
            influences[name] = Influence(positive, float(beta))
    return influences


def _prior(prior: str, task: int, tasks: Sequence[str], finished: Collection[int]) -> int:
    if prior not in tasks:
        raise UsageError(f"alphas name the task {prior!r}: expected a prior task, which are {list(tasks[:task])}")
    index = tasks.index(prior)
    if index >= task:
        raise UsageError(
            f"alphas of {tasks[task]!r} name {prior!r}: expected tasks added before it, not itself or a later one"
        )
    if index not in finished:
        raise UsageError(
            f"the prior task {prior!r} is not finished, so its scores may still move; call finish({prior!r})"
        )
    return index


def _alpha(name: str, prior: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise UsageError(f"alpha of {name!r} for {prior!r} must be a finite number of at least 0, got {value!r}")
    return float(value)
