"""The weights of one model, wherever they are: names, shapes and types at once, values one tensor at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from commonweight.base.errors import MeasurementError, UsageError
from commonweight.footprints.weight_sample import weight_sample

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor, nn

    from commonweight.footprints.weight_sample import Sample

FLOATS = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.float64})
"""What can be averaged."""

WHOLE = frozenset({torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64, torch.bool})
"""What must be equal in all models."""


@dataclass(frozen=True)
class Facts:
    """What is known of a tensor before it is read."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    is_buffer: bool = False
    """Known to be no parameter; a checkpoint does not say which of its tensors are buffers."""

    device: torch.device = field(default=torch.device("cpu"), compare=False)
    """Where it is read to."""

    @property
    def is_floating(self) -> bool:
        """Whether it can be averaged."""
        return self.dtype in FLOATS


@dataclass(frozen=True)
class Tensors:
    """The tensors of one model."""

    name: str
    """What errors call the model."""

    facts: Mapping[str, Facts]
    """Shape and type by name, in the order of the model."""

    read: Callable[[str], Tensor]
    """Reads one tensor; nothing of it is kept here."""

    def finite(self, key: str) -> Tensor:
        """Read one tensor that has to be finite."""
        tensor = self.read(key)
        if not is_finite(tensor):
            raise MeasurementError(
                f"{key} of {self.name!r} holds nan or infinity: expected finite weights, so nothing was fused. Leave "
                "this model out, or give a checkpoint from before its training broke"
            )
        return tensor

    def sample(self) -> Sample:
        """Take a fixed sample of every weight matrix, reading one at a time."""
        entries: dict[str, Tensor] = {}
        scale: dict[str, float] = {}
        for key, facts in self.facts.items():
            if facts.is_floating and len(facts.shape) > 1 and not facts.is_buffer:
                held, sizes = weight_sample([(key, self.finite(key))])
                entries |= held
                scale |= sizes
        return entries, scale


def of_module(model: nn.Module, name: str) -> Tensors:
    """Look at a module: its parameters, tied ones once, and its buffers, also those it does not save."""
    tensors = module_tensors(model)
    buffers = {key for key, _ in model.named_buffers()}
    if len(buffers) == len(tensors):
        raise UsageError(
            f"{name!r} is a {type(model).__name__} without parameters; give a model that has weights, a quantised one "
            "as it was before"
        )
    for key, tensor in tensors.items():
        if tensor.is_meta or isinstance(tensor, UninitializedParameter | UninitializedBuffer):
            raise UsageError(f"{key} of {name!r} has no values yet; load or initialise its weights first")
        if tensor.dtype not in FLOATS | WHOLE:
            raise UsageError(
                f"{key} of {name!r} is {tensor.dtype}, which cannot be averaged; expected ordinary floating point: "
                "convert the model first"
            )
    facts = {
        key: Facts(tuple(tensor.shape), tensor.dtype, key in buffers, tensor.device) for key, tensor in tensors.items()
    }
    return Tensors(name, facts, lambda key: tensors[key].detach())


def module_tensors(model: nn.Module) -> dict[str, Tensor]:
    """List the tensors that make a module what it is."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def are_equal(models: Sequence[Tensors], key: str) -> bool:
    """Tell whether a tensor is the same in all models."""
    first = models[0].read(key)
    return all(torch.equal(first, model.read(key).to(first.device)) for model in models[1:])


def is_finite(tensor: Tensor) -> bool:
    """Tell whether a floating tensor is free of nan and infinity, in one pass as a rule."""
    return math.isfinite(float(tensor.sum(dtype=torch.float32))) or bool(tensor.isfinite().all())
