"""Supermask footprints: the bits of a task, whole or flipped, in memory and on disk."""

from __future__ import annotations

import copy
import json
import math

import pytest
import torch
from damage import reseal
from footprints.masked import model, trained
from torch import tensor

from commonweight.base.errors import IntegrityError, MeasurementError, NotComparableError, UsageError
from commonweight.footprints.footprint import Footprint
from commonweight.footprints.of_masks import supermask_footprint
from commonweight.footprints.packed import PackedMasks, byte_count
from commonweight.overlaps.table.table import overlap
from commonweight.supermasks.bits import Bits
from commonweight.supermasks.network import SupermaskNetwork

SHAPES = [(7,), (3, 5), (8, 16), (2, 3, 3, 3), (1, 1), (0, 4), (4, 0), ()]


def random_masks(density=0.4):
    generator = torch.Generator().manual_seed(0)
    return {f"{i}.weight": torch.rand(shape, generator=generator) < density for i, shape in enumerate(SHAPES)}


def edit(folder, change):
    def changed(record):
        change(record)
        return record

    reseal(folder / "footprint.json", changed)


# From a network


def test_the_bits_are_those_of_the_network():
    net = trained()
    found = supermask_footprint(net, "b")
    assert found.kind == "supermask"
    assert found.names == net.masked
    assert all(torch.equal(found[name], net.mask("b", name)) for name in net.masked)
    assert not all(torch.equal(found[name], net.mask("a", name)) for name in net.masked)


def test_one_bit_per_weight_in_memory():
    net = trained()
    found = supermask_footprint(net, "a")
    weights = sum(found[name].numel() for name in found)
    assert found.tensors.nbytes <= weights / 8 + len(found)


def test_it_is_a_snapshot():
    net = copy.deepcopy(trained())
    net.add_task("d")
    before = supermask_footprint(net, "d")
    net.switch("d")
    with torch.no_grad():
        for scores in net.trainable("d"):
            scores.neg_()
    assert all(torch.equal(before[name], ~net.mask("d", name)) for name in net.masked)
    assert supermask_footprint(net, "d").trace() != before.trace()


def test_flipped_bits_are_those_that_differ_from_the_start():
    net = trained()
    flipped = supermask_footprint(net, "a", flipped=True)
    for name in net.masked:
        assert torch.equal(flipped[name], net.mask("a", name) ^ net.start_bits("a", name).unpack())
    assert 0 < flipped.trace() < supermask_footprint(net, "a").trace()


def test_nothing_has_flipped_before_training():
    net = SupermaskNetwork(model())
    net.add_task("a")
    assert supermask_footprint(net, "a", flipped=True).trace() == 0
    assert supermask_footprint(net, "a").trace() > 0


def test_metadata_say_how_it_came_about():
    net = trained()
    found = supermask_footprint(net, "b", count=96).metadata
    assert (found["task"], found["score_initialisation"], found["rule"], found["flipped"], found["finished"]) == (
        "b",
        "independent, seed 0, task 1",
        {"rule": "threshold"},
        False,
        True,
    )
    assert found["model"]["weights_digest"] == net.weights_digest()
    assert found["density"]["3.weight"] == pytest.approx(net.mask("b", "3.weight").float().mean().item())
    assert json.loads(json.dumps(found)) == found
    assert supermask_footprint(trained("shared"), "b").metadata["score_initialisation"] == "shared, seed 0"
    assert supermask_footprint(trained("shared", 1), "b").metadata["score_initialisation"] == "shared, seed 1"


def test_an_unknown_task():
    with pytest.raises(UsageError, match="nobody"):
        supermask_footprint(trained(), "nobody")


def test_footprints_of_one_network_are_of_the_same_weights_and_of_two_are_not():
    one, other = trained(), trained(seed=1)
    same = overlap({task: supermask_footprint(one, task) for task in "ab"})
    assert same.alignment.sentence() == "All footprints are of the same weights."
    apart = overlap({"a": supermask_footprint(one, "a"), "b": supermask_footprint(other, "b")})
    assert apart.alignment.reading("a", "b") == "no shared initialisation"


def test_masks_and_flipped_bits_are_not_compared():
    net = trained("shared")
    pair = {"a": supermask_footprint(net, "a"), "b": supermask_footprint(net, "b", flipped=True)}
    with pytest.raises(
        NotComparableError, match="masks in 'a', flipped bits in 'b'; take all with flipped=True, or none"
    ):
        overlap(pair)


# In files


