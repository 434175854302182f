"""What modules hold beside parameters and buffers: nobody can average it, so it has to be equal."""

from __future__ import annotations

import io
import types
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from commonweight.base.errors import NotComparableError
from commonweight.base.names import by_value, differ, first_of, quoted, some
from commonweight.fusion.compatible import matters
from commonweight.fusion.tensors import module_tensors

if TYPE_CHECKING:
    from collections.abc import Iterator

PLAIN = (bool, int, float, complex, str)
MACHINERY = frozenset(vars(nn.Module())) | {"config"}
"""Attributes of every module; configurations are compared key by key."""

FOREIGN = frozenset({"torch", "transformers"})
"""Packages whose objects are not looked into."""

NOT_STATE = (nn.Module, type, types.FunctionType, types.ModuleType)


def check_beside(models: Mapping[str, nn.Module]) -> list[str]:
    """Check that what modules hold beside parameters and buffers is equal in all: a fusion keeps the first model's.

    Compared are what else ``state_dict`` saves (packed weights, extra state), and attributes that are or hold tensors
    or arrays; those that are the weights themselves, and those that a hook computes before each call, follow these.

    Args:
        models: The modules by name, of one class.

    Returns:
        Sentences worth hearing: numbers and words that differ, such as a stride.

    Raises:
        NotComparableError: If something that is no single number or word differs; it is named.

    Example:
        >>> a, b = nn.Linear(2, 2), nn.Linear(2, 2)
        >>> a.scale, b.scale = torch.ones(2), torch.zeros(2)
        >>> check_beside({"a": a, "b": b})
        Traceback (most recent call last):
        ...
        commonweight.base.errors.NotComparableError: 'a' and 'b' differ in what is neither parameter nor buffer, 1
        difference: scale. It cannot be averaged: make it a parameter or a buffer, delete it if it is left over from a
        call, or fuse models that have it equal, quantised ones before they are quantised
    """
    held = {name: _held(model) for name, model in models.items()}
    first, *others = held.values()
    keys = dict.fromkeys(key for found in held.values() for key in found)
    wrong = [key for key in keys if any(not _same(first.get(key), other.get(key)) for other in others)]
    if wrong:
        raise NotComparableError(
            f"{quoted(models)} differ in what is neither parameter nor buffer, {first_of(wrong)}. It cannot be "
            "averaged: make it a parameter or a buffer, delete it if it is left over from a call, or fuse models that "
            "have it equal, quantised ones before they are quantised"
        )
    plain = {name: dict(_plain(model)) for name, model in models.items()}
    found = []
    for key in dict.fromkeys(key for values in plain.values() for key in values):
        values = {name: of_model.get(key) for name, of_model in plain.items()}
        if differ(values):
            found.append(f"{key} ({by_value(values, 'absent')})")
    return [f"attributes that differ are those of the first model: {some(found)}"] if found else []


def computed(model: nn.Module) -> Iterator[tuple[nn.Module, str, Any]]:
    """List the attributes that a hook computes from weights before each call: pruned and old normalised weights."""
    for module in model.modules():
        for hook in module._forward_pre_hooks.values():
            name = getattr(hook, "_tensor_name", getattr(hook, "name", None))
            if isinstance(name, str) and isinstance(vars(module).get(name), Tensor):
                yield module, name, hook


def _held(model: nn.Module) -> dict[str, Any]:
    """What is saved or held beside parameters and buffers, by name."""
    weights = list(module_tensors(model).values())
    places = set(map(_place, weights))
    follow = {id(tensor) for tensor in [*weights, *(vars(module)[name] for module, name, _ in computed(model))]}
    found = {
        key: value
        for key, value in model.state_dict(keep_vars=True).items()
        if not isinstance(value, Tensor) or _place(value) not in places
    }
    for path, module in model.named_modules():
        for name, value in _own(module):
            if tensors := [one for one in _tensors(value) if id(one) not in follow]:
                found[f"{path}.{name}".lstrip(".")] = tensors
    return found


def _own(module: nn.Module) -> Iterator[tuple[str, Any]]:
    return ((name, value) for name, value in vars(module).items() if name not in MACHINERY)


def _plain(model: nn.Module) -> Iterator[tuple[str, Any]]:
    for path, module in model.named_modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            continue
        for name, value in _own(module):
            whole = value if isinstance(value, tuple | list) else [value]
            if matters(name) and whole and all(isinstance(one, PLAIN) for one in whole):
                yield f"{path}.{name}".lstrip("."), value


def _tensors(value: Any) -> list[Any]:
    """Find tensors and arrays in containers and objects; modules have their own turn."""
    found, seen, waiting = [], set(), [value]
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, Tensor | np.ndarray):
            found.append(one)
        elif isinstance(one, Mapping):
            waiting += one.values()
        elif isinstance(one, list | tuple):
            waiting += one
        elif type(one).__module__.partition(".")[0] not in FOREIGN and not isinstance(one, NOT_STATE):
            waiting += getattr(one, "__dict__", {}).values()
    return found


def _place(tensor: Tensor) -> tuple[torch.device, int] | int:
    """Where a tensor's memory is; itself where it has none of its own."""
    try:
        pointer = tensor.untyped_storage().data_ptr()
    except (NotImplementedError, RuntimeError):
        return id(tensor)
    return (tensor.device, pointer) if pointer else id(tensor)


def _same(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, Tensor):
        return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b.to(a.device))
    if isinstance(a, np.ndarray):
        return bool(np.array_equal(a, b))
    if isinstance(a, Mapping):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, io.BytesIO):
        return bool(a.getvalue() == b.getvalue())
    if isinstance(a, torch.ScriptObject):  # packed weights give back the tensors they were made of
        return _same(a.__getstate__(), b.__getstate__())
    return bool(a == b)
