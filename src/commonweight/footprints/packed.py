"""Masks kept as bits: one bit per weight, in memory and on disk, unpacked a tensor or a slice at a time."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import TYPE_CHECKING

from typing_extensions import override

from commonweight.base.errors import MeasurementError
from commonweight.footprints.slices import Sliceable
from commonweight.supermasks.bits import Bits

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor

BITS_PER_BYTE = 8


class Packed(Sliceable):
    """Masks by name that are kept as bits, eight to a byte, zeros at the end of the last; unpacked when asked for."""

    @abstractmethod
    def packed(self, name: str, start: int, stop: int) -> Tensor:
        """Give bytes ``start`` to ``stop`` of one mask, uint8; a mask of n bits has ``ceil(n / 8)`` of them."""

    @override
    def __getitem__(self, name: str) -> Tensor:
        shape = self.shape(name)
        return Bits(self.packed(name, 0, byte_count(shape)), shape).unpack()

    @override
    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Unpack a slice of one mask along its first dimension, from the bytes that hold it alone."""
        shape = self.shape(name)
        start, stop, _ = slice(start, stop).indices(shape[0])
        stop = max(start, stop)
        row = math.prod(shape[1:])
        first, last = start * row, stop * row
        packed = self.packed(name, first // BITS_PER_BYTE, -(-last // BITS_PER_BYTE))
        skipped = first % BITS_PER_BYTE
        bits = Bits(packed, (packed.numel() * BITS_PER_BYTE,)).unpack()
        return bits[skipped : skipped + last - first].reshape(stop - start, *shape[1:])


class PackedMasks(Packed):
    """Masks in memory, each unpacked when it is asked for.

    Args:
        bits: The masks by name; bytes on the CPU are shared, not copied.

    Raises:
        MeasurementError: If an unused bit at the end of a mask is on: bits are counted by bytes, and it would count.

    Example:
        >>> from torch import tensor
        >>> masks = PackedMasks({"fc.weight": Bits.of(tensor([[True, False, True]]))})
        >>> masks["fc.weight"], masks.nbytes
        (tensor([[ True, False,  True]]), 1)
    """

    def __init__(self, bits: Mapping[str, Bits]) -> None:
        self._bits = {name: Bits(each.packed.cpu(), each.shape) for name, each in bits.items()}
        for name, each in self._bits.items():
            unused = -math.prod(each.shape) % BITS_PER_BYTE
            if unused and int(each.packed[-1]) % 2**unused:
                raise MeasurementError(
                    f"{name} has {math.prod(each.shape)} bits, and bits behind the last one that are not 0: expected "
                    "zeros there; pack the mask with Bits.of(mask)"
                )

    @classmethod
    def of(cls, masks: Mapping[str, Tensor]) -> PackedMasks:
        """Pack masks."""
        for name, mask in masks.items():
            wrong = (mask != 0) & (mask != 1)
            if wrong.any():
                raise MeasurementError(
                    f"{name} holds {mask[wrong][0].item():g}: a mask holds only 0 and 1; keep the bits, not the scores"
                )
        return cls({name: Bits.of(mask.detach().bool()) for name, mask in masks.items()})

    @override
    def packed(self, name: str, start: int, stop: int) -> Tensor:
        return self._bits[name].packed[start:stop]

    @override
    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._bits[name].shape)

    @property
    def nbytes(self) -> int:
        """Bytes of memory that all masks take: one bit per weight, each mask rounded up to whole bytes."""
        return sum(bits.nbytes for bits in self._bits.values())

    def __iter__(self) -> Iterator[str]:
        return iter(self._bits)

    def __len__(self) -> int:
        return len(self._bits)

    def __contains__(self, name: object) -> bool:
        return name in self._bits


def byte_count(shape: tuple[int, ...]) -> int:
    """Tell how many bytes a packed mask takes."""
    return -(-math.prod(shape) // BITS_PER_BYTE)
