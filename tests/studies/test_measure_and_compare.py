"""Models meet data: right columns, right batches, the numbers of the library called by hand, and resumable runs."""

import json

import pytest
import torch
from reference.fisher import loop_fisher
from torch.nn import functional

import commonweight
from commonweight import Footprint
from commonweight.base import IntegrityError, MeasurementError, NotComparableError, UsageError
from commonweight.data.reviews import reviews
from commonweight.data.table import open_table
from commonweight.models.load import load_model
from commonweight.models.options import LoadedModel
from commonweight.report.footprint import summary
from commonweight.studies.compare.compare import compare
from commonweight.studies.compare.measure import measure
from commonweight.studies.compare.names import name_models, named_data
from commonweight.studies.compare.options import ColumnOptions, CompareOptions, MeasureOptions
from commonweight.studies.compare.prepare import prepare
from commonweight.studies.demo.encoder import make_start, make_tokenizer, save


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    start = make_start(0)
    save(start, make_tokenizer(), folder / "one")
    with torch.no_grad():
        start.classifier.weight.mul_(3)
    save(start, make_tokenizer(), folder / "two")
    for name, count in (("films", 40), ("food", 24)):
        rows = reviews(count, domain=name)
        text = "".join(json.dumps({"text": r["text"], "label": r["label"]}) + "\n" for r in rows)
        (folder / f"{name}.jsonl").write_text(text)
    return folder


def test_a_measurement_is_that_of_the_library_and_of_a_loop(place):
    loaded, table = load_model(str(place / "one")), open_table(str(place / "food.jsonl"))
    found = measure(loaded, table, MeasureOptions())
    total = {name: torch.zeros_like(p) for name, p in loaded.model.named_parameters()}
    for text, label in zip(table.column("text"), table.column("label"), strict=True):
        tokens = loaded.tokenizer(text, return_tensors="pt")
        logits = loaded.model(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]).logits
        loss = functional.cross_entropy(logits, torch.tensor([label]))
        gradients = torch.autograd.grad(loss, list(loaded.model.parameters()), allow_unused=True)
        for name, gradient in zip(total, gradients, strict=True):
            if gradient is not None:
                total[name] += gradient.square() / len(table)
    for name in found.names:
        assert torch.allclose(found[name], total[name], rtol=1e-3, atol=1e-7 * float(total[name].max() + 1e-6)), name
    assert found.metadata["data"]["columns"]["text"] == ["text"]
    assert found.metadata["model"]["weights"] == loaded.identity["weights"]


@pytest.mark.parametrize("folds", [1, 3])
def test_batch_size_and_choice_of_rows_change_nothing_else(place, folds):
    loaded, table = load_model(str(place / "one")), open_table(str(place / "films.jsonl"))
    small, large = (measure(loaded, table, MeasureOptions(folds=folds, batch_size=n)) for n in (3, 64))
    assert len(large.folds) == (folds if folds > 1 else 0)
    for name in small.names:
        assert torch.allclose(small[name], large[name], rtol=1e-3, atol=1e-9)
    assert [f.count for f in small.folds] == [f.count for f in large.folds]


def test_auto_batch_size_halves_when_memory_runs_out(place, monkeypatch):
    sizes, notes = [], []
    done = Footprint("fisher", {"w": torch.ones(1)}, count=8)

    def fisher(model, batches, **options):
        sizes.append(batches.batches.batch_size)
        if batches.batches.batch_size > 8:
            raise torch.OutOfMemoryError("too large")
        return done

    monkeypatch.setattr("commonweight.studies.compare.measure.fisher", fisher)
    loaded, table = load_model(str(place / "one")), open_table(str(place / "films.jsonl"))
    assert measure(loaded, table, MeasureOptions(folds=1), note=notes.append) is done
    assert sizes == [32, 16, 8]
    assert "16 rows per batch" in notes[0]
    with pytest.raises(MeasurementError, match="batch_size 9; use a smaller one, or leave it out"):
        measure(loaded, table, MeasureOptions(folds=1, batch_size=9))


