"""Several processes, or a model over several devices, give the Fisher of one: counts exactly, values to 1e-6."""

from __future__ import annotations

import pytest
import torch
from accelerate import dispatch_model
from diagonal_fisher import shared
from processes import ended, started
from transformers import BertConfig, BertForSequenceClassification

import commonweight
from commonweight.base.errors import UsageError


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return {name: shared.plain(each) for name, each in shared.measured(tmp_path_factory.mktemp("alone")).items()}


@pytest.mark.parametrize("world", [1, 2, 3])
def test_any_number_of_processes_gives_the_same(alone, tmp_path, world):
    for done in ended(started(world, shared.measure_in_group, tmp_path)):
        assert done.code == 0, done.err
    for rank in range(world):
        found = torch.load(tmp_path / f"found-{rank}.pt")
        assert found.keys() == alone.keys()
        for name, expected in alone.items():
            for exact in ("counts", "agreement", "unused"):
                assert found[name][exact] == expected[exact], name
            assert set(expected["generic"]) <= set(found[name]["generic"])
            for tensors in ("tensors", "rows", "source_rows"):
                assert found[name][tensors].keys() == expected[tensors].keys()
                for key, tensor in expected[tensors].items():
                    torch.testing.assert_close(found[name][tensors][key], tensor, rtol=1e-6, atol=1e-12)
            for fold, whole in zip(found[name]["folds"], expected["folds"], strict=True):
                for key, tensor in whole.items():
                    torch.testing.assert_close(fold[key], tensor, rtol=1e-6, atol=1e-12)
            for layer, sums in expected["spread"].items():
                assert found[name]["spread"][layer] == pytest.approx(sums, rel=1e-9)


def encoder():
    torch.manual_seed(0)
    config = BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
    return BertForSequenceClassification(config).eval()


PLACES = ("bert.embeddings", "bert.encoder.layer.0", "bert.encoder.layer.1", "bert.pooler", "dropout", "classifier")


def test_a_model_dispatched_over_devices_is_measured_where_its_layers_are():
    ids = torch.randint(50, (12, 6))
    batches = [{"input_ids": ids[i : i + 4], "labels": torch.arange(4) % 2} for i in (0, 4, 8)]
    plain = commonweight.fisher(encoder(), batches)
    model = dispatch_model(encoder(), dict.fromkeys(PLACES, "cpu"), main_device="cpu", force_hooks=True)
    assert model.bert.encoder.layer[0]._hf_hook is not None
    found = commonweight.fisher(model, batches)
    assert found.metadata["generic"] == {}
    for name, tensor in plain.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-10)


def test_a_model_that_is_offloaded_is_refused_by_name(tmp_path):
    places = dict.fromkeys(PLACES, "cpu") | {"bert.encoder.layer.1": "disk"}
    model = dispatch_model(encoder(), places, main_device="cpu", offload_dir=tmp_path, force_hooks=True)
    with pytest.raises(UsageError, match=r"bert\.encoder\.layer\.1\.\S+ is on the meta device .*without CPU or disk"):
        commonweight.fisher(model, [{"input_ids": torch.ones(4, 6).long(), "labels": torch.arange(4) % 2}])
