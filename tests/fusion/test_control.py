"""The random-direction control: as far as the other model, tensor by tensor, and somewhere else."""

import copy

import pytest
import torch
from fusion.conftest import moved, small
from reference.fusion import norm_of_difference
from torch import nn

from commonweight.base import MeasurementError, NotComparableError, UsageError
from commonweight.fusion import distances, fused_at, interpolation_path, random_direction
from commonweight.studies.demo.encoder import make_start


def norms(a, b):
    other = b.state_dict()
    return {
        key: norm_of_difference(tensor.double().flatten().tolist(), other[key].double().flatten().tolist())
        for key, tensor in a.state_dict().items()
        if tensor.is_floating_point()
    }


def same(a, b):
    return all(torch.equal(x, b.state_dict()[key]) for key, x in a.state_dict().items())


@pytest.mark.parametrize("make", [small, lambda: make_start(0)])
def test_every_tensor_moves_as_far_as_asked(make):
    model = make()
    other, before = moved(model, 1), copy.deepcopy(model)
    found = random_direction(model, other, seed=3)
    assert norms(found, model) == pytest.approx(norms(other, model), rel=1e-5)
    assert distances(model, other) == pytest.approx(norms(other, model), rel=1e-9)
    assert same(model, before)
    assert not same(found, other)
    assert found is not model


def test_it_is_named_by_its_seed_and_by_nothing_else():
    model, other = small(), moved(small(), 1)
    torch.manual_seed(0)
    one = random_direction(model, other, seed=3)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    assert same(one, random_direction(model, other, seed=3))
    assert torch.equal(before, torch.get_rng_state())
    assert not same(one, random_direction(model, other, seed=4))
    part = random_direction(model, {"2.bias": distances(model, other)["2.bias"]}, seed=3)
    assert torch.equal(part[2].bias, one[2].bias)  # whatever else moves
    assert torch.equal(part[0].weight, model[0].weight)


def test_the_direction_is_random():
    model = nn.Linear(200, 200)
    start = model.weight.detach()
    steps = [random_direction(model, {"weight": 1.0}, seed=seed).weight.detach() - start for seed in range(4)]
    for i, a in enumerate(steps):
        assert abs(float(a.mean()) * 200) < 4  # of a sum of 40,000 draws, in standard errors
        for b in steps[:i]:
            assert abs(float((a * b).sum())) < 0.03
    assert float((steps[0].abs() < 1 / 200).float().mean()) == pytest.approx(0.683, abs=0.02)  # one sigma of a Gaussian


def test_half_way_is_half_as_far():
    model, other = small(), moved(small(), 1)
    nowhere, before = random_direction(model, other), copy.deepcopy(model)
    for point in interpolation_path(points=5):
        with fused_at([model, nowhere], point) as found:
            expected = {key: point[1] * length for key, length in norms(other, before).items()}
            assert norms(found, before) == pytest.approx(expected, rel=1e-4, abs=1e-7)


def test_what_does_not_differ_stays_and_whole_numbers_too():
    start = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    other = moved(start, 1)
    with torch.no_grad():
        other[0].bias.copy_(start[0].bias)
    other[1].running_mean.add_(0.1)
    other[1].num_batches_tracked.add_(5)
    found = random_direction(start, other)
    assert torch.equal(found[0].bias, start[0].bias)
    assert found[1].num_batches_tracked == 0
    assert float((found[1].running_mean - start[1].running_mean).norm()) == pytest.approx(0.2, rel=1e-5)
    other[1].running_var.fill_(20.0)
    with pytest.raises(MeasurementError, match=r"1\.running_var is a variance and came out negative; give lengths"):
        random_direction(start, other)
    lengths = distances(start, other)
    del lengths["1.running_var"]
    assert torch.equal(random_direction(start, lengths)[1].running_var, start[1].running_var)


def test_tied_weights_move_once():
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    model[1].weight = model[0].weight
    found = random_direction(model, {"0.weight": 0.5})
    assert found[1].weight is found[0].weight
    assert float((found[0].weight - model[0].weight).detach().norm()) == pytest.approx(0.5, rel=1e-5)


