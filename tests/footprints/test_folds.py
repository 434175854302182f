"""Folds written in bfloat16: half the room, the whole untouched, and overlaps that hardly notice."""

import pytest
import torch

import commonweight
from commonweight.base import UsageError
from commonweight.footprints.folds import SHORT_FROM, needs_of, shortened


def model_of(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 80), torch.nn.ReLU(), torch.nn.Linear(80, 3)).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 8)
    return model


def rows(seed, count=64, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 64, generator=generator).to(dtype), torch.randint(3, (count,), generator=generator)


def stored_bytes(folder):
    return sum(tensor.nbytes for file in folder.glob("*.safetensors") for tensor in load(file).values())


def load(file):
    from safetensors.torch import load_file

    return load_file(file)


@pytest.mark.parametrize(("folds", "short"), [(1, None), (4, None), (4, torch.bfloat16), (1, torch.bfloat16)])
def test_what_lies_on_disk_is_what_was_said(tmp_path, folds, short):
    model = model_of()
    commonweight.fisher(model, [rows(0)], folds=folds, folder=tmp_path / "f", fold_dtype=short)
    needs = needs_of(dict(model.named_parameters()), folds, short)
    assert stored_bytes(tmp_path / "f") == needs.disk + 8 * len(rows(0)[1])  # and a digest per row
    heads = 300 * (folds + 2) * len(list(model.parameters()))
    written = sum(file.stat().st_size for file in (tmp_path / "f").glob("*.safetensors"))
    assert needs.disk < written < needs.disk + 8 * len(rows(0)[1]) + heads


def test_large_parameters_are_shortened_and_nothing_else(tmp_path):
    model = model_of()
    exact = commonweight.fisher(model, [rows(0)], folds=4, folder=tmp_path / "exact")
    short = commonweight.fisher(model, [rows(0)], folds=4, folder=tmp_path / "short", fold_dtype=torch.bfloat16)
    assert model[0].weight.numel() >= SHORT_FROM > model[2].weight.numel()
    for name in exact:
        assert short[name].equal(exact[name])
        for one, other in zip(short.folds, exact.folds, strict=True):
            tensor = one.tensors[name]
            assert tensor.dtype == (torch.bfloat16 if name == "0.weight" else torch.float32)
            assert torch.allclose(tensor.float(), other.tensors[name], rtol=2**-8, atol=0)
    assert short.metadata["folds"] == {**exact.metadata["folds"], "dtype": "bfloat16"}
    assert "dtype" not in exact.metadata["folds"]


def test_zeros_stay_zeros_and_all_else_stays_positive():
    sizes = 10.0 ** torch.linspace(-37, 38, SHORT_FROM)
    short = shortened({"w": torch.cat([sizes, torch.zeros(100)])}, torch.bfloat16)["w"]
    assert short.dtype == torch.bfloat16
    assert (short[SHORT_FROM:] == 0).all()
    assert (short[:SHORT_FROM] > 0).all()
    assert short.isfinite().all()


def test_overlaps_hardly_notice(tmp_path):
    tables = {}
    for name, short in (("exact", None), ("short", torch.bfloat16)):
        prints = {
            str(seed): commonweight.fisher(
                model_of(), [rows(seed)], folds=4, folder=tmp_path / f"{name}-{seed}", fold_dtype=short
            )
            for seed in (0, 1)
        }
        tables[name] = commonweight.overlap(prints)
    for quantity in ("raw", "corrected", "above_null"):
        exact, short = (tables[name].estimate(quantity, "0", "1") for name in ("exact", "short"))
        assert short.value == pytest.approx(exact.value, abs=1e-4)
        assert short.half_width() == pytest.approx(exact.half_width(), rel=0.01, abs=1e-3)


def test_double_precision_is_never_shortened(tmp_path):
    found = commonweight.fisher(
        model_of(torch.float64), [rows(0, dtype=torch.float64)], folds=2, folder=tmp_path / "f",
        fold_dtype=torch.bfloat16,
    )  # fmt: skip
    assert {tensor.dtype for tensor in found.folds[0].tensors.values()} == {torch.float64}


def test_other_types_and_no_folder_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r"None or torch.bfloat16.*got torch.float16"):
        commonweight.fisher(model_of(), [rows(0)], folds=2, folder=tmp_path / "f", fold_dtype=torch.float16)
    with pytest.raises(UsageError, match="give a folder too"):
        commonweight.fisher(model_of(), [rows(0)], folds=2, fold_dtype=torch.bfloat16)
    assert not (tmp_path / "f").exists()
