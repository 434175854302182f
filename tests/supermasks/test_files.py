"""Networks on disk and as state dictionaries."""

import json

import pytest
import torch
from damage import content, flip_a_bit
from safetensors.torch import load_file, save_file
from supermasks.supermask_nets import Residual, everything_of, mlp, network, outputs, rows, train
from torch import nn

from commonweight.base.errors import IntegrityError, UsageError
from commonweight.base.records import sealed
from commonweight.supermasks.files import RECORD, TENSORS
from commonweight.supermasks.network import SupermaskNetwork
from commonweight.supermasks.rules import Threshold, TopK


def full(**options):
    """Three tasks: finished without scores, finished with, and under way with an influence."""
    net = network("a", "b", **options)
    for task, keep in (("a", False), ("b", True)):
        train(net, task)
        net.finish(task, keep_scores=keep)
    net.add_task("c/ö.1")
    net.switch("c/ö.1")
    net.influence({"0.weight": {"a": 0.5, "b": 0.5}}, 0.3)
    return train(net, "c/ö.1")


CASES = [
    {},
    {"rule": TopK(0.3)},
    {"rule": TopK(0.3), "weights": "keep", "batch_norm": "affine", "scores": "shared", "seed": 5},
    {"seed": 5, "weights_seed": 2},
    {"batch_norm": "affine", "exclude": ["6"]},
    {"include": ["0", "3"]},
]


@pytest.mark.parametrize("options", CASES, ids=str)
@pytest.mark.parametrize("way", ["folder", "state", "tensors"])
def test_every_task_comes_back_to_the_last_bit(options, way, tmp_path):
    net = full(**options)
    if way == "folder":
        net.save(tmp_path / "net")
        again = SupermaskNetwork.load(tmp_path / "net", mlp())
    else:
        state = net.state_dict()
        if way == "tensors":  # as plain tensors, without what PyTorch hangs on the dictionary
            save_file(state, tmp_path / "state.safetensors")
            state = load_file(tmp_path / "state.safetensors")
        again = SupermaskNetwork(mlp(), **options)
        again.load_state_dict(state)
    inputs, _ = rows(4)
    assert again.tasks == net.tasks
    assert again.task is None
    assert again.weights_digest() == net.weights_digest()
    assert again.masked == net.masked
    for task in net.tasks:
        assert torch.equal(outputs(again, task, inputs), outputs(net, task, inputs))
        assert everything_of(again, task) == everything_of(net, task)
        assert again.is_finished(task) == net.is_finished(task)
        assert [again.start_bits(task, n) for n in net.masked] == [net.start_bits(task, n) for n in net.masked]
    for each in (net, again):
        train(each, "c/ö.1")
        each.consolidate()
        each.finish("c/ö.1")
        each.add_task("d")
    assert everything_of(again, "c/ö.1") == everything_of(net, "c/ö.1")
    assert everything_of(again, "d") == everything_of(net, "d")


