"""A rule is trusted for what a layer computes, not for its type or the sizes of its tensors."""

from __future__ import annotations

import pytest
import torch
from diagonal_fisher.loop import (
    assert_exact,
    in_sizes,
    randn,
    y,
)
from diagonal_fisher.zoo import CLASSES, VOCABULARY, Embedded, text
from torch import nn

import commonweight
from commonweight.diagonal_fisher import Product, rules
from commonweight.diagonal_fisher.accumulator import Workspace
from commonweight.diagonal_fisher.contribution import OnePosition

# peft asks transformers for an attribute that was renamed
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


class Applied(nn.Module):
    """A leaf that uses a function of its weight, element by element or as a matrix."""

    def __init__(self, function, *shape):
        super().__init__()
        self.weight, self.function = nn.Parameter(torch.randn(*shape)), function

    def forward(self, x):
        weight = self.function(self.weight)
        return x @ weight if weight.dim() == 2 else x * weight


APPLIED = {
    "softmax": lambda w: w.softmax(-1),
    "softmax over rows": lambda w: w.softmax(0),
    "norm": lambda w: w / w.norm(),
    "norm of columns": lambda w: w / w.norm(dim=0, keepdim=True),
    "cumsum": lambda w: w.cumsum(0),
    "flip": lambda w: w.flip(0),
    "sorted": lambda w: w.sort(-1).values,
    "centred": lambda w: w - w.mean(),
    "shifted": lambda w: w.roll(1, -1) + w,
}
COINCIDING = [[(6, 6)], [(3, 3), (6, 6)], [(1, 6), (6, 6), (3, 6)], [(5, 7), (7, 5), (6, 6)]]
"""Examples and positions of the batches; widths and tables are 6, three rows are compared."""


@pytest.mark.parametrize("function", APPLIED)
@pytest.mark.parametrize("shape", [(6,), (6, 6)], ids=["vector", "matrix"])
def test_leaves_that_apply_a_function_to_their_weight(function, shape):
    for sizes in COINCIDING:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 6), Applied(APPLIED[function], *shape), nn.Tanh(), nn.Linear(6, CLASSES))
        assert_exact(model.double(), [(randn(size, 6), y(size)) for size, _ in sizes])


class TurnedAround(nn.Module):
    """Time comes first in the body."""

    def __init__(self, body):
        super().__init__()
        self.body, self.head = body, nn.Linear(6, CLASSES)

    def forward(self, x):
        h = self.body(x.transpose(0, 1))
        return self.head((h[0] if isinstance(h, tuple) else h).tanh().mean(0))


TIME_FIRST = {
    "linear": lambda: nn.Linear(6, 6),
    "norm": lambda: nn.LayerNorm(6),
    "encoder layer": lambda: nn.TransformerEncoderLayer(6, 2, 8, dropout=0.0, batch_first=False),
    "recurrent": lambda: nn.GRU(6, 6),
    "leaf": lambda: Applied(APPLIED["softmax"], 6),
    "parametrised": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(6, 6)),
}


class TableOfSix(nn.Module):
    """Six rows for all examples, whatever the batch."""

    def __init__(self, way):
        super().__init__()
        self.table, self.layer, self.head = nn.Embedding(6, 6), nn.Linear(6, 6), nn.Linear(6, CLASSES)
        self.way = way

    def forward(self, x):
        rows = self.table.weight if self.way == "weight" else self.table(torch.arange(6))
        keys = self.layer(rows) if self.way == "mapped" else rows
        return self.head((x @ keys.T).softmax(-1) @ rows).mean(1)


