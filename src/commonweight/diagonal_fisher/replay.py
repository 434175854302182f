"""Run one module again, one example at a time: for modules without a rule, at a fraction of the whole model's cost.

Kept from the batched pass are the module's arguments and the gradients of its outputs; for every example the module
alone runs forward on that example's slice and its own parameters are differentiated. This covers class tokens, position
tables, attention with packed projections, recurrent layers, norms written by hand, parametrised layers and adapters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils.stateless import _reparametrize_module

from commonweight.diagonal_fisher.batch import leaves_of, map_leaves, map_tensors

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class RefusedError(Exception):
    """A rule cannot read this call; the parameter takes another route."""


@dataclass
class ModuleCall:
    """One call of a module: its arguments until the gradients of its outputs arrive."""

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    versions: list[int]

    @classmethod
    def of(cls, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> ModuleCall:
        """Keep a call."""
        args, kwargs = map_tensors((args, dict(kwargs)), Tensor.detach)
        return cls(module, args, kwargs, [tensor._version for tensor in tensors_in((args, kwargs))])

    def shared(self, size: int) -> frozenset[str]:
        """Name the arguments that cannot have one row per example, by their paths."""
        return frozenset(
            path
            for path, leaf in leaves_of((self.args, self.kwargs))
            if isinstance(leaf, Tensor) and (not leaf.dim() or leaf.shape[0] != size)
        )

    def gradients(
        self,
        example: int,
        size: int,
        shared: frozenset[str],
        parameters: Mapping[str, Tensor],
        output_gradients: Sequence[Tensor | None],
    ) -> dict[str, Tensor]:
        """Differentiate the module on one example."""

        def pick(tensor: Tensor, path: str) -> Tensor:
            rowwise = tensor.dim() > 0 and tensor.shape[0] == size and path not in shared
            return tensor[example : example + 1] if rowwise else tensor

        leaves = {name: value.detach().requires_grad_() for name, value in parameters.items()}
        arguments = map_leaves((self.args, self.kwargs), pick)
        return self._differentiate(leaves, arguments, size, output_gradients, slice(example, example + 1))

    def gradients_together(
        self, size: int, parameters: Mapping[str, Tensor], output_gradients: Sequence[Tensor | None]
    ) -> dict[str, Tensor]:
        """Differentiate the module on the whole batch, its parameters ``[1, ...]`` repeated for every example."""
        leaves = {
            name: value.detach().repeat(size, *[1] * (value.dim() - 1)).requires_grad_()
            for name, value in parameters.items()
        }
        return self._differentiate(leaves, (self.args, self.kwargs), size, output_gradients, slice(None))

    def _differentiate(
        self,
        leaves: dict[str, Tensor],
        arguments: tuple[Any, Any],
        size: int,
        output_gradients: Sequence[Tensor | None],
        rows: slice,
    ) -> dict[str, Tensor]:
        if self.versions != [tensor._version for tensor in tensors_in((self.args, self.kwargs))]:
            raise RefusedError("its input was changed in place after the call")
        args, kwargs = arguments
        # The module's own computation, without the hooks of its users: gradients are those before them.
        with torch.enable_grad(), _reparametrize_module(self.module, leaves):
            outputs = [each for each in tensors_in(self.module.forward(*args, **kwargs)) if each.is_floating_point()]
        if len(outputs) != len(output_gradients):
            raise RefusedError("it returns another number of tensors for one example")
        reached, weights = [], []
        for output, gradient in zip(outputs, output_gradients, strict=True):
            if gradient is None or not output.requires_grad:
                continue
            own = gradient[rows]
            if gradient.shape[0] != size or own.shape != output.shape:
                raise RefusedError(f"its output has shape {list(gradient.shape)} in a batch of {size} examples")
            reached.append(output)
            weights.append(own)
        if not reached:
            return {}
        found = torch.autograd.grad(reached, list(leaves.values()), weights, allow_unused=True)
        return {name: gradient for name, gradient in zip(leaves, found, strict=True) if gradient is not None}


def tensors_in(value: Any) -> list[Tensor]:
    """List the tensors in nested mappings, tuples and lists, in order."""
    return [leaf for _, leaf in leaves_of(value) if isinstance(leaf, Tensor)]