def test_copies_are_said_with_the_name_of_the_data(place, tmp_path):
    """As a note, not as a warning from somewhere in the library; a column of source rows says what is a copy."""
    lines = (place / "films.jsonl").read_text().splitlines()[:10] * 4
    (tmp_path / "copied.jsonl").write_text("\n".join(lines) + "\n")
    numbered = [json.dumps({**json.loads(line), "source_row": 3 * (i % 10)}) for i, line in enumerate(lines)]
    (tmp_path / "numbered.jsonl").write_text("\n".join(numbered) + "\n")
    apart = [json.dumps({**json.loads(line), "source_row": 3 * i}) for i, line in enumerate(lines)]
    (tmp_path / "apart.jsonl").write_text("\n".join(apart) + "\n")
    loaded, notes = load_model(str(place / "one")), []
    for name, distinct in (("numbered", 10), ("apart", 40), ("copied", 10)):
        table = open_table(str(tmp_path / f"{name}.jsonl"))
        assert table.is_numbered == (name != "copied")
        found = measure(loaded, table, MeasureOptions(folds=2), note=notes.append)
        assert found.rows.distinct == distinct
    assert [note for note in notes if "copies" in note] == [notes[-1]]
    assert notes[-1].startswith("copied: 36 of 40 rows have copies in other folds (10 are distinct)")


def test_a_model_whose_labels_are_turned_round_is_told_by_comparison_and_summary(place, tmp_path):
    loaded, texts = load_model(str(place / "one")), [row["text"] for row in reviews(40)]
    with torch.no_grad():
        tokens = loaded.tokenizer(texts, return_tensors="pt", padding=True)
        answers = loaded.model(tokens["input_ids"], tokens["attention_mask"]).logits.argmax(1).tolist()
    said = {}
    for name, labels in (("right", answers), ("wrong", [1 - answer for answer in answers])):
        rows = [json.dumps({"text": text, "label": label}) for text, label in zip(texts, labels, strict=True)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows) + "\n")
        notes = []
        models = [str(place / "one"), str(place / "two")]
        found = compare(models, [str(tmp_path / f"{name}.jsonl")], tmp_path / f"run-{name}", note=notes.append)
        again = []
        compare(models, [str(tmp_path / f"{name}.jsonl")], tmp_path / f"run-{name}", note=again.append)
        measured = Footprint.load(found.folder / "footprints" / "one" / name)
        said[name] = [
            [n for n in told if "inverted" in n] for told in (notes, again, map(str, summary(measured, "one")))
        ]
    sentence = "gives the label of 0 of 40 rows, and guessing would of 20: it was trained on labels that are "
    assert said["right"] == [[], [], []]
    for told in said["wrong"]:
        assert told[0].startswith(f"The model of one{'' if told is said['wrong'][2] else '/wrong'} {sentence}")


def test_language_models_read_text_alone(place):
    from transformers import GPT2Config, GPT2LMHeadModel

    tokenizer = make_tokenizer()
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=24, n_embd=16, n_layer=1, n_head=2, bos_token_id=2, eos_token_id=3
    )
    loaded = LoadedModel(GPT2LMHeadModel(config).eval(), {"name": "gpt"}, "causal_lm", tokenizer)
    table = open_table(str(place / "food.jsonl"))
    prepared = prepare(loaded, table, ColumnOptions())
    (batch,) = prepared.batches.with_batch_size(24)
    assert torch.equal(batch["labels"] == -100, batch["attention_mask"] == 0)
    assert prepared.columns["label"] is None
    assert measure(loaded, table, MeasureOptions()).count == 24


def last_token_classifier(family, **padding):
    import transformers

    torch.manual_seed(0)
    vocabulary = len(make_tokenizer())
    if family == "GPT2":
        config = transformers.GPT2Config(
            vocab_size=vocabulary, n_positions=24, n_embd=16, n_layer=1, n_head=2, bos_token_id=2, eos_token_id=3,
            num_labels=2, embd_pdrop=0.0, attn_pdrop=0.0, resid_pdrop=0.0, **padding,
        )  # fmt: skip
    else:
        config = transformers.LlamaConfig(
            vocab_size=vocabulary, max_position_embeddings=24, hidden_size=16, intermediate_size=16,
            num_hidden_layers=1, num_attention_heads=2, num_labels=2, **padding,
        )  # fmt: skip
    return getattr(transformers, f"{family}ForSequenceClassification")(config).eval()


