"""Notices weights at work: every operation that takes a watched parameter is reported.

A rule sees a parameter only inside the call of the layer that owns it. A model that also uses the weight directly
(``F.linear(h, self.embedding.weight)``) would go unnoticed by hooks on layers, so the parameter itself is watched: for
as long as the watch lasts its class is a subclass that tells of every function applied to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
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
        """Prepare.

        Args:
            parameters: By name.
            report: Called with a parameter's name and the name of a function that made a floating tensor of it.
        """
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
