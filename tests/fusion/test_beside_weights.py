"""What modules hold beside parameters and buffers, and masks among the buffers: equal in all models, or refused."""

import copy
import functools
import io
import warnings
from collections import deque
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fusion.conftest import moved, small
from reference import fusion as slow
from torch import nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

from commonweight import fuse
from commonweight.base import NotComparableError
from commonweight.fusion import fused_at


@dataclass
class Table:
    values: torch.Tensor


class Slotted:
    __slots__ = ("values",)

    def __init__(self, values):
        self.values = values


class Helper:
    def __init__(self, values):
        self.inner = {"deep": [values]}


class Own(nn.Module):
    """A layer with something of its own beside its weights."""

    def __init__(self, held):
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.held = held

    def forward(self, x):
        return self.layer(x)


class Saved(nn.Module):
    """A layer that saves state of its own."""

    def __init__(self, state):
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self._state = state

    def get_extra_state(self):
        return self._state

    def set_extra_state(self, state):
        self._state = state


def filled(value):
    layer = nn.Linear(2, 2)
    for parameter in layer.parameters():
        nn.init.constant_(parameter, value)
    return layer


def quantised(dynamic, model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(model, {dynamic})


class Sentences(nn.Module):
    """An embedding that stays, and a layer that is quantised."""

    def __init__(self, layer):
        super().__init__()
        self.table = nn.Embedding(5, 3)
        self.layer = layer


def linear(seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return quantised(nn.Linear, Sentences(nn.Linear(3, 2)))


def lstm(seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return quantised(nn.LSTM, Sentences(nn.LSTM(3, 2)))


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (linear, r"layer\._packed_params\._packed_params"),
        (lstm, r"layer\._all_weight_values\.0\.param"),
        (lambda seed: Saved({"scale": np.float64(1 + seed)}), "_extra_state"),
        (lambda seed: Saved(["codes", (seed, 7)]), "_extra_state"),
        (lambda seed: Saved(io.BytesIO(bytes([seed]))), "_extra_state"),
        (lambda seed: Own(torch.tensor([1.0, seed])), "held"),
        (lambda seed: Own(torch.arange(seed + 1)), "held"),
        (lambda seed: Own(np.array([1.0, seed])), "held"),
        (lambda seed: Own({"a": [torch.tensor(seed)]}), "held"),
        (lambda seed: Own(Table(torch.tensor([seed]))), "held"),
        (lambda seed: Own(Helper(torch.tensor([seed]))), "held"),
        (lambda seed: Own(SimpleNamespace(values=np.full(2, seed))), "held"),
        (lambda seed: Own([torch.ones(1)] * seed), "held"),
        (lambda seed: Own(deque([torch.tensor(seed)])), "held"),
        (lambda seed: Own(Slotted(torch.tensor(seed))), "held"),
        (lambda seed: Own(functools.partial(torch.add, torch.tensor(seed))), "held"),
        (lambda seed: Own([filled(seed)]), "held"),  # in a plain list: not registered
        (lambda seed: Own({"teacher": nn.Sequential(filled(seed))}), "held"),
        (lambda seed: nn.Sequential(Own(torch.tensor(seed))), r"0\.held"),
    ],
)
def test_state_that_differs_is_refused_by_name_and_equal_state_passes(make, name):
    first, second = make(0), make(1)
    with pytest.raises(NotComparableError, match=rf"neither parameter nor buffer, 1 difference: {name}\. It cannot"):
        fuse([first, second])
    with pytest.raises(NotComparableError, match=name), fused_at([first, second]):
        pass
    with pytest.raises(NotComparableError, match=name):
        fuse([first, make(0)], method="task_arithmetic", base=second)
    again = make(0)
    again.load_state_dict(first.state_dict())
    fuse([first, again])


def test_a_whole_quantised_network_is_told_from_one_without_weights():
    from commonweight.base import UsageError

    model = quantised(nn.Linear, nn.Sequential(nn.Linear(3, 2)))
    with pytest.raises(
        UsageError, match="without parameters; give a model that has weights, a quantised one as it was"
    ):
        fuse([model, copy.deepcopy(model)])


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.LSTM(3, 2, 2, bidirectional=True),
        lambda: nn.MultiheadAttention(4, 2),
        lambda: parametrizations.weight_norm(nn.Linear(3, 2)),
        lambda: parametrizations.orthogonal(nn.Linear(3, 2)),
    ],
)
def test_attributes_that_are_weights_are_no_state_of_their_own(make, heard):
    start = make()
    models = [moved(start, 1), moved(start, 2)]
    fused = fuse(models, [0.25, 0.75], note=heard.append)
    for name, parameter in fused.named_parameters():
        expected = [slow.average([p.flatten().tolist() for p in _of(models, name)], [0.25, 0.75])]
        assert parameter.flatten().tolist() == pytest.approx(expected[0], abs=1e-6)