class RelativePositions(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.table, self.head = nn.Embedding(31, width), nn.Linear(6, CLASSES)

    def forward(self, x):
        places = torch.arange(x.shape[1])
        apart = self.table(places[:, None] - places + 15)  # [length, length, width]
        scores = apart[..., 0] if apart.shape[-1] == 1 else torch.einsum("bid,ijd->bij", x, apart)
        return self.head(((x @ x.transpose(1, 2) + scores).softmax(-1) @ x).mean(1))


COINCIDENCES = {
    **{f"time first, {name}": lambda body=body: TurnedAround(body()) for name, body in TIME_FIRST.items()},
    **{f"table, {way}": lambda way=way: TableOfSix(way) for way in ("weight", "looked up", "mapped")},
    **{f"relative positions, {width}": lambda width=width: RelativePositions(width) for width in (1, 6)},
}


@pytest.mark.parametrize("kind", COINCIDENCES)
@pytest.mark.parametrize("sizes", COINCIDING, ids=str)
def test_first_dimensions_that_happen_to_equal_the_batch(kind, sizes):
    torch.manual_seed(0)
    assert_exact(COINCIDENCES[kind]().double(), [(randn(size, length, 6), y(size)) for size, length in sizes])


class Positions(nn.Module):
    def __init__(self, way):
        super().__init__()
        self.way = way
        self.words, self.places = nn.Embedding(VOCABULARY, 6), nn.Embedding(16, 6)
        self.mix, self.head = nn.Linear(6, 6), nn.Linear(6, CLASSES)

    def forward(self, input_ids, attention_mask):
        length = input_ids.shape[1]
        places, h = self.places(torch.arange(length)), self.words(input_ids)
        if self.way == "new axis":
            h = h + places[None]
        elif self.way == "unpacked":
            length, width = places.shape
            h = h + places.view(1, length, width)
        elif self.way == "unpacked sum":
            h = h + places[None]
            _, length, _ = h.shape
        elif self.way == "asserted":
            assert places.shape == (length, 6)
            h = h + places
        elif self.way == "expanded":
            h = h + places.unsqueeze(0).expand_as(h)
        elif self.way == "stacked":
            h = h + torch.stack([places[i] for i in range(length)])
        elif self.way == "product":
            h = h * torch.einsum("td,te->de", places, places).diagonal()
        elif self.way == "mixed":
            h = h + self.mix(places)
        else:
            h = h + places[: len(h[0])]
        h = self.mix(h).tanh() * attention_mask[..., None]
        return self.head(h.sum(-2))


WAYS = ["new axis", "unpacked", "unpacked sum", "asserted", "expanded", "stacked", "product", "mixed", "cut"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", [5, 3])
def test_a_look_up_for_the_whole_batch(way, size):
    torch.manual_seed(1)
    assert_exact(Positions(way).double(), list(in_sizes(text(2 * size, 6), [size, size])))


@pytest.mark.parametrize("way", [*WAYS, "row", "arange", "full"])
def test_a_look_up_of_as_many_places_as_there_are_examples(way):
    torch.manual_seed(1)
    model = Embedded(way) if way in {"row", "arange", "full"} else Positions(way)
    assert_exact(model.double(), [text(4, 7), text(4, 6), text(4, 5), text(4, 5), text(4, 4)])


@pytest.mark.parametrize("way", ["product", "layer"])
@pytest.mark.parametrize("size", [8, 3])
def test_an_embedding_of_the_labels(way, size):
    class Labels(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.labels, self.layer = nn.Linear(6, 6), nn.Embedding(CLASSES, 6), nn.Linear(6, 6)

        def forward(self, x):
            labels = self.labels(torch.arange(CLASSES))
            labels = self.layer(labels) if way == "layer" else labels
            return self.body(x).tanh() @ labels.t()

    torch.manual_seed(0)
    assert_exact(Labels().double(), [(randn(size, 6), y(size))])


@pytest.mark.parametrize("patches", [0, 1000])
def test_both_ways_to_the_gradients_of_a_convolution(monkeypatch, patches):
    monkeypatch.setattr(rules, "PATCHES", patches)
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1),
        nn.Tanh(),
        nn.Conv2d(4, 5, (3, 1), padding="same", dilation=2, bias=False),
        nn.Conv2d(5, 4, 2, padding="same", padding_mode="reflect"),
        nn.Conv2d(4, 4, 3, groups=2),
        nn.Flatten(),
        nn.Linear(16, CLASSES),
    ).double()
    batches = [(randn(size, 2, 8, 8), y(size)) for size in (5, 3)]
    assert_exact(model, batches)
    routes = commonweight.verify(model, batches[0]).routes
    assert all(routes[f"{layer}.weight"].rule == "convolution_weight" for layer in (0, 2, 3, 4))


def test_the_passes_of_several_labels_share_one_product_only_where_the_input_is_the_same():
    torch.manual_seed(0)
    left, right = randn(2, 300, 1, 5), randn(2, 300, 1, 4)
    several = OnePosition(Product(left[0], right[0]))
    assert several.take(Product(left[1], right[0]))
    assert not several.take(Product(left[1], right[1]))
    total = torch.zeros(5, 4, dtype=left.dtype)
    traces = several.square_into(total)
    squares = (left[:, :, 0, :, None] * right[0, :, 0, None, :]).square().sum(0)
    assert torch.allclose(total, squares.sum(0), rtol=1e-12)
    assert torch.allclose(traces, squares.sum((1, 2)), rtol=1e-12)


@pytest.mark.parametrize("entries", [1, 7, 25, 60, 10**6])
def test_batched_products_for_gpus_equal_the_loop_over_examples(entries):
    """The same code as on a GPU, on tensors of the CPU."""
    torch.manual_seed(0)
    product = Product(randn(6, 3, 5), randn(6, 3, 4))
    totals = torch.zeros(2, 5, 4, dtype=torch.float64)
    traces = product.square_into(totals[0], Workspace())
    assert torch.allclose(product.square_in_chunks(totals[1], entries), traces, rtol=1e-12)
    assert torch.allclose(totals[1], totals[0], rtol=1e-12)
    assert totals[0].min() > 0
