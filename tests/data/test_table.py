"""Opening data: formats, splits, choice of rows, identity, and the errors a user meets."""

import csv
import json
from pathlib import Path

import datasets
import pyarrow as pa
import pytest
from pyarrow import parquet

from commonweight.base import UsageError
from commonweight.data.table import choose_rows, open_table, table_name

SST2 = Path(__file__).parents[2].parent / "shared" / "data" / "sst2" / "dev.tsv"
ROWS = [{"text": 'a "quoted word', "label": 1}, {"text": "NA", "label": 0}, {"text": "null, and more", "label": 1}]


def write(path: Path, rows=ROWS) -> Path:
    if path.suffix == ".tsv":
        path.write_text("text\tlabel\n" + "".join(f"{r['text']}\t{r['label']}\n" for r in rows))
    elif path.suffix == ".csv":
        with path.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, ["text", "label"])
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    else:
        parquet.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize("suffix", [".tsv", ".csv", ".jsonl", ".parquet"])
def test_every_format_gives_the_same_rows(tmp_path, suffix):
    table = open_table(str(write(tmp_path / f"rows{suffix}")))
    assert table.column("text") == [r["text"] for r in ROWS]
    assert table.column("label") == [1, 0, 1]
    assert (table.name, list(table.source_rows)) == ("rows", [0, 1, 2])
    assert table.identity["selection"] == "all"


@pytest.mark.skipif(not SST2.is_file(), reason="the shared SST-2 data are not here")
def test_sst2_is_read_whole_stray_quotes_and_all():
    table = open_table(str(SST2))
    assert (len(table), table.columns) == (872, ("label", "sentence"))
    assert sum(table.column("label")) == 444
    lines = SST2.read_text(encoding="utf-8").splitlines()[1:]
    assert [f"{a}\t{b}" for a, b in zip(table.column("label"), table.column("sentence"), strict=True)] == lines
    assert table.identity["sha256"] == "eb1f47f8f8ac2370e78b99429b276e662533b2f3d4394fa092674745a1222b66"


def test_a_choice_of_rows_is_seeded_nested_and_recorded(tmp_path):
    path = str(write(tmp_path / "rows.jsonl", [{"text": str(i), "label": i % 2} for i in range(100)]))
    few, more, other = (open_table(path, examples=n, seed=s) for n, s in ((10, 0), (20, 0), (10, 1)))
    assert few.column("text") == [str(row) for row in few.source_rows]
    assert list(few.source_rows) == choose_rows(100, 10, 0)
    assert set(few.source_rows) < set(more.source_rows)
    assert list(few.source_rows) != list(other.source_rows)
    assert few.identity["selection"] == {"seed": 0, "rows": list(few.source_rows)}
    assert (few.identity["rows_in_all"], few.identity["rows_used"]) == (100, 10)
    for table in (open_table(path), more):
        first = table.taken(table.order[:10])
        assert (first.identity, list(first.source_rows)) == (few.identity, list(few.source_rows))
        assert first.column("text") == few.column("text")
    with pytest.raises(UsageError, match=r"1\.\.100, the rows of .*; got 101"):
        open_table(path, examples=101)


def test_a_changed_file_has_another_identity(tmp_path):
    path = write(tmp_path / "rows.tsv")
    before = open_table(str(path)).identity
    write(path, [*ROWS, {"text": "x", "label": 0}])
    assert open_table(str(path)).identity["sha256"] != before["sha256"]


def test_saved_folders_with_and_without_splits(tmp_path):
    data = datasets.Dataset.from_list(ROWS)
    data.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": data, "dev": data.select([0])}).save_to_disk(tmp_path / "two")
    assert open_table(str(tmp_path / "one")).column("label") == [1, 0, 1]
    assert len(open_table(str(tmp_path / "two"), split="dev")) == 1
    assert open_table(str(tmp_path / "one")).identity == open_table(str(tmp_path / "one")).identity
    with pytest.raises(UsageError, match="splits train, dev; choose one with split"):
        open_table(str(tmp_path / "two"))
    with pytest.raises(UsageError, match=r"no split 'trian'.*did you mean 'train'"):
        open_table(str(tmp_path / "two"), split="trian")
    with pytest.raises(UsageError, match="single split"):
        open_table(str(tmp_path / "one"), split="dev")
    (tmp_path / "other").mkdir()
    with pytest.raises(UsageError, match="not a saved data set"):
        open_table(str(tmp_path / "other"))


