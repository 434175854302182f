"""Which batch norm stands behind which masked weight."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from commonweight.nn.masks.passes import call

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch.autograd.graph import Node

    from commonweight.nn.masks.norm import TaskBatchNorm


def norms_behind(
    model: nn.Module, layers: Mapping[str, Iterable[nn.Module]], norms: Mapping[str, TaskBatchNorm], inputs: Any
) -> dict[str, str | None]:
    """Follow the outputs of layers to the batch norms that receive them.

    The graph that autograd records is walked back from the input of each batch norm, in the order they are called,
    until it meets the output of a masked layer or of another batch norm. So additions, activations, pooling and
    reshaping in between do not matter, another masked layer does.

    Args:
        model: The network, in evaluation mode.
        layers: Masked weight -> the layers that use it.
        norms: Its batch norms.
        inputs: One batch.

    Returns:
        Masked weight -> the first batch norm that receives its output, or None: for the output layer, and for a layer
        that the network does not call as a module.
    """
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

    with contextlib.ExitStack() as hooks, torch.enable_grad():
        for weight, users in layers.items():

            def on_layer(_module: nn.Module, _inputs: Any, output: Tensor, weight: str = weight) -> Tensor:
                return mark(output, weight)

            for user in users:
                hooks.callback(user.register_forward_hook(on_layer).remove)
        for norm_name, norm in norms.items():

            def on_norm(
                _module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor, norm: str = norm_name
            ) -> Tensor:
                for weight in reached(inputs[0]):
                    behind[weight] = behind[weight] or norm
                return mark(output, None)

            hooks.callback(norm.register_forward_hook(on_norm).remove)
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
