"""What modules hold beside parameters and buffers: nobody can average it, so it has to be equal."""

from __future__ import annotations

import functools
import io
import types
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from commonweight.base.errors import NotComparableError
from commonweight.base.names import first_of, quoted, some
from commonweight.fusion.compatible import differing, matters
from commonweight.fusion.tensors import module_tensors

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PLAIN = (bool, int, float, complex, str)
MACHINERY = frozenset(vars(nn.Module()))
"""Attributes of every module."""

FOREIGN = frozenset({"torch", "transformers"})
"""Packages whose objects are not looked into."""

NOT_STATE = (type, types.FunctionType, types.ModuleType)
FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType, types.MethodType)
SEVERAL = (list, tuple, deque, set, frozenset)

WITHOUT_WEIGHT = (nn.modules.dropout._DropoutNd, nn.Identity)
"""Modules that compute the same outside training."""


def check_beside(models: Mapping[str, nn.Module]) -> list[str]:
    """Check that what modules hold beside parameters and buffers is equal in all: a fusion keeps the first model's."""
    # Compared are classes of modules within, what else ``state_dict`` saves (packed weights, extra state), and
    # attributes that are or hold tensors or arrays, also in modules that are not registered. Weights, and what a hook
    # computes of them, may differ; so may numbers, words and functions (a stride), which come back as a sentence.
    _check_classes(models)
    held = {name: _held(model) for name, model in models.items()}
    first, *others = held.values()
    keys = dict.fromkeys(key for found in held.values() for key in found)
    wrong = [key for key in keys if any(not _same(first.get(key), other.get(key)) for other in others)]
    if wrong:
        raise NotComparableError(
            f"{quoted(models)} differ in what is neither parameter nor buffer, {first_of(wrong)}. It cannot be "
            "averaged: make it a parameter or a buffer (modules in a list go into an nn.ModuleList), delete it if it "
            "is left over from a call, or fuse models that have it equal, quantised ones before they are quantised"
        )
    plain = {name: dict(_plain(model)) for name, model in models.items()}
    found = [f"{key} ({values})" for key, values in differing(plain, "absent").items()]
    return [f"Attributes that differ are those of the first model: {some(found)}."] if found else []


def _check_classes(models: Mapping[str, nn.Module]) -> None:
    """Refuse models of which a part is another module, such as another activation."""
    parts = {
        name: {path: type(m).__qualname__ for path, m in model.named_modules() if not isinstance(m, WITHOUT_WEIGHT)}
        for name, model in models.items()
    }
    found = [f"{path} ({kinds})" for path, kinds in differing(parts, "absent").items()]
    if found:
        raise NotComparableError(
            f"{quoted(models)} are not built of the same modules, {first_of(found)}. Fuse models of one architecture"
        )


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
    registered = {id(module) for module in model.modules()}
    found = {
        key: value
        for key, value in model.state_dict(keep_vars=True).items()
        if not isinstance(value, Tensor) or _place(value) not in places
    }
    for path, module in model.named_modules():
        for name, value in _own(module):
            if tensors := [one for one in _tensors(value, registered) if id(one) not in follow]:
                found[f"{path}.{name}".lstrip(".")] = tensors
    return found


def _own(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """List what a module was given; configurations are compared key by key, elsewhere."""
    for name, value in vars(module).items():
        if name not in MACHINERY and not (name == "config" and callable(getattr(value, "to_dict", None))):
            yield name, value


def _plain(model: nn.Module) -> Iterator[tuple[str, Any]]:
    seen: set[int] = set()
    for path, module in model.named_modules():
        if not isinstance(module, nn.modules.dropout._DropoutNd):
            for name, value in _own(module):
                yield from _settings(f"{path}.{name}".lstrip("."), value, seen)


def _settings(path: str, value: Any, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """Find numbers, words and functions in containers and objects."""
    if not matters(path):
        return
    whole = value if isinstance(value, tuple | list) else [value]
    if isinstance(value, FUNCTIONS):
        yield path, f"{value.__module__}.{value.__qualname__}"
    elif whole and all(isinstance(one, PLAIN) for one in whole):
        yield path, value
    elif id(value) not in seen:
        seen.add(id(value))
        for key, part in _parts(value):
            yield from _settings(f"{path}.{key}", part, seen)


def _tensors(value: Any, registered: set[int]) -> list[Any]:
    """Find tensors and arrays in containers and objects; registered modules have their own turn."""
    found, seen, waiting = [], set(), [value]
    while waiting:
        one = waiting.pop()
        if id(one) in seen or id(one) in registered:
            continue
        seen.add(id(one))
        if isinstance(one, Tensor | np.ndarray):
            found.append(one)
        elif isinstance(one, nn.Module):
            waiting += vars(one).values()
        else:
            waiting += [part for _, part in _parts(one)]
    return found


def _parts(value: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(value, Mapping):
        return value.items()
    if isinstance(value, SEVERAL):
        return enumerate(value)
    if isinstance(value, functools.partial):
        return [("func", value.func), ("args", value.args), *value.keywords.items()]
    if type(value).__module__.partition(".")[0] in FOREIGN or isinstance(value, (*NOT_STATE, nn.Module)):
        return ()
    slots = [name for kind in type(value).__mro__ for name in vars(kind).get("__slots__", ()) if hasattr(value, name)]
    return {**{name: getattr(value, name) for name in slots}, **getattr(value, "__dict__", {})}.items()


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
