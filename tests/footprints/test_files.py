"""Footprint folders: there whole or not at all, lazy on reading, and damage is named."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from damage import flip_a_bit, reseal
from diagonal_fisher.small import examples, in_batches, small_mlp
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from torch import tensor

import commonweight
from commonweight import Footprint
from commonweight.base import IntegrityError, MeasurementError, UsageError
from commonweight.footprints import files
from commonweight.footprints.footprint import Fold, Spread, contradiction

SHARD = "footprint-00000.safetensors"


def a_footprint(**changes):
    plain = {
        "kind": "fisher",
        "tensors": {
            "a.weight": torch.arange(12.0).reshape(4, 3),
            "a.bias": tensor([5.0]),
            "b.weight": torch.ones(2, 2),
        },
        "count": 4,
        "metadata": {"fisher_type": "empirical", "exact": {"class": "Net"}, "seed": 3, "note": "ä"},
    }
    return Footprint(**plain | changes)


def same(a, b):
    return list(a) == list(b) and all(a[n].dtype == b[n].dtype and torch.equal(a[n], b[n]) for n in a)


@pytest.fixture
def saved(tmp_path):
    return a_footprint().save(tmp_path / "f")


def edit(folder, **changes):
    reseal(folder / "footprint.json", lambda record: record | changes)


def without(folder, key):
    reseal(folder / "footprint.json", lambda record: {name: value for name, value in record.items() if name != key})


# Round trips


def test_round_trip_with_everything(tmp_path):
    whole = a_footprint(
        spread={"": Spread(3.0, 2.5), "a": Spread(1.0, 0.4)},
        folds=(Fold(1, a_footprint().tensors), Fold(3, {n: t * 2 for n, t in a_footprint().tensors.items()})),
        weight_sample={"a.weight": tensor([0.5, -1.0])},
    )
    back = Footprint.load(whole.save(tmp_path / "f"), check_hashes=True)
    assert same(back.tensors, whole.tensors)
    assert (back.kind, back.count, back.metadata) == (whole.kind, whole.count, whole.metadata)
    assert back.spread == whole.spread
    assert [fold.count for fold in back.folds] == [1, 3]
    assert all(same(a.tensors, b.tensors) for a, b in zip(back.folds, whole.folds, strict=True))
    assert not same(back.folds[0].tensors, back.folds[1].tensors)
    assert same(back.weight_sample, whole.weight_sample)
    assert back.names == whole.names
    assert back.trace() == whole.trace()
    assert torch.equal(back.flat(), whole.flat())
    assert repr(back) == repr(whole)


def test_a_loaded_footprint_can_be_saved_again(tmp_path, saved):
    again = Footprint.load(saved).save(tmp_path / "again")
    assert same(Footprint.load(again).tensors, a_footprint().tensors)
    assert len(Footprint.load(again).weight_sample) == 0


@pytest.mark.parametrize("kind", ["supermask", "activity"])
def test_the_kind_is_kept(tmp_path, kind):
    mask = a_footprint(kind=kind, tensors={"a": tensor([True, False])})
    back = Footprint.load(mask.save(tmp_path / "f"))
    assert back.kind == kind
    assert same(back.tensors, mask.tensors)


names = st.text(min_size=1, max_size=12).filter(lambda name: name != "__metadata__" and name.isprintable())
tensors_of_any_shape = st.tuples(
    st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.bool, torch.int64]),
    st.lists(st.integers(0, 3), max_size=3),
)


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(names, tensors_of_any_shape, min_size=1, max_size=5), st.integers(1, 60))
def test_round_trip_of_any_names_shapes_types_and_shard_sizes(spec, shard_bytes):
    tensors = {
        name: torch.arange(torch.Size(shape).numel()).reshape(shape).to(dtype) for name, (dtype, shape) in spec.items()
    }
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(files, "SHARD_BYTES", shard_bytes)
        back = Footprint.load(a_footprint(tensors=tensors).save(Path(folder) / "f"), check_hashes=True)
        assert same(back.tensors, tensors)
        assert all(back.tensors.shape(name) == tuple(tensor.shape) for name, tensor in tensors.items())


@pytest.mark.parametrize("name", ["../up", "a/b", ".", "", "a b\n", "é\U0001f600", "con\\", "x" * 500])
def test_odd_names_stay_names(tmp_path, name):
    tensors = {name: tensor(2.0), "plain": torch.zeros(0, 3)}
    folder = a_footprint(tensors=tensors).save(tmp_path / "f")
    assert same(Footprint.load(folder).tensors, tensors)
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_several_shards(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "SHARD_BYTES", 40)
    tensors = {"a": torch.ones(4), "b": torch.ones(5), "c": torch.ones(100), "d": torch.ones(10), "e": torch.zeros(0)}
    folder = a_footprint(tensors=tensors).save(tmp_path / "f")
    where = json.loads((folder / "footprint.json").read_text())["groups"]["footprint"]
    assert [where[name][-17:-12] for name in tensors] == ["00000", "00000", "00001", "00002", "00002"]
    assert len(list(folder.glob("*.safetensors"))) == 3
    assert same(Footprint.load(folder, check_hashes=True).tensors, tensors)
    monkeypatch.undo()
    assert len(list(a_footprint(tensors=tensors).save(tmp_path / "g").glob("*.safetensors"))) == 1


def test_strided_tensors_and_tensors_that_share_memory(tmp_path):
    base = torch.arange(12.0)
    one = base[:6].reshape(2, 3)
    tensors = {
        "t": base.reshape(3, 4).t(),
        "view": base[3:9],
        "expanded": base[:1].expand(4),
        "same": one,
        "twice": one,
    }
    assert same(Footprint.load(a_footprint(tensors=tensors).save(tmp_path / "f")).tensors, tensors)


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.bool, torch.int64]
)
def test_safetensors_itself_reads_what_was_written(tmp_path, dtype):
    base = torch.arange(-6, 18).to(dtype)
    tensors = {
        "columns": base.reshape(4, 6).t(),
        "every other": base[::2],
        "scalar": base[3],
        "none": base[:0].reshape(0, 5),
        "plain": base.reshape(2, 3, 4),
    }
    folder = a_footprint(tensors=tensors).save(tmp_path / "f")
    with safe_open(folder / SHARD, framework="pt") as shard:
        assert same({name: shard.get_tensor(name) for name in tensors}, tensors)
        assert set(shard.keys()) == set(tensors)


def test_the_record_tells_the_size_and_sha256_of_every_shard(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "SHARD_BYTES", 20)
    folder = a_footprint(folds=(Fold(4, a_footprint().tensors),)).save(tmp_path / "f")
    found = {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}
    assert len(found) == 4
    assert json.loads((folder / "footprint.json").read_text())["shards"] == {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()} for name, content in found.items()
    }


# Laziness


@pytest.fixture
def reads(monkeypatch):
    """What is read from shards: 'open', and 'get name'."""
    log = []

    class Logged:
        def __init__(self, shard):
            self.shard = shard

        def __enter__(self):
            self.shard = self.shard.__enter__()
            return self

        def __exit__(self, *error):
            return self.shard.__exit__(*error)

        def get_tensor(self, name):
            log.append(name)
            return self.shard.get_tensor(name)

        def get_slice(self, name):
            return self.shard.get_slice(name)

    real = files.safe_open
    monkeypatch.setattr(
        files, "safe_open", lambda *args, **kwargs: (log.append("open"), Logged(real(*args, **kwargs)))[1]
    )
    return log


def test_loading_reads_no_tensor(saved, reads):
    footprint = Footprint.load(saved)
    assert footprint.names == ("a.weight", "a.bias", "b.weight")
    assert (footprint.layers, len(footprint), "a.bias" in footprint, repr(footprint)[:9]) == (
        ("a", "b"),
        3,
        True,
        "Footprint",
    )
    assert reads == []
    footprint["a.bias"]
    assert reads == ["open", "a.bias"]


def test_rows_and_shape_read_a_part(saved, reads):
    stored = Footprint.load(saved).tensors
    assert stored.shape("a.weight") == (4, 3)
    assert stored.rows("a.weight", 1, 3).tolist() == [[3, 4, 5], [6, 7, 8]]
    assert stored.rows("a.weight", 3, 9).tolist() == [[9, 10, 11]]
    assert reads == ["open"]
    assert stored["a.weight"].tolist() != stored.rows("a.weight", 0, 2).tolist()
    assert reads == ["open", "a.weight"]


def test_a_shard_that_disappears_spoils_only_its_own_tensors(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "SHARD_BYTES", 20)
    footprint = Footprint.load(a_footprint().save(tmp_path / "f"))
    (tmp_path / "f" / SHARD).unlink()
    assert footprint["b.weight"].tolist() == [[1, 1], [1, 1]]
    with pytest.raises(IntegrityError, match=f"{SHARD} cannot be read"):
        footprint["a.weight"]


# Writing: whole or not at all


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_files_have_the_mode_the_umask_says(tmp_path, umask):
    before = os.umask(umask)
    try:
        folder = a_footprint().save(tmp_path / "f")
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o666 & ~umask}
    assert folder.stat().st_mode & 0o777 == 0o777 & ~umask


def another(number):
    tensors = {name: torch.full_like(held, number) for name, held in a_footprint().tensors.items()}
    return a_footprint(tensors=tensors, folds=(Fold(2, tensors), Fold(2, tensors)), weight_sample=tensors)


@pytest.mark.parametrize("times", [1, 2, 3])
@pytest.mark.parametrize("read", ["tensor", "fold", "sample", "rows", "trace", "save"])
def test_a_footprint_that_was_replaced_since_is_not_read_as_another(tmp_path, read, times):
    another(1.0).save(tmp_path / "f")
    opened = Footprint.load(tmp_path / "f")
    kept = opened["a.bias"]
    for number in range(times):
        another(2.0 + number).save(tmp_path / "f", overwrite=True)
    ways = {
        "tensor": lambda: opened["a.weight"],
        "fold": lambda: opened.folds[1].tensors["a.weight"],
        "sample": lambda: opened.weight_sample["a.weight"],
        "rows": lambda: opened.tensors.rows("a.weight", 0, 1),
        "trace": opened.trace,
        "save": lambda: opened.save(tmp_path / "g"),
    }
    with pytest.raises(IntegrityError, match="was replaced since this footprint was opened; load it again"):
        ways[read]()
    assert kept.tolist() == [1.0]
    assert opened.tensors.shape("a.bias") == (1,)  # of the file that was opened, and still is
    assert Footprint.load(tmp_path / "f")["a.bias"].tolist() == [1.0 + times]


@pytest.mark.parametrize("way", ["link", "in place", "copied back", "masks"])
def test_however_it_was_replaced(tmp_path, way):
    if way == "masks":
        for bit, folder in ((True, "f"), (False, "g")):
            Footprint("supermask", {"w": torch.full((3,), bit)}, 1).save(tmp_path / folder)
    else:
        for number, folder in ((1.0, "f"), (2.0, "g")):
            another(number).save(tmp_path / folder)
    (tmp_path / "link").symlink_to(tmp_path / "f")
    opened = Footprint.load(tmp_path / "link")
    if way == "link":
        (tmp_path / "link").unlink()
        (tmp_path / "link").symlink_to(tmp_path / "g")
    for file in (tmp_path / "g").iterdir():
        if way != "link":
            shutil.copyfile(file, tmp_path / "f" / file.name)
        if way == "copied back":
            shutil.copystat(tmp_path / "g" / file.name, tmp_path / "f" / file.name)
    with pytest.raises(IntegrityError, match="was replaced since this footprint was opened; load it again"):
        opened[next(iter(opened))]


def test_a_footprint_that_is_replaced_while_it_is_opened(tmp_path, monkeypatch):
    another(1.0).save(tmp_path / "f")
    read_record = files.read_record

    def then_replaced(folder):
        record = read_record(folder)
        another(2.0).save(tmp_path / "f", overwrite=True)
        return record

    monkeypatch.setattr(files, "read_record", then_replaced)
    with pytest.raises(IntegrityError, match="was replaced while it was opened; load it again"):
        Footprint.load(tmp_path / "f")


def test_beside_a_writer_every_read_is_of_one_footprint_or_refused(tmp_path):
    another(0.0).save(tmp_path / "f")
    writing_all = threading.Event()

    def write():
        for number in range(1, 40):
            tensors = {name: torch.full_like(held, number) for name, held in a_footprint().tensors.items()}
            a_footprint(tensors=tensors, count=number).save(tmp_path / "f", overwrite=True)
        writing_all.set()

    writer = threading.Thread(target=write)
    writer.start()
    whole = 0
    while not writing_all.is_set():
        try:
            found = Footprint.load(tmp_path / "f")
            values = {float(held.flatten()[0]) for held in found.tensors.values()}
        except commonweight.CommonweightError:
            continue
        assert values in ({0.0}, {float(found.count)})
        whole += 1
    writer.join()
    assert whole > 0


def test_refuses_a_folder_that_is_there(tmp_path, saved):
    with pytest.raises(UsageError, match="f exists already: pass overwrite=True to replace it"):
        a_footprint(count=9).save(saved)
    assert Footprint.load(saved).count == 4
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_overwrite_replaces_a_footprint_and_leaves_nothing_behind(tmp_path, saved):
    a_footprint(count=9, tensors={"only": tensor([1.0])}).save(saved, overwrite=True)
    back = Footprint.load(saved, check_hashes=True)
    assert (back.count, back.names) == (9, ("only",))
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_never_replaces_a_folder_that_is_no_footprint(tmp_path, overwrite):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter").write_text("years of work")
    with pytest.raises(UsageError, match="thesis exists already: choose another folder"):
        a_footprint().save(tmp_path / "thesis", overwrite=overwrite)
    assert (tmp_path / "thesis" / "chapter").read_text() == "years of work"


@pytest.mark.parametrize("overwrite", [False, True])
def test_never_replaces_a_folder_that_appeared_while_it_was_written(tmp_path, overwrite):
    folder = tmp_path / "f"
    with files.FolderWriter(folder, overwrite=overwrite) as writer:
        writer.add(files.MAIN_GROUP, a_footprint().tensors)
        folder.mkdir()
        (folder / "chapter").write_text("years of work")
        with pytest.raises(UsageError, match="f was taken while the work went on") as raised:
            writer.commit(a_footprint().record())
    assert (folder / "chapter").read_text() == "years of work"
    (kept,) = (path for path in tmp_path.iterdir() if path != folder)
    assert f"the new footprint is in {kept}" in str(raised.value)
    assert Footprint.load(kept).count == a_footprint().count


def test_parents_are_made(tmp_path):
    assert Footprint.load(a_footprint().save(tmp_path / "x" / "y" / "f")).count == 4


class Broken(dict):
    """Tensors of which the last cannot be read."""

    def items(self):
        yield from super().items()
        raise OSError("the disk went away")


def test_nothing_stays_when_writing_fails_midway(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "SHARD_BYTES", 1)
    with pytest.raises(OSError, match="the disk went away"):
        a_footprint(tensors=Broken(a_footprint().tensors)).save(tmp_path / "f")
    assert list(tmp_path.iterdir()) == []


def test_every_file_is_flushed_before_the_folder_has_its_name(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "SHARD_BYTES", 20)
    real, flushed = os.fsync, []

    def fsync(descriptor):
        flushed.append((Path(f"/proc/self/fd/{descriptor}").readlink().name, (tmp_path / "f").exists()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    folder = a_footprint().save(tmp_path / "f")
    before = {name for name, named in flushed if not named}
    assert {path.name for path in folder.iterdir()} < before
    assert len(before) == 4  # two shards, the record and the folder under its temporary name
    assert flushed[-1] == (tmp_path.name, True)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_shard_that_cannot_be_flushed_fails_the_whole(tmp_path, monkeypatch, overwrite):
    folder = tmp_path / "f"
    if overwrite:
        a_footprint().save(folder)

    def fsync(descriptor):
        raise OSError("the disk is gone")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(OSError, match="the disk is gone"):
            a_footprint(count=9).save(folder, overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ["f"] * overwrite
    assert not overwrite or Footprint.load(folder, check_hashes=True).count == 4


def test_a_shard_that_could_not_be_flushed_stops_the_next_group(tmp_path, monkeypatch):
    def fsync(descriptor):
        raise OSError("the disk is gone")

    with files.FolderWriter(tmp_path / "f") as writer:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fsync)
            writer.add(files.fold_group(0), a_footprint().tensors)
            writer._background.submit(int).result()
        with pytest.raises(OSError, match="the disk is gone"):
            writer.add(files.fold_group(1), a_footprint().tensors)
    assert list(tmp_path.iterdir()) == []


def test_a_shard_that_cannot_be_written_is_an_error_of_the_system(tmp_path, monkeypatch):
    def save_file(tensors, path):
        raise SafetensorError("No space left on device")

    monkeypatch.setattr(files, "save_file", save_file)
    with pytest.raises(OSError, match=r"footprint-00000\.safetensors cannot be written: No space left on device"):
        a_footprint().save(tmp_path / "f")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_overwrite_keeps_what_was_there(tmp_path, saved):
    with pytest.raises(OSError, match="the disk went away"):
        a_footprint(tensors=Broken(a_footprint().tensors)).save(saved, overwrite=True)
    assert same(Footprint.load(saved, check_hashes=True).tensors, a_footprint().tensors)
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_an_overwrite_whose_last_step_fails_keeps_what_was_there(tmp_path, saved, monkeypatch):
    real = Path.rename

    def rename(path, target):
        if path.name.endswith(".partial"):
            raise OSError("no rename today")
        return real(path, target)

    monkeypatch.setattr(Path, "rename", rename)
    monkeypatch.setattr("commonweight.base.folders.sys.platform", "other")  # where two names cannot be exchanged
    with pytest.raises(OSError, match="no rename today"):
        a_footprint(count=9).save(saved, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["f"]
    assert Footprint.load(saved).count == 4


def test_a_measurement_that_fails_leaves_nothing(tmp_path):
    x, y = examples()

    def batches():
        yield x[:4], y[:4]
        raise OSError("the loader broke")

    with pytest.raises(OSError, match="the loader broke"):
        commonweight.fisher(small_mlp(), batches(), folder=tmp_path / "f")
    assert list(tmp_path.iterdir()) == []


def test_a_killed_process_leaves_no_footprint_under_the_final_name(tmp_path):
    folder = tmp_path / "f"
    program = (
        "import sys, time, torch\n"
        "from commonweight.footprints import files\n"
        "with files.FolderWriter(sys.argv[1]) as writer:\n"
        "    writer.add(files.MAIN_GROUP, {'w': torch.ones(3)})\n"
        "    print('added', flush=True)\n"
        "    time.sleep(600)\n"
        "    writer.commit({})\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(folder)], stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout.readline() == "added\n"
        finally:
            child.kill()
        assert child.wait(60) == -signal.SIGKILL
    assert not folder.exists()
    (partial,) = tmp_path.iterdir()
    assert partial.name.startswith(".f.")
    assert (partial / SHARD).is_file()
    with pytest.raises(IntegrityError, match="was never finished"):
        Footprint.load(partial)
    a_footprint().save(folder)
    assert Footprint.load(folder, check_hashes=True).count == 4


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_refuses_numbers_that_are_not_finite(tmp_path, bad, dtype):
    tensors = {"fine": torch.ones(3), "a.weight": tensor([1.0, bad], dtype=dtype)}
    with pytest.raises(MeasurementError, match=r"a\.weight holds nan or infinity"):
        a_footprint(tensors=tensors).save(tmp_path / "f")
    assert list(tmp_path.iterdir()) == []


def test_accepts_finite_numbers_whose_sum_is_not(tmp_path):
    tensors = {"a": torch.full((3,), 3e38), "h": torch.full((9,), 6e4, dtype=torch.float16)}
    assert same(Footprint.load(a_footprint(tensors=tensors).save(tmp_path / "f")).tensors, tensors)


@pytest.mark.parametrize("value", [object(), {1, 2}, tensor([1.0]), float("nan"), float("inf")])
def test_refuses_metadata_that_json_cannot_say(tmp_path, value):
    with pytest.raises(UsageError, match="metadata must be plain JSON values"):
        a_footprint(metadata={"deep": [{"x": value}]}).save(tmp_path / "f")
    assert list(tmp_path.iterdir()) == []


def test_refuses_such_metadata_before_measuring(tmp_path):
    def batches():
        raise AssertionError("the loader was asked")
        yield

    with pytest.raises(UsageError, match="metadata must be plain JSON values"):
        commonweight.fisher(small_mlp(), batches(), folder=tmp_path / "f", metadata={"x": object()})


def test_fisher_into_a_folder_equals_fisher_in_memory(tmp_path):
    batches = in_batches(examples(), 3)
    memory = commonweight.fisher(small_mlp(), batches, metadata={"task": "t"})
    stored = commonweight.fisher(small_mlp(), batches, folder=tmp_path / "f", metadata={"task": "t"})
    assert type(stored.tensors) is files.StoredTensors
    assert same(stored.tensors, memory.tensors)
    assert same(stored.weight_sample, memory.weight_sample)
    assert (stored.metadata, stored.spread, stored.count) == (memory.metadata, memory.spread, memory.count)
    with pytest.raises(UsageError, match="exists already"):
        commonweight.fisher(small_mlp(), batches, folder=tmp_path / "f")


# Damage, each with its name


def test_an_undamaged_folder_opens(saved):
    """What the tests below damage is sound before."""
    assert same(Footprint.load(saved, check_hashes=True).tensors, a_footprint().tensors)


def test_not_a_folder(tmp_path):
    with pytest.raises(UsageError, match=r"expected the folder of a footprint, and .*nowhere is not a folder"):
        Footprint.load(tmp_path / "nowhere")


def test_no_record(saved):
    (saved / "footprint.json").unlink()
    with pytest.raises(IntegrityError, match=r"has no footprint\.json: it is not a footprint, or was never finished"):
        Footprint.load(saved)


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe", b"not json", b"[" * 100_000])
def test_a_record_that_is_not_json(saved, text):
    (saved / "footprint.json").write_bytes(text)
    with pytest.raises(IntegrityError, match=r"footprint\.json is not JSON"):
        Footprint.load(saved)


def test_a_record_of_absurd_size(saved, monkeypatch):
    monkeypatch.setattr(files, "FOOTPRINT", replace(files.FOOTPRINT, most_bytes=100))
    with pytest.raises(IntegrityError, match=r"footprint\.json has \d+ bytes, expected at most 100"):
        Footprint.load(saved)
    with pytest.raises(UsageError, match=r"takes \d+ bytes, and at most 100 are read back"):
        a_footprint().save(saved.with_name("another"))


def test_a_record_is_sealed(saved):
    path = saved / "footprint.json"
    written = path.read_text()
    path.write_text(json.dumps(json.loads(written)))  # laid out in another way, it says the same
    assert Footprint.load(saved).count == 4
    path.write_text(written.replace('"seed": 3', '"seed": 5'))
    with pytest.raises(
        IntegrityError, match=r"is not as it was written: expected the seal '\w{64}', .*: measure again"
    ):
        Footprint.load(saved)
    record = json.loads(written)
    path.write_text(
        json.dumps({**record, "groups": {"footprint": dict(reversed(record["groups"]["footprint"].items()))}})
    )
    with pytest.raises(IntegrityError, match="is not as it was written"):  # order is content
        Footprint.load(saved)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"count": 5}, "expected 5 examples in all folds, got 4"),
        ({"count": -4}, "does not have the layout"),
        ({"fold_counts": [1, 2]}, "expected 4 examples in all folds, got 3"),
        ({"spread": {"": [3.0, 9.5]}}, "which 4 traces of at least 0 cannot have"),
        ({"spread": {"": [3.0, 2.0]}}, "which 4 traces of at least 0 cannot have"),
        ({"spread": {"a": [-1.0, 1.0]}}, "expected finite sums from 0"),
    ],
    ids=str,
)
def test_counts_that_contradict_each_other(tmp_path, change, said):
    tensors = a_footprint().tensors
    whole = a_footprint(spread={"": Spread(3.0, 2.5)}, folds=(Fold(1, tensors), Fold(3, tensors)))
    folder = whole.save(tmp_path / "f")
    assert contradiction(Footprint.load(folder)) is None
    edit(folder, **change)
    with pytest.raises(IntegrityError, match=said):
        Footprint.load(folder)


def test_a_digest_for_every_example(tmp_path):
    rows = {"fold-000": tensor([1, 2, 3, 4])}
    assert Footprint.load(a_footprint(row_digests=rows).save(tmp_path / "f")).rows.total == 4
    with pytest.raises(UsageError, match="contradicts itself: expected digests of rows of 5 examples, got 4"):
        a_footprint(row_digests=rows, count=5).save(tmp_path / "g")


def test_a_name_that_is_too_long_for_the_file_system(tmp_path):
    with pytest.raises(UsageError, match=r"cannot be made: .*; choose another folder"):
        a_footprint().save(tmp_path / ("x" * 250))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["[]", "{}", '"footprint"', '{"format": "other", "version": 1}'])
def test_a_record_of_another_format(saved, text):
    (saved / "footprint.json").write_text(text)
    with pytest.raises(IntegrityError, match="is not a commonweight-footprint record"):
        Footprint.load(saved)


@pytest.mark.parametrize("version", [1, 2, 3, 4, 0, "5", None])
def test_a_record_of_another_version(saved, version):
    edit(saved, version=version)
    with pytest.raises(
        IntegrityError, match=f"has format version {version!r}, this release reads version 5.*or measure again"
    ):
        Footprint.load(saved)


@pytest.mark.parametrize("key", ["kind", "count", "fold_counts", "metadata", "spread", "groups", "shards"])
def test_a_record_without_a_key(saved, key):
    without(saved, key)
    with pytest.raises(IntegrityError, match=f"lacks {key}: it was damaged or written by hand"):
        Footprint.load(saved)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "unknown"},
        {"spread": {"": [1.0]}},
        {"spread": [1.0]},
        {"fold_counts": 3},
        {"groups": []},
        {"groups": {"footprint": [SHARD]}},
        {"groups": {"footprint": {"a.weight": 3}}},
        {"groups": {"footprint": {}}},
        {"shards": [SHARD]},
        {"shards": {SHARD: 5}},
        {"shards": {SHARD: {"sha256": "0"}}},
    ],
    ids=str,
)
def test_a_record_of_another_shape(saved, change):
    edit(saved, **change)
    with pytest.raises(IntegrityError, match=r"footprint\.json"):
        Footprint.load(saved)


def test_a_missing_group(saved):
    edit(saved, fold_counts=[2, 2])
    with pytest.raises(IntegrityError, match=r"footprint\.json names no group 'fold-000': the folder is incomplete"):
        Footprint.load(saved)


def test_a_missing_shard(saved):
    (saved / SHARD).unlink()
    with pytest.raises(IntegrityError, match=f"shard {SHARD} is missing: copy the folder again"):
        Footprint.load(saved)


def test_a_truncated_shard(saved):
    path = saved / SHARD
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(IntegrityError, match=f"{SHARD} has {size - 1} bytes, expected {size}: the copy is incomplete"):
        Footprint.load(saved)


def test_a_flipped_bit_is_found_by_the_hashes_and_not_without_them(saved):
    flip_a_bit(saved / SHARD)
    with pytest.raises(IntegrityError, match=f"the SHA-256 of shard {SHARD} is not the recorded one"):
        Footprint.load(saved, check_hashes=True)
    assert not same(Footprint.load(saved).tensors, a_footprint().tensors)


def test_a_shard_of_garbage_of_the_right_size(saved):
    path = saved / SHARD
    path.write_bytes(b"\x7f" * path.stat().st_size)
    footprint = Footprint.load(saved)
    with pytest.raises(IntegrityError, match=f"{SHARD} cannot be read"):
        footprint["a.weight"]
    with pytest.raises(IntegrityError, match=f"{SHARD} cannot be read"):
        footprint.tensors.shape("a.weight")


def test_a_tensor_that_its_shard_does_not_hold(saved):
    edit(saved, groups={"footprint": {"ghost": SHARD}})
    with pytest.raises(IntegrityError, match="ghost"):
        Footprint.load(saved)["ghost"]


@pytest.mark.parametrize(
    "name", ["../other/footprint-00000.safetensors", "/etc/passwd", "a\\b.safetensors", "x.bin", ""]
)
def test_a_shard_outside_the_folder_is_refused(tmp_path, saved, name):
    a_footprint(tensors={"a.weight": tensor([666.0])}).save(tmp_path / "other")
    edit(saved, shards={name: {"bytes": 0, "sha256": ""}})
    with pytest.raises(IntegrityError, match="is not a shard name: refusing to read outside the folder"):
        Footprint.load(saved)


@pytest.mark.parametrize("name", ["../other/footprint-00000.safetensors", "unlisted.safetensors"])
def test_a_group_that_points_outside_the_listed_shards_is_refused(tmp_path, saved, name):
    a_footprint(tensors={"a.weight": tensor([666.0])}).save(tmp_path / "other")
    (saved / "unlisted.safetensors").write_bytes((tmp_path / "other" / SHARD).read_bytes())
    edit(saved, groups={"footprint": {"a.weight": name}})
    with pytest.raises(IntegrityError, match="shard"):
        Footprint.load(saved)["a.weight"]


class Bomb:
    """Leaves a mark when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_planted_pickle_is_never_read(tmp_path, saved):
    mark = tmp_path / "boom"
    bomb = pickle.dumps(Bomb(mark))
    pickle.loads(bomb)
    assert mark.exists()  # it does go off
    mark.unlink()
    for name in ("footprint.pkl", "pytorch_model.bin", "footprint.pt", "unlisted.safetensors"):
        (saved / name).write_bytes(bomb)
    assert same(Footprint.load(saved, check_hashes=True).tensors, a_footprint().tensors)
    size = (saved / SHARD).stat().st_size
    (saved / SHARD).write_bytes(bomb.ljust(size, b"\0")[:size])
    with pytest.raises(IntegrityError, match="cannot be read"):
        Footprint.load(saved)["a.weight"]
    (saved / "footprint.json").write_bytes(bomb)
    with pytest.raises(IntegrityError, match="is not JSON"):
        Footprint.load(saved)
    assert not mark.exists()


def test_files_are_hashed_while_they_are_read_and_once(tmp_path, monkeypatch):
    prints = {}
    for name in ("a", "b"):
        prints[name] = Footprint.load(a_footprint().save(tmp_path / name))
    hashed = []
    real = files.sha256
    monkeypatch.setattr(files, "sha256", lambda path: hashed.append(path.name) or real(path))
    commonweight.overlap(prints)
    assert sorted(set(hashed)) == sorted({path.name for path in (tmp_path / "a").glob("*.safetensors")})
    before = len(hashed)
    commonweight.overlap(prints)
    assert len(hashed) == before
    flip_a_bit(tmp_path / "b" / SHARD)
    with pytest.raises(IntegrityError, match="the SHA-256 is not the recorded one"):
        commonweight.overlap({"a": prints["a"], "b": Footprint.load(tmp_path / "b")})


def test_the_folder_above_a_footprint_names_the_one_within(tmp_path):
    Footprint("fisher", {"fc.weight": torch.ones(2)}, 8).save(tmp_path / "films" / "dev")
    with pytest.raises(IntegrityError, match=r"films has no footprint\.json: .*; give \S+films/dev"):
        Footprint.load(tmp_path / "films")
