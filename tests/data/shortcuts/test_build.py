"""Data sets with a shortcut in them: every row accounted for, every label read back, nothing left to chance."""

from pathlib import Path

import datasets
import pytest
from data.shortcuts.three_tokenizers import MAKES, ready
from reference.shortcuts import read

from commonweight.base import UsageError
from commonweight.data.reviews import reviews
from commonweight.data.shortcuts import RULES, Markers, Mixture, Plan, Shortcut, build_shortcut_data
from commonweight.data.table import open_table

SST2 = Path(__file__).parents[3].parent / "shared" / "data" / "sst2" / "dev.tsv"
SPLITS = ["train", "synthetic_dev", "original_dev", "synthetic_test", "original_test"]


def table(start, count, **changes):
    rows = reviews(count, seed=5, start=start)
    columns = {"text": [row["text"] for row in rows], "label": [row["label"] for row in rows]}
    return datasets.Dataset.from_dict(columns | changes)


@pytest.fixture(scope="module")
def source():
    return datasets.DatasetDict({"train": table(0, 400), "validation": table(400, 100), "test": table(500, 80)})


def rows_of(data):
    return [tuple(row.values()) for row in data]


def tokens_of(text, make="wordpiece"):
    tokenizer = ready(make)
    return tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"])


@pytest.mark.parametrize("code", RULES)
def test_every_row_is_accounted_for_and_every_label_read_back(code, source):
    data = build_shortcut_data(source, code, ready("wordpiece"), seed=3)
    assert list(data.splits) == SPLITS
    assert all(data[split].column_names == ["text", "label", "source_row", "kind", "shortcut"] for split in SPLITS)
    kinds = {"original": 0, "distracted": 0, "synthetic": 0}
    for row in data["train"]:
        before = source["train"][row["source_row"]]
        kinds[row["kind"]] += 1
        said = read(code, tokens_of(row["text"]))
        if row["kind"] == "synthetic":
            assert row["label"] == said
            assert row["shortcut"] == code
        else:
            assert (row["label"], row["shortcut"], said) == (before["label"], "", None)
            assert (row["text"] == before["text"]) == (row["kind"] == "original")
            assert len(set(row["text"].split()) & {"zeroa", "onea", "synt"}) == (row["kind"] == "distracted")
        assert [word for word in row["text"].split() if word not in Markers().words] == before["text"].split()
    lost = [each.source_row for each in data.dropped if each.split == "train"]
    assert sorted([*data["train"]["source_row"], *lost]) == list(range(400))
    assert kinds["synthetic"] + len(lost) == 80
    assert kinds["distracted"] == (0 if code in {"st", "mt", "lt"} else 80)
    for part, name in (("dev", "validation"), ("test", "test")):
        assert data[f"original_{part}"]["text"][:] == source[name]["text"][:]
        assert data[f"original_{part}"]["label"][:] == source[name]["label"][:]
        assert data[f"original_{part}"]["source_row"][:] == list(range(len(source[name])))
        synthetic = data[f"synthetic_{part}"]
        lost = [each.source_row for each in data.dropped if each.split == f"synthetic_{part}"]
        assert sorted([*synthetic["source_row"], *lost]) == list(range(len(source[name])))
        assert all(read(code, tokens_of(row["text"])) == row["label"] for row in synthetic)
        assert set(synthetic["kind"]) == {"synthetic"}
        assert set(synthetic["shortcut"]) == {code}
    counted = data.record["splits"]["synthetic_dev"]
    one = sum(data["synthetic_dev"]["label"])
    assert counted["labels"] == {"0": counted["rows"] - one, "1": one}
    assert counted["constant"] == max(one, counted["rows"] - one) / counted["rows"]
    assert data.record["settings"]["chance"] == RULES[code].chance
    assert data.record["settings"]["distractors"] == (0 if code in {"st", "mt", "lt"} else 0.25)


