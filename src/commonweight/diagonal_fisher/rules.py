"""One rule per layer type: from a call's input ``x`` and output gradient ``g`` to per-example gradients.

``RULES``, at the end, is the whole table, and takes entries for layers of your own. A rule may only be trusted for
modules that compute what the named class computes, so a type is matched with its own ``forward`` only (a subclass that
inherits it unchanged counts), and every rule is verified on real rows before a measurement. ``x`` and ``g`` come with
the batch as their first dimension, or with a multiple of it in batch-major order (windows, flattened tokens), which
:func:`by_example` folds back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from torch.nn.utils.stateless import _reparametrize_module

from commonweight.diagonal_fisher.contribution import CHUNK, Contribution, Dense, Kernel, Product, Sparse
from commonweight.diagonal_fisher.replay import RefusedError
from commonweight.footprints.folds import accurate

Rule = Callable[[nn.Module, str, Tensor, Tensor, int], Contribution]
"""``(module, attribute, x, g, batch size) -> contribution``: ``x`` is what the module was called on, ``g`` the gradient
of its output; the contribution stands for one gradient of ``module.<attribute>`` per example."""


def by_example(tensor: Tensor, size: int, event: int = 1) -> Tensor:
    """Lay a layer's input or output gradient out by example and position.

    Args:
        tensor: ``[B, ..., *event]``, or with a multiple of B as first dimension, in batch-major order.
        size: B, the number of examples.
        event: How many trailing dimensions belong to one position.

    Returns:
        ``[B, T, *event]``, in float32 (float64 for float64).

    Raises:
        RefusedError: If the first dimension is no multiple of B: the parameter is then measured in another way.

    Example:
        >>> by_example(torch.ones(6, 4), 2).shape
        torch.Size([2, 3, 4])
    """
    if tensor.dim() <= event or tensor.shape[0] % size:
        raise RefusedError(f"its input has first dimension {tensor.shape[0]} in a batch of {size} examples")
    return tensor.reshape(size, -1, *tensor.shape[tensor.dim() - event :]).to(accurate(tensor.dtype))


def _linear_weight(module: nn.Module, attribute: str, x: Tensor, g: Tensor, size: int) -> Contribution:
    return Product(by_example(g, size), by_example(x, size))


def _transposed_linear_weight(module: nn.Module, attribute: str, x: Tensor, g: Tensor, size: int) -> Contribution:
    return Product(by_example(x, size), by_example(g, size))


def _bias(module: nn.Module, attribute: str, x: Tensor, g: Tensor, size: int) -> Contribution:
    return Dense(by_example(g, size).sum(1))


def _channel_bias(module: nn.Module, attribute: str, x: Tensor, g: Tensor, size: int) -> Contribution:
    return Dense(_channels(g, size).sum(-1))


def _embedding_weight(module: Any, attribute: str, x: Tensor, g: Tensor, size: int) -> Contribution:
    if module.max_norm is not None or module.scale_grad_by_freq:
        raise RefusedError("an embedding with max_norm or scale_grad_by_freq mixes the examples of a batch")
    values = by_example(g, size)
    if x.numel() != values.shape[0] * values.shape[1]:
        raise RefusedError(f"its indices have shape {list(x.shape)} in a batch of {size} examples")
    return _looked_up(module, x, values.flatten(0, 1), size)


def _looked_up(module: Any, x: Tensor, values: Tensor, size: int) -> Contribution:
    """Sort the gradients of looked-up rows by example; padding has none."""
    examples = torch.arange(size, device=values.device).repeat_interleave(x.numel() // size)
    rows = x.reshape(-1)
    if module.padding_idx is not None:
        kept = rows != module.padding_idx
        examples, rows, values = examples[kept], rows[kept], values[kept]
    return Sparse.from_uses(size, examples, rows, values, module.num_embeddings)


def _layer_norm_weight(module: Any, attribute: str, x: Tensor, g: Tensor, size: int) -> Contribution:
    event = len(module.normalized_shape)
    x = by_example(x, size, event)
    normal = F.layer_norm(x, module.normalized_shape, None, None, module.eps)
    return Dense((by_example(g, size, event) * normal).sum(1))


def _layer_norm_bias(module: Any, attribute: str, x: Tensor, g: Tensor, size: int) -> Contribution:
    return Dense(by_example(g, size, len(module.normalized_shape)).sum(1))


def _rms_norm_weight(module: Any, attribute: str, x: Tensor, g: Tensor, size: int) -> Contribution:
    event = len(module.normalized_shape)
    eps = module.eps if module.eps is not None else torch.finfo(x.dtype).eps
    normal = F.rms_norm(by_example(x, size, event), list(module.normalized_shape), None, eps)
    return Dense((by_example(g, size, event) * normal).sum(1))


def _batch_norm_weight(module: Any, attribute: str, x: Tensor, g: Tensor, size: int) -> Contribution:
    if module.running_mean is None or module.running_var is None:
        raise RefusedError("batch norm without running statistics mixes the examples of a batch")
    x, g = _channels(x, size), _channels(g, size)
    mean, var = module.running_mean.to(x.dtype), module.running_var.to(x.dtype)
    sums = _in_chunks(lambda some: ((x[some] - mean[:, None]).mul_(g[some])).sum(-1), x)
    return Dense(sums * (var + module.eps).rsqrt())


def _group_norm_weight(module: Any, attribute: str, x: Tensor, g: Tensor, size: int) -> Contribution:
    groups, eps = module.num_groups, module.eps
    x, g = _channels(x, size), _channels(g, size)
    return Dense(_in_chunks(lambda some: F.group_norm(x[some], groups, None, None, eps).mul_(g[some]).sum(-1), x))


def _in_chunks(function: Callable[[slice], Tensor], tensor: Tensor) -> Tensor:
    """Apply a function to a few examples at a time, so that what it makes on the way stays small."""
    step = max(1, CHUNK * len(tensor) // max(1, tensor.numel()))
    return torch.cat([function(slice(first, first + step)) for first in range(0, len(tensor), step)])


def _channels(tensor: Tensor, size: int) -> Tensor:
    """Lay ``[B, C, *space]`` out as ``[B, C, S]``."""
    if tensor.dim() < 2 or tensor.shape[0] != size:
        raise RefusedError(f"its input has shape {list(tensor.shape)} in a batch of {size} examples")
    return tensor.reshape(size, tensor.shape[1], -1).to(accurate(tensor.dtype))


PATCHES = 64
"""Positions up to which a convolution's patches, laid out one by one, are the faster way to its kernel gradients."""

