"""Where a model computes and in which precision."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, get_args

import torch

from commonweight.base.errors import UsageError
from commonweight.models.options import Dtype

if TYPE_CHECKING:
    from collections.abc import Iterator

STORED = "auto"
"""The precision the checkpoint is stored in."""

DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in get_args(Dtype) if name != STORED}


def pick_device(name: str = "auto") -> torch.device:
    """Turn an option into a device: ``auto`` (CUDA if there is one), ``cpu``, ``cuda``, ``cuda:1`` or ``mps``."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in {"cpu", "cuda", "mps"}:
        raise UsageError(f"{{argument}} must be auto, cpu, cuda, cuda:N or mps, got {name!r}", argument="device")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"{{argument}} {name}: this machine has {torch.cuda.device_count()} CUDA devices; use auto",
            argument="device",
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UsageError("{argument} mps: this machine has no MPS device; use auto", argument="device")
    return device


def pick_dtype(name: str = "float32") -> torch.dtype | None:
    """Turn an option into a precision; ``auto``, as the checkpoint is stored, is None."""
    if name == STORED:
        return None
    if name not in DTYPES:
        expected = f"{STORED} or one of {', '.join(DTYPES)}"
        raise UsageError(f"{{argument}} must be {expected}, got {name!r}", argument="dtype")
    return DTYPES[name]


DRAW_SEED = 0


@contextlib.contextmanager
def seeded() -> Iterator[None]:
    """Seed torch's generator of the processor with :data:`DRAW_SEED`; on leaving its former state is back."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(DRAW_SEED)
        yield