def _of(models, name):
    return [model.get_parameter(name).detach() for model in models]


def test_a_copy_or_a_view_of_a_weight_would_stay_behind_and_is_refused():
    models = [moved(small(), seed) for seed in (1, 2)]
    for model in models:
        model.every = [model[0].weight, model[2].weight]  # the weights themselves
    fused = fuse(models)
    assert fused.every[0] is fused[0].weight
    for model in models:
        model.first_row = model[0].weight.detach()[0]
    with pytest.raises(NotComparableError, match="1 difference: first_row"):
        fuse(models)


def pruned(layer):
    prune.l1_unstructured(layer, "weight", amount=0.5)
    return layer


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    ("change", "of"),
    [
        (pruned, lambda m: m.weight_orig * m.weight_mask),
        (weight_norm, lambda m: m.weight_v * m.weight_g / m.weight_v.norm(dim=1, keepdim=True)),
        (spectral_norm, lambda m: m.weight_orig / (m.weight_u @ m.weight_orig @ m.weight_v)),
    ],
)
def test_weights_that_a_hook_computes_are_computed_from_the_fused_ones(change, of, heard):
    models = [change(nn.Linear(3, 4)) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    with torch.no_grad():
        for parameter in models[1].parameters():
            parameter.mul_(1.1)
    fused = fuse(models, note=heard.append)
    assert heard == []
    assert torch.allclose(fused.weight, of(fused), atol=1e-6)
    assert not torch.allclose(fused.weight, of(models[0]), atol=1e-4) or change is spectral_norm  # scales cancel there
    fused.eval()
    x = torch.eye(3)
    assert torch.allclose(fused(x), x @ of(fused).T + fused.bias, atol=1e-6)


def test_masks_that_differ_are_refused_and_equal_ones_stay(heard):
    models = [nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 2)) for _ in range(2)]
    for seed, model in enumerate(models):
        torch.manual_seed(seed)
        prune.random_unstructured(model[0], "weight", amount=0.5)
        prune.random_unstructured(model[1], "bias", amount=1)
    with pytest.raises(NotComparableError, match=r"different masks, \d differences?: 0\.weight_mask.*prune\.remove"):
        fuse(models, note=heard.append)
    for name in ("0.weight_mask", "1.bias_mask"):
        models[1].get_buffer(name).copy_(models[0].get_buffer(name))
    fused = fuse(models, note=heard.append)
    assert torch.equal(fused[0].weight_mask, models[0][0].weight_mask)
    assert torch.equal(fused[0].weight == 0, models[0][0].weight_mask == 0)


def buffered(values, dtype=torch.float32):
    model = nn.Linear(2, 2)
    model.register_buffer("kept", torch.tensor(values, dtype=dtype))
    return model


