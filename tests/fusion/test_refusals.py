"""Checkpoints that cannot be fused: every difference is named before anything is written."""

import json
import shutil

import pytest
import torch
from fusion.conftest import moved
from safetensors.torch import load_file, save_file

from commonweight import fuse_checkpoints
from commonweight.base import IntegrityError, MeasurementError, NotComparableError, UsageError
from commonweight.models.config import check_within
from commonweight.studies.demo.encoder import make_start, make_tokenizer, save


@pytest.fixture
def pair(tiny, tmp_path):
    """Copies of two checkpoints that a test may damage, ``a`` and ``b``."""
    return [shutil.copytree(tiny / name, tmp_path / name) for name in "ab"]


def refused(error, message, models, tmp_path, **options):
    with pytest.raises(error, match=message) as caught:
        fuse_checkpoints(models, output=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    return str(caught.value)


def edit(folder, **changes):
    path = folder / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def rewrite(folder, change):
    file = folder / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


def test_heads_of_another_size(pair, tmp_path):
    model = make_start(0)
    model.classifier = torch.nn.Linear(64, 3)
    model.config.num_labels = 3
    save(model, make_tokenizer(), tmp_path / "three")
    text = refused(NotComparableError, "the heads of .* do not mean the same", [pair[0], tmp_path / "three"], tmp_path)
    assert "id2label is" in text
    edit(tmp_path / "three", id2label=None, label2id=None)
    message = r"2 differences: classifier\.weight \(shape \[2, 64\] in .*a', \[3, 64\] in .*three'\)|classifier\.bias"
    refused(NotComparableError, message, [pair[0], tmp_path / "three"], tmp_path)


def test_masks_that_differ(pair, tmp_path):
    for number, folder in enumerate(pair):
        mask = torch.tensor([float(number), 1.0, 0.0])
        rewrite(folder, lambda tensors, mask=mask: tensors.update({"classifier.weight_mask": mask}))
    message = r"have different masks, 1 difference: classifier\.weight_mask: an average of masks is none"
    refused(NotComparableError, message, pair, tmp_path)
    refused(NotComparableError, message, pair[:1], tmp_path, base=pair[1], method="task_arithmetic")


def test_labels_in_another_order(pair, tmp_path):
    labels = json.loads((pair[1] / "config.json").read_text())["id2label"]
    edit(pair[1], id2label={"0": labels["1"], "1": labels["0"]})
    refused(NotComparableError, r"id2label is \{.*Row k of a head must stand for one label", pair, tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": ["BertForMaskedLM"]}, r"not of one class, 1 difference: architectures is .*BertForMaskedLM"),
        ({"model_type": "roberta"}, "model_type is bert in .*a', roberta in .*b'"),
        ({"vocab_size": 7}, r"the vocabularies of .* differ in size, 1 difference: vocab_size is \d+ in"),
        ({"num_attention_heads": 2}, r"do not compute the same, 1 difference: num_attention_heads is 4 in .*, 2 in"),
        ({"hidden_act": "relu"}, "hidden_act is gelu in"),
        ({"rope_scaling": {"factor": 2}}, None),
        ({"hidden_dropout_prob": 0.5, "_name_or_path": "elsewhere", "transformers_version": "1"}, None),
    ],
)
def test_configurations_that_matter_and_those_that_do_not(pair, tmp_path, heard, changes, message):
    edit(pair[1], **changes)
    if message is None:
        fuse_checkpoints(pair, output=tmp_path / "out", note=heard.append)
        assert len(heard) == ("rope_scaling" in changes)
    else:
        refused(NotComparableError, message, pair, tmp_path)


def test_configurations_within_configurations(pair, tmp_path):
    edit(pair[0], text_config={"heads": 2, "torch_dtype": "float16"})
    edit(pair[1], text_config={"heads": 2, "torch_dtype": "float32"})
    fuse_checkpoints(pair, output=tmp_path / "fine")
    edit(pair[1], text_config={"heads": 3})
    refused(NotComparableError, r"text_config\.heads is 2 in .*, 3 in", pair, tmp_path)


