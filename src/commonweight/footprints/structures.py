"""Footprints by named structures: parameters seen as pieces that belong to a head, a neuron, an expert."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from commonweight.base.choices import STRUCTURES
from commonweight.base.errors import NotComparableError, UsageError
from commonweight.base.names import some
from commonweight.footprints.footprint import Fold, Footprint, Spread, by_layer, layer_of
from commonweight.footprints.slices import Sliceable, part_of, shape_of
from commonweight.models.architectures import ARCHITECTURES, Piece, pieces_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from commonweight.base.choices import Structure

Rule = Callable[[str, tuple[int, ...]], Sequence[Piece]]
"""From the name and shape of a parameter to its pieces; empty for one that stays whole."""

Place = tuple[str, Piece | None]
"""A name, and a piece; None for a parameter that is whole."""


def by_structure(footprint: Footprint, structure: Structure | Rule) -> Footprint:
    """See a footprint by heads, neurons or experts: their weights take the place of the parameters that hold them.

    Every structure becomes a layer, such as ``encoder.layer.0.attention.head.3`` with the rows of query, key and value
    and the columns of the output matrix; all other parameters stay. Nothing is computed: numbers, folds and totals are
    those of the parameters.

    Args:
        footprint: Of a model whose architecture is known: BERT, RoBERTa, DistilBERT, GPT-2, Llama, Mistral, Mixtral or
            ViT of transformers, measured by this release. For a rule of one's own any.
        structure: ``head`` (where keys and values are shared by heads, these are a ``key_value_head``), ``qkv`` (parts
            of a fused matrix), ``neuron`` of a feed-forward layer, ``expert``; or a rule, which takes a parameter's
            name and shape and gives its pieces.

    Returns:
        A footprint of the same kind, read from the other when it is asked for.

    Raises:
        UsageError: If there is no such structure, or the pieces of a rule overlap, leave gaps, or share a name.
        NotComparableError: If the architecture is not known, or has no such structure.

    Example:
        >>> from torch import tensor
        >>> whole = Footprint("fisher", {"fc.weight": tensor([[1.0, 2.0], [3.0, 4.0]])}, 8)
        >>> def rows(name, shape):
        ...     return [Piece(f"fc.unit.{i}", "weight", 0, i, i + 1) for i in range(shape[0])]
        >>> {name: each.tolist() for name, each in by_structure(whole, rows).items()}
        {'fc.unit.0.weight': [[1.0, 2.0]], 'fc.unit.1.weight': [[3.0, 4.0]]}
    """
    rule = structure if callable(structure) else _rule_of(structure, footprint.metadata.get("architecture"))
    places: dict[str, Place] = {}
    parts: dict[str, int] = {}
    for parameter in footprint:
        shape = shape_of(footprint.tensors, parameter)
        pieces = list(rule(parameter, shape))
        _check(parameter, shape, pieces)
        parts[parameter] = max(1, len(pieces))
        named: list[Place] = [(f"{each.structure}.{each.part}", each) for each in pieces]
        for name, piece in named or [(parameter, None)]:
            if name in places:
                raise UsageError(f"{name!r} is a part of {places[name][0]} and of {parameter}; name them apart")
            places[name] = parameter, piece
    if all(piece is None for _, piece in places.values()):
        what = f"{structure}s" if isinstance(structure, str) else "pieces by this rule"
        raise NotComparableError(f"no parameter of {some(footprint.names)} has {what}; look at footprint.names")
    return _seen(footprint, places, parts)


def _rule_of(structure: Structure, architecture: Mapping[str, Any] | None) -> Rule:
    if structure not in STRUCTURES:
        raise UsageError(f"a structure is one of {', '.join(STRUCTURES)}, or a rule, got {structure!r}")
    if architecture is None:
        raise NotComparableError(
            f"which weights belong to which {structure} is told by the configuration of a Hugging Face model, and "
            "this footprint records none; measure it again, or give a rule of your own in Python: "
            "overlap(..., structure=rule)"
        )
    known = ARCHITECTURES.get(architecture["model_type"], {})
    if structure not in known:
        having = ", ".join(name for name, each in ARCHITECTURES.items() if structure in each)
        raise NotComparableError(
            f"which weights of {architecture['model_type']} belong to which {structure} is not known, only of "
            f"{having}; give a rule of your own in Python: overlap(..., structure=rule)"
        )
    return lambda name, shape: pieces_of(architecture, structure, name, shape)


def _check(parameter: str, shape: tuple[int, ...], pieces: Sequence[Piece]) -> None:
    """Check that pieces cover a parameter, each weight once."""
    if not pieces:
        return
    axis, ends = pieces[0].axis, sorted((each.start, each.stop) for each in pieces)
    joined = [0, *(stop for _, stop in ends)]
    if (
        any(each.axis != axis for each in pieces)
        or axis not in range(min(len(shape), 2))
        or joined[-1] != shape[axis]
        or any(start != before or stop <= start for (start, stop), before in zip(ends, joined, strict=False))
    ):
        raise UsageError(
            f"the pieces of {parameter!r}, of shape {list(shape)}, must hold each of its rows (axis 0) or columns "
            f"(axis 1) once, got {', '.join(f'{start} to {stop}' for start, stop in ends)} of axis {axis}"
        )


def _seen(footprint: Footprint, places: Mapping[str, Place], parts: Mapping[str, int]) -> Footprint:
    """See tensors and folds by pieces; each has the weight sample of its parameter, and its share of the scale."""
    scale = footprint.metadata.get("weight_sample_scale", {})
    sampled = {name: parameter for name, (parameter, _) in places.items() if parameter in footprint.weight_sample}
    scales = {name: scale.get(parameter, 1.0) / parts[parameter] for name, parameter in sampled.items()}
    cut = {layer_of(parameter) for parameter, piece in places.values() if piece is not None}
    return replace(
        footprint,
        tensors=_Pieces(footprint.tensors, places, footprint.spread),
        metadata={**footprint.metadata, "weight_sample_scale": scales},
        folds=tuple(Fold(fold.count, _Pieces(fold.tensors, places)) for fold in footprint.folds),
        weight_sample={name: footprint.weight_sample[parameter] for name, parameter in sampled.items()},
        spread={layer: spread for layer, spread in footprint.spread.items() if layer not in cut},
    )


def spread_of(footprint: Footprint, traces: Mapping[str, float]) -> dict[str, Spread]:
    """Say how the trace of each layer is spread; a structure has the smallest sample size of the layers it is from."""
    found, pieces = dict(footprint.spread), footprint.tensors
    if not isinstance(pieces, _Pieces):
        return found
    for layer, names in by_layer(traces).items():
        total = footprint.count * math.fsum(traces[name] for name in names)
        sizes = [each.effective_sample_size if each else math.nan for each in map(pieces.spread_at, names)]
        if layer not in found and total > 0 and all(size > 0 for size in sizes):
            found[layer] = Spread(total, total * total / min(sizes))
    return found


class _Pieces(Sliceable):
    """Pieces of tensors; the tensor whose columns are read stays in memory until another one is asked for."""

    def __init__(
        self, whole: Mapping[str, Tensor], places: Mapping[str, Place], spread: Mapping[str, Spread] | None = None
    ) -> None:
        self._whole, self._places, self._spread = whole, places, spread or {}
        self._held: tuple[str, Tensor] | None = None

    def spread_at(self, name: str) -> Spread | None:
        """Say how the trace of the layer is spread that a piece is from."""
        return self._spread.get(layer_of(self._places[name][0]))

    @override
    def __getitem__(self, name: str) -> Tensor:
        parameter, piece = self._places[name]
        if piece is None:
            return self._whole[parameter]
        if piece.axis == 0:
            return part_of(self._whole, parameter, piece.start, piece.stop)
        held = self._held
        if held is None or held[0] != parameter:
            held = self._held = (parameter, self._whole[parameter])
        return held[1][:, piece.start : piece.stop]

    @override
    def rows(self, name: str, start: int, stop: int) -> Tensor:
        parameter, piece = self._places[name]
        if piece is None:
            return part_of(self._whole, parameter, start, stop)
        if piece.axis == 0:
            return part_of(self._whole, parameter, piece.start + start, min(piece.start + stop, piece.stop))
        return part_of(self._whole, parameter, start, stop)[:, piece.start : piece.stop]

    @override
    def shape(self, name: str) -> tuple[int, ...]:
        parameter, piece = self._places[name]
        shape = shape_of(self._whole, parameter)
        if piece is None:
            return shape
        return (*shape[: piece.axis], piece.stop - piece.start, *shape[piece.axis + 1 :])

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, name: object) -> bool:
        return name in self._places
