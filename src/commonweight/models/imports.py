"""The user's own code behind a model: the files of modules, and of all that these import and is not installed."""

from __future__ import annotations

import ast
import contextlib
import sys
import sysconfig
from importlib.machinery import PathFinder
from importlib.util import resolve_name
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from importlib.machinery import ModuleSpec

INSTALLED = {"site-packages", "dist-packages"}


def own_files(modules: Iterable[str], more: Iterable[str] = ()) -> dict[str, Path]:
    """Find the files of modules and of what they import, also within functions; nothing is imported for it."""
    asked = set(modules)
    found: dict[str, Path] = {}
    seen: set[str] = set()
    waiting = asked | set(more)
    while waiting:
        name = waiting.pop()
        seen.add(name)
        spec = _spec(name)
        file = Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None
        if spec is not None and file is not None and (name in asked or _is_own(file)):
            is_package = spec.submodule_search_locations is not None
            found[name.replace(".", "/") + ("/__init__.py" if is_package else ".py")] = file
            waiting |= set(_imported(file, name if is_package else name.rpartition(".")[0])) - seen
        waiting |= {parent for parent in [name.rpartition(".")[0]] if parent} - seen
    return found


def _spec(name: str) -> ModuleSpec | None:
    if name in sys.modules:
        return getattr(sys.modules[name], "__spec__", None)
    parent = name.rpartition(".")[0]
    holder = _spec(parent) if parent else None
    if parent and (holder is None or holder.submodule_search_locations is None):
        return None
    return PathFinder.find_spec(name, holder.submodule_search_locations if holder else [str(Path.cwd()), *sys.path])


def _is_own(file: Path) -> bool:
    installed = Path(sysconfig.get_path("stdlib")), Path(__file__).parents[1]
    return not (INSTALLED & set(file.parts) or any(map(file.is_relative_to, installed)))


def _imported(file: Path, package: str) -> Iterator[str]:
    with contextlib.suppress(SyntaxError, ImportError):  # of a module that nothing has imported yet
        for node in ast.walk(ast.parse(file.read_bytes())):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = resolve_name("." * node.level + (node.module or ""), package)
                yield base
                yield from (f"{base}.{alias.name}" for alias in node.names)
