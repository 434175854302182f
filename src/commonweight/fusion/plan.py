"""A fusion of checkpoints, planned: found, opened and checked as far as possible before any heavy work."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from commonweight.base.errors import NotComparableError
from commonweight.base.names import some
from commonweight.fusion.checkpoints import Checkpoint, find_sources, open_checkpoint
from commonweight.fusion.compatible import check_configs, check_same, check_vocabularies
from commonweight.fusion.fishers import fishers_for, open_footprints
from commonweight.fusion.fusion import Fusion, plan_fusion
from commonweight.fusion.initialisation import in_words, is_worrying, sample_of, shared_initialisation
from commonweight.fusion.layout import layout_of
from commonweight.models.identity import hash_files

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from commonweight.footprints.footprint import Footprint
    from commonweight.fusion.fishers import Fishers
    from commonweight.fusion.initialisation import Sample
    from commonweight.fusion.methods import Normalize, Recipe
    from commonweight.overlaps.alignment import Alignment


@dataclass(frozen=True)
class Plan:
    """A fusion of checkpoints that can go ahead."""

    fusion: Fusion
    checkpoints: tuple[Checkpoint, ...]
    identities: tuple[dict[str, Any], ...]
    """Of the checkpoints, and of the base behind them."""

    start: Alignment
    """How far apart the checkpoints are, the base among them."""

    base: Checkpoint | None = None
    footprints: Mapping[str, Footprint] | None = None
    notes: tuple[str, ...] = ()
    """What the user should hear, one sentence each."""


def plan_checkpoints(
    recipe: Recipe,
    models: Sequence[str | Path],
    *,
    base: str | Path | None = None,
    footprints: Sequence[Footprint | str | Path] | None = None,
    allow_pickle: bool = False,
) -> Plan:
    """Find checkpoints, and check everything that does not take all their numbers."""
    # Configurations, tokenizers, names, shapes and types are compared; the files are hashed, and a sample of every
    # weight
    # matrix tells whether there is a shared initialisation and whose Fisher each footprint is.
    sources = find_sources([*models, *([base] if base is not None else [])], allow_pickle=allow_pickle)
    every = [open_checkpoint(source, allow_pickle=allow_pickle) for source in sources]
    names = [checkpoint.source.name for checkpoint in every]
    opened = open_footprints(footprints) if footprints is not None else None
    notes = check_configs({checkpoint.source.name: checkpoint.config for checkpoint in every})
    notes += check_vocabularies({checkpoint.source.name: checkpoint.folder for checkpoint in every})
    _check_code(every)
    check_same([checkpoint.tensors for checkpoint in every])
    samples = [sample_of(checkpoint.tensors) for checkpoint in every]
    start = shared_initialisation(names, samples)
    checkpoints = every[: len(models)]
    tensors = [checkpoint.tensors for checkpoint in checkpoints]
    fishers = None
    if opened is not None and recipe.normalize is not None:
        fishers = _fishers(checkpoints, samples, opened, recipe.normalize)
    base_tensors = every[-1].tensors if base is not None else None
    fusion = plan_fusion(recipe, tensors, base_tensors, fishers)
    return Plan(
        fusion,
        tuple(checkpoints),
        tuple(source.identity() for source in sources),
        start,
        every[-1] if base is not None else None,
        opened,
        (*notes, *notes_on(fusion, start)),
    )


def _fishers(
    checkpoints: Sequence[Checkpoint],
    samples: Sequence[Sample],
    footprints: dict[str, Footprint],
    normalize: Normalize,
) -> Fishers:
    """Check and scale the Fishers, by the names in the files or, where these do not serve, by those of the class."""
    tensors = [checkpoint.tensors for checkpoint in checkpoints]
    try:
        return fishers_for(tensors, samples, footprints, normalize)
    except NotComparableError:
        layout = layout_of(checkpoints[0])
        if layout is None:
            raise
    parameters = [layout.as_parameters(model) for model in tensors]
    found = fishers_for(parameters, [sample_of(model) for model in parameters], footprints, normalize)
    return replace(found, layout=layout)


def notes_on(fusion: Fusion, start: Alignment) -> list[str]:
    """Collect what the user should hear of a fusion unasked."""
    notes = [in_words(start)] if is_worrying(start) else []
    if fusion.fishers is not None:
        notes += fusion.fishers.beware()
    if fusion.counters:
        notes.append(f"counts that differ are those of the first model: {some(fusion.counters)}")
    if fusion.without_fisher:
        notes.append(f"no Fisher covers these, so their average is the plain one: {some(fusion.without_fisher)}")
    if any(key.endswith("running_mean") for key in fusion.names) and len(fusion.models) > 1:
        notes.append(
            "running statistics of normalisation layers are averaged too; to be exact, measure them again by running "
            "the fused model over data in training mode"
        )
    return notes


def _check_code(checkpoints: Sequence[Checkpoint]) -> None:
    # The code of a checkpoint is copied, never run; copies must not mix two programs.
    code = {c.source.name: hash_files(sorted(c.folder.glob("*.py"))) for c in checkpoints if c.config.get("auto_map")}
    first = next(iter(code), None)
    for name, found in code.items():
        if first is not None and found != code[first]:
            raise NotComparableError(
                f"{first!r} and {name!r} come with different model code of their own; fuse models of one program"
            )