_Convolution = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def _convolution_weight(module: Any, attribute: str, x: Tensor, g: Tensor, size: int) -> Contribution:
    """Per-example kernel gradients: the examples become groups of one convolution, a few at a time."""
    space = len(module.kernel_size)
    if x.dim() != space + 2 or x.shape[0] != size:
        raise RefusedError(f"its input has shape {list(x.shape)} in a batch of {size} examples")
    dtype = accurate(x.dtype)
    x, g = x.to(dtype), g.to(dtype)
    padding = [0] * space
    if module.padding_mode != "zeros" or isinstance(module.padding, str):
        mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
        x = F.pad(x, module._reversed_padding_repeated_twice, mode=mode)
    else:
        padding = list(module.padding)
    shape = module.weight.shape
    output_padding = list(module.output_padding)
    if module.transposed:
        # The call may have chosen it by output_size.
        output_padding = [
            g.shape[k + 2]
            - (x.shape[k + 2] - 1) * module.stride[k]
            + 2 * padding[k]
            - module.dilation[k] * (module.kernel_size[k] - 1)
            - 1
            for k in range(space)
        ]

    def of_patches(first: int, stop: int) -> Tensor:
        patches = F.unfold(x[first:stop], module.kernel_size, module.dilation, tuple(padding), module.stride)
        product = g[first:stop].flatten(2) @ patches.transpose(1, 2)
        return product.view(stop - first, *shape)

    if space == 2 and not module.transposed and module.groups == 1 and g[0, 0].numel() <= PATCHES:
        return Kernel((of_patches,), size)

    def gradients(first: int, stop: int) -> Tensor:
        count = stop - first
        _, gradient, _ = torch.ops.aten.convolution_backward(
            g[first:stop].reshape(1, -1, *g.shape[2:]),
            x[first:stop].reshape(1, -1, *x.shape[2:]),
            # Only the shape of the weight matters to its own gradient: one number stands for all.
            x.new_zeros(1).expand(count * shape[0], *shape[1:]),
            None,
            list(module.stride),
            padding,
            list(module.dilation),
            module.transposed,
            output_padding,
            count * module.groups,
            [False, True, False],
        )
        shaped: Tensor = gradient.view(count, *shape)
        return shaped

    return Kernel((gradients,), size)


