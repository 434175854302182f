"""Passes over data that look at what batch norms receive."""

from __future__ import annotations

import contextlib
import inspect
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointFunction

from commonweight.base.errors import MeasurementError, UsageError
from commonweight.supermasks.norm import Statistics, TaskBatchNorm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from torch.autograd.graph import Node


def call(model: nn.Module, batch: Any) -> Any:
    """Call a model on the inputs of a batch."""
    if isinstance(batch, Tensor):
        return model(batch)
    if isinstance(batch, (tuple, list)) and batch:
        return model(batch[0])
    if isinstance(batch, Mapping):
        return model(**batch)
    raise UsageError(
        f"a batch must be a tensor, (inputs, labels), or a mapping of keyword arguments, got {type(batch).__name__}"
    )


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode, without gradients, and every module back into its own mode afterwards."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True


def is_rerun() -> bool:
    """Tell whether reentrant checkpointing is running a part of a model again, in the backward pass."""
    frame = inspect.currentframe() if torch._C._current_graph_task_id() != -1 else None
    while frame is not None and frame.f_code is not CheckpointFunction.backward.__code__:
        frame = frame.f_back
    return frame is not None


@dataclass
class Moments:
    """Mean and variance per unit, exact over everything seen, however it was cut into batches."""

    count: int = 0
    batches: int = 0
    mean: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    squares: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    """Sum of squared deviations from the mean."""

    def add(self, inputs: Tensor) -> None:
        """Add what one batch norm received."""
        rows = inputs.detach().transpose(0, 1).flatten(1).double()
        n = rows.shape[1]
        if not n:
            return
        mean = rows.mean(1)
        squares = (rows - mean[:, None]).square().sum(1)
        total = self.count + n
        shift = mean - self.mean.to(mean.device)
        self.squares = self.squares.to(mean.device) + squares + shift.square() * (self.count * n / total)
        self.mean = self.mean.to(mean.device) + shift * (n / total)
        self.count = total
        self.batches += 1

    def statistics(self, name: str) -> Statistics:
        """Give the result."""
        if self.count < 2:
            raise MeasurementError(
                f"{name} received {self.count} values per unit: a variance needs two; give more rows, or check that "
                "the network calls this batch norm"
            )
        variance = self.squares / (self.count - 1)
        if not bool((self.mean + variance).isfinite().all()):
            raise MeasurementError(f"{name} received nan or infinity: expected finite inputs; look at the data first")
        return Statistics(self.mean.float(), variance.float(), self.batches)


def watch(model: nn.Module, norms: Mapping[str, TaskBatchNorm], batches: Iterable[Any]) -> dict[str, Statistics]:
    """Measure what every batch norm receives, in one pass."""
    seen = {name: Moments() for name in norms}
    with contextlib.ExitStack() as hooks:
        for name, norm in norms.items():
            hooks.callback(norm.register_forward_pre_hook(_adding(seen[name])).remove)
        for batch in batches:
            call(model, batch)
    return {name: moments.statistics(name) for name, moments in seen.items()}


def settle(
    norms: Mapping[str, nn.Module],
    held: Mapping[str, Mapping[str, Tensor]],
    run: Callable[[Any], object],
    batches: Iterable[Any],
) -> None:
    """Give batch norms the exact statistics of some data, one after the other in the order of their calls."""
    # ``held`` are the buffers of each, and ``run`` takes a batch through the network, in evaluation mode.
    # Each is measured while those before it already normalise with their new statistics, so the result does not depend
    # on how the rows are cut into batches. One pass over the data per batch norm, each only as far as that batch norm.
    # One that is called several times is measured over all its calls, while it normalises with its former statistics.
    if not norms:
        return
    if iter(batches) is batches:
        raise UsageError(
            "the batches can be gone through once only, and statistics take one pass per batch norm: expected a list "
            "or a DataLoader; pass list(batches)"
        )
    former = {name: Statistics.of(held[name]) for name in norms}
    try:
        for name, calls in _calls(run, norms, batches).items():
            moments = Moments()
            with contextlib.ExitStack() as hooks:
                hooks.callback(norms[name].register_forward_pre_hook(_adding(moments, stop=calls == 1)).remove)
                for batch in batches:
                    with contextlib.suppress(_ReachedError):
                        run(batch)
            moments.statistics(name).put(held[name])
    except BaseException:
        for name, statistics in former.items():
            statistics.put(held[name])
        raise


class _ReachedError(Exception):
    """The batch norm that is measured has its input: the rest of the pass is not needed."""


def _adding(moments: Moments, *, stop: bool = False) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    def hook(_module: nn.Module, inputs: tuple[Any, ...]) -> None:
        moments.add(inputs[0])
        if stop:
            raise _ReachedError

    return hook


def _calls(run: Callable[[Any], object], norms: Mapping[str, nn.Module], batches: Iterable[Any]) -> Counter[str]:
    """How often each batch norm is called, in the order of the first calls."""
    calls: Counter[str] = Counter()

    def note(name: str, _module: nn.Module, _inputs: Any) -> None:
        calls[name] += 1

    with contextlib.ExitStack() as hooks:
        for name, norm in norms.items():
            hooks.callback(norm.register_forward_pre_hook(partial(note, name)).remove)
        for batch in batches:
            run(batch)
            break
        else:
            raise UsageError("there are no batches: expected at least one")
    missing = [name for name in norms if not calls[name]]
    if missing:
        raise MeasurementError(
            f"the network does not call {missing} on these inputs, so there is nothing to measure there"
        )
    return calls


def norms_behind(
    model: nn.Module, layers: Mapping[str, Iterable[nn.Module]], norms: Mapping[str, TaskBatchNorm], inputs: Any
) -> dict[str, str | None]:
    """Follow the outputs of layers to the batch norms that receive them."""
    # The graph that autograd records is walked back from the input of each batch norm, in the order they are called,
    # until it meets the output of a masked layer or of another batch norm. So additions, activations, pooling and
    # reshaping in between do not matter, another masked layer does.
    behind: dict[str, str | None] = dict.fromkeys(layers)
    marks: dict[Node, str | None] = {}

    def mark(output: Tensor, name: str | None) -> Tensor:
        marked: Tensor = _Mark.apply(output, torch.ones((), requires_grad=True))  # type: ignore[no-untyped-call]
        if marked.grad_fn is not None:
            marks[marked.grad_fn] = name
        return marked

    def reached(inputs: Tensor) -> set[str]:
        found: set[str] = set()
        seen: set[Node] = set()
        waiting = [inputs.grad_fn]
        while waiting:
            node = waiting.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            if node in marks:
                name = marks[node]
                found |= set() if name is None else {name}
            else:
                waiting += [following for following, _ in node.next_functions]
        return found

    def on_layer(weight: str, _module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        return mark(output, weight)

    def on_norm(norm: str, _module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        for weight in reached(inputs[0]):
            behind[weight] = behind[weight] or norm
        return mark(output, None)

    with contextlib.ExitStack() as hooks, torch.enable_grad():
        for weight, users in layers.items():
            for user in users:
                hooks.callback(user.register_forward_hook(partial(on_layer, weight)).remove)
        for name, norm in norms.items():
            hooks.callback(norm.register_forward_hook(partial(on_norm, name)).remove)
        call(model, inputs)
    return behind


class _Mark(torch.autograd.Function):
    """A copy that leaves a node of its own in the graph."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, token: Tensor) -> Tensor:  # noqa: ARG004
        return output.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # noqa: ARG004
        return gradient, None