def test_quantised_weights(pair, tmp_path):
    edit(pair[1], quantization_config={"bits": 4})
    refused(UsageError, r"the weights of .*b' are quantised", pair, tmp_path)


def test_other_vocabularies(pair, tmp_path):
    path = pair[1] / "tokenizer.json"
    whole = json.loads(path.read_text())
    vocabulary = whole["model"]["vocab"]
    vocabulary["film"], vocabulary["soup"] = vocabulary["soup"], vocabulary["film"]
    path.write_text(json.dumps(whole))
    refused(
        NotComparableError, r"vocabularies of .* differ, 2 differences: '\w+' is \d+ in .*one token", pair, tmp_path
    )


def test_tokens_added_to_one_only(pair, tmp_path, start):
    tokenizer = make_tokenizer()
    tokenizer.add_tokens(["zeroa", "onea"])
    tokenizer.save_pretrained(pair[1])
    text = refused(NotComparableError, "2 differences: 'zeroa' is not there in .*a', ", pair, tmp_path)
    assert f"{len(make_tokenizer())} in '{pair[1]}'" in text


def test_without_a_tokenizer_it_is_taken_from_whoever_has_one(pair, tmp_path, heard):
    for folder in pair[:1]:
        for file in folder.glob("tokenizer*"):
            file.unlink()
    found = fuse_checkpoints(pair, output=tmp_path / "out", note=heard.append)
    assert heard == [f"Vocabularies could not be compared for {str(pair[0])!r}: no readable tokenizer there."]
    assert (found / "tokenizer.json").read_bytes() == (pair[1] / "tokenizer.json").read_bytes()


def test_other_kinds_of_vocabulary_files(tmp_path):
    from commonweight.fusion.compatible import check_vocabularies, vocabulary

    for name, lines in (("a", "x\ny\n"), ("b", "x\ny\n"), ("c", "y\nx\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "vocab.txt").write_text(lines)
    (tmp_path / "json").mkdir()
    (tmp_path / "json" / "vocab.json").write_text('{"x": 0, "y": 1}')
    (tmp_path / "unigram").mkdir()
    (tmp_path / "unigram" / "tokenizer.json").write_text('{"model": {"vocab": [["x", -1.0], ["y", -2.0]]}}')
    names = ("a", "b", "json", "unigram")
    assert all(vocabulary(tmp_path / name) == {"x": 0, "y": 1} for name in names)
    assert check_vocabularies({name: tmp_path / name for name in names}) == []
    with pytest.raises(NotComparableError, match="'x' is 0 in 'a', 1 in 'c'; 'y' is 1 in 'a', 0 in 'c'"):
        check_vocabularies({name: tmp_path / name for name in "ac"})
    (tmp_path / "b" / "added_tokens.json").write_text('{"z": 2}')
    with pytest.raises(NotComparableError, match="'z' is not there in 'a', 2 in 'b'"):
        check_vocabularies({name: tmp_path / name for name in "ab"})
    (tmp_path / "unigram" / "tokenizer.json").write_text("{")
    with pytest.raises(IntegrityError, match=r"the tokenizer in .*unigram cannot be read"):
        vocabulary(tmp_path / "unigram")
    for name in ("p", "q"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "spiece.model").write_bytes(b"one")
    assert check_vocabularies({name: tmp_path / name for name in "pq"}) == []
    (tmp_path / "q" / "spiece.model").write_bytes(b"two")
    with pytest.raises(NotComparableError, match="tokenizers of 'p' and 'q' are different files"):
        check_vocabularies({name: tmp_path / name for name in "pq"})


def test_other_types(pair, start, tmp_path):
    save(moved(start, 1, 0.005).to(torch.bfloat16), make_tokenizer(), pair[1])
    message = (
        r"stored in different types, \d+ differences, the first 4: .*\(float32 in .*, bfloat16 in .*Save them in one"
    )
    refused(NotComparableError, message, pair, tmp_path)


def test_nan_in_an_input_and_in_the_result(pair, tmp_path):
    rewrite(pair[1], lambda tensors: tensors["classifier.bias"].fill_(float("nan")))
    refused(MeasurementError, r"classifier\.bias of .*b' holds nan or infinity", pair, tmp_path)
    rewrite(pair[1], lambda tensors: tensors["classifier.bias"].fill_(3e38))
    rewrite(pair[0], lambda tensors: tensors["classifier.bias"].fill_(-3e38))
    refused(
        MeasurementError,
        r"the fused classifier\.bias holds nan or infinity in float32",
        pair,
        tmp_path,
        weights=[2, -1],
    )


def test_missing_and_damaged_shards(pair, tiny, tmp_path):
    (pair[1] / "model.safetensors").unlink()
    refused(UsageError, "b has no weights; expected model.safetensors", pair, tmp_path)
    shard = pair[0] / "model.safetensors"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-100])
    message = r"model\.safetensors cannot be read .* damaged or incomplete; copy it again"
    refused(IntegrityError, message, [pair[0], tiny / "b"], tmp_path)
    shard.write_bytes(b"\xff" * 100)
    refused(IntegrityError, message, [pair[0], tiny / "b"], tmp_path)
    shard.write_bytes(b"")
    refused(IntegrityError, message, [pair[0], tiny / "b"], tmp_path)


