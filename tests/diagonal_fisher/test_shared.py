"""Several processes, or a model over several devices, give the Fisher of one: counts exactly, values to 1e-6."""

from __future__ import annotations

import math

import pytest
import torch
from accelerate import dispatch_model
from diagonal_fisher import sharded, shared
from processes import ended, started

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
        compare(torch.load(tmp_path / f"found-{rank}.pt"), alone)


def compare(found, alone):
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


def test_a_model_sharded_over_processes_is_measured_as_it_is_whole(tmp_path):
    alone = {}
    for name, (make, _, batches, asked) in sharded.cases():
        alone[name] = shared.plain(commonweight.fisher(make(), batches, **asked))
    for done in ended(started(2, sharded.measure_sharded, tmp_path)):
        assert done.code == 0, done.err
    for rank in range(2):
        found, said, (untouched, measured) = torch.load(tmp_path / f"found-{rank}.pt")
        compare(found, alone)
        assert all(torch.equal(measured[name], gradient) for name, gradient in untouched.items())
        assert said.keys() == REFUSED.keys()
        for name, sentence in REFUSED.items():
            assert sentence in said[name]


REFUSED = {
    "mixed precision": "the model is sharded with a policy of mixed precision: call fully_shard without mp_policy",
    "offloaded": "the model is offloaded to the CPU: call fully_shard without offload_policy",
    "in part": "parts of the model are sharded by fully_shard: call fully_shard on the model itself as well",
    "two meshes": "parameter 0.weight is sharded over a mesh of shape [2, 1] by 2 processes: call fully_shard over all",
    "compiled": "the model is compiled and sharded by fully_shard: leave torch.compile out",
    "tied apart": "'table.weight' is shared with a parameter already managed by another FSDP group",
    "FSDP 1": "the model is wrapped in FullyShardedDataParallel: shard the model with fully_shard (FSDP2) instead",
    "by hand": "parameter 0.weight is sharded over processes by other means than fully_shard",
    "unused": "none covers idle.weight, idle.bias (not used by the rows looked at): leave out with exclude",
    "fewer batches": "the processes were given different batches",
    "other batches": "the processes were given different batches: give all of them, in one order, to every process",
}


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        (math.nan, "the loss of example 19 is nan: expected a finite number"),
        (100.0, "none covers first.weight (used outside the call of its own layer, by torch.nn.functional.linear)"),
    ],
)
def test_what_one_process_of_a_sharded_model_raises_ends_all(inputs, sentence):
    first, second = ended(started(2, sharded.measure_what_one_refuses, inputs))
    assert first.code
    assert second.code == 1
    assert sentence in second.err


PLACES = ("bert.embeddings", "bert.encoder.layer.0", "bert.encoder.layer.1", "bert.pooler", "dropout", "classifier")


def test_a_model_dispatched_over_devices_is_measured_where_its_layers_are():
    ids = torch.randint(50, (12, 6))
    batches = [{"input_ids": ids[i : i + 4], "labels": torch.arange(4) % 2} for i in (0, 4, 8)]
    plain = commonweight.fisher(sharded.encoder(), batches)
    model = dispatch_model(sharded.encoder(), dict.fromkeys(PLACES, "cpu"), main_device="cpu", force_hooks=True)
    assert model.bert.encoder.layer[0]._hf_hook is not None
    found = commonweight.fisher(model, batches)
    assert found.metadata["generic"] == {}
    for name, tensor in plain.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-10)


def test_a_model_that_is_offloaded_is_refused_by_name(tmp_path):
    places = dict.fromkeys(PLACES, "cpu") | {"bert.encoder.layer.1": "disk"}
    model = dispatch_model(sharded.encoder(), places, main_device="cpu", offload_dir=tmp_path, force_hooks=True)
    with pytest.raises(UsageError, match=r"bert\.encoder\.layer\.1\.\S+ is on the meta device .*without CPU or disk"):
        commonweight.fisher(model, [{"input_ids": torch.ones(4, 6).long(), "labels": torch.arange(4) % 2}])