def test_steps_below_the_precision_are_an_error_and_not_a_wrong_length():
    model = nn.Linear(50, 50).to(torch.bfloat16)
    with pytest.raises(
        MeasurementError, match=r"weight was to move by 0\.001 and moved by .* in bfloat16: .*\.float\(\)"
    ):
        random_direction(model, {"weight": 0.001})
    random_direction(model.double(), {"weight": 0.001})


@pytest.mark.parametrize(
    ("distance_to", "error", "message"),
    [
        (nn.Linear(2, 2), NotComparableError, "not of one class"),
        (nn.Sequential(nn.Linear(3, 4)), NotComparableError, r"2\.weight \(only in 'model 1'\)"),
        ({"0.wieght": 1.0}, UsageError, r"no floating tensor '0\.wieght' in the model; .* did you mean '0\.weight'"),
        ({"0.weight": -1.0}, UsageError, r"the length for 0\.weight must be a finite number of at least 0, got -1\.0"),
        ({"0.weight": float("nan")}, UsageError, "got nan"),
        ({"0.weight": True}, UsageError, "got True"),
        (1.0, UsageError, "distance_to must be a module or a mapping of names to lengths, got float"),
    ],
)
def test_what_is_no_distance(distance_to, error, message):
    with pytest.raises(error, match=message):
        random_direction(small(), distance_to)


def test_a_seed_is_a_whole_number_and_weights_are_finite():
    for seed in (1.5, True, "a"):
        with pytest.raises(UsageError, match="seed must be a whole number"):
            random_direction(small(), {}, seed=seed)
    model = small()
    with torch.no_grad():
        model[0].bias[0] = float("nan")
    with pytest.raises(MeasurementError, match=r"0\.bias of 'model 1' holds nan"):
        random_direction(model, small())
    with pytest.raises(MeasurementError, match=r"0\.bias was to move by 1 and moved by nan"):
        random_direction(model, {"0.bias": 1.0})


def test_only_entries_that_differ_move_if_asked():
    model = make_start(0)
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.get_input_embeddings().weight[3:5] += 0.1
    found = random_direction(model, other, seed=1, only_moved=True)
    change = (found.get_input_embeddings().weight - model.get_input_embeddings().weight).detach()
    assert change[3:5].abs().min() > 0
    assert change[:3].abs().max() == change[5:].abs().max() == 0
    assert norms(found, model) == pytest.approx(norms(other, model), rel=1e-5)
    everywhere = random_direction(model, other, seed=1)
    assert (everywhere.get_input_embeddings().weight != model.get_input_embeddings().weight).all()
    with pytest.raises(UsageError, match="only_moved needs the other model"):
        random_direction(model, {}, only_moved=True)


def test_rows_of_an_embedding_move_each_as_far_as_in_the_other_model():
    model = make_start(0)
    other = copy.deepcopy(model)
    lengths = torch.zeros(len(model.get_input_embeddings().weight))
    lengths[:4] = torch.tensor([1.0, 0.1, 0.01, 0.001])
    torch.manual_seed(0)
    with torch.no_grad():
        step = torch.randn_like(other.get_input_embeddings().weight)
        other.get_input_embeddings().weight += step / step.norm(dim=1, keepdim=True) * lengths[:, None]
        other.classifier.weight[0] += 0.5
        other.classifier.weight[1] += 0.001
    found = random_direction(model, other, seed=1, only_moved=True)
    change = (found.get_input_embeddings().weight - model.get_input_embeddings().weight).detach()
    there = (other.get_input_embeddings().weight - model.get_input_embeddings().weight).detach()
    assert torch.allclose(change.norm(dim=1), lengths, rtol=1e-3)
    assert change.norm().item() == pytest.approx(there.norm().item(), rel=1e-6)
    assert abs(float(torch.cosine_similarity(change[:4], there[:4], dim=1).mean())) < 0.5
    head = (found.classifier.weight - model.classifier.weight).detach().norm(dim=1)
    assert 0.3 < head[0] / head[1] < 3  # no embedding: its rows share one step
    assert norms(found, model) == pytest.approx(norms(other, model), rel=1e-5)
