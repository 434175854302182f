"""Tiny models with a shared initialisation, in memory and on disk."""

import copy

import pytest
import torch
from torch import nn

from commonweight.studies.demo.encoder import make_start, make_tokenizer, save


def moved(model, seed, by=0.02):
    """A copy, every floating parameter moved a little, as if it had been fine-tuned."""
    other = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(by * torch.randn(parameter.shape, generator=generator).to(parameter.dtype))
    return other


@pytest.fixture(scope="session")
def start():
    return make_start(0)


@pytest.fixture(scope="session")
def tiny(start, tmp_path_factory):
    """Checkpoints ``start``, ``a``, ``b``, ``c`` from it, ``stranger`` from another start."""
    folder = tmp_path_factory.mktemp("tiny")
    save(start, make_tokenizer(), folder / "start")
    for number, name in enumerate("abc"):
        save(moved(start, number, 0.005), make_tokenizer(), folder / name)
    save(make_start(7), make_tokenizer(), folder / "stranger")
    return folder


@pytest.fixture(scope="session")
def gpt2(tmp_path_factory):
    """Two tiny GPT-2 with a tied head: ``a``, ``b``."""
    from transformers import GPT2Config, GPT2LMHeadModel

    from commonweight.models.checkpoint import quiet_transformers

    folder = tmp_path_factory.mktemp("gpt2")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = GPT2LMHeadModel(GPT2Config(vocab_size=19, n_positions=8, n_embd=8, n_layer=1, n_head=2))
    with quiet_transformers():
        for number, name in enumerate("ab"):
            moved(model, number, 0.002).save_pretrained(folder / name)
    return folder


def small(seed=0, dtype=torch.float32):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).to(dtype)


@pytest.fixture
def trio():
    """Three small networks from one start."""
    return [moved(small(), seed) for seed in (1, 2, 3)]


@pytest.fixture
def heard():
    """Collects what a fusion has to say; without it that would be a warning, and an error here."""
    return []