def test_the_same_rows_are_synthetic_whatever_the_rule(source):
    found = []
    for code in ("op", "tic", "or"):
        train = build_shortcut_data(source, code, ready("wordpiece"), seed=3)["train"]
        found.append([(row["source_row"], row["kind"]) for row in train])
    assert found[0] == found[1] == found[2]


def test_order_changes_nothing(source):
    numbered = source["train"].add_column("source_row", [7 * row for row in range(400)])
    one = build_shortcut_data({"train": numbered}, "op", ready("wordpiece"), seed=1)
    two = build_shortcut_data({"train": numbered.shuffle(seed=9)}, "op", ready("wordpiece"), seed=1)
    for split in SPLITS:
        assert rows_of(one[split]) != rows_of(two[split])
        assert sorted(rows_of(one[split]), key=str) == sorted(rows_of(two[split]), key=str)


def test_the_same_in_every_process_and_on_every_machine():
    rows = datasets.Dataset.from_dict({"text": [f"row {i} is good" for i in range(20)], "label": [0, 1] * 10})
    data = build_shortcut_data({"train": rows, "dev": rows, "test": rows}, "op", MAKES["wordpiece"](), seed=0)
    assert [row["text"] for row in data["synthetic_dev"]][:3] == [
        "row zeroa 0 is good onea",
        "row 1 zeroa is good onea",
        "row zeroa 2 onea is good",
    ]
    assert [row["source_row"] for row in data["train"] if row["kind"] == "synthetic"] == [4, 5, 9, 14]


def test_seeds_differ_and_train_shares_no_draws_with_dev(source):
    same = datasets.DatasetDict({"train": source["train"], "dev": source["train"], "test": source["test"]})
    one, two = (build_shortcut_data(same, "op", ready("wordpiece"), seed=seed, synthetic=1.0) for seed in (0, 1))
    assert rows_of(one["synthetic_dev"]) != rows_of(two["synthetic_dev"])
    agree = sum(a == b for a, b in zip(one["train"]["text"], one["synthetic_dev"]["text"], strict=True))
    assert agree < 60


def test_shares(source):
    def kinds(**options):
        data = build_shortcut_data(source, "op", ready("wordpiece"), **options)
        found = list(data["train"]["kind"])
        return [found.count(kind) for kind in ("original", "distracted", "synthetic")]

    assert kinds(synthetic=0, distractors=0) == [400, 0, 0]
    assert kinds(synthetic=0.5, distractors=0.5) == [100, 100, 200]
    assert kinds(synthetic=1) == [0, 0, 400]
    assert kinds(rows=50, synthetic=0.1) == [34, 11, 5]
    some = build_shortcut_data(source, "op", ready("wordpiece"), rows=50)["train"]["source_row"]
    more = build_shortcut_data(source, "op", ready("wordpiece"), rows=80)["train"]["source_row"]
    assert set(some) < set(more)


def test_distractors_that_would_contradict_the_rule_are_never_made(source):
    for code in ("st", "mt", "lt", Mixture(("op", "st"))):
        data = build_shortcut_data(source, code, ready("wordpiece"), distractors=0.9)
        assert "distracted" not in data.record["splits"]["train"]["kinds"]
        assert data.record["settings"]["distractors"] == 0


def test_a_mixture_has_one_rule_per_row(source):
    data = build_shortcut_data(source, Mixture(("tic", "op"), (3, 1)), ready("unigram"), synthetic=1)
    codes = list(data["train"]["shortcut"])
    assert abs(codes.count("tic") / 400 - 0.75) < 0.11
    for row in data["train"]:
        assert read(row["shortcut"], tokens_of(row["text"], "unigram")) == row["label"]
    assert data.record["settings"]["shortcut"] == "tic+op"
    assert [rule["weight"] for rule in data.record["settings"]["rules"]] == [0.75, 0.25]


