"""Leave a model as it was found: mode, parameter flags and gradients, buffers, and every random state."""

from __future__ import annotations

import random
import sys
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from commonweight.base.errors import UsageError
from commonweight.diagonal_fisher.sharded import UNSHARDED, check_sharded, is_sharded

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Put a model in eval mode, uncompiled and frozen; restore everything afterwards, also after an error."""
    training = [(module, module.training) for module in model.modules()]
    parameters = [
        # An optimizer that steps from a hook inside the backward pass would move the weights.
        (parameter, parameter.requires_grad, parameter.grad, parameter._post_accumulate_grad_hooks)
        for parameter in model.parameters()
    ]
    buffers = [
        (module, dict(module._buffers), {k: None if b is None else b.clone() for k, b in module._buffers.items()})
        for module in model.modules()
    ]
    states = (random.getstate(), np.random.get_state(), torch.get_rng_state())
    cuda_states = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    fast_path = torch.backends.mha.get_fastpath_enabled()
    configs = [
        config
        for config in {id(c): c for c in (getattr(module, "config", None) for module in model.modules())}.values()
        if config is not None and getattr(config, "use_cache", False) is True
    ]
    try:
        # Caches of keys and states cost memory here, and a module run again would meet what it left there.
        for config in configs:
            config.use_cache = False
        # A fused encoder layer would bypass the submodules, and with them their rules.
        torch.backends.mha.set_fastpath_enabled(False)
        for module, _ in training:
            module.training = False
        for parameter, _, _, _ in parameters:
            parameter.requires_grad_(False)
            parameter.grad = None
            parameter._post_accumulate_grad_hooks = {}
        with _uncompiled():
            yield
    finally:
        for config in configs:
            config.use_cache = True
        torch.backends.mha.set_fastpath_enabled(fast_path)
        for module, mode in training:
            module.training = mode
        for parameter, flag, gradient, hooks in parameters:
            parameter.requires_grad_(flag)
            parameter.grad = gradient
            parameter._post_accumulate_grad_hooks = hooks
        for module, references, copies in buffers:
            if any(module._buffers.get(name) is not value for name, value in references.items()) or len(
                module._buffers
            ) != len(references):
                module._buffers.clear()
                module._buffers.update(references)
            for name, copy in copies.items():
                reference = references[name]
                if reference is not None and copy is not None and not _same(reference, copy):
                    reference.copy_(copy)
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        if cuda_states:
            torch.cuda.set_rng_state_all(cuda_states)


def _uncompiled() -> AbstractContextManager[None]:
    """Run what ``torch.compile`` made as it was written: traced hooks do not see what they are to see."""
    # Before anything is compiled the compiler is not there, and takes a second to import.
    if "torch._dynamo" not in sys.modules:
        return nullcontext()
    stance: AbstractContextManager[None] = torch.compiler.set_stance("force_eager")
    return stance


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b)


def unwrap(model: nn.Module) -> nn.Module:
    """Find the model inside a compiled or data-parallel wrapper."""
    while True:
        if type(model).__name__ == "OptimizedModule":
            inner = model._orig_mod
        elif isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inner = model.module
        else:
            return model
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def check_measurable(model: object) -> nn.Module:
    """Refuse models that cannot be measured, with the reason."""
    if not isinstance(model, nn.Module):
        raise UsageError(f"expected a torch.nn.Module as model, got {type(model).__name__}")
    given, model = model, unwrap(model)
    sharded = is_sharded(model)
    if sharded:
        check_sharded(given)
    for path, module in model.named_modules():
        if type(module).__name__ == "FullyShardedDataParallel":
            raise UsageError(
                f"{path or 'the model'} is wrapped in FullyShardedDataParallel: shard the model with fully_shard "
                f"(FSDP2) instead, {UNSHARDED}"
            )
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) and module.max_norm is not None:
            raise UsageError(
                f"embedding {path} has max_norm: it rewrites its weights whenever it is called; set it to None"
            )
    for name, parameter in model.named_parameters():
        if isinstance(parameter, UninitializedParameter):
            raise UsageError(f"parameter {name} is not initialised: run the lazy model once on a batch first")
        if parameter.is_inference():
            raise UsageError(
                f"parameter {name} was made in inference mode: load the model outside torch.inference_mode()"
            )
        if parameter.is_meta:
            raise UsageError(
                f"parameter {name} is on the meta device (offloaded or not loaded): load the model whole, "
                "without CPU or disk offload"
            )
        if not sharded and type(parameter.data).__name__ == "DTensor":
            raise UsageError(
                f"parameter {name} is sharded over processes by other means than fully_shard: shard the model with "
                f"fully_shard (FSDP2) instead, {UNSHARDED}"
            )
    return model
