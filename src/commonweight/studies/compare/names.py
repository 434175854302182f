"""What models and data are called in a comparison: as the user says, else after their last parts, told apart."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from commonweight.base.errors import UsageError
from commonweight.data.table import table_name
from commonweight.models.load import short_name
from commonweight.models.options import FUNCTION
from commonweight.studies.run.record import folder_name, same_identity

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NAME = re.compile(r"[^\W_][\w.+-]*")
"""A name the user may give: no slash, colon or at, so that paths and ids with an equals sign are not taken apart."""


@dataclass(frozen=True)
class Model:
    """One model of a comparison."""

    name: str
    spec: str
    """As for :func:`commonweight.models.load.load_model`."""

    checkpoint: str | None = None
    is_named: bool = False
    """Whether the user gave the name."""


def split_name(given: str) -> tuple[str | None, str]:
    """Split ``NAME=REST``, but not what exists under its whole name, nor after a slash, colon or at."""
    name, sign, rest = given.partition("=")
    if sign and rest and NAME.fullmatch(name) and not Path(given).expanduser().exists():
        return name, rest
    return None, given


def name_models(given: Sequence[str], checkpoints: Sequence[str] = ()) -> list[Model]:
    """Give every model a short name and its checkpoint; equal names get parts of their path until they differ."""
    split = [split_name(one) for one in given]
    specs = [spec for _, spec in split]
    files = _deal(specs, checkpoints)
    for (spec, file), count in Counter(zip(specs, files, strict=True)).items():
        if count > 1:
            raise UsageError(
                f"the model {spec!r} is given twice" + (f" with {file}" if file else "") + "; give each once"
            )
    for name, count in Counter(name for name, _ in split if name).items():
        if count > 1:
            raise UsageError(f"{count} models are called {name!r}; give each a name of its own")
    taken = {name for name, _ in split if name}
    names = [name or short_name(spec) for name, spec in split]
    trails = [[*_parts(spec), *([Path(file).stem] if file else [])] for spec, file in zip(specs, files, strict=True)]
    for parts in range(1, max(map(len, trails)) + 1):
        clashes = {name for name, count in Counter(names).items() if count > 1}
        names = [
            name or ("-".join(trail[-parts:]) if former in clashes else former)
            for (name, _), former, trail in zip(split, names, trails, strict=True)
        ]
        if len(set(names)) == len(names):
            break
    names = _apart([folder_name(name) for name in names], [name is not None for name, _ in split], taken)
    return [
        Model(name, spec, file, given_name is not None)
        for name, (given_name, spec), file in zip(names, split, files, strict=True)
    ]


def keep_names(
    models: Sequence[Model], identities: Sequence[Mapping[str, Any]], former: Mapping[str, Any]
) -> list[str]:
    """Let models that were in a run before keep the names they had there, whatever came beside them."""
    free = {name: identity for name, identity in former.items() if name not in {m.name for m in models if m.is_named}}
    names: list[str | None] = [model.name if model.is_named else None for model in models]
    for exact in (True, False):  # equal models keep the name they have now, if it was theirs
        for i, (model, identity) in enumerate(zip(models, identities, strict=True)):
            matches = [
                n for n, found in free.items() if (n == model.name or not exact) and same_identity(found, identity)
            ]
            if names[i] is None and matches:
                names[i] = matches[0]
                del free[matches[0]]
    settled = [name is not None for name in names]
    wanted = [name or model.name for name, model in zip(names, models, strict=True)]
    return _apart(wanted, settled, {name for name in names if name})


def named_data(given: Sequence[str]) -> list[tuple[str, str]]:
    """Split ``NAME=DATA``, and name what has no name after its last part; all names differ."""
    split = [split_name(one) for one in given]
    found = [(name or folder_name(table_name(spec)), spec) for name, spec in split]
    for name, count in Counter(name for name, _ in found).items():
        if count > 1:
            raise UsageError(f"{count} data sets are called {name!r}; name them apart: NAME=DATA")
    return found


def _apart(names: Sequence[str], settled: Sequence[bool], taken: set[str]) -> list[str]:
    found, used = [], set(taken)
    for name, is_settled in zip(names, settled, strict=True):
        free, count = name, 1
        while not is_settled and free in used:
            count += 1
            free = f"{name}-{count}"
        used.add(free)
        found.append(free)
    return found


def _parts(spec: str) -> list[str]:
    # The more of the last parts are kept, the more a name differs from others.
    path = Path(spec).expanduser()
    if path.exists():
        return [part for part in path.resolve().parts if part != "/"]
    return spec.replace(":", "/").split("/")


def _deal(specs: Sequence[str], checkpoints: Sequence[str]) -> list[str | None]:
    functions = [not Path(spec).expanduser().exists() and FUNCTION.fullmatch(spec) is not None for spec in specs]
    if checkpoints and len(checkpoints) != sum(functions):
        raise UsageError(
            f"{len(checkpoints)} {{argument}} for {sum(functions)} module:function models; give one for each, in order",
            argument="checkpoints",
        )
    waiting = iter(checkpoints)
    return [next(waiting, None) if is_function else None for is_function in functions]