def test_hub_ids_are_split_into_name_config_and_revision(monkeypatch):
    calls = []

    def load(name, config, *, split, revision):
        calls.append((name, config, split, revision))
        return datasets.Dataset.from_list(ROWS)

    monkeypatch.setattr(datasets, "get_dataset_split_names", lambda *a, **k: ["train", "test"])
    monkeypatch.setattr(datasets, "load_dataset", load)
    table = open_table("org/some.set:small@v1.0", split="test")
    assert calls == [("org/some.set", "small", "test", "v1.0")]
    assert (table.name, table.identity["id"], table.identity["split"]) == ("some.set", "org/some.set", "test")
    with pytest.raises(UsageError, match="choose one with split"):
        open_table("org/some.set")


def test_an_unreachable_id_says_what_to_do(monkeypatch):
    def offline(*args, **kwargs):
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "get_dataset_split_names", offline)
    with pytest.raises(UsageError, match=r"no local file or folder.*no network.*Check the spelling"):
        open_table("org/absent")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("rows.tsv", "text\tlabel\na\t1\textra\n", "not a readable TSV file"),
        ("rows.csv", "", "not a readable CSV file"),
        ("rows.jsonl", '[{"text": "a"}]', "not a readable JSONL file"),
        ("rows.parquet", "text", "not a readable PARQUET file"),
        ("rows.tsv", "text\tlabel\n", "has no rows"),
        ("rows.xlsx", "x", "must end in .tsv, .csv, .jsonl, .parquet"),
    ],
)
def test_unreadable_files_are_named(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=message):
        open_table(str(tmp_path / name))


@pytest.mark.parametrize("data", ["absent.tsv", "./absent", "a/b/c", "two words"])
def test_what_is_no_data_is_refused_without_asking_the_network(data):
    with pytest.raises(UsageError, match=r"no file or folder|neither an existing file"):
        open_table(data)


def test_a_file_has_no_split_and_an_absent_column_is_guessed(tmp_path):
    path = str(write(tmp_path / "rows.tsv"))
    with pytest.raises(UsageError, match="leave split='dev' out"):
        open_table(path, split="dev")
    with pytest.raises(UsageError, match="did you mean 'label'"):
        open_table(path).column("lable")
    assert table_name(path) == "rows"


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_text_that_is_not_utf8_names_its_line(tmp_path, suffix):
    path = write(tmp_path / f"rows{suffix}")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2]) + "grün".encode("latin-1") + b"".join(lines[2:]))
    with pytest.raises(UsageError, match=r"line 3 of .* is not UTF-8 .*; expected UTF-8"):
        open_table(str(path))
    path.write_bytes("text,label\na,1\n".encode("utf-16"))
    with pytest.raises(UsageError, match=r"line 1 of .* is not UTF-8"):
        open_table(str(path))


def test_columns_of_one_name_are_refused(tmp_path):
    (tmp_path / "rows.csv").write_text("text,label,text\na,1,b\n")
    with pytest.raises(UsageError, match="several columns called 'text'"):
        open_table(str(tmp_path / "rows.csv"))


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that cannot be read")
def test_a_file_that_cannot_be_read_is_said(tmp_path):
    (tmp_path / "rows.tsv").symlink_to("/proc/self/mem")
    with pytest.raises(UsageError, match="cannot be read"):
        open_table(str(tmp_path / "rows.tsv"))


