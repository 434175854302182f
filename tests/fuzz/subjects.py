"""What is damaged: the files of every kind that the package reads, made small, and how each is read back."""

import contextlib
import hashlib
import json
import random
import struct
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from commonweight import CommonweightError, Footprint, overlap
from commonweight.base.text import Grid
from commonweight.data.images.open import open_images
from commonweight.data.table import open_table
from commonweight.footprints.footprint import Fold, Spread
from commonweight.fusion.checkpoints import Source, open_checkpoint
from commonweight.models import load_model
from commonweight.overlaps.table.table import OverlapTable
from commonweight.report.answer import FILES, Answer, Result, load_blocks, read_form, write_result
from commonweight.studies.demo.encoder import make_start, make_tokenizer, save
from commonweight.studies.run.folder import open_run, read_json, write_json
from commonweight.studies.run.record import StudyKind, read_record
from commonweight.supermasks.network import SupermaskNetwork
from fuzz.mutations import mutated

KIND = StudyKind("fuzzed", ())


@dataclass
class Subject:
    """A kind of file."""

    make: object
    """Writes a clean folder."""

    read: object
    """Reads the folder; gives what came out, and a name of the data that is recorded with it (None where there is
    none, and then damage must never change what comes out)."""

    patterns: tuple[str, ...] = ("*",)
    """Which files are damaged."""

    share: float = 1.0
    """How often it is damaged, compared with the others: some take long to read."""


@dataclass
class Counts:
    """What damage did."""

    mutations: int = 0
    same: int = 0
    refused: int = 0
    renamed: int = 0
    """Other data under another recorded name."""

    silent: list = field(default_factory=list)
    raw: list = field(default_factory=list)


def fuzz(name: str, folder: Path, count: int, seed: int) -> Counts:
    """Damage the files of one subject, one at a time, and read each time."""
    subject, draw, counts = SUBJECTS[name], random.Random(f"{name} {seed}"), Counts()
    folder.mkdir(parents=True)
    with contextlib.redirect_stderr(None), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        subject.make(folder)
        files = sorted(path for pattern in subject.patterns for path in folder.rglob(pattern) if path.is_file())
        clean = {path: path.read_bytes() for path in files}
        expected = subject.read(folder)
        for number in range(count):
            path = draw.choice(files)
            damaged = mutated(clean[path], draw)
            path.write_bytes(damaged)
            where = (name, seed, number, str(path.relative_to(folder)))
            counts.mutations += 1
            try:
                found = subject.read(folder)
            except CommonweightError:
                counts.refused += 1
            except Exception as error:  # whatever the damage leads to
                counts.raw.append((*where, f"{type(error).__name__}: {error}"[:200]))
            else:
                if found[0] == expected[0]:
                    counts.same += 1
                elif found[1] is not None and found[1] != expected[1]:
                    counts.renamed += 1
                else:
                    counts.silent.append(where)
            path.write_bytes(clean[path])
        if subject.read(folder) != expected:
            raise AssertionError(f"{name}: undamaged files were not read as before")
    return counts


def kinds_of(raw: list) -> Counter:
    """Count raw errors by what they say."""
    return Counter((one[0], one[3], one[4][:80]) for one in raw)


def _draw(seed, *shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def _fisher(seed):
    def tensors(k):
        return {"0.weight": _draw(seed + k, 5, 4), "0.bias": _draw(seed + k + 50, 5), "1.weight": _draw(k, 2, 5)}

    parts = [tensors(k) for k in range(4)]
    return Footprint(
        "fisher",
        {name: sum(part[name] for part in parts) / 4 for name in parts[0]},
        12,
        {"fisher_type": "empirical", "loss": "classification", "seed": seed},
        spread={"": Spread(6.0, 4.0), "0": Spread(4.0, 2.0), "1": Spread(2.0, 1.0)},
        folds=tuple(Fold(3, part) for part in parts),
        row_digests={f"fold-{k:03d}": torch.tensor([1, 2, 3]) + 3 * k + 100 * seed for k in range(4)},
        weight_sample={"0.weight": _draw(7, 8)},
    )


def _masks():
    bits = {"0.weight": _draw(1, 5, 7) > 0.5, "1.weight": _draw(2, 3, 5) > 0.5}
    return Footprint("supermask", bits, 0, {"score_initialisation": "drawn"})


def _digest(tensors):
    found = hashlib.sha256()
    for name, tensor in tensors.items():
        found.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        found.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _read_footprint(folder):
    found = Footprint.load(folder / "f", check_hashes=True)
    groups = [found.tensors, found.weight_sample, found.row_digests, *(fold.tensors for fold in found.folds)]
    return (json.dumps(found.record()), *map(_digest, groups)), None


def _read_overlap(folder):
    return overlap({"a": Footprint.load(folder / "f"), "b": Footprint.load(folder / "g")}).to_json(), None


def _make_overlap(folder):
    _fisher(0).save(folder / "f")
    _fisher(1).save(folder / "g")


def _make_table(folder):
    overlap({"a": _fisher(0), "b": _fisher(1)}).save(folder / "t")


def _net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2))


def _make_network(folder):
    net = SupermaskNetwork(_net())
    for task in ("a", "b"):
        net.add_task(task)
    net.finish("a")
    net.save(folder / "net")


