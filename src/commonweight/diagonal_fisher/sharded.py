"""Models sharded by ``fully_shard``: a pass gathers the weights of each layer from all processes while it runs.

So all processes run every pass together; one without a batch of its own runs along and adds nothing. Rules are compared
with single-example passes on the same rows in every process, whose equal gradients are averaged into their own value.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeVar

from torch import Tensor, nn

from commonweight.base.errors import UsageError
from commonweight.base.team import team_here

if TYPE_CHECKING:
    from commonweight.base.team import Team

T = TypeVar("T")

UNSHARDED = "or measure the model before it is sharded"


def is_sharded(model: nn.Module) -> bool:
    """Tell whether ``fully_shard`` was called on a model or a part of it."""
    return bool(_sharded_modules(model))


def _sharded_modules(model: nn.Module) -> list[Any]:
    kind = _class_of_sharded()
    return [] if kind is None else [module for module in model.modules() if isinstance(module, kind)]


def _class_of_sharded() -> type | None:
    fsdp = sys.modules.get("torch.distributed.fsdp")  # what uses fully_shard has imported it
    return None if fsdp is None else fsdp.FSDPModule


def check_sharded(model: Any) -> None:
    """Refuse what was not shown to be exact; leave the weights sharded."""
    from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule

    if not hasattr(FSDPModule, "reset_iter_state"):
        raise UsageError("a model sharded by fully_shard is measured with torch 2.13 or later: upgrade torch")
    for path, module in model.named_modules():
        if module._compiled_call_impl is not None or type(module).__name__ == "OptimizedModule":
            raise UsageError(f"{_said(path)} is compiled and sharded by fully_shard: leave torch.compile out")
    if not issubclass(type(model), FSDPModule):
        raise UsageError("parts of the model are sharded by fully_shard: call fully_shard on the model itself as well")
    for path, module in model.named_modules():
        if not isinstance(module, FSDPModule):
            continue
        state = module._get_fsdp_state()
        policy = state._mp_policy
        if policy.param_dtype or policy.reduce_dtype or policy.output_dtype:
            raise UsageError(
                f"{_said(path)} is sharded with a policy of mixed precision: call fully_shard without mp_policy, "
                "on a model of the type that it is to be measured in"
            )
        if any(isinstance(group.offload_policy, CPUOffloadPolicy) for group in state._fsdp_param_groups):
            raise UsageError(f"{_said(path)} is offloaded to the CPU: call fully_shard without offload_policy")
    try:
        model._get_fsdp_state()._lazy_init()  # as the first forward pass does
    except ValueError as error:
        raise UsageError(f"{str(error).rstrip('.')}, {UNSHARDED}") from error
    reshard(model)
    for name, parameter in model.named_parameters():
        mesh = getattr(parameter, "device_mesh", None)
        if mesh is not None and (mesh.ndim != 1 or mesh.size() != team_here().size):
            raise UsageError(
                f"parameter {name} is sharded over a mesh of shape {list(mesh.shape)} by {team_here().size} processes: "
                f"call fully_shard over all of them in one dimension, without tensor parallel, {UNSHARDED}"
            )


def check_alike(team: Team, found: T) -> T:
    """Refuse batches that are not those of the other processes, which would wait for each other; a collective."""
    if any(theirs != found for theirs in team.gather(found)):
        raise UsageError("the processes were given different batches: give all of them, in one order, to every process")
    return found


def _said(path: str) -> str:
    return f"module {path}" if path else "the model"


def parameters_in_use(model: nn.Module) -> dict[str, nn.Parameter]:
    """Find the parameters that modules hold while they run: of a sharded model others than it holds at rest."""
    found = dict(model.named_parameters())
    for module in _sharded_modules(model):
        module.unshard()
        found |= {name: each for name, each in model.named_parameters() if type(each) is nn.Parameter}
        module.reshard()
    return found


def reshard(model: Any) -> None:
    """Let go of the weights that passes without a backward pass, or with an error, left gathered."""
    model.reset_iter_state()


def gathered(tensor: Tensor) -> Tensor:
    """Gather a tensor that is sharded; a collective."""
    found: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return found


def original_class(model: nn.Module) -> type:
    """Find the class of a model; ``fully_shard`` puts one of its own before it."""
    kind = _class_of_sharded()
    return next(base for base in type(model).__mro__ if kind is None or not issubclass(base, kind))
