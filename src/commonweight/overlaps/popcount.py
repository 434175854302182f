"""The Gram matrix of packed masks: how many weights two masks both keep, 64 weights at a time.

``G_ij = popcount(x_i & x_j)``. No mask is unpacked: beside the masks there is one slice of each, and scratch of a few
megabytes per thread.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    Words = NDArray[np.uint64]
    Bytes = NDArray[np.uint8]

BLOCK = 1008
"""Words of 64 bits whose counts are summed in 16 bits: 1008 · 64 < 2¹⁶."""

ROWS = 100
"""Blocks that are compared at a time: these, and as much scratch, stay in the second cache."""

WORD_BYTES = 8

_ONES = np.array([bin(value).count("1") for value in range(2**16)], dtype=np.uint8)


def popcount_gram(slices: Iterable[Sequence[Bytes]], count: int) -> NDArray[np.int64]:
    """Sum ``X Xᵀ`` over slices of packed masks.

    Args:
        slices: For every slice, the bytes of each mask, uint8, all of one length; unused bits are 0.
        count: How many masks there are, n.

    Returns:
        ``[n, n]``, symmetric; ``G_ij`` is the number of weights that both masks keep.

    Example:
        >>> one, other = np.array([0b11100000], dtype=np.uint8), np.array([0b01110000], dtype=np.uint8)
        >>> popcount_gram([[one, other]], 2).tolist()
        [[3, 2], [2, 3]]
    """
    upper = np.zeros((count, count), dtype=np.int64)
    step = max(1, ROWS // count) * BLOCK * WORD_BYTES
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        for rows in slices:
            tiles = ([row[start : start + step] for row in rows] for start in range(0, len(rows[0]), step))
            upper += sum(threads.map(_tile_gram, tiles))
    return upper + np.triu(upper, 1).T


def _tile_gram(rows: Sequence[Bytes]) -> NDArray[np.int64]:
    """Compute the upper half of one tile's Gram matrix."""
    n, size = len(rows), len(rows[0])
    blocks = -(-size // (BLOCK * WORD_BYTES))
    padded = np.zeros((n, blocks * BLOCK * WORD_BYTES), dtype=np.uint8)
    for index, row in enumerate(rows):
        padded[index, :size] = row
    words = padded.view(np.uint64).reshape(n, blocks, BLOCK)
    scratch = np.empty((min(n, ROWS), blocks, BLOCK), dtype=np.uint64)
    counts = np.zeros((n, n, blocks), dtype=np.uint16)
    for start in range(0, n, ROWS):
        stop = min(start + ROWS, n)
        for i in range(stop):
            first = max(i, start)
            both = np.bitwise_and(words[first:stop], words[i], out=scratch[: stop - first])
            np.add.reduce(count_ones(both), axis=-1, dtype=np.uint16, out=counts[i, first:stop])
    gram: NDArray[np.int64] = counts.sum(axis=-1, dtype=np.int64)
    return gram


def _counted(words: Words) -> NDArray[np.uint8]:
    """Count the ones of each word, ``[..., w]``."""
    return np.bitwise_count(words)


def _looked_up(words: Words) -> NDArray[np.uint8]:
    """Count the ones of each 16 bits in a table, ``[..., 4w]``."""
    return _ONES[words.view(np.uint16)]


count_ones = _counted if np.lib.NumpyVersion(np.__version__) >= "2.0.0b1" else _looked_up
"""Counts per word or part of one, along the last axis; NumPy counts by itself from release 2 on."""