@pytest.mark.parametrize("family", ["GPT2", "Llama"])
@pytest.mark.parametrize(
    ("tokens", "padding"),
    [
        ({"pad_token": None, "eos_token": None}, {}),
        ({"pad_token": None, "eos_token": "[UNK]"}, {}),
        ({"pad_token": None, "eos_token": "[SEP]"}, {}),  # every row ends with it
        ({"pad_token": "[SEP]", "eos_token": "[SEP]"}, {}),
        ({"pad_token": "[PAD]"}, {}),
        ({"pad_token": "[PAD]"}, {"pad_token_id": 5}),
        ({"pad_token": None}, {"pad_token_id": 0}),
    ],
)
def test_a_classifier_that_reads_the_last_token_is_measured_whatever_it_knows_of_padding(
    place, family, tokens, padding
):
    tokenizer, model = make_tokenizer(), last_token_classifier(family, **padding)
    for name, token in tokens.items():
        setattr(tokenizer, name, token)
    table = open_table(str(place / "food.jsonl"))
    examples = []
    for text, label in zip(table.column("text"), table.column("label"), strict=True):
        examples.append((torch.tensor([tokenizer(text)["input_ids"]]), torch.tensor([label])))
    assert len({ids.shape[1] for ids, _ in examples}) > 1
    expected, _ = loop_fisher(model, examples, lambda net, row: [functional.cross_entropy(net(row[0]).logits, row[1])])
    found = measure(LoadedModel(model, {"name": family}, "classification", tokenizer), table, MeasureOptions(folds=2))
    for name in found.names:
        assert torch.allclose(
            found[name].double(), expected[name], rtol=1e-3, atol=1e-6 * float(expected[name].max())
        ), name


