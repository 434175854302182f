"""Outputs of layers made fit for a hook: each a tensor of its own, and part of the graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from commonweight.footprint.batch import map_tensors


class _Root(torch.autograd.Function):
    """Identity that makes a tensor part of the graph where nothing before it needs a gradient."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, anchor: Tensor) -> Tensor:  # noqa: ARG004
        return tensor.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[None, None]:  # noqa: ARG004
        return None, None


def _root(tensor: Tensor, anchor: Tensor) -> Tensor:
    rooted: Tensor = _Root.apply(tensor, anchor)  # type: ignore[no-untyped-call]
    return rooted


def watchable(tensor: Tensor, anchor: Tensor) -> tuple[Tensor, Tensor]:
    """Make one tensor fit for a hook.

    Args:
        tensor: What a layer returned.
        anchor: Any tensor that requires a gradient.

    Returns:
        The tensor to pass on, and the one to hang a hook on.
    """
    if not tensor.requires_grad:
        tensor = _root(tensor, anchor)
    if not tensor._is_view():
        return tensor, tensor
    # An in-place activation on a view would cut the view's own hook out of the graph; its base keeps one.
    base = tensor._base
    if base is not None and tensor.is_contiguous() and base.is_contiguous() and base.numel() == tensor.numel():
        return tensor, base
    copy = tensor.clone()
    return copy, copy


def watchable_nest(output: Any, anchor: Tensor) -> tuple[Any, list[Tensor]]:
    """Make the floating tensors in a nest fit for one hook on all of them.

    Args:
        output: What a module returned.
        anchor: Any tensor that requires a gradient.

    Returns:
        The nest to pass on, and the tensors to hang a hook on; none if the nest cannot be built again.
    """
    watched: list[Tensor] = []

    def watch(tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor
        if not tensor.requires_grad:
            tensor = _root(tensor, anchor)
        elif tensor._is_view():
            tensor = tensor.clone()
        watched.append(tensor)
        return tensor

    result = map_tensors(output, watch)
    if isinstance(output, Mapping) and type(output) is not dict:
        try:
            result = type(output)(**result)
        except TypeError:
            watched.clear()
    return result, watched
