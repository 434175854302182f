"""The commands in this process: results on stdout, notes on stderr, exit codes, and every error a user meets."""

import csv
import io
import json
import pickle
import re
import shutil
from collections import namedtuple

import pytest

from commonweight import Footprint, OverlapTable, overlap
from commonweight.report.answer import FILES
from commonweight.report.overlap import result


def test_fisher_writes_a_footprint_and_says_what_it_is(cli, place, tmp_path):
    found = cli("fisher", place / "one", "--data", place / "films.tsv", "--folds", "3", "-o", tmp_path / "deep" / "f")
    assert found.code == 0
    footprint = Footprint.load(tmp_path / "deep" / "f", check_hashes=True)
    assert (footprint.count, len(footprint.folds)) == (30, 3)
    for line in ("of the trace lie in", "30 examples", "effective sample size", "whole network", "Written to"):
        assert line in found.out
    assert max(map(len, found.out.replace(str(tmp_path), "").splitlines())) <= 80
    again = ("fisher", place / "one", "--data", place / "films.tsv", "--folds", "3", "-o", tmp_path / "g", "--verbose")
    verbose = cli(*again).out
    assert any(line.split() == ["examples", "30", "of", "30"] for line in verbose.splitlines())
    assert "unused by the data" in verbose
    assert all(layer in verbose for layer in footprint.layers)
    assert "measuring 30 rows of films on BertForSequenceClassification in float32" in found.err
    assert "1 footprint with 3 folds to measure: " in " ".join(found.err.split())
    assert "measuring" not in found.out


def test_fisher_records_which_rows_and_options(cli, place, tmp_path):
    options = ["--examples", "7", "--data-seed", "5", "--fisher-type", "mc", "--samples", "2", "--seed", "9"]
    command = ["fisher", place / "one", "--data", place / "films.jsonl", *options, "-o", tmp_path / "f"]
    found = cli(*command, "--format", "json")
    assert found.code == 0
    footprint, record = Footprint.load(tmp_path / "f"), json.loads(found.out)
    facts = footprint.metadata
    assert (record["examples"], record["layers"], record["metadata"]["seed"]) == (7, footprint.layer_traces(), 9)
    assert record["answer"]["question"].startswith("Where does ")
    assert (facts["fisher_type"], facts["samples"], facts["seed"]) == ("mc", 2, 9)
    assert len(facts["data"]["selection"]["rows"]) == 7
    assert facts["data"]["selection"]["seed"] == 5


