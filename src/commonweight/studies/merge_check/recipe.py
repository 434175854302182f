"""How to merge: the best merge as a recipe, also in the form of mergekit where that can express it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from commonweight.base.folders import write_whole
from commonweight.base.names import some
from commonweight.footprints.of_change import weights_of
from commonweight.footprints.slices import shape_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from commonweight.studies.merge_check.parents import Parents
    from commonweight.studies.merge_check.plan import Places
    from commonweight.studies.merge_check.results import MergeCheck

RECIPE, RECIPE_VERSION = "commonweight-recipe", 2
CHECKPOINTS = ("folder", "hub")
"""Where a model comes from that mergekit can read."""


def write_recipe(
    places: Places, parents: Parents, specs: Mapping[str, str], question: Mapping[str, Any], found: MergeCheck
) -> str:
    """Write the best merge of all models as a recipe; give the reason why there is none for mergekit, if so."""
    best = found.best
    scale = 1.0 if best.trial.scale is None else best.trial.scale
    weights = dict.fromkeys(best.members, 1.0 if best.trial.method == "task_arithmetic" else 1 / len(best.members))
    reason = _why_not(found, parents, question)
    record = {
        "format": RECIPE,
        "version": RECIPE_VERSION,
        "method": best.trial.method,
        "scale": best.trial.scale,
        "weights": weights,
        "models": question["models"],
        "initialisation": question["initialisation"],
        "fishers": {
            name: str(places.fisher(name, name).relative_to(places.run))
            for name in best.members
            if best.trial.method == "fisher"
        },
        "not_merged": found.beside.own,
        "no_mergekit": reason or None,
    }
    write_whole(places.recipe, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    if not reason:
        of_each = {name: weight * scale for name, weight in weights.items()}
        write_whole(places.mergekit, _for_mergekit(found, parents, specs, of_each))
    return reason


def _why_not(found: MergeCheck, parents: Parents, question: Mapping[str, Any]) -> str:
    method = found.best.trial.method
    if method == "fisher":
        return "mergekit has no average weighted by Fishers"
    sources = {name: identity["source"] for name, identity in question["models"].items()}
    if method == "task_arithmetic":
        sources["initialisation"] = question["initialisation"]["source"]
    if others := [name for name, source in sources.items() if source not in CHECKPOINTS]:
        return f"mergekit reads whole checkpoints, and {others[0]} is of the kind {sources[others[0]]}"
    shapes = {
        name: {key: tuple(weight.shape) for key, weight in loaded.model.named_parameters()}
        for name, loaded in parents.loaded.items()
    }
    first, *rest = shapes.values()
    if any(each != first for each in rest):
        return "mergekit merges heads as well, and these differ in shape"
    if method == "task_arithmetic":
        start = weights_of("initialisation", parents.initialisation)
        if lacking := [key for key, shape in first.items() if key not in start or shape_of(start, key) != shape]:
            return f"mergekit needs every weight in the initialisation, which has no {some(lacking)} of this shape"
    return ""


def _for_mergekit(found: MergeCheck, parents: Parents, specs: Mapping[str, str], weights: Mapping[str, float]) -> str:
    import yaml

    record: dict[str, Any] = {
        "merge_method": "linear",
        "models": [{"model": _place(specs[name]), "parameters": {"weight": each}} for name, each in weights.items()],
    }
    if found.best.trial.method == "task_arithmetic":
        record |= {
            "merge_method": "task_arithmetic",
            "base_model": _place(specs["initialisation"]),
            "parameters": {"normalize": False},
        }
    dtypes = {str(weight.dtype).removeprefix("torch.") for weight in parents.start.values()}
    record |= {"dtype": dtypes.pop()} if len(dtypes) == 1 else {}
    own = list(dict.fromkeys(name for names in found.beside.own.values() for name in names))
    lines = [f"# {found.best.name}, for mergekit-yaml"]
    if own:
        lines.append(f"# It merges {some(own)} too; the merges were scored with those of each model.")
    return "\n".join([*lines, yaml.safe_dump(record, sort_keys=False, allow_unicode=True)])


def _place(spec: str) -> str:
    """Name a checkpoint so that it is found from any folder."""
    folder = Path(spec).expanduser()
    return str(folder.resolve()) if folder.is_dir() else spec