def _read_network(folder):
    net = SupermaskNetwork.load(folder / "net", _net())
    state = {name: value for name, value in net.state_dict().items() if isinstance(value, torch.Tensor)}
    return (json.dumps(net.state()), _digest(state)), None


def _make_run(folder):
    open_run(folder / "run", KIND, "complete", {"folds": 4, "names": ["a", "b"]}, {"seeds": 2})
    write_json(folder / "run" / "scores.json", {"scores": {"a": {"accuracy": 0.75, "loss": 0.5}}, "curve": [0.1, 0.9]})
    small = Grid("Small", ("", "x"), (("a", "0.75"),))
    answer = Answer("What?", "This: 0.75.", small, ("Care.",), ("study.md more",))
    write_result(folder / "run", Result(answer, ["A paragraph.", small], '{"x": 0.75}\n', "name,mean\na,0.75\n"))


def _read_run(folder):
    run = folder / "run"
    forms = [read_form(run, form) for form in FILES]
    return (read_record(run, KIND), read_json(run / "scores.json"), Answer.load(run), load_blocks(run), forms), None


ROWS = [(f"text number {i}, of {i % 7}", i % 2) for i in range(40)]


def _make_rows(folder):
    import pyarrow as pa
    from pyarrow import parquet

    table = pa.table({"text": [text for text, _ in ROWS], "label": [label for _, label in ROWS]})
    parquet.write_table(table, folder / "rows.parquet", row_group_size=16)
    lines = [json.dumps({"text": text, "label": label, "source_row": i}) for i, (text, label) in enumerate(ROWS)]
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "rows.tsv").write_text("text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in ROWS))
    (folder / "rows.csv").write_text("text,label\n" + "".join(f'"{text}",{label}\n' for text, label in ROWS))


def _read_rows(folder):
    found = []
    for ending in ("parquet", "jsonl", "tsv", "csv"):
        table = open_table(str(folder / f"rows.{ending}"))
        few = open_table(str(folder / f"rows.{ending}"), examples=3)
        columns = [table.column(name) for name in table.columns]
        found.append((columns, list(table.source_rows), [few.column(name) for name in few.columns]))
        found.append(table.identity["sha256"])
    return repr(found[::2]), found[1::2]


def _make_idx(folder):
    for part, rows in (("train", 20), ("t10k", 10)):
        pixels = (_draw(rows, rows, 3, 3) * 255).to(torch.uint8).numpy().tobytes()
        labels = bytes(i % 4 for i in range(rows))
        (folder / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">4B3I", 0, 0, 8, 3, rows, 3, 3) + pixels)
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">4BI", 0, 0, 8, 1, rows) + labels)


def _read_idx(folder):
    found = open_images(folder)
    return (found.train.tolist(), found.train_labels.tolist(), found.test.tolist(), found.classes), found.digest


def _make_encoder(folder):
    save(make_start(0), make_tokenizer(), folder / "m")
    for path in (folder / "m").glob("*.safetensors"):
        path.unlink()
    model = make_start(0)
    half = len(model.state_dict()) // 2
    parts = [dict(list(model.state_dict().items())[:half]), dict(list(model.state_dict().items())[half:])]
    place = {}
    for number, part in enumerate(parts, 1):
        name = f"model-{number:05d}-of-00002.safetensors"
        save_file(
            {key: value.contiguous().clone() for key, value in part.items()}, folder / "m" / name, {"format": "pt"}
        )
        place |= dict.fromkeys(part, name)
    (folder / "m" / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": place}))


def _read_encoder(folder):
    found = load_model(str(folder / "m"))
    state = found.model.state_dict()
    named = (found.identity["weights"], found.identity["config"], found.identity["tokenizer"])
    return (_digest(state), found.task, repr(found.model), sorted(found.tokenizer.get_vocab().items())), named


def _read_checkpoint(folder):
    from commonweight.models.identity import hash_files, hash_json, weight_files

    found = open_checkpoint(Source("m", folder / "m"))
    tensors = {key: found.tensors.read(key) for key in found.tensors.facts}
    named = (hash_files(weight_files(folder / "m")), hash_json(folder / "m" / "config.json"))
    return (_digest(tensors), json.dumps(found.config, sort_keys=True)), named


SUBJECTS = {
    "footprint": Subject(lambda folder: _fisher(0).save(folder / "f"), _read_footprint),
    "masks": Subject(lambda folder: _masks().save(folder / "f"), _read_footprint),
    "overlap of footprints": Subject(_make_overlap, _read_overlap, ("f/*",), 0.2),
    "overlap table": Subject(_make_table, lambda folder: (OverlapTable.load(folder / "t").to_json(), None), share=0.5),
    "supermask network": Subject(_make_network, _read_network, share=0.2),
    "run": Subject(_make_run, _read_run),
    "rows": Subject(_make_rows, _read_rows, share=0.05),
    "idx": Subject(_make_idx, _read_idx),
    "checkpoint to fuse": Subject(_make_encoder, _read_checkpoint, ("*.json", "*.safetensors"), 0.05),
    "checkpoint to load": Subject(_make_encoder, _read_encoder, ("config.json", "*.index.json", "*.safetensors"), 0.02),
}