def test_a_saved_network_mask_comes_back_packed(tmp_path):
    whole = supermask_footprint(trained(), "a", count=5)
    back = Footprint.load(whole.save(tmp_path / "a"), check_hashes=True)
    assert (back.kind, back.count, back.metadata) == (whole.kind, whole.count, whole.metadata)
    assert all(torch.equal(back[name], whole[name]) for name in whole)
    assert torch.equal(back.flat(), whole.flat())
    record = json.loads((tmp_path / "a" / "footprint.json").read_text())
    shard = record["shards"][record["groups"]["footprint"]["3.weight"]]
    assert shard["bytes"] < sum(whole[name].numel() for name in whole) / 8 + 1000  # the header of the shard


@pytest.mark.parametrize("dense", [True, False], ids=["dense", "packed"])
def test_any_shapes_come_back(tmp_path, dense):
    masks = random_masks()
    footprint = Footprint("supermask", masks if dense else PackedMasks.of(masks), count=0)
    back = Footprint.load(footprint.save(tmp_path / "f"))
    assert back.names == tuple(masks)
    for name, mask in masks.items():
        assert back[name].dtype == torch.bool
        assert torch.equal(back[name], mask)
        assert back.tensors.shape(name) == tuple(mask.shape)
        assert len(back.tensors.packed(name, 0, 10**9)) == byte_count(tuple(mask.shape))


@pytest.mark.parametrize("place", ["memory", "disk"])
def test_rows_are_those_of_the_whole(tmp_path, place):
    masks = {name: mask for name, mask in random_masks().items() if mask.dim()}
    found = PackedMasks.of(masks)
    if place == "disk":
        found = Footprint.load(Footprint("supermask", found, 0).save(tmp_path / "f")).tensors
    for name, mask in masks.items():
        for start in range(len(mask) + 1):
            for stop in range(len(mask) + 2):
                assert torch.equal(found.rows(name, start, stop), mask[start:stop]), (name, start, stop)


def test_a_saved_mask_can_be_saved_again(tmp_path):
    first = Footprint("supermask", random_masks(), 3).save(tmp_path / "f")
    again = Footprint.load(Footprint.load(first).save(tmp_path / "g"))
    assert all(torch.equal(again[name], mask) for name, mask in random_masks().items())


def test_zeros_and_ones_of_any_type_are_bits_and_other_numbers_are_not(tmp_path):
    back = Footprint.load(Footprint("supermask", {"w": tensor([1.0, 0.0])}, 0).save(tmp_path / "f"))
    assert back["w"].tolist() == [True, False]
    with pytest.raises(
        MeasurementError, match=r"w holds 0\.5: a mask holds only 0 and 1; keep the bits, not the scores"
    ):
        Footprint("supermask", {"w": tensor([1.0, 0.5])}, 0).save(tmp_path / "g")
    assert not (tmp_path / "g").exists()


def test_all_kinds_have_one_version_and_masks_say_their_shapes(tmp_path):
    fisher = Footprint("fisher", {"w": tensor([1.0, 0.0])}, 1).save(tmp_path / "fisher")
    mask = Footprint("supermask", {"w": tensor([1, 0])}, 1).save(tmp_path / "mask")
    records = [json.loads((folder / "footprint.json").read_text()) for folder in (fisher, mask)]
    assert [(record["version"], record["packed"]) for record in records] == [(5, {}), (5, {"footprint": {"w": [2]}})]
    assert Footprint.load(fisher)["w"].tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record.pop("packed"),
        lambda record: record.update(packed=[]),
        lambda record: record["packed"].update(footprint={}),
        lambda record: record["packed"]["footprint"].update({"0.weight": [-7]}),
        lambda record: record["packed"]["footprint"].update({"0.weight": "7"}),
        lambda record: record["packed"].update(other={"w": [1]}),
    ],
)
def test_a_damaged_record_is_refused(tmp_path, change):
    folder = Footprint("supermask", random_masks(), 0).save(tmp_path / "f")
    Footprint.load(folder)
    edit(folder, change)
    with pytest.raises(IntegrityError, match="damaged or written by hand"):
        Footprint.load(folder)


def test_a_shape_that_does_not_fit_the_bytes_is_refused(tmp_path):
    folder = Footprint("supermask", {"w": torch.ones(20, dtype=torch.bool)}, 0).save(tmp_path / "f")
    edit(folder, lambda record: record["packed"]["footprint"].update(w=[30]))
    with pytest.raises(IntegrityError, match=r"the mask 'w' of shape \[30\] takes 4 bytes, and the shard holds"):
        Footprint.load(folder)["w"]


def test_bits_beyond_the_last_weight_are_refused(tmp_path):
    folder = Footprint("supermask", {"w": torch.ones(20, dtype=torch.bool)}, 0).save(tmp_path / "f")
    edit(folder, lambda record: record["packed"]["footprint"].update(w=[19]))
    with pytest.raises(IntegrityError, match="bits beyond its last weight"):
        Footprint.load(folder)["w"]
    edit(folder, lambda record: record["packed"]["footprint"].update(w=[20]))
    assert Footprint.load(folder)["w"].all()


