"""Weights in pickle files, read only where the user trusts them: mapped into memory, restricted to plain tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from commonweight.decision.tensors import FLOATS, WHOLE, Facts, Tensors
from commonweight.errors import IntegrityError, UsageError
from commonweight.nn.identity import first_line

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

PATTERN = "pytorch_model*.bin"
"""Weights; other pickles of a folder are those of an optimizer or a trainer."""


def open_pickled(folder: Path, name: str) -> tuple[Tensors, dict[str, str]]:
    """Map the pickled weights of a checkpoint; the user has allowed it.

    Args:
        folder: The checkpoint.
        name: What errors call it.

    Returns:
        Its tensors, tied ones under their first name, and the file of each.

    Raises:
        UsageError: If there are no pickled weights, or they hold more than tensors.
        IntegrityError: If a name is there twice.
    """
    files = sorted(folder.glob(PATTERN))
    if not files:
        raise UsageError(f"{folder} has no weights; expected model.safetensors, its index, or {PATTERN}")
    held: dict[str, Tensor] = {}
    place: dict[str, str] = {}
    seen: set[tuple[Any, ...]] = set()
    for file in files:
        try:
            state = dict(torch.load(file, map_location="cpu", mmap=True, weights_only=True))
        except Exception as error:  # of whatever the file holds
            raise UsageError(f"{file} is damaged or holds no plain weights: {first_line(error)}") from error
        for key, tensor in state.items():
            if not isinstance(tensor, torch.Tensor) or tensor.dtype not in FLOATS | WHOLE:
                raise UsageError(f"{key} in {file} is no plain tensor that could be averaged; convert the checkpoint")
            if key in held:
                raise IntegrityError(f"{key} is in {place[key]} and in {file.name} of {folder}; copy it again")
            memory = (file, tensor.data_ptr(), tuple(tensor.shape), tensor.stride())
            if not tensor.numel() or memory not in seen:
                held[key], place[key] = tensor, file.name
            seen.add(memory)
    facts = {key: Facts(tuple(tensor.shape), tensor.dtype) for key, tensor in held.items()}
    return Tensors(name, facts, held.__getitem__), place