@pytest.mark.parametrize(
    ("first", "second", "is_mask"),
    [
        ([0.0, 1.0, 1.0], [1.0, 1.0, 0.0], True),
        ([0.0, 0.0, 0.0], [1.0, 1.0, 1.0], True),
        ([0.0], [1.0], True),
        ([0.0, 2.0, 2.0], [2.0, 0.0, 2.0], True),
        ([0.0, -1e4, 0.0], [0.0, 0.0, -1e4], True),
        ([1.0, -1.0, 1.0], [-1.0, -1.0, 1.0], True),
        ([0.3], [0.5], False),
        ([0.0, 0.0], [0.0, 0.3], False),
        ([0.2, 0.4, 0.6], [0.2, 0.4, 1.0], False),
        ([1.0, 1.0], [0.5, 1.0], False),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_which_floating_buffers_are_masks(first, second, is_mask, dtype, heard):
    models = [buffered(values, dtype) for values in (first, second)]
    models[1].load_state_dict({**models[0].state_dict(), "kept": models[1].kept})
    if is_mask:
        with pytest.raises(
            NotComparableError, match="'model 1' and 'model 2' have different masks, 1 difference: kept"
        ):
            fuse(models)
    else:
        assert torch.allclose(fuse(models).kept, (models[0].kept + models[1].kept) / 2)


def test_settings_that_differ_are_said_and_dropout_is_not(heard):
    models = [nn.Sequential(nn.Conv1d(1, 1, 3), nn.Dropout(0.1), nn.LayerNorm(2)) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    models[1][1].p = 0.5
    fuse(models)
    models[1][0].stride = (2,)
    models[1][2].eps = 0.1
    fuse(models, note=heard.append)
    assert heard == [
        "Attributes that differ are those of the first model: 0.stride ((1,) in 'model 1', (2,) in 'model 2'), "
        "2.eps (1e-05 in 'model 1', 0.1 in 'model 2')."
    ]


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ({"heads": 2}, {"heads": 4}, "held.heads (2 in 'model 1', 4 in 'model 2')"),
        ([[1, 2], [3]], [[1, 2], [4]], "held.1 ([3] in 'model 1', [4] in 'model 2')"),
        (SimpleNamespace(scale=1.0), SimpleNamespace(scale=2.0), "held.scale (1.0 in 'model 1', 2.0 in 'model 2')"),
        (
            functools.partial(F.leaky_relu, negative_slope=0.1),
            functools.partial(F.leaky_relu, negative_slope=0.2),
            "held.negative_slope (0.1 in 'model 1', 0.2 in 'model 2')",
        ),
        (
            F.relu,
            F.silu,
            "held (torch.nn.functional.relu in 'model 1', torch.nn.functional.silu in 'model 2')",
        ),
    ],
)
def test_settings_within_containers_objects_and_functions_are_said(first, second, said, heard):
    models = [Own(first), Own(second)]
    models[1].load_state_dict(models[0].state_dict())
    fuse(models, note=heard.append)
    assert heard == [f"Attributes that differ are those of the first model: {said}."]
    heard.clear()
    fuse([Own(first), Own(first)], note=heard.append)
    assert "attributes" not in "".join(heard)


def test_a_configuration_of_ones_own_is_compared(heard):
    models = [nn.Linear(2, 2) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    models[0].config, models[1].config = SimpleNamespace(heads=2), SimpleNamespace(heads=4)
    fuse(models, note=heard.append)
    assert heard == [
        "Attributes that differ are those of the first model: config.heads (2 in 'model 1', 4 in 'model 2')."
    ]


@pytest.mark.parametrize(
    ("first", "second"),
    [(nn.Tanh, nn.Sigmoid), (nn.ReLU, nn.Tanh), (lambda: nn.LayerNorm(3), lambda: nn.GroupNorm(1, 3))],
)
def test_other_modules_within_are_refused(first, second):
    layer = nn.Linear(3, 3)
    kinds = [type(make()).__name__ for make in (first, second)]
    with pytest.raises(
        NotComparableError, match=rf"1 difference: 1 \({kinds[0]} in 'model 1', {kinds[1]} in 'model 2'\)\. Fuse models"
    ):
        fuse([nn.Sequential(copy.deepcopy(layer), make()) for make in (first, second)])


def test_dropout_may_be_left_out_and_modules_that_know_their_parents_fuse(heard):
    models = [nn.Sequential(nn.Linear(2, 2), part) for part in (nn.Dropout(0.1), nn.Identity())]
    models[1].load_state_dict(models[0].state_dict())
    for model in models:
        model[0].owner = [model]
    fuse(models, note=heard.append)
    assert heard == []
