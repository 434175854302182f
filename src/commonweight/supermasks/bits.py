"""A mask at one bit per weight."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from commonweight.base.errors import UsageError


@dataclass(frozen=True, eq=False)
class Bits:
    """A boolean tensor, eight entries to the byte.

    Entries lie in row-major order, whatever the memory format of the mask was; the first of each eight is the highest
    bit of its byte (``numpy.packbits``), and the unused bits of the last byte are 0.

    Args:
        packed: The bytes. uint8, shape ``[ceil(n / 8)]``, on any device.
        shape: The mask's shape, with n entries.

    Raises:
        UsageError: If the bytes do not fit the shape.

    Example:
        >>> bits = Bits.of(torch.tensor([[True, False, True], [False, False, True]]))
        >>> bits.packed.tolist(), bits.shape, bits.count(), bits.nbytes
        ([164], (2, 3), 3, 1)
        >>> bits.unpack().tolist()
        [[True, False, True], [False, False, True]]
    """

    packed: Tensor
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        expected = -(-math.prod(self.shape) // 8)
        if self.packed.dtype != torch.uint8 or tuple(self.packed.shape) != (expected,):
            raise UsageError(
                f"expected {expected} bytes (uint8) for a mask of shape {list(self.shape)}, got {self.packed.dtype} of "
                f"shape {list(self.packed.shape)}; make them with Bits.of(mask)"
            )

    @classmethod
    def of(cls, mask: Tensor) -> Bits:
        """Pack a mask: boolean, any shape and memory format.

        Returns:
            Its bits, on the mask's device.

        Raises:
            UsageError: If it is not boolean.
        """
        if mask.dtype != torch.bool:
            raise UsageError(f"expected a boolean mask, got {mask.dtype}; compare the scores first")
        flat = mask.detach().reshape(-1).cpu().numpy()
        return cls(torch.from_numpy(np.packbits(flat)).to(mask.device), tuple(mask.shape))

    def unpack(self) -> Tensor:
        """Unpack the mask: boolean, of :attr:`shape`, contiguous, on the device of the bytes."""
        n = math.prod(self.shape)
        if self.packed.device.type == "cpu":
            return torch.from_numpy(np.unpackbits(self.packed.numpy(), count=n)).view(torch.bool).view(self.shape)
        return _on_device(self.packed, n).view(self.shape)

    def count(self) -> int:
        """Count the entries that are on."""
        return int(self.unpack().sum())

    @property
    def nbytes(self) -> int:
        """Bytes of memory: one for eight entries."""
        return self.packed.numel()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Bits):
            return NotImplemented
        return self.shape == other.shape and torch.equal(self.packed.cpu(), other.packed.cpu())

    __hash__ = None  # type: ignore[assignment]  # equality is by contents, and tensors may change


def _on_device(packed: Tensor, n: int) -> Tensor:
    places = torch.arange(7, -1, -1, dtype=torch.uint8, device=packed.device)
    each = packed[:, None].bitwise_right_shift(places).bitwise_and_(1)
    return each.view(-1)[:n].to(torch.bool)