def test_an_output_folder_that_exists_is_refused_before_the_work(cli, place, footprints, tmp_path):
    found = cli("fisher", place / "absent", "--data", place / "absent.tsv", "-o", footprints / "one")
    assert found.code == 2
    assert "pass --overwrite" in found.err  # and not that the model is absent
    shutil.copytree(footprints / "one", tmp_path / "f")
    again = ["fisher", place / "two", "--data", place / "food.jsonl", "-o", tmp_path / "f", "--overwrite"]
    found = cli(*again, "--format", "csv")
    assert found.code == 0
    footprint = Footprint.load(tmp_path / "f")
    rows = csv.DictReader(io.StringIO(found.out))
    assert {row["layer"]: float(row["trace"]) for row in rows} == footprint.layer_traces()
    assert footprint.metadata["data"]["path"].endswith("food.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_overlap_in_every_format(cli, footprints):
    folders = [footprints / "one", footprints / "two"]
    table = overlap({name: Footprint.load(footprints / name) for name in ("one", "two")})
    text = cli("overlap", *folders)
    assert (text.code, text.err) == (0, "")
    assert text.out.startswith("Which weights hold what one and two have in common?\n")
    assert max(map(len, text.out.splitlines())) <= 80
    assert len(text.out.splitlines()) <= 40
    verbose = cli("overlap", *folders, "--verbose").out
    assert verbose.startswith(text.out.rstrip())
    assert "bert.encoder.layer.0.output.dense" in verbose
    assert "\x1b" not in text.out
    record = json.loads(cli("overlap", *folders, "--format", "json").out)
    assert record["answer"]["answer"] in " ".join(text.out.split())
    whole = next(each for each in record["verdicts"] if each["layer"] is None)
    assert (whole["asked"], whole["answer"]) == ("one and two", table.verdict(("one", "two")).answer)
    assert {key: record[key] for key in json.loads(table.to_json())} == json.loads(table.to_json())
    assert table.to_markdown().rstrip() in cli("overlap", *folders, "--format", "markdown").out
    rows = list(csv.DictReader(io.StringIO(cli("overlap", *folders, "--format", "csv").out)))
    assert [row["layer"] for row in rows] == list(table.layers)
    assert rows[3]["verdict"] == table.verdict(("one", "two"), layer=table.layers[3]).answer
    assert float(rows[3]["overlap"]) == table.by_layer[table.layers[3]][0, 1]
    parameters = list(csv.DictReader(io.StringIO(cli("overlap", *folders, "--format", "csv", "--by", "parameter").out)))
    assert [row["parameter"] for row in parameters] == list(table.by_parameter)
    rolled = cli("overlap", *folders, "--by", "1")
    assert "bert.encoder" not in rolled.out
    assert "classifier" in rolled.out
    whole = list(csv.DictReader(io.StringIO(cli("overlap", *folders, "--format", "csv", "--by", "0").out)))
    assert [row["layer"] for row in whole] == ["whole network"]
    assert json.loads(cli("overlap", *folders, "--format", "json", "--by", "2").out)["depth"] == 2


def test_what_cannot_be_compared_leaves_with_3(cli, footprints, tmp_path, place):
    folders = [footprints / "one", footprints / "three"]
    found = cli("overlap", *folders)
    assert (found.code, found.out) == (3, "")
    assert "classifier.weight" in found.err
    common = cli("overlap", *folders, "--common-only")
    assert common.code == 0
    assert "Only common parameters were compared, and 2 left out." in common.out
    model_rule = [
        "fisher",
        place / "one",
        "--data",
        place / "films.jsonl",
        "--fisher-type",
        "exact",
        "-o",
        tmp_path / "m",
    ]
    assert cli(*model_rule).code == 0
    refused = cli("overlap", footprints / "two", tmp_path / "m")
    assert refused.code == 3
    assert "measure them with one Fisher type" in " ".join(refused.err.split())


def test_the_remedies_of_an_overlap_are_options_it_has(cli, place, tmp_path):
    for folds in ("3", "4"):
        given = ["--data", place / "films.jsonl", "--folds", folds, "-o", tmp_path / folds]
        assert cli("fisher", place / "one", *given).code == 0
    refused = cli("overlap", tmp_path / "3", tmp_path / "4")
    assert refused.code == 3
    assert "or pass --no-intervals to compare" in " ".join(refused.err.split())
    raw = cli("overlap", tmp_path / "3", tmp_path / "4", "--no-intervals")
    assert raw.code == 0
    assert "No verdicts: they need intervals" in raw.out


def test_damaged_footprints_leave_with_4(cli, footprints, tmp_path):
    shutil.copytree(footprints / "one", tmp_path / "f")
    shard = next((tmp_path / "f").glob("footprint-*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-64])
    assert cli("overlap", tmp_path / "f", footprints / "two").code == 4
    (tmp_path / "f" / "footprint.json").write_text("{")
    found = cli("overlap", tmp_path / "f", footprints / "two")
    assert (found.code, found.out) == (4, "")
    assert found.err.startswith("error: ")


def rows_file(tmp_path, *rows):
    path = tmp_path / "rows.tsv"
    path.write_text("label\ttext\n" + "".join(f"{label}\t{text}\n" for label, text in rows))
    return path


def test_data_that_do_not_serve(cli, place, tmp_path):
    good = (1, "the film is good")
    data = rows_file(tmp_path, good, ("", "the film is bad"))
    fisher = ["fisher", place / "one", "-o", tmp_path / "f", "--data"]
    for written, options, message in (
        (data, [], "row 1 of rows has nothing in column 'label'"),
        (data, ["--label-column", "lable"], "did you mean 'label'?"),
        (data, ["--text-column", "txt"], "did you mean 'text'?"),
        (data, ["--split", "dev"], "has no splits"),
        (data, ["--examples", "3"], "must lie in 1..2"),
        (data, ["--input-column", "label"], "--input-column is for plain torch modules"),
        (data, ["--max-length", "99"], "give at most 24"),
        (tmp_path / "absent.tsv", [], "no file or folder"),
    ):
        found = cli(*fisher, written, *options)
        assert (found.code, found.out) == (2, ""), message
        assert message in found.err
        assert "Traceback" not in found.err
    for bad, message in (("nan", "row 1 of rows has nan"), (2, "expected a class in 0..1"), (-1, "another --split")):
        found = cli(*fisher, rows_file(tmp_path, good, (bad, "the film is bad")))
        assert found.code == 2
        assert message in found.err
    found = cli(*fisher, rows_file(tmp_path, (1, "völlig andere worte")))
    assert "unknown to the tokenizer" in found.err
    assert not (tmp_path / "f").exists()


def test_models_that_do_not_serve(cli, place, tmp_path):
    trace = tmp_path / "trace"

    class Trap:
        def __reduce__(self):
            return (type(trace).touch, (trace,))

    shutil.copytree(place / "one", tmp_path / "pickled")
    (tmp_path / "pickled" / "model.safetensors").unlink()
    (tmp_path / "pickled" / "pytorch_model.bin").write_bytes(pickle.dumps(Trap()))
    for model, message in (
        (tmp_path / "pickled", "--allow-pickle"),
        (tmp_path / "absent", "no folder"),
        ("no_such_module:build", "no Python module"),
        (place / "films.tsv", "expected a checkpoint folder"),
    ):
        found = cli("fisher", model, "--data", place / "films.tsv", "-o", tmp_path / "f")
        assert (found.code, found.out) == (2, ""), message
        assert message in found.err
    assert not trace.exists()


def test_debug_shows_the_traceback(cli, tmp_path):
    assert "Traceback" in cli("--debug", "overlap", tmp_path / "a", tmp_path / "b").err
    assert "Traceback" not in cli("overlap", tmp_path / "a", tmp_path / "b").err


def test_a_plain_module_with_a_checkpoint(cli, tmp_path, monkeypatch):
    import torch
    from safetensors.torch import save_file

    (tmp_path / "plainmodels.py").write_text("import torch\n\n\ndef linear():\n    return torch.nn.Linear(2, 2)\n")
    (tmp_path / "n.csv").write_text("u,v,label\n1,2.5,0\n3,4,1\n-1,0,1\n")
    for name in ("a", "b"):
        save_file(torch.nn.Linear(2, 2).state_dict(), tmp_path / f"{name}.safetensors")
    monkeypatch.chdir(tmp_path)
    columns = ["--data", "n.csv", "--input-column", "u", "--input-column", "v"]
    for name in ("a", "b"):
        found = cli(
            "fisher", "plainmodels:linear", "--checkpoint", f"{name}.safetensors", *columns, "-o", f"out-{name}"
        )
        assert found.code == 0, found.err
    assert cli("overlap", "out-a", "out-b").code == 0
    verified = cli("verify", "plainmodels:linear", *columns)
    assert verified.code == 0
    assert "linear_weight" in verified.out
    assert "no checkpoint given" in verified.err


def test_verify_in_every_form(cli, place):
    found = cli("verify", place / "one", "--data", place / "films.jsonl")
    assert found.code == 0
    assert "of 57 parameters take a rule: the largest error is" in " ".join(found.out.split())
    assert "linear_weight" in found.out
    verbose = cli("verify", place / "one", "--data", place / "films.jsonl", "--verbose").out
    assert "Largest error of a rule" in verbose
    assert "classifier.weight" in verbose
    command = ["verify", place / "one", "--data", place / "films.jsonl"]
    assert cli(*command, "--format", "markdown").out.count("|") > 50
    record = json.loads(cli(*command, "--format", "json").out)
    rows = {row["parameter"]: row for row in csv.DictReader(io.StringIO(cli(*command, "--format", "csv").out))}
    assert list(record["routes"]) == list(rows)
    route = record["routes"]["classifier.weight"]
    assert (route["route"], route["rule"]) == ("rule", rows["classifier.weight"]["rule"]) == ("rule", "linear_weight")
    assert route["error"] == float(rows["classifier.weight"]["error"]) <= record["largest_error"] <= record["tolerance"]
    assert record["answer"]["answer"] in " ".join(found.out.split())


def test_compare_resumes_and_refuses(cli, place, tmp_path):
    command = ["compare", place / "one", place / "two", "--data", f"m={place / 'films.jsonl'}", "-o", tmp_path / "run"]
    first = cli(*command)
    assert first.code == 0
    assert "one and two" in first.out
    assert "2 footprints measured, 0 were there" in first.err
    shutil.rmtree(tmp_path / "run" / "footprints" / "two/m")
    second = cli(*command)
    assert second.out == first.out
    assert "1 footprints measured, 1 were there" in second.err
    other = cli(*command, "--folds", "2")
    assert other.code == 2
    assert "settings.folds was 8, is now 2" in other.err
    assert "--fresh" in other.err
    assert cli(*command, "--folds", "2", "--fresh").code == 0
    assert (
        cli("compare", place / "one", place / "three", "--data", place / "films.jsonl", "-o", tmp_path / "x").code == 3
    )


def test_dry_runs_say_what_it_takes_and_leave_nothing(cli, place, tmp_path):
    folder = tmp_path / "new"
    one = cli("fisher", place / "one", "--data", place / "films.jsonl", "-o", folder, "--dry-run")
    assert (one.code, folder.exists()) == (0, False)
    for part in ("disk in all", "memory: sums", "Nothing was measured or written", "from a short probe"):
        assert part in one.out
    command = ["compare", place / "one", place / "two", "--data", f"m={place / 'films.jsonl'}", "-o", folder]
    two = cli(*command, "--dry-run")
    assert (two.code, folder.exists()) == (0, False)
    assert "two/m" in two.out
    assert cli(*command[:1], place / "one", place / "three", *command[3:], "--dry-run").code == 3
    absent = cli("fisher", place / "one", "--data", tmp_path / "absent.tsv", "-o", folder, "--dry-run")
    assert (absent.code, absent.out) == (2, "")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_refused_by_every_way_to_measure(cli, place, tmp_path, monkeypatch):
    Usage = namedtuple("Usage", "total used free")
    monkeypatch.setattr("commonweight.base.folders.shutil.disk_usage", lambda _: Usage(1, 1, 1000))
    folder = tmp_path / "f"
    command = ["fisher", place / "one", "--data", place / "films.jsonl", "--folds", "2", "-o", folder]
    for more in ([], ["--dry-run"], ["--until-noise-ceiling", "0.9"], ["--until-noise-ceiling", "0.9", "--dry-run"]):
        found = cli(*command, *more)
        assert (found.code, found.out) == (2, "")
        assert f"{folder} needs" in found.err.replace("\n", "")
        assert list(tmp_path.iterdir()) == []


def test_until_noise_ceiling_shows_the_curve(cli, place, tmp_path):
    command = ["fisher", place / "one", "--data", place / "films.jsonl", "--folds", "2", "-o", tmp_path / "f"]
    dry = cli(*command, "--until-noise-ceiling", "0.9999", "--dry-run")
    assert (dry.code, list(tmp_path.iterdir())) == (0, [])
    said = " ".join(dry.out.split())
    assert "at least 0.9999, with an effective sample size of 20 or more, in two steps in a row" in said
    assert "Steps: 30 rows; at most 30 are measured" in said
    found = cli(*command, "--until-noise-ceiling", "0.9999")
    assert found.code == 0, found.err
    needed = re.search(r"to measure: (.*?) of disk, and", " ".join(found.err.split()))
    assert re.search(rf"disk in all +{re.escape(needed[1])}", dry.out)
    assert "as examples are added" in found.out
    assert "data ended before the noise ceiling was reached" in " ".join(found.out.split())
    assert "fisher:" not in found.err  # no progress bars where stderr is no terminal
    once = " ".join(cli(*command, "--overwrite", "--until-noise-ceiling", "0.01").out.split())
    assert "before the noise ceiling was confirmed: with all 30 examples it is" in once
    for more in ([], ["--dry-run"]):
        assert cli(*command, "--overwrite", "--until-noise-ceiling", "1", *more).code == 2
        whole = cli(*command, "--overwrite", "--until-noise-ceiling", "0.9", "--folds", "1", *more)
        assert (whole.code, whole.out) == (2, "")
        assert "a noise ceiling needs folds" in whole.err


def test_compare_in_every_format(cli, place, tmp_path):
    run = tmp_path / "run"
    command = ["compare", place / "one", place / "two", "--data", f"m={place / 'films.jsonl'}", "-o", run]
    text = cli(*command)
    assert text.out.startswith("Which weights hold what one and two have in common?")
    table = OverlapTable.load(run)
    for form, file in FILES.items():
        written = (run / file).read_text()
        assert cli(*command, "--format", form).out == written
        assert cli("show", run, "--format", form).out == written
    assert table.to_markdown().rstrip() in (run / "study.md").read_text()
    by_parameter = result(table, by="parameter").csv
    assert cli(*command, "--format", "csv", "--by", "parameter").out == by_parameter
    assert cli("show", run, "--format", "csv", "--by", "parameter").out == by_parameter
    by_head = cli("show", run, "--format", "csv", "--by", "head").out
    assert "bert.encoder.layer.0.attention.head.1,one/m,two/m,0." in by_head
    shown = cli("show", run)
    assert (shown.out, shown.err) == (text.out, "")
    assert cli("show", run, "--verbose").out == cli(*command, "--verbose").out
    assert "report.html shows all of it in a browser" in " ".join(text.out.split())
    page = (run / "report.html").read_text(encoding="utf-8")
    assert all(block.title.replace("&", "&amp;") in page for block in table.blocks() if not isinstance(block, str))
    (run / "report.html").unlink()
    assert cli(*command, "--no-report").code == 0
    assert not (run / "report.html").exists()
    assert cli("report", run).out == f"{run}/report.html\n"
    assert (run / "report.html").is_file()
    drawn = cli("figures", run, "--format", "pdf", "-o", tmp_path / "paper")
    assert drawn.out == f"{tmp_path}/paper/layers.pdf\n"
    once = (tmp_path / "paper" / "layers.pdf").read_bytes()
    assert cli("figures", run).out.split() == [f"{run}/figures/layers.{form}" for form in ("png", "pdf", "svg")]
    assert (run / "figures" / "layers.pdf").read_bytes() == once
    latex = cli("show", run, "--format", "latex").out
    assert latex == cli(*command, "--format", "latex").out
    assert latex.count(r"\begin{tabular}") == 1
    assert r"bert.embeddings.position\_embeddings" in latex
    assert "…" in shown.out
    assert r"\ldots" not in latex
    every = cli("show", run, "--format", "latex", "--verbose").out
    assert every.startswith(latex.rstrip())
    assert every.count(r"\begin{tabular}") == (run / "study.md").read_text().count("\n|---")
    said = cli("ls", tmp_path).out
    assert "1 complete." in said
    assert "comparison  complete" in said
    (listed,) = json.loads(cli("ls", tmp_path, "--format", "json").out)["runs"]
    answer = json.loads((run / "answer.json").read_text())["answer"]
    assert listed == {"run": str(run), "study": "comparison", "state": "complete", "answer": answer}
    assert list(csv.DictReader(io.StringIO(cli("ls", tmp_path, "--format", "csv").out))) == [listed]
    assert answer in cli("ls", tmp_path, "--format", "markdown").out
    assert json.loads(cli(*command, "--format", "json", "--by", "2").out)["depth"] == 2
    assert "bert.encoder" not in cli(*command, "--format", "markdown", "--by", "1").out
    wrong = cli(*command, "--format", "cvs")
    assert (wrong.code, wrong.out) == (2, "")
    assert "Did you mean 'csv'?" in wrong.err


def test_an_interruption_leaves_with_130(cli, place, tmp_path, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("commonweight.studies.compare.measure.fisher", interrupt)
    found = cli("fisher", place / "one", "--data", place / "films.jsonl", "-o", tmp_path / "f")
    assert (found.code, found.out) == (130, "")
    assert "interrupted" in found.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["one", "two"])
def test_folder_names_tell_footprints_apart(cli, footprints, tmp_path, name):
    shutil.copytree(footprints / name, tmp_path / "b" / name)
    shutil.copytree(footprints / name, tmp_path / "a" / name)
    found = cli("overlap", tmp_path / "a" / name, tmp_path / "b" / name)
    assert f"a/{name}" in found.out
    assert f"b/{name}" in found.out
