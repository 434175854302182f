"""Sets of weights at one bit each: the largest entries of a map, and what two such sets have in common."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from commonweight.base.errors import UsageError
from commonweight.base.seeds import keyed
from commonweight.footprints.packed import PackedMasks
from commonweight.footprints.slices import shape_of, slices
from commonweight.supermasks.bits import Bits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from torch import Tensor

    from commonweight.footprints.footprint import Footprint

HALF = 16
"""Bits of a float32 that one pass over the map counts."""


def top_set(footprint: Footprint, fraction: float, parameters: Sequence[str] | None = None) -> PackedMasks:
    """Choose the weights whose entries are largest in size, over all parameters together.

    Args:
        footprint: The map, such as a saliency, a Fisher or a change (of which the size counts, not the sign). It is
            read a slice at a time, three times; entries are ordered as float32.
        fraction: The share of all weights to choose, above 0 and at most 1.
        parameters: Choose among these alone; None for all.

    Returns:
        The set, bits by parameter. Of entries that are equal, those that come first are chosen. Weights whose entry is
        0 are never chosen, so there may be fewer.

    Raises:
        UsageError: If the fraction is not above 0 and at most 1.

    Example:
        >>> from torch import tensor
        >>> from commonweight.footprints.footprint import Footprint
        >>> found = top_set(Footprint("change", {"a": tensor([0.1, -3.0]), "b": tensor([2.0, 0.0])}, 0), 0.5)
        >>> found["a"].tolist(), found["b"].tolist()
        ([False, True], [True, False])
    """
    if not 0 < fraction <= 1:
        raise UsageError(f"a fraction of the weights must be above 0 and at most 1, got {fraction!r}")
    names = footprint.names if parameters is None else tuple(parameters)
    sizes = {name: math.prod(shape_of(footprint.tensors, name)) for name in names}
    wanted = max(1, round(fraction * sum(sizes.values())))

    def each(name: str) -> Iterator[Tensor]:
        return (_ordered(part) for part in slices(footprint.tensors, name))

    upper, above = _place(each, names, wanted, lambda keys: keys >> HALF)
    lower, above_lower = _place(each, names, wanted - above, lambda keys: (keys & (2**HALF - 1))[keys >> HALF == upper])
    threshold, left = (upper << HALF) + lower, wanted - above - above_lower
    masks = {}
    for name in names:
        bits = []
        for keys in each(name):
            chosen = keys > threshold
            if threshold > 0 and left > 0:
                equal = (keys == threshold).nonzero().squeeze(-1)[:left]
                chosen[equal] = True
                left -= len(equal)
            bits.append(chosen)
        flat = torch.cat(bits) if bits else torch.zeros(0, dtype=torch.bool)
        masks[name] = Bits.of(flat.reshape(shape_of(footprint.tensors, name)))
    return PackedMasks(masks)


def _ordered(values: Tensor) -> Tensor:
    """Read sizes of float32 as whole numbers, which have the same order."""
    return values.detach().cpu().float().abs().contiguous().view(torch.int32)


def _place(
    each: Callable[[str], Iterator[Tensor]], names: Sequence[str], wanted: int, digits: Callable[[Tensor], Tensor]
) -> tuple[int, int]:
    """Find the digit at which the wanted number of entries is reached from above, and how many lie above it."""
    counts = torch.zeros(2**HALF, dtype=torch.int64)
    for name in names:
        for keys in each(name):
            counts += torch.bincount(digits(keys).long(), minlength=2**HALF)
    from_above = counts.flip(0).cumsum(0)
    found = int(torch.searchsorted(from_above, wanted).clamp_max(2**HALF - 1))
    digit = 2**HALF - 1 - found
    return digit, int(from_above[found] - counts[digit])


def combined(first: PackedMasks, second: PackedMasks, how: Callable[[Tensor, Tensor], Tensor]) -> PackedMasks:
    """Combine two sets byte by byte."""
    shapes = {name: first.shape(name) for name in first}
    return PackedMasks({
        name: Bits(how(_bytes(first, name), _bytes(second, name)), shape) for name, shape in shapes.items()
    })


def both(first: PackedMasks, second: PackedMasks) -> PackedMasks:
    """Take what is in both sets."""
    return combined(first, second, torch.bitwise_and)


def only(first: PackedMasks, second: PackedMasks) -> PackedMasks:
    """Take what is in the first set and not in the second."""
    return combined(first, second, lambda a, b: a & ~b)


def either(first: PackedMasks, second: PackedMasks) -> PackedMasks:
    """Take what is in one set or the other, or in both."""
    return combined(first, second, torch.bitwise_or)


def complement(chosen: PackedMasks) -> PackedMasks:
    """Take all weights that are not in a set."""
    return PackedMasks({name: Bits.of(~chosen[name]) for name in chosen})


def _bytes(masks: PackedMasks, name: str) -> Tensor:
    return masks.packed(name, 0, -(-math.prod(masks.shape(name)) // 8))


def size(chosen: PackedMasks) -> int:
    """Count the weights of a set."""
    return sum(int(np.bitwise_count(_bytes(chosen, name).numpy()).sum()) for name in chosen)


def equal_parts(
    first: PackedMasks, second: PackedMasks, seed: int, bins: Mapping[str, Tensor] | None = None
) -> tuple[PackedMasks, PackedMasks]:
    """Draw from two sets a part of each with equally many weights in every parameter, as many as the smaller has.

    Args:
        first: One set.
        second: The other.
        seed: Names the draw.
        bins: Number of a bin for every weight of each parameter: then equally many in every bin. None for one bin.

    Returns:
        The part of each.
    """
    parts: tuple[dict[str, Bits], dict[str, Bits]] = ({}, {})
    for number, name in enumerate(first):
        whole = [masks[name].flatten() for masks in (first, second)]
        groups: dict[tuple[int, ...], list[Tensor]] = {(): whole}
        if bins is not None:
            of = bins[name].flatten()
            groups = {(each,): [mask & (of == each) for mask in whole] for each in of.unique().tolist()}
        for side, part in enumerate(parts):
            chosen = torch.zeros_like(whole[side])
            for group, flat in groups.items():
                count = min(int(each.sum()) for each in flat)
                chosen |= drawn(flat[side], count, keyed(seed, number, side, *group))
            part[name] = Bits.of(chosen.reshape(first.shape(name)))
    return PackedMasks(parts[0]), PackedMasks(parts[1])


def drawn(among: Tensor, count: int, seed: int) -> Tensor:
    """Draw some of the weights that are on in a flat mask, without replacement."""
    places = among.nonzero().squeeze(-1)
    chosen = torch.zeros(len(among), dtype=torch.bool)
    picked = np.random.default_rng(seed).choice(len(places), count, replace=False, shuffle=False)
    chosen[places[torch.from_numpy(picked)]] = True
    return chosen


@dataclass(frozen=True)
class Sets:
    """The sets of one fraction: what each model's map chooses, and of two models what both choose or only one."""

    own: Mapping[str, PackedMasks]
    """By model: one, or two."""

    @property
    def shared(self) -> str:
        """Name of the set that both maps choose; empty where there is one model."""
        return "∩".join(self.own) if len(self.own) > 1 else ""

    def only(self, model: str) -> str:
        """Name of the set that a model's map chooses and the other does not; empty where there is one model."""
        return f"only {model}" if len(self.own) > 1 else ""

    def other(self, model: str) -> str:
        """Name of the other model; empty where there is none."""
        return next((name for name in self.own if name != model), "")

    @property
    def named(self) -> dict[str, PackedMasks]:
        """Every set by its name: ``A``; of two models also ``A∩B``, ``only A`` and ``only B``."""
        if len(self.own) < 2:
            return dict(self.own)
        (a, first), (b, second) = self.own.items()
        shared = {self.shared: both(first, second)}
        return {**self.own, **shared, self.only(a): only(first, second), self.only(b): only(second, first)}

    @property
    def every(self) -> PackedMasks:
        """All weights that a map chooses."""
        first, *rest = self.own.values()
        return either(first, rest[0]) if rest else first