def test_the_order_of_bits_on_disk_is_the_documented_one(tmp_path):
    import numpy as np
    from safetensors.torch import load_file

    mask = torch.tensor([True, False, False, True, True, False, False, False, True])
    folder = Footprint("supermask", {"w": mask}, 0).save(tmp_path / "f")
    stored = load_file(folder / "footprint-00000.safetensors")["w"]
    assert stored.tolist() == [0b10011000, 0b10000000]
    assert np.unpackbits(stored.numpy(), count=9).astype(bool).tolist() == mask.tolist()


def test_shared_memory_of_packed_masks_is_not_copied():
    bits = Bits.of(torch.ones(64, dtype=torch.bool))
    assert PackedMasks({"w": bits}).packed("w", 0, 8).data_ptr() == bits.packed.data_ptr()


def test_a_task_that_took_over_from_others_says_so():
    net = copy.deepcopy(trained())
    assert supermask_footprint(net, "c").metadata["score_initialisation"] == "independent, seed 0, task 2"
    for task, prior in (("d", "b"), ("e", "d")):
        net.add_task(task)
        net.switch(task)
        net.start_from({"0.weight": {prior: 1.0}}, 0.5)
        net.finish(task)
    found = supermask_footprint(net, "e").metadata
    assert found["score_initialisation"] == "independent, seed 0, task 4"
    assert found["moved_towards"] == {"b": "independent, seed 0, task 1", "d": "independent, seed 0, task 3"}


def test_bits_behind_the_last_weight_are_refused_in_memory_too():
    with pytest.raises(MeasurementError, match="w has 3 bits, and bits behind the last one that are not 0"):
        PackedMasks({"w": Bits(tensor([0b11110000], dtype=torch.uint8), (3,))})
    assert PackedMasks({"w": Bits(tensor([0b11100000], dtype=torch.uint8), (3,))})["w"].all()
    assert PackedMasks({"w": Bits(tensor([255], dtype=torch.uint8), (8,))})["w"].all()


def test_masks_of_ones_own_are_a_footprint_too(tmp_path):
    own = {"fc1.weight": torch.rand(5, 3) < 0.5, "fc2.weight": torch.ones(2, 5)}
    footprint = supermask_footprint(own, "a", score_initialisation="seed 3", count=8)
    assert (footprint.count, footprint.names) == (8, ("fc1.weight", "fc2.weight"))
    assert all(torch.equal(footprint[name], mask.bool()) for name, mask in own.items())
    assert footprint.metadata["density"]["fc2.weight"] == 1
    assert footprint.metadata["score_initialisation"] == "seed 3"
    others = {"fc1.weight": torch.rand(5, 3) < 0.5, "fc2.weight": torch.rand(2, 5) < 0.5}
    table = overlap({
        "a": Footprint.load(footprint.save(tmp_path / "a")),
        "b": supermask_footprint(others, score_initialisation="seed 4"),
    })
    assert math.isfinite(table.chance.pooled[0, 1])
    assert math.isnan(overlap({"a": footprint, "b": supermask_footprint(others)}).chance.pooled[0, 1])


def test_what_is_neither_a_network_nor_masks_is_refused():
    with pytest.raises(MeasurementError, match="a mask holds only 0 and 1"):
        supermask_footprint({"fc.weight": torch.tensor([0.3])})
    with pytest.raises(UsageError, match="a network needs a task, one of a, b"):
        supermask_footprint(trained())
    with pytest.raises(UsageError, match="for masks of your own: a network knows it"):
        supermask_footprint(trained(), "a", score_initialisation="seed 0")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (({"fc.weight": [1, 0]},), "must be a Tensor, got list"),
        (({"fc.weight": torch.ones(2, device="meta")},), "must be a dense tensor of real numbers, got meta"),
        (({"fc.weight": torch.eye(2).to_sparse()},), "must be a dense tensor"),
        (({"fc.weight": torch.ones(2)}, 3), "task must be a str, got int"),
    ],
)
def test_odd_masks_of_ones_own_are_refused(given, words):
    with pytest.raises((UsageError, MeasurementError), match=words):
        supermask_footprint(*given)


@pytest.mark.parametrize("count", [-1, 1.5, "3", True])
def test_a_count_is_a_whole_number(count):
    with pytest.raises(UsageError, match="count must be a whole number of at least 0"):
        supermask_footprint({"fc.weight": torch.ones(2)}, count=count)