def split(folder):
    """Two shards with an index."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    parts = {"model-00001-of-00002.safetensors": names[:5], "model-00002-of-00002.safetensors": names[5:]}
    for file, keys in parts.items():
        save_file({key: tensors[key] for key in keys}, folder / file)
    weight_map = {key: file for file, keys in parts.items() for key in keys}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return tensors, names


def test_indexes_that_lie(pair, tmp_path):
    tensors, names = split(pair[0])
    fuse_checkpoints(pair, output=tmp_path / "fine")
    second = pair[0] / "model-00002-of-00002.safetensors"
    save_file({key: tensors[key] for key in names[6:]}, second)
    refused(IntegrityError, f"places {names[5]} in model-00002-of-00002.safetensors, and it is in None", pair, tmp_path)
    save_file({key: tensors[key] for key in names[4:]}, second)
    refused(IntegrityError, f"{names[4]} is in model-00001.* and in model-00002", pair, tmp_path)
    second.unlink()
    refused(UsageError, "is incomplete: its index lists model-00002", pair, tmp_path)
    (pair[0] / "model.safetensors.index.json").write_text("{")
    refused(IntegrityError, r"index\.json is not JSON .*: it was damaged; copy the checkpoint again", pair, tmp_path)
    (pair[0] / "model.safetensors.index.json").write_text('{"weight_map": 3}')
    refused(IntegrityError, "is no index of weights", pair, tmp_path)


def test_whole_numbers_must_be_equal_and_odd_types_are_refused(pair, tmp_path, heard):
    for number, folder in enumerate(pair):
        rewrite(folder, lambda tensors, n=number: tensors.update(count=torch.tensor(n), ids=torch.arange(3)))
    found = fuse_checkpoints(pair, output=tmp_path / "fine", note=heard.append)
    assert load_file(found / "model.safetensors")["count"] == 0
    assert heard == ["Counts that differ are those of the first model: count."]
    rewrite(pair[1], lambda tensors: tensors.update(ids=torch.tensor([0, 2, 1])))
    refused(NotComparableError, "ids holds int64 and differs between .*a' and .*b'", pair, tmp_path)
    for folder in pair:
        rewrite(folder, lambda tensors: tensors.update(ids=torch.zeros(3, dtype=torch.float8_e4m3fn)))
    refused(UsageError, "ids in .* is stored as F8_E4M3, which cannot be averaged", pair, tmp_path)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda f: (f / "config.json").unlink(), UsageError, "is a folder but not a checkpoint: it has no config.json"),
        (lambda f: (f / "config.json").write_text("{"), IntegrityError, r"config\.json is not JSON"),
        (lambda f: (f / "config.json").write_text("[]"), IntegrityError, r"config\.json is no mapping"),
        (
            lambda f: (f / "adapter_config.json").write_text("{}"),
            UsageError,
            "is a PEFT adapter; merge it into its base",
        ),
        (lambda f: rewrite(f, lambda t: t.clear()), UsageError, "has no tensors"),
        (
            lambda f: rewrite(f, lambda t: t.pop("classifier.bias")),
            NotComparableError,
            r"classifier\.bias \(only in .*b'\)",
        ),
    ],
)
def test_folders_that_do_not_serve(pair, tmp_path, make, error, message):
    make(pair[0])
    refused(error, message, pair, tmp_path)


def test_places_that_do_not_serve(pair, tmp_path, monkeypatch):
    a, b = pair
    refused(UsageError, "b is given twice; give each checkpoint once", [a, b, b], tmp_path)
    monkeypatch.chdir(tmp_path)
    refused(UsageError, r"\./a \(which is a\) is given twice", ["a", "./a"], tmp_path)
    refused(UsageError, "is given twice", [a, b], tmp_path, method="task_arithmetic", base=a)
    refused(UsageError, r"no folder '.*/aa'; did you mean '.*/a'\?|no folder '.*/aa'\.", [a, tmp_path / "aa"], tmp_path)
    (tmp_path / "checkpoint").mkdir()
    refused(UsageError, r"no folder 'checkpiont'; did you mean 'checkpoint'\?", [a, "checkpiont"], tmp_path)
    refused(UsageError, "is a file; expected a checkpoint folder", [a, b / "config.json"], tmp_path)
    refused(UsageError, "only checkpoints are fused into files; in Python", [a, "models:build"], tmp_path)
    refused(UsageError, "no folder 'two words'", [a, "two words"], tmp_path)
    refused(UsageError, "as a Hugging Face id it is not in the local cache", [a, "org/surely-absent"], tmp_path)
    with pytest.raises(UsageError, match=r"the output .* is the input"):
        fuse_checkpoints(pair, output=a)
    with pytest.raises(UsageError, match=r"the output .* holds the input"):
        fuse_checkpoints(pair, output=tmp_path)
    (tmp_path / "locked").write_text("")
    with pytest.raises(UsageError, match=r"cannot be written to|cannot be looked into"):
        fuse_checkpoints(pair, output=tmp_path / "locked" / "out")


def test_an_id_is_read_from_the_cache(tiny, tmp_path, monkeypatch):
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "hub" / "models--org--tiny"
    shutil.copytree(tiny / "a", repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    found = fuse_checkpoints(["org/tiny@main", tiny / "b"], output=tmp_path / "out")
    record = json.loads((found / "fusion.json").read_text())
    assert (record["models"][0]["source"], record["models"][0]["commit"]) == ("hub", commit)
    assert record["models"][0]["weights"] == record["models"][0]["weights"] != record["models"][1]["weights"]
    assert '- "org/tiny"\n' in (found / "README.md").read_text()


def test_links_that_lead_out_of_the_folder_are_not_copied(pair, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("of somebody else")
    card = pair[0] / "chat_template.jinja"
    card.symlink_to(secret)
    refused(UsageError, r"chat_template\.jinja is a link to .*secret, outside of .*: it is not copied", pair, tmp_path)
    card.unlink()
    (pair[0] / "kept.txt").write_text("of the checkpoint")
    card.symlink_to(pair[0] / "kept.txt")
    found = fuse_checkpoints(pair, output=tmp_path / "inside")
    assert (found / "chat_template.jinja").read_text() == "of the checkpoint"


def test_links_of_the_cache_of_the_hub_are_files_of_theirs(tmp_path):
    blob, snapshot = tmp_path / "models--a" / "blobs" / "1", tmp_path / "models--a" / "snapshots" / "c"
    blob.parent.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    blob.write_text("{}")
    (snapshot / "config.json").symlink_to(blob)
    assert check_within(snapshot, snapshot / "config.json") == snapshot / "config.json"
    (snapshot / "other.json").symlink_to(tmp_path / "models--b")
    with pytest.raises(UsageError, match="outside of"):
        check_within(snapshot, snapshot / "other.json")
