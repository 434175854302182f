"""Footprints of change and saliency: what training did to every weight, and what that is worth."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn, tensor

import commonweight
from commonweight import Footprint, change_footprint, saliency_footprint
from commonweight.base.errors import IntegrityError, NotComparableError, UsageError
from commonweight.footprints.slices import Sliceable
from commonweight.overlaps.resampling.noise_ceiling import noise_ceiling
from commonweight.report.overlap import result


def start():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))


def moved(model, seed):
    found = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in found.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return found


def folder(model, place, prefix=""):
    place.mkdir()
    save_file({f"{prefix}{name}": each for name, each in model.state_dict().items()}, place / "model.safetensors")
    return place


def test_a_change_is_the_difference_and_a_snapshot():
    base = start()
    model = moved(base, 1)
    found = change_footprint(model, base)
    expected = {name: each.detach() - base.get_parameter(name).detach() for name, each in model.named_parameters()}
    assert found.kind == "change"
    assert found.names == tuple(expected)
    assert all(torch.equal(found[name], expected[name]) for name in found)
    with torch.no_grad():
        model[0].weight.zero_()
    assert torch.equal(found["0.weight"], expected["0.weight"])


def test_folders_are_read_lazily_and_give_the_same_without_buffers(tmp_path):
    base = start()
    model = moved(base, 1)
    found = change_footprint(folder(model, tmp_path / "model"), folder(base, tmp_path / "base"))
    expected = change_footprint(model, base)
    assert isinstance(found.tensors, Sliceable)
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert torch.equal(found.tensors.rows("0.weight", 1, 3), expected["0.weight"][1:3])
    assert found.tensors.shape("0.weight") == (5, 6)
    found.save(tmp_path / "saved")
    again = Footprint.load(tmp_path / "saved")
    assert again.kind == "change"
    assert all(torch.equal(again[name], expected[name]) for name in expected)


def test_a_head_without_an_initialisation_is_left_out_and_an_encoder_may_lack_its_prefix(tmp_path):
    encoder = start()
    model = nn.ModuleDict({"bert": moved(encoder, 1), "classifier": nn.Linear(3, 2)})
    found = change_footprint(model, folder(encoder, tmp_path / "encoder"))
    assert set(found) == {f"bert.{name}" for name, _ in encoder.named_parameters()}
    assert torch.equal(found["bert.0.weight"], model["bert"][0].weight.detach() - encoder[0].weight.detach())
    assert not torch.equal(found["bert.0.weight"], torch.zeros(5, 6))


def test_bfloat16_is_subtracted_in_float32():
    base = nn.Linear(4, 4, bias=False).bfloat16()
    model = moved(base, 1)
    expected = model.weight.detach().float() - base.weight.detach().float()
    assert torch.equal(change_footprint(model, base)["weight"], expected)


def test_refusals(tmp_path):
    base = start()
    with pytest.raises(UsageError, match="model must be a module or a checkpoint folder, got 'nowhere'; give"):
        change_footprint("nowhere", base)
    with pytest.raises(UsageError, match="initialisation must be a module or a checkpoint folder, got dict"):
        change_footprint(base, dict(base.named_parameters()))
    with pytest.raises(NotComparableError, match="no parameter has name and shape in common with the initialisation"):
        change_footprint(base, nn.Linear(2, 2))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "model.safetensors").write_bytes(b"none")
    with pytest.raises(IntegrityError, match="cannot be read"):
        change_footprint(base, tmp_path / "broken")
    change = change_footprint(moved(base, 1), base)
    with pytest.raises(UsageError, match="fisher must be a footprint of kind fisher, got change"):
        saliency_footprint(change, change)
    with pytest.raises(NotComparableError, match="no parameter has equal name and shape"):
        saliency_footprint(Footprint("fisher", {"w": tensor([1.0])}, 1), change)


def test_changes_are_compared_by_their_signed_cosine():
    base = start()
    a, b = (change_footprint(moved(base, seed), base) for seed in (1, 2))
    table = commonweight.overlap({"a": a, "b": b})
    x, y = a.flat().double(), b.flat().double()
    assert table.measure == "cosine_similarity"
    assert table.pooled[0, 1] == pytest.approx(float(x @ y / (x.norm() * y.norm())))
    assert commonweight.cosine_similarity(a, b) == pytest.approx(table.pooled[0, 1])
    opposite = Footprint("change", {name: -each for name, each in a.items()}, 0, a.metadata)
    assert commonweight.cosine_similarity(a, opposite) == pytest.approx(-1)
    assert "Cosine similarity of changes" in table.to_markdown()
    assert table.alignment.reading("a", "b") == "shared initialisation"


def test_sign_agreement_and_norm_ratio_stand_beside_the_cosine(tmp_path):
    changes = {
        "a": {"0.weight": tensor([[3.0, -1.0], [0.0, 2.0]]), "1.bias": tensor([4.0]), "2.bias": tensor([1.0])},
        "b": {"0.weight": tensor([[2.0, 1.0], [5.0, 3.0]]), "1.bias": tensor([-0.5]), "2.bias": tensor([0.0])},
    }
    table = commonweight.overlap({name: Footprint("change", each, 0) for name, each in changes.items()})
    assert {layer: each[0, 1] for layer, each in table.sign_agreement.by_layer.items()} == {
        "0": pytest.approx(12 / 13),
        "1": pytest.approx(0),
        "2": pytest.approx(np.nan, nan_ok=True),
    }
    assert table.sign_agreement.pooled[0, 1] == pytest.approx(12 / 15)
    assert table.sign_agreement.pooled[1, 0] == table.sign_agreement.pooled[0, 1]
    assert table.norm_ratio.by_layer["1"][0, 1] == pytest.approx(8)
    assert np.isnan(table.norm_ratio.by_layer["2"][0, 1])
    assert table.norm_ratio.pooled[0, 1] == pytest.approx(np.sqrt(31 / 39.25))
    assert table.norm_ratio.pooled[1, 0] == pytest.approx(np.sqrt(39.25 / 31))
    table.save(tmp_path)
    assert commonweight.OverlapTable.load(tmp_path).to_json() == table.to_json()
    assert "| 0.4708 | 0.9231 | 0.5991 |" in table.to_markdown()
    frame = result(table).csv.splitlines()
    assert frame[0] == "layer,a,b,overlap,trace_share_a,trace_share_b,sign_agreement,norm_ratio"
    fishers = commonweight.overlap({name: Footprint("fisher", {"w": tensor([1.0])}, 1) for name in "ab"})
    with pytest.raises(UsageError, match="norm ratio are of changes, and this table is of kind fisher"):
        print(fishers.sign_agreement)


def test_changes_from_two_initialisations_are_not_compared():
    base, other = start(), moved(start(), 9)
    a, b = change_footprint(moved(base, 1), base), change_footprint(moved(other, 1), other)
    with pytest.raises(NotComparableError, match="initialisation differs"):
        commonweight.overlap({"a": a, "b": b})


def measured(seed=0, folds=4):
    base = start()
    model = moved(base, 1).eval()
    generator = torch.Generator().manual_seed(seed)
    data = [(torch.randn(60, 6, generator=generator), torch.randint(3, (60,), generator=generator))]
    return commonweight.fisher(model, data, folds=folds), change_footprint(model, base)


def test_a_saliency_is_fisher_times_squared_change_in_every_fold(tmp_path):
    fisher, change = measured()
    found = saliency_footprint(fisher, change)
    assert all(torch.equal(found[name], fisher[name] * change[name] ** 2) for name in found)
    assert len(found.folds) == 4
    for fold, of in zip(found.folds, fisher.folds, strict=True):
        assert fold.count == of.count
        assert all(torch.equal(fold.tensors[name], of.tensors[name] * change[name] ** 2) for name in found)
    found.save(tmp_path / "saliency")
    assert Footprint.load(tmp_path / "saliency").trace() == pytest.approx(found.trace())


def test_saliencies_are_compared_like_fishers_with_noise_ceilings():
    (fisher, change), (other, _) = measured(0), measured(1)
    a, b = saliency_footprint(fisher, change), saliency_footprint(other, change)
    table = commonweight.overlap({"a": a, "b": b})
    roots = [each.flat().double().sqrt() for each in (a, b)]
    assert table.pooled[0, 1] == pytest.approx(float(roots[0] @ roots[1] / (roots[0].norm() * roots[1].norm())))
    assert commonweight.fisher_overlap(a, b) == pytest.approx(table.pooled[0, 1])
    assert np.isfinite(table.estimate("corrected", "a", "b").low)
    assert 0 < noise_ceiling(a).pooled.value <= 1.01
    with pytest.raises(NotComparableError, match="different kinds"):
        commonweight.overlap({"a": a, "fisher": fisher})
    verdict = table.verdict(("a", "b"))
    assert verdict.answer == "inconclusive"
    assert "an effective sample size was not measured" in verdict.reason