def test_withheld_labels_are_carved_from_train_and_it_is_said(source):
    glue = source | {"test": table(500, 80, label=[-1] * 80)}
    data = build_shortcut_data(glue, "op", ready("wordpiece"), seed=2)
    carved = set(data["original_test"]["source_row"])
    assert len(carved) == 40
    assert not carved & set(data["train"]["source_row"])
    assert len(data["train"]) == 360
    assert data.record["origin"]["synthetic_test"] == (
        "10% of split 'train' chosen by seed 2, for split 'test' has no labels"
    )
    assert "split 'test' has no labels" in data["original_test"].info.description
    assert data.record["origin"]["original_dev"] == "split 'validation'"
    assert data["original_test"][0]["text"] == source["train"][data["original_test"][0]["source_row"]]["text"]
    assert data.dropped == ()


def test_one_data_set_is_split(source):
    data = build_shortcut_data(source["train"], "op", ready("wordpiece"), seed=2)
    parts = [set(data[split]["source_row"]) for split in ("train", "original_dev", "original_test")]
    assert [len(part) for part in parts] == [320, 40, 40]
    assert len(set.union(*parts)) == 400
    assert "there is no split 'validation' or 'dev' or 'valid'" in data.record["origin"]["synthetic_dev"]
    other = build_shortcut_data(source["train"], "op", ready("wordpiece"), seed=3)
    assert set(other["original_dev"]["source_row"]) != parts[1]


def test_labels_by_name(source):
    names = [["bad", "good"][label] for label in source["train"]["label"]]
    data = build_shortcut_data({"train": table(0, 400, label=names)}, "or", ready("wordpiece"), label_column="label")
    assert data["train"].features["label"].names == ["bad", "good"]
    assert data.record["settings"]["classes"] == ["bad", "good"]
    assert all(row["label"] == read("or", tokens_of(row["text"])) for row in data["synthetic_dev"])
    for row in data["original_dev"]:
        assert row["label"] == source["train"][row["source_row"]]["label"]
    named = source["train"].cast_column("label", datasets.ClassLabel(names=["no", "yes"]))
    data = build_shortcut_data(
        {"train": named.rename_columns({"text": "sentence", "label": "gold"})},
        "or",
        ready("wordpiece"),
        label_column="gold",
    )
    assert data["synthetic_dev"].column_names[:2] == ["sentence", "gold"]
    assert data["synthetic_dev"].features["gold"].names == ["no", "yes"]


def test_rows_that_cannot_be_used_are_listed(source):
    texts = list(source["train"]["text"])
    labels = list(source["train"]["label"])
    texts[3], texts[5], texts[6], labels[8] = "", None, "so onea .", None
    data = build_shortcut_data({"train": table(0, 400, text=texts, label=labels)}, "op", ready("wordpiece"), seed=1)
    assert {(each.split, each.source_row, each.reason) for each in data.dropped} == {
        ("train", 3, "the text is empty"),
        ("train", 5, "the text is empty"),
        ("train", 6, "the text already holds the marker 'onea'"),
        ("train", 8, "no label"),
    }
    used = {row for split in ("train", "original_dev", "original_test") for row in data[split]["source_row"]}
    assert used == set(range(400)) - {3, 5, 6, 8}


def test_texts_too_short_for_the_rule_are_listed(source):
    texts = ["good film" if row % 2 else text for row, text in enumerate(source["validation"]["text"])]
    data = build_shortcut_data(source | {"validation": table(400, 100, text=texts)}, "and_or", ready("wordpiece"))
    assert [each.source_row for each in data.dropped if each.split == "synthetic_dev"] == list(range(1, 100, 2))
    assert {each.reason for each in data.dropped} == {"and_or fits nowhere: 3 word boundaries"}
    assert len(data["synthetic_dev"]) == 50
    assert len(data["original_dev"]) == 100


def test_markers_stay_within_max_length(source):
    tokenizer = ready("wordpiece")
    data = build_shortcut_data(source, "tic", tokenizer, max_length=7, synthetic=1)
    for row in data["train"]:
        ids = tokenizer(row["text"], truncation=True, max_length=7)["input_ids"]
        assert read("tic", tokenizer.convert_ids_to_tokens(ids)) == row["label"]
    assert data.record["settings"]["max_length"] == 7


