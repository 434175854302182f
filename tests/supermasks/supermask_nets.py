"""Small models, and what the tests of supermask networks do with them."""

import hashlib

import torch
from torch import nn

from commonweight.supermasks.network import SupermaskNetwork


def mlp(*, norm=True):
    layers = []
    for inner, outer in ((6, 16), (16, 12)):
        layers += [nn.Linear(inner, outer), *([nn.BatchNorm1d(outer)] if norm else []), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(12, 3))


class Residual(nn.Module):
    """A stem, a block with a shortcut, a head."""

    def __init__(self):
        super().__init__()
        self.stem, self.bn0 = nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.conv1, self.bn1 = nn.Conv2d(4, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.short, self.bn3 = nn.Conv2d(4, 8, 1, stride=2, bias=False), nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = self.relu(self.bn0(self.stem(x)))
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.head(self.relu(y + self.bn3(self.short(x))).mean((2, 3)))


def rows(seed=0, count=40, shape=(6,)):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, *shape, generator=generator), torch.arange(count) % 3


def network(*tasks, model=None, **options):
    net = SupermaskNetwork(mlp() if model is None else model, **options)
    for task in tasks:
        net.add_task(task)
    return net


def train(net, task, *, steps=5, data=None, optimiser=None):
    """Train a task; the optimiser is the class or a function of the parameters."""
    inputs, labels = rows(hash_of(task)) if data is None else data
    net.switch(task)
    net.train()
    optimiser = (optimiser or (lambda parameters: torch.optim.Adam(parameters, lr=0.05)))(net.trainable(task))
    for _ in range(steps):
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(inputs), labels).backward()
        optimiser.step()
    net.eval()
    return net


def hash_of(text):
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")


def everything_of(net, task):
    """A hash of all a task has: masks, scores, statistics."""
    sha = hashlib.sha256()
    for name in net.masked:
        sha.update(net.bits(task, name).packed.numpy().tobytes())
        scores = net.scores(task, name)
        sha.update(b"dropped" if scores is None else scores.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    for statistics in net.statistics(task).values():
        sha.update(statistics.mean.numpy().tobytes() + statistics.variance.numpy().tobytes())
        sha.update(str(statistics.batches).encode())
    return sha.hexdigest()


def outputs(net, task, inputs):
    net.eval()
    with net.on(task), torch.no_grad():
        return net(inputs)