def test_regression_and_multilabel_targets_are_floats(tmp_path):
    for task, value, shape in (("regression", 1, (2,)), ("multilabel", [1, 0], (2, 2))):
        rows = [{"text": "the film is good", "label": value}] * 2
        (tmp_path / "r.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
        loaded = LoadedModel(make_start(0), {}, task, make_tokenizer())
        (batch,) = prepare(loaded, open_table(str(tmp_path / "r.jsonl")), ColumnOptions()).batches.with_batch_size(2)
        assert (batch["labels"].dtype, tuple(batch["labels"].shape)) == (torch.float32, shape)


def test_long_rows_are_cut_and_said(place):
    loaded, table = load_model(str(place / "one")), open_table(str(place / "food.jsonl"))
    said = []
    prepare(loaded, table, ColumnOptions(max_length=6), note=said.append)
    assert "were cut to 6 tokens" in said[0]
    with pytest.raises(UsageError, match="max_length 100 is more than the model can read; give at most 24"):
        prepare(loaded, table, ColumnOptions(max_length=100))


def test_plain_modules_need_their_columns_named(place, tmp_path):
    loaded = LoadedModel(torch.nn.Linear(2, 2), {"name": "mine:build"})
    (tmp_path / "n.csv").write_text("u,v,label\n1,2.5,0\n3,4,1\n")
    table = open_table(str(tmp_path / "n.csv"))
    with pytest.raises(UsageError, match=r"input_column.*'u', 'v', 'label'"):
        prepare(loaded, table, ColumnOptions())
    found = measure(loaded, table, MeasureOptions(columns=ColumnOptions(input_column=("u", "v"))))
    assert found.names == ("weight", "bias")
    with pytest.raises(UsageError, match="input_column is for plain torch modules"):
        prepare(load_model(str(place / "one")), table, ColumnOptions(input_column=("u",)))


def test_names():
    assert [m.name for m in name_models(["a:build", "b:build"])] == ["a-build", "b-build"]
    with pytest.raises(UsageError, match="given twice"):
        name_models(["org/a", "org/a"])
    assert named_data(["x=org/set", "org/set:cfg"]) == [("x", "org/set"), ("set", "org/set:cfg")]
    with pytest.raises(UsageError, match=r"2 data sets are called 'dev'.*NAME=DATA"):
        named_data(["a/dev.tsv", "b/dev.tsv"])


def test_a_run_is_complete_resumable_and_growable(place, tmp_path, monkeypatch):
    models, data = [str(place / "one"), str(place / "two")], [f"m={place / 'films.jsonl'}"]
    options = CompareOptions(measure=MeasureOptions(folds=2))
    first = compare(models, data, tmp_path / "run", options)
    assert first.measured == ("one/m", "two/m") == first.table.names
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["status"] == "complete"
    assert record["footprints"] == {"one/m": "footprints/one/m", "two/m": "footprints/two/m"}

    again = compare(models, data, tmp_path / "run", options)
    assert (again.measured, again.skipped) == ((), ("one/m", "two/m"))
    assert again.table.to_json() == first.table.to_json() == commonweight.OverlapTable.load(tmp_path / "run").to_json()

    with monkeypatch.context() as patch:
        patch.setattr("commonweight.overlaps.table.table.fold_terms", lambda *_: pytest.fail("computed again"))
        assert compare(models, data, tmp_path / "run", options).table.to_json() == first.table.to_json()
        (tmp_path / "run" / "overlap.safetensors").write_bytes(b"")
        with pytest.raises(pytest.fail.Exception, match="computed again"):
            compare(models, data, tmp_path / "run", options)
    (tmp_path / "run" / "overlap.json").write_text("{}")
    assert compare(models, data, tmp_path / "run", options).table.to_json() == first.table.to_json()

    grown = compare(models, [*data, str(place / "food.jsonl")], tmp_path / "run", options)
    assert grown.measured == ("one/food", "two/food")
    places = {name: tmp_path / "run" / "footprints" / name for name in grown.table.names}
    stored = {name: commonweight.Footprint.load(place) for name, place in places.items()}
    for table in (first.table, grown.table):
        by_hand = commonweight.overlap({name: stored[name] for name in table.names})
        assert by_hand.pooled.tolist() == table.pooled.tolist()
        assert by_hand.corrected.pooled == pytest.approx(table.corrected.pooled, nan_ok=True)

    one_piece = CompareOptions(measure=MeasureOptions(folds=1))
    with pytest.raises(UsageError, match=r"settings\.folds was 2, is now 1.*fresh=True"):
        compare(models, [*data, str(place / "food.jsonl")], tmp_path / "run", one_piece)
    usual = compare(models, [*data, str(place / "food.jsonl")], tmp_path / "run", CompareOptions())
    assert usual.measured == ()  # as many folds as the run has
    fresh = compare(models, data, tmp_path / "run", CompareOptions(), fresh=True)
    assert fresh.measured == ("one/m", "two/m")
    assert not (tmp_path / "run" / "footprints" / "one" / "food").exists()


def test_a_swapped_footprint_is_noticed(place, tmp_path):
    models, data = [str(place / "one"), str(place / "two")], [str(place / "food.jsonl")]
    compare(models, data, tmp_path / "run")
    prints = tmp_path / "run" / "footprints"
    (prints / "one" / "food").rename(prints / "aside")
    (prints / "two" / "food").rename(prints / "one" / "food")
    with pytest.raises(IntegrityError, match="measured on another model or other data"):
        compare(models, data, tmp_path / "run")


def test_models_that_cannot_be_compared_are_refused_before_the_work(place, tmp_path):
    from transformers import BertConfig, BertForSequenceClassification

    small = BertConfig(vocab_size=75, hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=128)
    save(BertForSequenceClassification(small), make_tokenizer(), tmp_path / "small")
    with pytest.raises(NotComparableError, match="shape differs"):
        compare([str(place / "one"), str(tmp_path / "small")], [str(place / "food.jsonl")], tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_one_footprint_is_no_comparison(place, tmp_path):
    with pytest.raises(UsageError, match="gives one footprint"):
        compare([str(place / "one")], [str(place / "food.jsonl")], tmp_path / "run")
    two_tasks = compare([str(place / "one")], [str(place / n) for n in ("food.jsonl", "films.jsonl")], tmp_path / "run")
    assert two_tasks.table.names == ("one/food", "one/films")


def test_a_checkpoint_goes_to_each_function(place, tmp_path):
    with pytest.raises(UsageError, match="1 checkpoints for 2 module:function models"):
        compare(["a:f", "b:f"], [str(place / "food.jsonl")], tmp_path / "run", CompareOptions(checkpoints=("x",)))
