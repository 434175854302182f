"""Fusing modules in memory: the laws, buffers, ties, and everything that is refused."""

import copy

import numpy as np
import pytest
import torch
from fusion.conftest import moved, small
from reference import fusion as slow
from torch import nn

from commonweight import fisher, fuse, fuse_checkpoints
from commonweight.base import MeasurementError, NotComparableError, UsageError
from commonweight.studies.demo.encoder import make_start


def same(a, b):
    return all(torch.equal(x, b.state_dict()[key]) for key, x in a.state_dict().items())


def flat(model):
    return torch.cat([p.detach().reshape(-1).double() for p in model.parameters()]).tolist()


def test_one_model_with_weight_1_comes_back_bit_for_bit(trio):
    fused = fuse(trio[:1])
    assert fused is not trio[0]
    assert same(fused, trio[0])
    assert next(fused.parameters()).data_ptr() != next(trio[0].parameters()).data_ptr()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_average_of_equal_models_is_the_model(dtype):
    model = small(dtype=dtype)
    assert same(fuse([copy.deepcopy(model) for _ in range(3)]), model)


def test_methods_equal_the_loops(trio):
    lists = [flat(model) for model in trio]
    weights = [0.2, 0.9, -0.1]
    assert flat(fuse(trio, weights)) == pytest.approx(slow.average(lists, weights), abs=1e-6)
    base = small()
    found = fuse(trio, weights, "task_arithmetic", base=base, scale=0.4)
    assert flat(found) == pytest.approx(slow.task_arithmetic(flat(base), lists, weights, 0.4), abs=1e-6)
    summed = fuse(trio, method="task_arithmetic", base=base)
    assert flat(summed) == pytest.approx(slow.task_arithmetic(flat(base), lists, [1, 1, 1], 1), abs=1e-6)


def test_the_inputs_stay_as_they_are(trio):
    before = [copy.deepcopy(model) for model in trio]
    trio[0].train()
    trio[0][0].weight.requires_grad_(False)
    fused = fuse(trio, [0.5, 0.25, 0.25])
    assert all(same(a, b) for a, b in zip(trio, before, strict=True))
    assert (fused.training, fused[0].weight.requires_grad, fused[2].weight.requires_grad) == (True, False, True)


def test_floating_buffers_are_averaged_and_counts_are_the_first_models(heard):
    start = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    models = [moved(start, 1), moved(start, 2)]
    for steps, model in enumerate(models, 1):
        for _ in range(steps):
            model(torch.randn(5, 3))
    fused = fuse(models, [0.25, 0.75], note=heard.append)
    expected = 0.25 * models[0][1].running_var + 0.75 * models[1][1].running_var
    assert torch.allclose(fused[1].running_var, expected)
    assert fused[1].num_batches_tracked == 1
    assert any("Counts that differ are those of the first model: 1.num_batches_tracked" in text for text in heard)
    assert any("Running statistics" in text for text in heard)
    models[1][1].running_var.fill_(9.0)
    with pytest.raises(MeasurementError, match=r"1\.running_var is a variance and came out negative"):
        fuse(models, [1.5, -0.5], note=heard.append)
    with pytest.warns(UserWarning, match="Counts that differ"), pytest.warns(UserWarning, match="Running statistics"):
        fuse(models)


