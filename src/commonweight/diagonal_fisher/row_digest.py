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
from commonweight.diagonal_fisher.batch import LABELS, Batch, leaves_of

if TYPE_CHECKING:
    from collections.abc import Mapping

TILE = (8, 8192)
"""Rows, and words of 8 bytes of each, that are worked on at a time: few enough to stay in a processor's cache."""

MASK = "attention_mask"
DECODER = "decoder_"
PER_TOKEN = ("_ids", "_mask", "inputs_embeds")
"""How names of tensors end that hold one entry, or one vector, per token."""

_WEYL = 0x9E3779B97F4A7C15 - 2**64
_MIX = (0xFF51AFD7ED558CCD - 2**64, 0xC4CEB9FE1A85EC53 - 2**64)


def row_digests(batch: Batch) -> Tensor:
    """Digest the rows of a batch: every tensor with a row per example, and the labels, but not the source row."""
    # Where there is an attention_mask of two dimensions, only the attended positions count of the tensors beside it
    # whose names end in _ids, _mask or inputs_embeds and whose first two dimensions are its own
    # (decoder_attention_mask for names that begin with decoder_), each with its distance from the first. Of
    # whole-number labels per position those count that are not ignored (-100), with their positions in the text.
    # All else counts whole.
    total = torch.zeros(batch.size, dtype=torch.int64)
    with torch.no_grad():
        leaves = {
            path: leaf.detach() if leaf.layout == torch.strided else leaf.detach().to_dense()
            for path, leaf in leaves_of(batch.inputs)
            if isinstance(leaf, Tensor) and batch.is_rowwise(path, leaf)
        }
        masks = {path: leaf != 0 for path, leaf in leaves.items() if path.endswith(MASK) and leaf.dim() == 2}
        for path, leaf in leaves.items():
            mask = masks.get(_mask_beside(path)) if path.endswith(PER_TOKEN) else None
            if mask is not None and leaf.shape[:2] == mask.shape:
                total += _by_position(leaf, path, mask, mask).cpu()
            else:
                total += _whole(leaf, path).cpu()
        for path, leaf in leaves_of(batch.labels, LABELS):
            if isinstance(leaf, Tensor) and batch.is_rowwise(path, leaf):
                total += _of_labels(leaf.detach(), path, masks).cpu()
    return _mixed(total)


def _mask_beside(path: str) -> str:
    parent, _, name = path.rpartition("/")
    return f"{parent}/{DECODER if name.startswith(DECODER) else ''}{MASK}"


def _of_labels(labels: Tensor, path: str, masks: Mapping[str, Tensor]) -> Tensor:
    """Digest labels; those of positions by where they are in the text, or where no text is as wide, in their row."""
    if labels.dim() != 2 or labels.is_floating_point():
        return _whole(labels, path)
    texts = {path: mask.to(labels.device) for path, mask in masks.items() if mask.shape == labels.shape}
    text = texts[max(texts, key=lambda path: DECODER in path)] if texts else torch.ones_like(labels, dtype=torch.bool)
    return _by_position(labels, path, labels != IGNORED, text)


def _whole(tensor: Tensor, path: str) -> Tensor:
    """Sum a row's words, each times a number of its place."""
    rows = tensor.flatten(1) if tensor.dim() > 1 else tensor[:, None]
    count = -(-rows.shape[1] * rows.itemsize // 8)
    keys = _keys(path, count + 1).to(rows.device)
    found = torch.empty(len(rows), dtype=torch.int64, device=rows.device)
    height, width = TILE[0] * max(1, TILE[1] // max(1, count)), TILE[1] * 8 // rows.itemsize
    for top in range(0, len(rows), height):
        here = found[top : top + height].fill_(keys[0] * count)
        for left in range(0, rows.shape[1], width):
            words = _words(rows[top : top + height, left : left + width])
            start = 1 + left * rows.itemsize // 8
            # Floats often differ in high bits only, and a product carries nothing downwards.
            words *= _MIX[0]
            words ^= words >> 32
            words *= keys[start : start + words.shape[1]]
            here += words.sum(1)
    return found


def _by_position(tensor: Tensor, path: str, counted: Tensor, text: Tensor) -> Tensor:
    """Sum the positions that count, each times a number of its distance from where the text begins."""
    counted, text = counted.to(tensor.device), text.to(tensor.device)
    positions = _whole(tensor.flatten(0, 1), path).view(counted.shape)
    keys = _keys(f"{path} by position", counted.shape[1]).to(tensor.device)
    places = torch.arange(counted.shape[1], device=tensor.device) - text.int().argmax(1, keepdim=True)
    return torch.where(counted, positions * keys[places], 0).sum(1)


def _words(rows: Tensor) -> Tensor:
    """Copy rows as 8-byte words, the last filled with zeros: they need not lie where words may begin."""
    width = rows.shape[1]
    words = torch.zeros(len(rows), -(-width * rows.itemsize // 8), dtype=torch.int64, device=rows.device)
    words.view(rows.dtype)[:, :width] = rows
    return words


def _keys(path: str, count: int) -> Tensor:
    return _key_table(path, 1 << max(0, count - 1).bit_length())


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
