"""How the tensors of a checkpoint become the parameters of its class: other names, other shapes, the same numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import torch

from commonweight.fusion.tensors import Tensors
from commonweight.models.checkpoint import load_config, model_class_of, quiet_transformers
from commonweight.models.placement import seeded

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, nn

    from commonweight.fusion.checkpoints import Checkpoint


class Piece(NamedTuple):
    """Entries that a parameter and a stored tensor have in common."""

    parameter: str
    stored: str
    there: Tensor | slice
    """Their places in the parameter, flat."""

    here: Tensor | slice
    """Their places in the stored tensor, flat, in the same order."""


@dataclass(frozen=True)
class Layout:
    """Which entries of which stored tensors a class reads as its parameters."""

    of_parameter: Mapping[str, Sequence[Piece]]
    of_stored: Mapping[str, Sequence[Piece]]
    shapes: Mapping[str, tuple[int, ...]]
    """Of the parameters."""

    def as_parameters(self, model: Tensors) -> Tensors:
        """Look at a checkpoint as its class does."""
        facts = {
            name: replace(model.facts[pieces[0].stored], shape=self.shapes[name])
            for name, pieces in self.of_parameter.items()
        }

        def read(name: str) -> Tensor:
            whole = torch.empty(math.prod(self.shapes[name]), dtype=facts[name].dtype)
            for piece in self.of_parameter[name]:
                whole[piece.there] = model.read(piece.stored).reshape(-1)[piece.here]
            return whole.reshape(self.shapes[name])

        return Tensors(model.name, facts, read)


def layout_of(checkpoint: Checkpoint) -> Layout | None:
    """Find out how the class of a checkpoint reads its tensors: it loads running numbers in their place."""
    # Meanwhile that takes the memory of the model in float64. No code of the checkpoint's own is run.
    keys = [key for key, fact in checkpoint.tensors.facts.items() if fact.is_floating]
    shapes = [checkpoint.tensors.facts[key].shape for key in keys]
    starts = torch.tensor([0, *map(math.prod, shapes)]).cumsum(0)
    numbers = {
        key: torch.arange(start, start + math.prod(shape), dtype=torch.float64).reshape(shape)
        for key, shape, start in zip(keys, shapes, starts.tolist(), strict=False)
    }
    try:
        model, info = _loaded(str(checkpoint.folder), numbers)
    except Exception:  # whatever a class may raise: then the names in the files are the only ones known
        return None
    absent = set(info["missing_keys"])
    parameters = {name: p.detach() for name, p in model.named_parameters() if name not in absent}
    pieces: list[Piece] = []
    seen = torch.zeros(int(starts[-1]), dtype=torch.bool)
    for name, parameter in parameters.items():
        found, there = parameter.reshape(-1).long().sort()
        if found.numel() and not (int(found[0]) >= 0 and int(found[-1]) < len(seen)):
            return None
        seen[found] = True
        owners, counts = (torch.bucketize(found, starts, right=True) - 1).unique_consecutive(return_counts=True)
        parts = zip(found.split(counts.tolist()), there.split(counts.tolist()), strict=True)
        for owner, (part, places) in zip(owners.tolist(), parts, strict=True):
            here = _places(part - starts[owner], math.prod(shapes[owner]))
            pieces.append(Piece(name, keys[owner], _places(places, parameter.numel()), here))
    if int(seen.sum()) < sum(parameter.numel() for parameter in parameters.values()):
        return None  # some number is there twice: made anew, not moved
    if all(piece.parameter == piece.stored and isinstance(piece.there, slice) for piece in pieces):
        return None
    of_parameter: dict[str, list[Piece]] = {}
    of_stored: dict[str, list[Piece]] = {}
    for piece in pieces:
        of_parameter.setdefault(piece.parameter, []).append(piece)
        of_stored.setdefault(piece.stored, []).append(piece)
    return Layout(of_parameter, of_stored, {name: tuple(p.shape) for name, p in parameters.items()})


def _loaded(folder: str, numbers: Mapping[str, Tensor]) -> tuple[nn.Module, Mapping[str, Sequence[str]]]:
    with quiet_transformers(), seeded():
        config = load_config(folder, None, trust=False)
        model, info = model_class_of(folder, config, None, trust=False).from_pretrained(
            None,
            config=config,
            state_dict=dict(numbers),
            dtype=torch.float64,
            output_loading_info=True,
            trust_remote_code=False,
        )
    return model, info


def _places(places: Tensor, size: int) -> Tensor | slice:
    """Say it shorter where the places are all there are, in their order."""
    return slice(None) if torch.equal(places, torch.arange(size)) else places