class Masked(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.register_buffer("mask", torch.tensor([0.0, float("-inf"), 0.0]))
        self.register_buffer("table", torch.arange(3), persistent=False)


def test_equal_buffers_stay_even_infinite_ones_and_tables_must_be_equal():
    start = Masked()
    models = [moved(start, 1), moved(start, 2)]
    assert torch.equal(fuse(models).mask, start.mask)
    models[1].mask[0] = 1.0
    with pytest.raises(MeasurementError, match="mask of 'model 1' holds nan or infinity"):
        fuse(models)
    models[1].mask[0] = 0.0
    models[1].table = torch.tensor([0, 2, 1])
    with pytest.raises(NotComparableError, match=r"table holds int64 and differs between 'model 1' and 'model 2'"):
        fuse(models)


def test_tied_weights_stay_tied_and_are_fused_once():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(5, 3)
            self.head = nn.Linear(3, 5, bias=False)
            self.head.weight = self.table.weight

    start = Tied()
    models = [moved(start, 1), moved(start, 2)]
    fused = fuse(models, [0.25, 0.75])
    assert fused.head.weight is fused.table.weight
    expected = 0.25 * models[0].table.weight + 0.75 * models[1].table.weight
    assert torch.allclose(fused.head.weight, expected)
    untied = moved(start, 2)
    untied.head.weight = nn.Parameter(untied.head.weight.detach().clone())
    with pytest.raises(NotComparableError, match=r"head\.weight \(only in 'model 2'\)"):
        fuse([models[0], untied])


def test_half_precision_is_rounded_once():
    a = small(dtype=torch.bfloat16)
    b, c = moved(a, 1), moved(a, 2)
    fused = fuse([a, b, c])
    for key, values in fused.state_dict().items():
        exact = sum(model.state_dict()[key].double() for model in (a, b, c)) / 3
        assert values.dtype == torch.bfloat16
        assert torch.equal(values, exact.to(torch.bfloat16))


def test_no_shared_initialisation_is_a_warning_and_a_common_one_is_silent(trio):
    fuse(trio)
    with pytest.warns(
        UserWarning, match=r"No shared initialisation for model 1 and model 2 \(relative weight distance \d\.\d\d\)"
    ):
        fuse([make_start(0), make_start(1)])


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (
            [0.5, 0.4, 0.0],
            r"must sum to 1, got 0\.5, 0\.4, 0 with the sum 0\.9, .*divided by it they are 0\.555556, 0\.444444, 0",
        ),
        ([1.0, -1.0, 0.0], r"with the sum 0, .*give weights with a sum other than 0"),
        ([0.5, 0.5], r"got 2 weights for 3 models; give 3, or none"),
        ([], r"got 0 weights for 3 models"),
        ([0.5, float("nan"), 0.5], r"finite numbers, got nan as number 2"),
        ([0.5, float("inf"), 0.5], r"got inf"),
        ([0.5, "0.5", 0.0], r"got '0\.5'"),
        ([True, False, False], r"got True"),
    ],
)
def test_weights_that_do_not_serve(trio, weights, message):
    with pytest.raises(UsageError, match=message):
        fuse(trio, weights)


def test_numbers_of_numpy_and_rounding_are_fine(trio):
    assert same(fuse(trio, np.array([0.2, 0.3, 0.5])), fuse(trio, [0.2, 0.3, 0.5]))
    fuse(trio, [0.3333333, 0.3333333, 0.3333334])
    with pytest.raises(UsageError, match="sum to 1"):
        fuse(trio, [0.333, 0.333, 0.333])


def test_negative_weights_extrapolate(trio):
    fused = fuse(trio[:2], [1.5, -0.5])
    expected = 1.5 * trio[0][0].weight - 0.5 * trio[1][0].weight
    assert torch.allclose(fused[0].weight, expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: fuse([]), "at least one model to fuse, got none"),
        (lambda t: fuse(t[0]), "expected a list of models, got one Sequential; put it into a list"),
        (lambda t: fuse("runs/a"), "expected a list of models, got one str"),
        (lambda t: fuse([t[0], t[0]]), "model 2 is the same module as model 1; give each once"),
        (lambda t: fuse([t[0], "runs/a"]), "model 2 is a str, expected a module; .*fuse_checkpoints fuses folders"),
        (lambda t: fuse(["runs/a"], base=t[0], method="task_arithmetic"), "model 1 is a str"),
        (lambda t: fuse([t[0], 3]), "model 2 is a int"),
        (lambda t: fuse(t, output="x"), "no fusion method takes 'output'; there are 'scale', 'floor', 'normalize'"),
        (lambda t: fuse(t, scael=2), "no fusion method takes 'scael'; there are .* did you mean 'scale'"),
        (lambda t: fuse_checkpoints("runs/a", output="x"), "expected a list of checkpoint folders, got one str"),
        (lambda t: fuse_checkpoints([], output="x"), "at least one model to fuse, got none"),
        (lambda t: fuse_checkpoints([3], output="x"), "expected checkpoint folders, got a int"),
        (lambda t: fuse_checkpoints(t, output="x"), "got a Sequential; commonweight.fuse fuses modules"),
        (lambda t: fuse_checkpoints(["a"], base=t[0], method="task_arithmetic", output="x"), "got a Sequential"),
        (lambda t: fuse(t, method="fischer"), "no method 'fischer'; there are .* did you mean 'fisher'"),
        (lambda t: fuse(t, method="task_arithmetic"), "task arithmetic needs the base .* got none"),
        (lambda t: fuse(t, method="fisher"), "needs a footprint of each model, got none"),
        (lambda t: fuse(t, base=small()), "base is for task arithmetic, and the method is average; leave it out"),
        (lambda t: fuse(t, scale=0.5), "scale is for task arithmetic, and the method is average"),
        (lambda t: fuse(t, floor=0.5), "floor is for fisher, and the method is average"),
        (lambda t: fuse(t, normalize="trace"), "normalize is for fisher"),
        (lambda t: fuse(t, footprints=[]), "footprints is for fisher"),
        (
            lambda t: fuse(t, method="task_arithmetic", base=small(), scale=float("nan")),
            "scale must be a finite number",
        ),
        (lambda t: fuse(t, method="task_arithmetic", base=t[0]), "the base is the same module as model 1"),
        (lambda t: fuse([nn.Tanh(), nn.Tanh()]), "'model 1' is a Tanh without parameters"),
        (lambda t: fuse([nn.Linear(2, 2, device="meta")]), "weight of 'model 1' has no values yet"),
        (lambda t: fuse([nn.LazyLinear(2)]), "weight of 'model 1' has no values yet"),
        (lambda t: fuse([nn.Linear(2, 2, dtype=torch.complex64)]), "is torch.complex64, which cannot be averaged"),
    ],
)
def test_arguments_that_do_not_serve(trio, call, message):
    with pytest.raises(UsageError, match=message):
        call(trio)


