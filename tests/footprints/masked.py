"""A small supermask network with a few trained tasks, for tests."""

from __future__ import annotations

import functools

import torch
from torch import nn
from torch.nn import functional as F

from commonweight.supermasks.network import SupermaskNetwork

ROWS = torch.rand(96, 12, generator=torch.Generator().manual_seed(1))
LABELS = (ROWS @ torch.randn(12, 3, generator=torch.Generator().manual_seed(2))).argmax(1)
ORDERS = {"a": torch.arange(12), "b": torch.arange(12).roll(1), "c": torch.arange(11, -1, -1)}


def model() -> nn.Module:
    return nn.Sequential(
        nn.Linear(12, 21),
        nn.BatchNorm1d(21),
        nn.ReLU(),
        nn.Linear(21, 16),
        nn.BatchNorm1d(16),
        nn.ReLU(),
        nn.Linear(16, 3),
    )


def inputs(task: str) -> torch.Tensor:
    return ROWS[:, ORDERS[task]]


def train(net: SupermaskNetwork, task: str, steps: int = 25) -> None:
    net.add_task(task)
    net.switch(task)
    net.train()
    optimiser = torch.optim.Adam(net.trainable(task), lr=0.02)
    for _ in range(steps):
        optimiser.zero_grad()
        F.cross_entropy(net(inputs(task)), LABELS).backward()
        optimiser.step()
    net.reestimate(task, [inputs(task)])
    net.finish(task, keep_scores=True)


@functools.cache
def trained(scores: str = "independent", seed: int = 0) -> SupermaskNetwork:
    """A network with the finished tasks a, b and c; shared by the tests that do not change it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = SupermaskNetwork(model(), scores=scores, seed=seed)
    for task in ORDERS:
        train(net, task)
    net.eval()
    return net