def _elementwise(module: nn.Module, attribute: str, x: Tensor, g: Tensor, size: int) -> Contribution:
    """Norm look-alikes and other unknown leaf modules that use a vector element by element along the last dimension."""
    # The module runs again on its input with the vector repeated for every example, so that the gradient keeps the
    # examples apart; whatever it does with the vector (w·x̂, (1 + w)·x̂) is differentiated, not guessed.
    weight = module._parameters[attribute]
    if weight is None or weight.dim() != 1 or not x.is_floating_point() or x.shape[0] != size:
        raise RefusedError(f"no rule for a {type(module).__name__} with this parameter and input")
    dtype = accurate(x.dtype)
    apart = weight.detach().to(dtype).expand(size, *[1] * (x.dim() - 2), -1).contiguous().requires_grad_()
    others = {
        name: value.detach().to(dtype)
        for name, value in module._parameters.items()
        if value is not None and name != attribute
    }
    try:
        with torch.enable_grad():
            # The module's own computation, without the hooks of its users: g is the gradient before them.
            with _reparametrize_module(module, {**others, attribute: apart}):
                output = module.forward(x.to(dtype))
            if output.shape != g.shape:
                raise RefusedError(f"a {type(module).__name__} does not use {attribute} element by element")
            (gradients,) = torch.autograd.grad(output, apart, g.to(output.dtype))
    except (RuntimeError, TypeError, ValueError) as error:
        raise RefusedError(f"a {type(module).__name__} cannot run with {attribute} repeated: {error}") from None
    return Dense(gradients.reshape(size, -1, *weight.shape).sum(1))


def _scaled_embedding(module: Any, attribute: str, x: Tensor, g: Tensor, size: int) -> Contribution:
    """Subclasses of embeddings that change what they look up: run on a table with one row for every use."""
    if x.is_floating_point() or x.shape[0] != size or len(module._parameters) != 1:
        raise RefusedError(f"no rule for a {type(module).__name__} with this parameter and input")
    spare = 0 if module.padding_idx is None else module.padding_idx + 1
    dtype = accurate(module.weight.dtype)
    rows = module.weight.detach()[x.reshape(-1)].to(dtype)
    table = torch.cat([rows.new_zeros(spare, rows.shape[1]), rows]).requires_grad_()
    uses = torch.arange(spare, spare + x.numel(), device=x.device).view(x.shape)
    with torch.enable_grad(), _reparametrize_module(module, {"weight": table}):
        output = module.forward(uses)
    if output.shape != g.shape:
        raise RefusedError(f"a {type(module).__name__} does not look its rows up one by one")
    (gradients,) = torch.autograd.grad(output, table, g.to(output.dtype))
    return _looked_up(module, x, gradients[spare:], size)


_LINEAR: Mapping[str, Rule] = {"weight": _linear_weight, "bias": _bias}
_BATCH_NORM: Mapping[str, Rule] = {"weight": _batch_norm_weight, "bias": _channel_bias}
_CONVOLUTION: Mapping[str, Rule] = {"weight": _convolution_weight, "bias": _channel_bias}

RULES: dict[type[nn.Module] | str, Mapping[str, Rule]] = {
    nn.Linear: _LINEAR,
    NonDynamicallyQuantizableLinear: {},  # the projection that attention keeps and never calls
    "transformers.pytorch_utils.Conv1D": {"weight": _transposed_linear_weight, "bias": _bias},
    nn.Embedding: {"weight": _embedding_weight},
    nn.LayerNorm: {"weight": _layer_norm_weight, "bias": _layer_norm_bias},
    nn.RMSNorm: {"weight": _rms_norm_weight},
    nn.GroupNorm: {"weight": _group_norm_weight, "bias": _channel_bias},
    nn.BatchNorm1d: _BATCH_NORM,
    nn.BatchNorm2d: _BATCH_NORM,
    nn.BatchNorm3d: _BATCH_NORM,
    **dict.fromkeys(_Convolution, _CONVOLUTION),
}
"""Layer type, or the full name of one whose library may be absent -> attribute -> rule."""


def rules_for(module: nn.Module) -> Mapping[str, Rule]:
    """Look up the rules of a module's parameters; without an entry, those that run the module itself again."""
    if "forward" in module.__dict__:
        return {}  # patched
    for base in type(module).__mro__:
        for key in (base, f"{base.__module__}.{base.__qualname__}"):
            if key in RULES and type(module).forward is base.forward:  # type: ignore[attr-defined]
                return RULES[key]
    if isinstance(module, nn.Embedding) and "weight" in module._parameters:
        return {"weight": _scaled_embedding}
    if not list(module.children()) and type(module).__module__.split(".")[0] != "torch":
        return {name: _elementwise for name, weight in module._parameters.items() if weight is not None}
    return {}


def rule_name(rule: Rule | None) -> str:
    """Name a rule for reports."""
    return "replay" if rule is None else rule.__name__.lstrip("_")
