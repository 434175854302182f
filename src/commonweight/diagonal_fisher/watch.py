"""Notices weights at work: every operation that takes a watched parameter is reported.

A rule sees a parameter only inside the call of the layer that owns it. A model that also uses the weight directly
(``F.linear(h, self.embedding.weight)``) would go unnoticed by hooks on layers, so the parameter itself is watched: for
as long as the watch lasts its class is a subclass that tells of every function applied to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn
from typing_extensions import override

from commonweight.diagonal_fisher.batch import map_tensors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType

    Report = Callable[[str, str], None]


_WITHOUT_GRADIENT = {Tensor.detach, Tensor.data.__get__}  # type: ignore[attr-defined]


class _Watched(nn.Parameter):
    """A parameter that reports what is done with it; ``_watch`` holds its name and whom to tell."""

    @classmethod
    @override
    def __torch_function__(
        cls, func: Callable[..., Any], types: Iterable[type], args: Iterable[Any] = (), kwargs: Any = None
    ) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            result = func(*args, **(kwargs or {}))
            if func not in _WITHOUT_GRADIENT and _differentiable(result):
                for parameter in _watched((args, kwargs)):
                    name, report = parameter.__dict__["_watch"]
                    report(name, torch.overrides.resolve_name(func) or repr(func))
        return result


class Watch:
    """Watches parameters while entered; parameters of a class of their own (quantised, sharded) are left alone."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], report: Report) -> None:
        """Prepare."""
        self._parameters = {name: p for name, p in parameters.items() if type(p) is nn.Parameter}
        self._report = report

    def __enter__(self) -> Self:
        for name, parameter in self._parameters.items():
            parameter.__class__ = _Watched
            parameter.__dict__["_watch"] = (name, self._report)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for parameter in self._parameters.values():
            parameter.__class__ = nn.Parameter
            del parameter.__dict__["_watch"]


def _watched(value: Any) -> Iterator[_Watched]:
    if type(value) is _Watched:
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _watched(item)
    elif isinstance(value, dict):
        yield from _watched(tuple(value.values()))


def _differentiable(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.is_floating_point()
    return isinstance(value, (tuple, list)) and any(_differentiable(item) for item in value)


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
    """Make one tensor fit for a hook."""
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
    """Make the floating tensors in a nest fit for one hook on all of them."""
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
