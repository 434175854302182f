"""Models that ``fully_shard`` shards over the processes of a group."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from diagonal_fisher.shared import plain
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import distribute_module
from transformers import BertConfig, BertForSequenceClassification

import commonweight
from commonweight.base.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

ROWS = 13


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 5)), nn.Linear(5, 3))


def encoder():
    torch.manual_seed(0)
    config = BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
    return BertForSequenceClassification(config).eval()


class Tied(nn.Module):
    """A head that is its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.inner, self.head = nn.Embedding(9, 4), nn.Linear(4, 4), nn.Linear(4, 9, bias=False)
        self.head.weight = self.table.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.inner(self.table(ids)).tanh().mean(1))


def tied():
    torch.manual_seed(0)
    return Tied()


class Wayward(nn.Module):
    """A weight that a row may use outside its layer, and one that no row uses."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last, self.idle = nn.Linear(4, 4), nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if (x > 90).any():
            x = nn.functional.linear(x, self.first.weight)
        return self.last(self.first(x).tanh())


def pairs(inputs=None):
    """Thirteen rows, three a batch: five batches, so that two processes have no equal numbers of them."""
    torch.manual_seed(1)
    x = torch.randn(ROWS, 4) if inputs is None else inputs
    return list(zip(x.split(3), torch.randint(3, (ROWS,)).split(3), strict=True))


def texts():
    """Twenty rows, of which the last is shorter: rules are compared again, when rows of that kind come."""
    torch.manual_seed(1)
    ids, mask = torch.randint(50, (20, 6)), torch.ones(20, 6, dtype=torch.long)
    mask[-1, 4:] = 0
    keys = ("input_ids", "attention_mask", "labels")
    parts = (each.split(3) for each in (ids, mask, torch.arange(20) % 2))
    return [dict(zip(keys, batch, strict=True)) for batch in zip(*parts, strict=True)]


def cases():
    """Name -> how to make the model, which parts are sharded by themselves, batches, and what else is asked."""
    ids = torch.arange(ROWS * 4).reshape(ROWS, 4) % 9
    yield "folds", (mlp, lambda model: [model[2]], pairs(), {"folds": 2})
    yield "exact", (mlp, lambda model: [model[0], model[2]], pairs(), {"fisher_type": "exact", "exclude": "3.bias"})
    yield "tied", (tied, lambda _: [], pairs(ids), {})
    yield "encoder", (encoder, lambda model: model.bert.encoder.layer, texts(), {})


def shard(model, parts=(), **how):
    for part in parts:
        fully_shard(part, **how)
    return fully_shard(model, **how)


class FullyShardedDataParallel(nn.Sequential):
    """Stands in for torch's, which needs a GPU."""


def in_part():
    model = mlp()
    fully_shard(model[2])
    return model


def tied_apart():
    model = tied()
    return shard(model, [model.table])


def refusals():
    """Name -> how to make the model, and its batches."""
    rank, two = distributed.get_rank(), init_device_mesh("cpu", (2, 1), mesh_dim_names=("copies", "parts"))
    yield "mixed precision", (lambda: shard(mlp(), mp_policy=MixedPrecisionPolicy(param_dtype=torch.bfloat16)), pairs())
    yield "offloaded", (lambda: shard(mlp(), offload_policy=CPUOffloadPolicy(pin_memory=False)), pairs())
    yield "in part", (in_part, pairs())
    yield "two meshes", (lambda: shard(mlp(), mesh=two), pairs())
    yield "compiled", (lambda: torch.compile(shard(mlp()), backend="eager"), pairs())
    yield "tied apart", (tied_apart, pairs())
    yield "FSDP 1", (lambda: FullyShardedDataParallel(mlp()), pairs())
    yield "by hand", (lambda: distribute_module(mlp(), init_device_mesh("cpu", (2,))), pairs())
    yield "unused", (lambda: shard(Wayward()), pairs())
    yield "fewer batches", (lambda: shard(mlp()), (pairs() * 3)[: 15 - 3 * rank])
    yield "other batches", (lambda: shard(mlp()), pairs()[rank:])


def step(model):
    """The gradients of one step of training, each process with its own rows."""
    inputs, targets = pairs()[distributed.get_rank()]
    nn.functional.cross_entropy(model(inputs), targets).backward()
    return {name: parameter.grad.full_tensor() for name, parameter in model.named_parameters()}


def measure_sharded(folder: Path):
    """Measure every case and note every refusal, as a process of a group."""
    distributed.init_process_group("gloo")
    found = {}
    for name, (make, parts, batches, asked) in cases():
        model = make()
        place = folder / "written" if name == "folds" else None
        found[name] = plain(commonweight.fisher(shard(model, parts(model)), batches, **asked, folder=place))
    said = {}
    for name, (make, batches) in refusals():
        try:
            commonweight.fisher(make(), batches)
        except UsageError as error:
            said[name] = str(error)
    models = [shard(mlp()), shard(mlp())]
    commonweight.fisher(models[1], pairs())
    steps = [step(model) for model in models]
    torch.save((found, said, steps), folder / f"found-{distributed.get_rank()}.pt")


def measure_what_one_refuses(inputs: float):
    """Measure rows of which one, of the second process and later than those looked at, cannot be measured."""
    distributed.init_process_group("gloo")
    batches = [*pairs(), *pairs()]
    batches[7][0][0, 0] = inputs
    commonweight.fisher(shard(Wayward()), batches, exclude="idle")