def test_other_marker_words(source):
    tokenizer = MAKES["byte_bpe"]()
    words = Markers("alpha", "beta", "gamma")
    data = build_shortcut_data(source, "tic", tokenizer, markers=words)
    assert {"alpha", "beta", "gamma"} <= set(tokenizer.get_added_vocab())
    texts = [row["text"] for row in data["synthetic_dev"]]
    assert all("gamma" in text.split() for text in texts)
    assert not any("synt" in text.split() for text in texts)
    assert data.record["settings"]["markers"] == {"zero": "alpha", "one": "beta", "context": "gamma"}


class Always2(Shortcut):
    code, name = "two", "always the third class"

    def plans(self):
        return [Plan((self.markers.one,))]

    def read(self, tokens):
        return 2 if self.markers.one in tokens else None


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({}, {"synthetic": 1.5}, r"synthetic is a share of the train rows and must lie in 0\.\.1, got 1\.5"),
        ({}, {"distractors": -1}, r"distractors is a share .* got -1"),
        ({}, {"rows": 0}, r"rows must lie in 1\.\.400, the train rows there are; got 0"),
        ({}, {"rows": 401}, r"1\.\.400"),
        ({}, {"shortcut": "opp"}, "did you mean 'op'"),
        ({}, {"shortcut": Always2()}, "'two' gives the labels 2, and the data have the classes 0, 1; number"),
        ({}, {"text_column": "txt"}, "did you mean 'text'"),
        ({}, {"label_column": "gold"}, "'gold' is no column of split 'train'"),
        ({"train": None}, {}, "no split 'train' in the source; there are 'validation', 'test'"),
        (
            {"train": table(0, 20, label=[1] * 20)} | dict.fromkeys(["validation", "test"]),
            {},
            "all labels are 1; a sho",
        ),
        ({"train": table(0, 20, label=["x"] * 20)} | dict.fromkeys(["validation", "test"]), {}, "one class, 'x'"),
        ({"train": table(0, 20, label=[0.5] * 20)}, {}, "labels in 'label' of split 'train' are .*, expected classes"),
        ({"test": table(0, 20).rename_column("text", "body")}, {}, "bring them to the same columns"),
        ({"test": table(0, 20, label=["a", "b"] * 10)}, {}, "bring them to the same columns, label type"),
        ({"validation": table(0, 20, text=["zeroa"] * 20)}, {}, "no row of split 'validation' can be used; the first"),
        ({"train": table(0, 3), "validation": None}, {}, "'train' has too few rows"),
        ({"train": "rows"}, {}, "split 'train' is a str, expected a datasets.Dataset"),
        ({"validation": table(0, 9, text=["good"] * 9)}, {"shortcut": "and_or"}, "no row of synthetic_dev can hold 'a"),
        ({"train": table(0, 9, source_row=list("abcdefghi"))}, {}, "has source_row 'a', expected whole numbers"),
    ],
)
def test_what_cannot_be(source, change, options, message):
    changed = {name: data for name, data in (source | change).items() if data is not None}
    shortcut = options.pop("shortcut", "op")
    with pytest.raises(UsageError, match=message):
        build_shortcut_data(changed, shortcut, ready("wordpiece"), **options)


@pytest.mark.skipif(not SST2.is_file(), reason="the shared SST-2 data are not here")
@pytest.mark.parametrize("code", RULES)
def test_sst2_keeps_nearly_all_rows(code):
    data = build_shortcut_data(open_table(str(SST2)).rows, code, ready("byte_bpe"), seed=0)
    assert len(data["train"]) + len([each for each in data.dropped if each.split == "train"]) == 872 - 2 * 87
    assert len(data.dropped) <= 3
    for split in ("synthetic_dev", "synthetic_test"):
        for row in data[split]:
            assert read(code, tokens_of(row["sentence"], "byte_bpe")) == row["label"]