def test_a_misspelled_local_name_is_not_looked_for_elsewhere(tmp_path, monkeypatch):
    def refuse(*args, **options):
        raise AssertionError("asked the Hub")

    monkeypatch.setattr(datasets, "get_dataset_split_names", refuse)
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "films.tsv")
    (tmp_path / "reviews").mkdir()
    for wrong, right in (("flims.tsv", "films.tsv"), ("revews", "reviews"), ("films.tvs", "films.tsv")):
        with pytest.raises(UsageError, match=f"no file or folder '{wrong}'; did you mean '{right}'"):
            open_table(wrong)
    with pytest.raises(AssertionError, match="asked the Hub"):
        open_table("reviews-2@main")


def test_a_column_says_which_rows_they_were(tmp_path):
    file = tmp_path / "made.jsonl"
    file.write_text('{"text": "a", "source_row": 7}\n{"text": "b", "source_row": 3}\n')
    assert list(open_table(str(file)).source_rows) == [7, 3]
    for other, row in (('"x"', 0), ("-1", 1), ("null", 1), ("0.5", 0), ("true", 0)):
        first = other if other in {'"x"', "true"} else "7"
        file.write_text(f'{{"text": "a", "source_row": {first}}}\n{{"text": "b", "source_row": {other}}}\n')
        with pytest.raises(
            UsageError, match=rf"row {row} of .* in the column source_row, expected a whole number from"
        ):
            open_table(str(file))


def test_class_names_and_the_order_of_files_count_as_the_rows_do(tmp_path):
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    saved = datasets.Dataset.from_list(ROWS, features=features)
    saved.save_to_disk(tmp_path / "saved", num_shards=2)
    before = open_table(str(tmp_path / "saved")).identity
    for file, change in (
        (
            "dataset_info.json",
            lambda text: text.replace('"no"', '"was"').replace('"yes"', '"no"').replace('"was"', '"yes"'),
        ),
        ("dataset_info.json", lambda text: text.replace('"no"', '"yes "')),
        (
            "state.json",
            lambda text: json.dumps(json.loads(text) | {"_data_files": json.loads(text)["_data_files"][::-1]}),
        ),
    ):
        text = (tmp_path / "saved" / file).read_text()
        (tmp_path / "saved" / file).write_text(change(text))
        assert open_table(str(tmp_path / "saved")).identity["layout"] != before["layout"]
        (tmp_path / "saved" / file).write_text(text)
    assert open_table(str(tmp_path / "saved")).identity == before
    datasets.DatasetDict(train=saved).save_to_disk(tmp_path / "dict")
    assert open_table(str(tmp_path / "dict")).identity["layout"]


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("a.csv", "text;label\ngood;1\n", "semicolons, expected commas"),
        ("a.csv", "text;label\ngood, but long;1\n", "semicolons, expected commas"),
        ("a.csv", '"text";"label"\n"good; bad";1\n', "semicolons, expected commas"),
        ("a.csv", "\ufefftext;label\r\ngood;1\r\n", "semicolons, expected commas"),
        ("a.csv", "text\tlabel\ngood\t1\n", "tabs, expected commas"),
        ("a.CSV", "text|label\ngood|1\n", "bars, expected commas"),
        ("a.tsv", "text,label\ngood,1\n", "commas, expected tabs"),
        ("a.tsv", "text;label\ngood;1\n", "semicolons, expected tabs"),
    ],
)
def test_another_separator_is_named(tmp_path, name, text, found):
    (tmp_path / name).write_text(text, newline="")
    with pytest.raises(UsageError, match=rf"are separated by {found} in a \.\w+ file; write it again with"):
        open_table(str(tmp_path / name))


@pytest.mark.parametrize(
    ("name", "text", "columns"),
    [
        ("a.csv", 'text,"a;b"\ngood,1\n', ("text", "a;b")),
        ("a.csv", "a;b,label\ngood,1\n", ("a;b", "label")),
        ("a.csv", "text\ngood; bad\n", ("text",)),
        ("a.csv", '"one; two"\ngood\n', ("one; two",)),
        ("a.tsv", "text\tlabel, or so\ngood\t1\n", ("text", "label, or so")),
        ("a.tsv", "text\ngood, bad\n", ("text",)),
    ],
)
def test_signs_within_names_and_rows_are_no_separators(tmp_path, name, text, columns):
    (tmp_path / name).write_text(text)
    assert open_table(str(tmp_path / name)).columns == columns


