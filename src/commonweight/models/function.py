"""A model built by a function of the user's own: ``module:function``, with weights from a ``safetensors`` file."""

from __future__ import annotations

import ast
import contextlib
import difflib
import importlib
import inspect
import sys
import sysconfig
from importlib.machinery import PathFinder
from importlib.util import resolve_name
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from commonweight.base.errors import UsageError
from commonweight.base.names import some
from commonweight.models.identity import describe, first_line, hash_files, hash_settings, hash_state
from commonweight.models.options import LoadedModel
from commonweight.models.placement import DRAW_SEED, pick_device, pick_dtype, seeded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from importlib.machinery import ModuleSpec

    from commonweight.models.options import LoadOptions


def load_function(spec: str, options: LoadOptions) -> LoadedModel:
    """Call a function for a module and load its weights."""
    # The module is looked for in the current folder first, as Python itself does. Weights the function draws are drawn
    # under one seed, so that calling it twice gives one model.
    for name in ("tokenizer", "allow_pickle", "trust_remote_code", "allow_missing_weights"):
        if getattr(options, name):
            what = f"{spec} is a plain torch module"
            raise UsageError(f"{{argument}} is for Hugging Face models, and {what}; leave it out", argument=name)
    with seeded():
        build = _find(spec)
        model = _call(spec, build)
    files = own_files(
        {spec.partition(":")[0], str(inspect.unwrap(build).__module__)},
        {type(module).__module__ for module in model.modules()},
    )
    identity: dict[str, Any] = {
        "source": "function",
        "name": spec,
        "function": spec.rpartition(":")[2],
        "code": {name: hash_files([file])[file.name] for name, file in files.items()},
        "settings": hash_settings(model),
    }
    if options.checkpoint is None:
        identity["weights"] = {"state": hash_state(model)}
        identity["random_seed"] = DRAW_SEED
        notes: tuple[str, ...] = (f"{spec}: no checkpoint given, the weights are those the function returned",)
    else:
        path = Path(options.checkpoint).expanduser()
        load_weights(model, path)
        identity["checkpoint"] = options.checkpoint
        identity["weights"] = hash_files([path])
        notes = ()
    model.to(device=pick_device(options.device), dtype=pick_dtype(options.dtype)).eval()
    return LoadedModel(model, identity | describe(model), notes=notes)


def _find(spec: str) -> Callable[..., Any]:
    module_name, _, function_name = spec.partition(":")
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name + ".").startswith(error.name + "."):
            raise UsageError(
                f"{module_name} cannot be imported: it imports {error.name!r}, which is not installed"
            ) from error
        raise UsageError(
            f"no Python module {error.name!r}; run the command from the folder that holds it, or install it"
        ) from error
    except (Exception, SystemExit) as error:  # whatever a module of the user's own may do
        raise UsageError(
            f"{module_name} cannot be imported: {type(error).__name__}: {first_line(error)} (--debug shows where)"
        ) from error
    finally:
        sys.path.remove(here)
    build: Any = getattr(module, function_name, None)
    if not callable(build):
        close = difflib.get_close_matches(function_name, [n for n, v in vars(module).items() if callable(v)], n=1)
        raise UsageError(
            f"no function {function_name!r} in {module_name}; "
            + (f"did you mean {close[0]!r}?" if close else "name one that takes nothing and returns a torch module")
        )
    return cast("Callable[..., Any]", build)


def _call(spec: str, build: Callable[..., Any]) -> torch.nn.Module:
    try:
        inspect.signature(build).bind()
    except TypeError as error:
        raise UsageError(
            f"{spec} needs arguments ({first_line(error)}); give a function that takes none and returns the module"
        ) from error
    except ValueError:  # some built-in callables have no signature
        pass
    try:
        model = build()
    except (Exception, SystemExit) as error:
        raise UsageError(f"{spec} raised {type(error).__name__}: {first_line(error)} (--debug shows where)") from error
    if not isinstance(model, torch.nn.Module):
        raise UsageError(f"{spec} returned {type(model).__name__}, expected a torch.nn.Module")
    return model


def load_weights(model: torch.nn.Module, path: Path) -> None:
    """Load a ``safetensors`` file into a module, name by name and shape by shape."""
    from safetensors import SafetensorError
    from safetensors.torch import load_model

    if not path.is_file():
        raise UsageError(f"no checkpoint {path}; expected a .safetensors file")
    if path.suffix != ".safetensors":
        raise UsageError(
            f"{{argument}} reads .safetensors only, got {path.name}; convert it with safetensors.torch.save_model",
            argument="checkpoint",
        )
    try:
        missing, unexpected = load_model(model, path, strict=False)
    except SafetensorError as error:
        raise UsageError(f"{path} is not a readable safetensors file: {error}") from error
    except RuntimeError as error:
        sizes = [line.strip() for line in str(error).splitlines() if "size mismatch" in line]
        raise UsageError(f"{path.name} does not fit the module: {some(sizes or [str(error)])}") from error
    if missing or unexpected:
        parts = [
            f"{what} {some(sorted(names))}"
            for what, names in (("the file lacks", missing), ("the module lacks", unexpected))
            if names
        ]
        raise UsageError(f"{path.name} does not fit the module: {'; '.join(parts)}. Build the module it was saved from")


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
