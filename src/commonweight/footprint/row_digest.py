"""A 64-bit digest of every row's content: the same in any batch, beside any padding and on any device.

Per tensor a sum of 64-bit words, each multiplied by an odd number of its own (multilinear hashing, modulo 2^64), whose
sum over a row's tensors is mixed. Not cryptographic: it tells rows apart, and hides nothing about them.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from commonweight.data.batching import IGNORED
from commonweight.footprint.batch import LABELS, Batch, leaves_of

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_WORDS = 8192
"""Words of 8 bytes that are looked at in one row of a tensor: of larger ones every second, every third, ..."""

MASK = "attention_mask"
DECODER = "decoder_"
_WEYL = 0x9E3779B97F4A7C15 - 2**64
_MIX = (0xFF51AFD7ED558CCD - 2**64, 0xC4CEB9FE1A85EC53 - 2**64)


def row_digests(batch: Batch) -> Tensor:
    """Digest the rows of a batch: every tensor with a row per example, and the labels, but not the source row.

    Where there is an ``attention_mask`` of two dimensions, of every tensor whose first two dimensions are its own only
    the attended positions count (``decoder_attention_mask`` for tensors named ``decoder_…``), and of labels per
    position those that are not ignored (-100).

    Args:
        batch: The batch, on any device.

    Returns:
        Int64, ``[size]``, on the CPU; equal for rows of equal content, and for others with a chance of about 2^-32 or
        less.

    Example:
        >>> from commonweight.footprint.batch import BatchReader
        >>> x = torch.tensor([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0]])
        >>> found = row_digests(BatchReader().read((x, torch.tensor([0, 1, 0])))).tolist()
        >>> found[0] == found[2], found[0] == found[1]
        (True, False)
    """
    total = torch.zeros(batch.size, dtype=torch.int64)
    with torch.no_grad():
        for path, tensor, attended in _parts(batch):
            found = _plain(tensor, path) if attended is None else _attended(tensor, attended, path)
            total += found.cpu()
    return _mixed(total)


def _parts(batch: Batch) -> Iterator[tuple[str, Tensor, Tensor | None]]:
    """Every tensor with a row per example, dense, and which of its positions count (None: all)."""
    leaves = [
        (path, leaf.detach() if leaf.layout == torch.strided else leaf.detach().to_dense())
        for path, leaf in leaves_of(batch.inputs)
        if isinstance(leaf, Tensor) and batch.is_rowwise(path, leaf)
    ]
    masks = {path: leaf != 0 for path, leaf in leaves if path.endswith(MASK) and leaf.dim() == 2}
    for path, leaf in leaves:
        mask = masks.get(f"/{DECODER}{MASK}" if path.startswith(f"/{DECODER}") else f"/{MASK}")
        yield path, leaf, mask if mask is not None and leaf.shape[:2] == mask.shape else None
    if batch.labels is not None:
        labels = batch.labels.detach()
        per_position = labels.dim() == 2 and not labels.is_floating_point()
        yield LABELS, labels, labels != IGNORED if per_position else None


def _plain(tensor: Tensor, path: str) -> Tensor:
    """Sum a row's words, each times a number of its place."""
    words = _words(tensor)
    keys = _keys(path, words.shape[1] + 1).to(words.device)
    # Floats often differ in high bits only, and a product carries nothing downwards.
    spread = words * _MIX[0]
    spread ^= spread >> 32
    return spread.mul_(keys[1 : words.shape[1] + 1]).sum(1).add_(keys[0] * words.shape[1])


def _attended(tensor: Tensor, mask: Tensor, path: str) -> Tensor:
    """Sum the positions that count, each times a number of its rank among them."""
    mask = mask.to(tensor.device)
    positions = _plain(tensor.flatten(0, 1), path).view(mask.shape)
    keys = _keys(f"{path} by position", mask.shape[1] + 1).to(tensor.device)
    ranks = mask.cumsum(1)  # from 1 where it counts
    return torch.where(mask, positions * keys[ranks], 0).sum(1) + keys[0] * ranks[:, -1]


def _words(tensor: Tensor) -> Tensor:
    """Read every row as 8-byte words, the last filled with zeros; of long rows a sample at even distances."""
    rows = tensor.flatten(1) if tensor.dim() > 1 else tensor[:, None]
    width = rows.shape[1]
    # A copy: rows need not lie in memory where words of 8 bytes may begin.
    words = torch.zeros(len(rows), -(-width * rows.itemsize // 8), dtype=torch.int64, device=rows.device)
    if width:
        words.view(rows.dtype)[:, :width] = rows
    return words[:, :: 1 + (words.shape[1] - 1) // MOST_WORDS] if words.shape[1] > MOST_WORDS else words


def _keys(path: str, count: int) -> Tensor:
    return _key_table(path, 1 << (count - 1).bit_length())


@lru_cache(maxsize=64)
def _key_table(path: str, count: int) -> Tensor:
    """Odd numbers that path and place decide: a longer table begins like a shorter one."""
    seed = int.from_bytes(hashlib.blake2b(path.encode(), digest_size=8).digest(), "little", signed=True)
    return _mixed(seed + _WEYL * torch.arange(count)) | 1


def _mixed(values: Tensor) -> Tensor:
    """Mix 64 bits so that every bit depends on all (the finaliser of MurmurHash3)."""
    for factor in _MIX:
        values = (values ^ _shifted(values)) * factor
    return values ^ _shifted(values)


def _shifted(values: Tensor) -> Tensor:
    return (values >> 33) & (2**31 - 1)