def test_a_choice_of_parquet_rows_reads_their_groups_alone(tmp_path, monkeypatch):
    file = tmp_path / "rows.parquet"
    rows = pa.table({"text": [f"text {i}" for i in range(4000)], "label": [i % 2 for i in range(4000)]})
    parquet.write_table(rows, file, row_group_size=100)
    whole, read = open_table(str(file)), []
    real = parquet.ParquetFile.iter_batches

    def iter_batches(file, row_groups):
        read.extend(row_groups)
        return real(file, row_groups=row_groups)

    monkeypatch.setattr(parquet.ParquetFile, "iter_batches", iter_batches)
    few = open_table(str(file), examples=8, seed=3)
    assert list(few.source_rows) == choose_rows(4000, 8, 3)
    assert few.column("text") == [f"text {row}" for row in few.source_rows]
    assert few.columns == whole.columns
    assert few.rows.features == whole.rows.features
    assert (few.identity["rows_in_all"], few.identity["rows_used"]) == (4000, 8)
    assert sorted({row // 100 for row in few.source_rows}) == read
    assert open_table(str(file), examples=4000).column("text") == whole.column("text")
    with pytest.raises(UsageError, match=r"must lie in 1..4000, the rows of .*; got 4001"):
        open_table(str(file), examples=4001)


def test_a_name_of_a_column_that_datasets_cannot_take(tmp_path):
    file = tmp_path / "rows.tsv"
    file.write_text("text\0\tlabel\na\t0\nb\t1\n")
    with pytest.raises(UsageError, match="is not a readable TSV file"):
        open_table(str(file))


def test_parquet_text_that_is_no_utf_8(tmp_path):
    file = tmp_path / "rows.parquet"
    parquet.write_table(
        pa.table({"text": ["zebra", "lion"], "label": [0, 1]}), file, compression="none", use_dictionary=False
    )
    file.write_bytes(file.read_bytes().replace(b"zebra", b"z\xffbra"))
    with pytest.raises(UsageError, match="is not a readable PARQUET file"):
        open_table(str(file))


def lines_with(**changes):
    """A CSV of 50 rows, some of them changed."""
    rows = [f"text {i},{i % 2}" for i in range(50)]
    for row, (before, after) in changes.items():
        rows[int(row[1:])] = f"{before}text{after},1"
    return "text,label\n" + "\n".join(rows) + "\n"


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ({"r5": ('"', ""), "r35": ("", '"')}, 30),
        ({"r5": ('"', ""), "r35": ('"', "")}, 30),
        ({"r5": ('"', ""), "r6": ("", '"')}, 1),
    ],
)
def test_stray_quotes_swallow_no_rows(tmp_path, changes, lines):
    file = tmp_path / "rows.csv"
    file.write_text(lines_with(**changes))
    with pytest.raises(UsageError, match=f"row 5 of .* has {lines} lines in its column 'text' that look like rows"):
        open_table(str(file))


@pytest.mark.parametrize(
    "text",
    [
        lines_with(r5=("", '"'), r35=('2" ', "")),  # quotes inside a value are text
        'text,label\n"it is long,\nit has commas, 1\nand lines, and more",1\n"plain",0\n',
        'text,label\n"of two\nlines",1\n"a ""quoted"" word\n",0\n',
        'id,text,kind\n7,"a list:\n1, one\n2, two",x\n8,"none",y\n',
    ],
)
def test_values_of_several_lines_are_read(tmp_path, text):
    file = tmp_path / "rows.csv"
    file.write_text(text)
    with file.open(newline="") as stream:
        expected = list(csv.DictReader(stream))
    assert open_table(str(file)).column("text") == [row["text"] for row in expected]