def test_a_layer_frozen_before_comes_back_frozen(tmp_path):
    model = mlp()
    model[3].requires_grad_(False)
    net = train(network("a", model=model), "a")
    net.save(tmp_path / "net")
    again = SupermaskNetwork.load(tmp_path / "net", mlp())
    assert again.masked == net.masked == ("0.weight", "6.weight")
    assert again.unmasked == net.unmasked
    assert torch.equal(outputs(again, "a", rows()[0]), outputs(net, "a", rows()[0]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_types_and_memory_formats_come_back(tmp_path, dtype):
    model = Residual().to(dtype).to(memory_format=torch.channels_last)
    inputs, labels = rows(shape=(2, 8, 8))
    net = train(network("a", model=model, rule=TopK(0.5)), "a", data=(inputs.to(dtype), labels))
    net.finish("a")
    net.save(tmp_path / "net")
    again = SupermaskNetwork.load(tmp_path / "net", Residual().to(memory_format=torch.channels_last))
    last = inputs.to(dtype).to(memory_format=torch.channels_last)
    assert torch.equal(outputs(again, "a", last), outputs(net, "a", last))
    assert again.scores("a", "stem.weight").dtype == dtype


def test_tied_weights_are_written_once(tmp_path):
    def tied():
        first, second = nn.Linear(6, 6), nn.Linear(6, 6)
        second.weight = first.weight
        return nn.Sequential(first, nn.Tanh(), second, nn.Linear(6, 3))

    net = train(network("a", model=tied(), weights="keep"), "a")
    net.save(tmp_path / "net")
    again = SupermaskNetwork.load(tmp_path / "net", tied())
    assert torch.equal(outputs(again, "a", rows()[0]), outputs(net, "a", rows()[0]))
    with again.on("a"):
        assert again.model[0].weight.equal(again.model[2].weight)
    other = network("a", model=tied(), weights="keep")
    other.load_state_dict(net.state_dict())
    assert torch.equal(outputs(other, "a", rows()[0]), outputs(net, "a", rows()[0]))


def test_a_finished_task_takes_a_bit_per_weight_on_disk(tmp_path):
    net = network(model=nn.Linear(1000, 100))
    sizes = []
    for count in range(3):
        net.save(tmp_path / str(count))
        sizes.append((tmp_path / str(count) / TENSORS).stat().st_size)
        net.add_task(str(count))
        net.finish(str(count), keep_scores=False)
    assert sizes[0] < 100_000 / 8 + 1500  # signs, the bias, and names
    assert sizes[1] - sizes[0] < 100_000 / 8 + 200
    assert sizes[2] - sizes[1] < 100_000 / 8 + 200


def test_a_folder_is_not_replaced_unasked(tmp_path):
    net = network("a")
    net.save(tmp_path / "net")
    with pytest.raises(UsageError, match="holds a supermask network already"):
        net.save(tmp_path / "net")
    net.finish("a")
    net.save(tmp_path / "net", overwrite=True)
    assert SupermaskNetwork.load(tmp_path / "net", mlp()).is_finished("a")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    with pytest.raises(UsageError, match="is not a supermask network"):
        net.save(tmp_path / "mine", overwrite=True)


def test_damage_is_found(tmp_path):
    folder = tmp_path / "net"
    full().save(folder)
    with pytest.raises(UsageError, match="is not a folder"):
        SupermaskNetwork.load(tmp_path / "elsewhere", mlp())
    record = content(folder / RECORD)

    def write(**changes):
        (folder / RECORD).write_text(json.dumps(sealed({**record, **changes})))

    for changes, message in [
        ({"format": "other"}, "is not a commonweight-supermasks record"),
        ({"version": 1}, "format version 1, this release reads version 2"),
        ({"digest": "0"}, "weights in .* are not those that were saved"),
        ({"sha256": "0"}, "is not the file that was written"),
        ({"tasks": [{"name": "a"}]}, "tasks of a saved network are damaged"),
        ({"options": {}}, "has options of another form"),
        ({"options": {**record["options"], "rule": {"rule": "roulette"}}}, "expected a mask rule"),
    ]:
        write(**changes)
        with pytest.raises(IntegrityError, match=message):
            SupermaskNetwork.load(folder, mlp())
    (folder / RECORD).write_text("{")
    with pytest.raises(IntegrityError, match="is not JSON"):
        SupermaskNetwork.load(folder, mlp())
    write()
    SupermaskNetwork.load(folder, mlp())
    flip_a_bit(folder / TENSORS)
    with pytest.raises(IntegrityError, match="is not the file that was written"):
        SupermaskNetwork.load(folder, mlp())
    (folder / TENSORS).unlink()
    with pytest.raises(IntegrityError, match="incomplete"):
        SupermaskNetwork.load(folder, mlp())
    (folder / RECORD).unlink()
    with pytest.raises(IntegrityError, match="never finished"):
        SupermaskNetwork.load(folder, mlp())


def test_another_architecture_is_refused(tmp_path):
    network("a").save(tmp_path / "net")
    wider = nn.Sequential(*mlp()[:6], nn.Linear(12, 4))
    with pytest.raises(UsageError, match=r"6\.weight has shape \[4, 12\], the saved one \[3, 12\]"):
        SupermaskNetwork.load(tmp_path / "net", wider)
    with pytest.raises(UsageError, match="they do not share"):
        SupermaskNetwork.load(tmp_path / "net", mlp(norm=False))


def test_a_state_of_other_options_or_tasks_is_refused():
    state = full().state_dict()
    with pytest.raises(UsageError, match=r"rule of this network is .*expected the same"):
        SupermaskNetwork(mlp(), TopK(0.5)).load_state_dict(state)
    with pytest.raises(UsageError, match="seed of this network is 1, of the state 0"):
        SupermaskNetwork(mlp(), Threshold(), seed=1).load_state_dict(state)
    with pytest.raises(UsageError, match="load into a network that was just made"):
        network("z").load_state_dict(state)
    net = full()
    before = everything_of(net, "c/ö.1")
    state = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    train(net, "c/ö.1")
    assert everything_of(net, "c/ö.1") != before
    net.load_state_dict(state)  # back to an earlier point of the same tasks
    assert everything_of(net, "c/ö.1") == before