def wider(outputs):
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, outputs))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda: wider(5), r"2 differences: 2\.weight \(shape \[2, 4\] in 'model 1', \[5, 4\] in 'model 2'\); 2\.bias"),
        (
            lambda: small(dtype=torch.float64),
            r"stored in different types, 4 differences: 0\.weight \(float32 in 'model 1', float64",
        ),
        (
            lambda: nn.Sequential(nn.Linear(3, 4), nn.Tanh()),
            r"2\.weight \(only in 'model 1'\).*of one class, head included",
        ),
        (lambda: nn.Linear(3, 4), r"not of one class: torch.nn.modules.container.Sequential in 'model 1', .*Linear in"),
    ],
)
def test_models_that_do_not_fit_are_named(other, message):
    with pytest.raises(NotComparableError, match=message):
        fuse([small(), other()])


def test_differing_heads_of_checkpoints_in_memory_are_named():
    a, b = make_start(0), make_start(0)
    b.config.id2label = dict(reversed(list(enumerate(reversed(b.config.id2label.values())))))
    with pytest.raises(NotComparableError, match=r"heads of 'model 1' and 'model 2' do not mean the same.*id2label is"):
        fuse([a, b])
    b = make_start(0)
    b.config.num_attention_heads = 2
    with pytest.raises(NotComparableError, match="do not compute the same, 1 difference: num_attention_heads is 4 in"):
        fuse([a, b])
    b = make_start(0)
    b.config.hidden_dropout_prob = 0.3  # matters in training only
    assert same(fuse([a, b]), a)


def test_nan_is_refused_before_and_after(trio):
    with torch.no_grad():
        trio[1][2].bias[0] = float("nan")
    with pytest.raises(MeasurementError, match=r"2\.bias of 'model 2' holds nan or infinity.*nothing was fused"):
        fuse(trio)
    with pytest.raises(MeasurementError, match=r"2\.bias of 'model 2'"):  # even where it does not count
        fuse(trio, [1.0, 0.0, 0.0])
    half = [small(dtype=torch.float16), small(dtype=torch.float16)]
    with torch.no_grad():
        half[0][0].weight.fill_(60000.0)
        half[1][0].weight.fill_(-60000.0)
    with pytest.raises(MeasurementError, match=r"the fused 0\.weight holds nan or infinity in float16.*smaller"):
        fuse(half, [3.0, -2.0], note=lambda _: None)


def data(column, rows=40, seed=0):
    x = torch.randn(rows, 3, generator=torch.Generator().manual_seed(seed))
    return [(x, (x[:, column] > 0).long())]


@pytest.mark.parametrize("normalize", ["norm", "trace", "none", None])
def test_the_fisher_average_equals_the_loop(trio, normalize):
    footprints = [fisher(model, data(i)) for i, model in enumerate(trio)]
    weights = [0.5, 0.2, 0.3]
    fused = fuse(trio, weights, "fisher", footprints=footprints, normalize=normalize, floor=1e-3)
    expected, _ = slow.fisher_average(
        [flat(model) for model in trio],
        [f.flat().double().tolist() for f in footprints],
        weights,
        1e-3,
        normalize or "norm",
    )
    assert flat(fused) == pytest.approx(expected, abs=1e-6)
    plain = slow.average([flat(model) for model in trio], weights)
    assert flat(fused) != pytest.approx(plain, abs=1e-4)
