"""The shared initialisation of a study, and models that are there already: what is taken, what is refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, T5Config, T5ForSequenceClassification

from commonweight.base import UsageError
from commonweight.data.reviews import LABELS
from commonweight.studies.demo.encoder import make_start as make_model
from commonweight.studies.demo.encoder import make_tokenizer, save
from commonweight.studies.shortcuts.models import check_existing, make_start

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def start(tmp_path: Path) -> Path:
    save(make_model(0), make_tokenizer(), tmp_path / "encoder")
    make_start(str(tmp_path / "encoder"), LABELS, 0, tmp_path / "start", "clean")
    return tmp_path / "start"


def changed(folder: Path, **changes: object) -> None:
    """Change keys of a config.json; None takes one out."""
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def test_a_head_of_another_number_of_classes(start: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="its head has 2 classes, the data 3: give the encoder without a head"):
        make_start(str(start), ("a", "b", "c"), 0, tmp_path / "other", "clean")
    assert not (tmp_path / "other").exists()
    changed(start, architectures=["BertModel"])
    with pytest.raises(UsageError, match="cannot be read as a classifier of 3 classes"):
        make_start(str(start), ("a", "b", "c"), 0, tmp_path / "other", "clean")


def test_a_tokenizer_without_padding(start: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(start)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(start)
    with pytest.raises(UsageError, match=r"has no token for padding.*Set one"):
        make_start(str(start), LABELS, 0, tmp_path / "other", "clean")


def test_spare_rows_of_the_table_are_not_drawn(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    shape = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2, "pad_token_id": 0}
    model = T5ForSequenceClassification(T5Config(vocab_size=len(tokenizer) + 8, eos_token_id=3, **shape))
    save(model, tokenizer, tmp_path / "encoder")
    make_start(str(tmp_path / "encoder"), ("no", "yes"), 0, tmp_path / "start", "clean")
    found = AutoModelForSequenceClassification.from_pretrained(tmp_path / "start")
    assert torch.equal(found.get_input_embeddings().weight, model.get_input_embeddings().weight)


@pytest.mark.parametrize("names", [None, {"0": "LABEL_0", "1": "LABEL_1"}])
def test_classes_without_names_get_those_of_the_study(start: Path, tmp_path: Path, names: dict | None) -> None:
    given = tmp_path / "given"
    save(AutoModelForSequenceClassification.from_pretrained(start), AutoTokenizer.from_pretrained(start), given)
    changed(given, id2label=names, label2id=None)
    (given / "optimizer.pt").write_text("x")
    (given / "checkpoint-10").mkdir()
    check_existing(str(given), start).copy(tmp_path / "taken")
    config = json.loads((tmp_path / "taken" / "config.json").read_text())
    ours = json.loads((start / "config.json").read_text())
    assert (config["id2label"], config["label2id"]) == (ours["id2label"], ours["label2id"])
    assert {file.name for file in (tmp_path / "taken").iterdir()} == {file.name for file in start.iterdir()}
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path / "taken").config.num_labels == 2


def test_weights_in_several_files(start: Path, tmp_path: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(start)
    model.save_pretrained(tmp_path / "given", max_shard_size="100KB")
    AutoTokenizer.from_pretrained(start).save_pretrained(tmp_path / "given")
    check_existing(str(tmp_path / "given"), start).copy(tmp_path / "taken")
    found = AutoModelForSequenceClassification.from_pretrained(tmp_path / "taken").state_dict()
    assert all(torch.equal(found[name], value) for name, value in model.state_dict().items())
    assert len(list((tmp_path / "taken").glob("*.safetensors"))) > 1


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}, "has id2label .*LABEL_2"),
        ({"0": "x", "1": "y"}, "has id2label .*'x'"),
    ],
)
def test_other_classes_are_refused(start: Path, tmp_path: Path, names: dict, message: str) -> None:
    given = tmp_path / "given"
    save(AutoModelForSequenceClassification.from_pretrained(start), AutoTokenizer.from_pretrained(start), given)
    changed(given, id2label=names)
    with pytest.raises(UsageError, match=message):
        check_existing(str(given), start).copy(tmp_path / "taken")


def test_a_model_without_safetensors(start: Path, tmp_path: Path) -> None:
    given = tmp_path / "given"
    save(AutoModelForSequenceClassification.from_pretrained(start), AutoTokenizer.from_pretrained(start), given)
    (given / "model.safetensors").rename(given / "pytorch_model.bin")
    with pytest.raises(UsageError, match=r"has no model\.safetensors; load it and write it again"):
        check_existing(str(given), start).copy(tmp_path / "taken")
    assert not (tmp_path / "taken").exists()
