"""The library gives the notebook's numbers where the notebook is right, and not where it is wrong."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

import commonweight

PAGE = Path(__file__).parents[1] / "docs" / "notebooks.md"


def encoder(seed: int) -> BertForSequenceClassification:
    torch.manual_seed(seed)
    config = BertConfig(vocab_size=40, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16)
    return BertForSequenceClassification(config).double().eval()


def rows(count: int) -> dict[str, torch.Tensor]:
    ids = torch.randint(5, 40, (count, 7), generator=torch.Generator().manual_seed(1))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.arange(count) % 2}


def fisher_vector(model: BertForSequenceClassification, data: dict[str, torch.Tensor], size: int) -> torch.Tensor:
    """The notebook's computation: squared gradient of each batch's loss, averaged over batches, in one vector."""
    sums = {name: torch.zeros_like(parameter) for name, parameter in model.named_parameters()}
    starts = range(0, len(data["labels"]), size)
    for start in starts:
        model.zero_grad()
        model(**{key: value[start : start + size] for key, value in data.items()}).loss.backward()
        for name, parameter in model.named_parameters():
            sums[name] += parameter.grad**2
    model.zero_grad()
    return torch.cat([value.flatten() for value in sums.values()]) / len(starts)


def overlap_of(f1: torch.Tensor, f2: torch.Tensor) -> float:
    """The notebook's overlap: one less half the squared distance of the roots of the normalised vectors."""
    f1, f2 = f1 / f1.sum(), f2 / f2.sum()
    return float(1 - 0.5 * (f1 + f2 - 2 * (f1 * f2) ** 0.5).sum())


@pytest.mark.parametrize("size", [1, 5, 12])
def test_the_fisher_vector_of_batch_size_1_whatever_the_batch_size(size: int) -> None:
    model, data = encoder(0), rows(12)
    batches = [{key: value[i : i + size] for key, value in data.items()} for i in range(0, 12, size)]
    flat = commonweight.fisher(model, batches).flat()
    expected = fisher_vector(model, data, 1)
    assert torch.allclose(torch.as_tensor(flat, dtype=torch.float64), expected, rtol=1e-8, atol=1e-14 * expected.max())


def test_not_the_squared_gradient_of_a_batch() -> None:
    model, data = encoder(0), rows(12)
    flat = torch.as_tensor(commonweight.fisher(model, [data]).flat(), dtype=torch.float64)
    assert fisher_vector(model, data, 12).sum() < 0.5 * flat.sum()


def test_the_overlap() -> None:
    one, other, data = encoder(0), encoder(1), rows(12)
    fishers = [commonweight.fisher(model, [data]) for model in (one, other)]
    expected = overlap_of(fisher_vector(one, data, 1), fisher_vector(other, data, 1))
    assert commonweight.fisher_overlap(*fishers) == pytest.approx(expected, abs=1e-9)
    assert commonweight.fisher_overlap(fishers[0].flat(), fishers[1].flat()) == pytest.approx(expected, abs=1e-9)


def test_the_overlap_where_products_vanish_in_float32() -> None:
    one, other = torch.tensor([1.0, 1e-24, 0.0]), torch.tensor([0.0, 1e-24, 1.0])
    assert commonweight.fisher_overlap(one, other) == pytest.approx(1e-24, rel=1e-6)
    assert float(((one * other) ** 0.5).sum()) == 0.0


def test_the_examples_of_the_page_run() -> None:
    examples = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(examples) == 2
    for example in examples:
        exec(compile(example, "docs/notebooks.md", "exec"), {})
