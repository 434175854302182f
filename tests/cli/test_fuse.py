"""``commonweight fuse``: the result on stdout, progress and notes on stderr, exit codes, and what it refuses."""

import csv
import io
import json
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from commonweight import fuse_checkpoints
from commonweight.interventions.measure import ModelScore
from commonweight.models.load import load_model
from commonweight.report.fusion import result


def weights(folder):
    return load_file(folder / "model.safetensors")


def equal(a, b):
    return set(a) == set(b) and all(torch.equal(a[key], b[key]) for key in a)


def test_the_average_is_written_and_told(cli, place, tmp_path):
    found = cli("fuse", place / "one", place / "two", "-o", tmp_path / "both")
    assert found.code == 0, found.err
    for line in (
        "Models",
        "weighted average",
        "The models come from a shared initialisation",
    ):
        assert line in " ".join(found.out.split())
    assert f"In {tmp_path / 'both'}: the checkpoint, which loads" in " ".join(found.out.split())
    assert "fusing:" not in found.err  # no progress bar where stderr is no terminal
    assert "fusing" not in found.out
    assert "\x1b" not in found.out
    expected = fuse_checkpoints([place / "one", place / "two"], output=tmp_path / "python")
    assert equal(weights(tmp_path / "both"), weights(expected))
    record = json.loads((tmp_path / "both" / "fusion.json").read_text())
    assert record["command"] == f"commonweight fuse {place / 'one'} {place / 'two'} --output {tmp_path / 'both'}"
    assert load_model(str(tmp_path / "both")).task == "classification"


def test_the_fused_checkpoint_goes_through_the_other_commands(cli, place, tmp_path):
    assert cli("fuse", place / "one", place / "two", "-o", tmp_path / "both").code == 0
    found = cli("fisher", tmp_path / "both", "--data", place / "films.jsonl", "-o", tmp_path / "f")
    assert found.code == 0, found.err


def test_task_arithmetic_with_its_options(cli, place, tmp_path):
    options = ["--method", "task-arithmetic", "--base", place / "one", "--scale", "0.5", "--weight", "-2"]
    found = cli("fuse", place / "two", *options, "-o", tmp_path / "out")
    assert found.code == 0, found.err
    assert "task arithmetic (Ilharco et al. 2023)" in found.out
    assert "base" in found.out
    a, b, c = (weights(folder) for folder in (place / "one", place / "two", tmp_path / "out"))
    key = "bert.encoder.layer.0.output.dense.weight"
    assert torch.allclose(c[key], a[key] - (b[key] - a[key]), atol=1e-6)
    command = json.loads((tmp_path / "out" / "fusion.json").read_text())["command"]
    assert "--method task-arithmetic --weight -2.0 --base" in command
    assert "--scale 0.5" in command


def test_fisher_from_saved_footprints(cli, place, footprints, tmp_path):
    given = ["--footprint", footprints / "one", "--footprint", footprints / "two"]
    command = ["fuse", place / "one", place / "two", "--method", "fisher", *given, "--normalize", "trace"]
    found = cli(*command, "--floor", "1e-5", "-o", tmp_path / "out")
    assert found.code == 0, found.err
    said = " ".join(found.out.split())
    assert "floor 1e-05, normalize trace, at floor in all fishers" in said
    assert "30 examples" in found.out
    swapped = cli("fuse", place / "two", place / "one", *command[3:], "-o", tmp_path / "swapped")
    assert (swapped.code, swapped.out) == (3, "")
    assert "Give the footprints in the order of the models" in swapped.err
    assert not (tmp_path / "swapped").exists()


def test_the_fusion_is_scored_beside_its_models(cli, place, tmp_path):
    data = ["--data", f"films={place / 'films.jsonl'}", "--data", place / "food.jsonl"]
    found = cli("fuse", place / "one", place / "two", "-o", tmp_path / "both", *data)
    assert found.code == 0, found.err
    said = " ".join(found.out.split())
    assert said.startswith("What is the fusion of one and two, and what was lost? On films the fusion has accuracy 0.")
    assert "Nothing was measured" not in said
    shutil.copytree(place / "two", tmp_path / "fusion")  # a model of this name is told from the fusion
    again = ["fuse", place / "one", tmp_path / "fusion", "-o", tmp_path / "again", *data]
    record = json.loads(cli(*again, "--format", "json").out)
    scores = record["scores"]
    assert [(each["model"], each["data"], each["rows"]) for each in scores] == [
        (model, data, 30) for model in ("one", f"{tmp_path.name}-fusion", "fusion") for data in ("films", "food")
    ]
    rows = list(csv.DictReader(io.StringIO(result(record, None, [ModelScore(**each) for each in scores]).csv)))
    assert [float(row["log_likelihood"]) for row in rows] == [each["log_likelihood"] for each in scores]
    assert [row["weight"] for row in rows] == ["0.5"] * 4 + [""] * 2
    loaded = load_model(str(tmp_path / "both"))
    rows = [json.loads(line) for line in (place / "films.jsonl").read_text().splitlines()]
    inputs = loaded.tokenizer([row["text"] for row in rows], padding=True, return_tensors="pt")
    with torch.no_grad():
        likelihoods = loaded.model(**inputs).logits.log_softmax(1)
    labels = torch.tensor([row["label"] for row in rows])
    assert scores[4]["accuracy"] == pytest.approx(float((likelihoods.argmax(1) == labels).double().mean()))
    assert scores[4]["log_likelihood"] == pytest.approx(float(likelihoods[range(30), labels].mean()), abs=1e-5)
    (tmp_path / "wrong.jsonl").write_text('{"text": "good", "label": 7}\n')
    wrong = cli("fuse", place / "one", place / "two", "-o", tmp_path / "c", "--data", tmp_path / "wrong.jsonl")
    assert (wrong.code, (tmp_path / "c").exists()) == (2, False)
    missing = cli("fuse", place / "one", place / "two", "-o", tmp_path / "c", *data, "--label-column", "labl")
    assert (missing.code, (tmp_path / "c").exists()) == (2, False)


def test_a_weight_in_the_place_of_a_model_is_told(cli, place, tmp_path):
    found = cli("fuse", place / "one", place / "two", "--weight", "0.8", "0.2", "-o", tmp_path / "out")
    assert found.code == 2
    assert "0.2 stands where a MODEL is expected: write --weight before each weight" in found.err


def test_a_dry_run_says_all_and_writes_nothing(cli, place, tmp_path):
    found = cli("fuse", place / "one", place / "two", "--dry-run")
    assert found.code == 0, found.err
    assert "weighted average" in found.out
    assert "the checkpoint, which loads" not in found.out
    assert "dry run" in found.err
    assert cli("fuse", place / "one", place / "two", "--dry-run", "-o", tmp_path / "out").code == 0
    assert list(tmp_path.iterdir()) == []
    assert cli("fuse", place / "one", place / "three", "--dry-run").code == 3
    assert cli("fuse", place / "one", place / "two", "--dry-run", "-o", place / "one").code == 2


def test_every_format(cli, place, tmp_path):
    command = ["fuse", place / "one", place / "two", "--weight", "0.25", "--weight", "0.75"]
    found = cli(*command, "-o", tmp_path / "out", "--format", "json")
    record = json.loads(found.out)
    assert record.pop("answer")["question"] == "What is the fusion of one and two?"
    assert record == json.loads((tmp_path / "out" / "fusion.json").read_text())
    planned = json.loads(cli(*command, "--dry-run", "--format", "json").out)
    assert [model["weight"] for model in planned["models"]] == [0.25, 0.75]
    assert "**Models**\n\n| model | weight | SHA-256 |" in cli(*command, "--dry-run", "--format", "markdown").out
    hashes = [next(iter(model["weights"].values())) for model in record["models"]]
    assert cli(*command, "--dry-run", "--format", "csv").out.splitlines() == [
        "model,weight,sha256,data,rows,accuracy,log_likelihood",
        f"one,0.25,{hashes[0]},,,,",
        f"two,0.75,{hashes[1]},,,,",
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "-o FOLDER is missing"),
        (["--weight", "0.5", "-o", "x"], "got 1 weight for 2 models"),
        (["--weight", "0.5", "--weight", "0.4", "-o", "x"], "must sum to 1, got 0.5, 0.4 with the sum 0.9"),
        (["--weight", "nan", "--weight", "1", "-o", "x"], "finite numbers, got nan"),
        (["--weight", "half", "-o", "x"], "'half' is not a valid float"),
        (["--method", "task_arithmetic", "-o", "x"], "Did you mean 'task-arithmetic'?"),
        (["--method", "task-arithmetic", "-o", "x"], "task arithmetic needs the base"),
        (["--method", "fisher", "-o", "x"], "needs a footprint of each model"),
        (["--method", "fisher", "--footprint", "f", "-o", "x"], "expected the folder of a footprint"),
        (["--scale", "2", "-o", "x"], "--scale is for task arithmetic, and the method is average"),
        (["--floor", "2", "-o", "x"], "--floor is for fisher"),
        (["--bsae", "two", "-o", "x"], "Did you mean one of: '--base'"),
    ],
)
def test_mistakes(cli, place, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    found = cli("fuse", place / "one", place / "two", *options)
    assert (found.code, found.out) == (2, ""), found.err
    assert message in found.err
    assert "Traceback" not in found.err
    assert list(tmp_path.iterdir()) == []


def test_models_that_do_not_fit_leave_with_3_and_damaged_ones_with_4(cli, place, tmp_path):
    found = cli("fuse", place / "one", place / "three", "-o", tmp_path / "x")
    assert (found.code, found.out) == (3, "")
    assert "id2label" in found.err or "classifier.weight" in found.err
    shutil.copytree(place / "two", tmp_path / "damaged")
    file = tmp_path / "damaged" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-4])
    assert cli("fuse", place / "one", tmp_path / "damaged", "-o", tmp_path / "x").code == 4
    assert [path.name for path in tmp_path.iterdir()] == ["damaged"]


def test_places(cli, place, tmp_path):
    twice = cli("fuse", place / "one", place / "one", "-o", tmp_path / "x")
    assert (twice.code, "is given twice" in twice.err) == (2, True)
    absent = cli("fuse", place / "one", place / "towo", "-o", tmp_path / "x")
    assert f"did you mean '{place / 'two'}'?" in absent.err
    assert cli("fuse", place / "one", "-o", tmp_path / "x").code == 0
    again = cli("fuse", place / "two", "-o", tmp_path / "x")
    assert again.code == 2
    assert "holds a fused checkpoint already; choose another folder, or pass --overwrite to replace it" in again.err
    assert cli("fuse", place / "two", "-o", tmp_path / "x", "--overwrite").code == 0
    assert equal(weights(tmp_path / "x"), weights(place / "two"))
    inside = cli("fuse", place / "one", "-o", place / "one")
    assert (inside.code, "is the input" in inside.err) == (2, True)


def test_pickles_only_when_asked(cli, place, tmp_path):
    shutil.copytree(place / "two", tmp_path / "old")
    torch.save(weights(place / "two"), tmp_path / "old" / "pytorch_model.bin")
    (tmp_path / "old" / "model.safetensors").unlink()
    refused = cli("fuse", place / "one", tmp_path / "old", "-o", tmp_path / "x")
    assert (refused.code, "--allow-pickle" in refused.err) == (2, True)
    assert cli("fuse", place / "one", tmp_path / "old", "-o", tmp_path / "x", "--allow-pickle").code == 0


def test_help_loads_nothing_heavy():
    heavy = ("torch", "transformers", "numpy", "safetensors", "huggingface_hub", "rich", "tqdm")
    code = (
        "import sys\nfrom commonweight.cli.main import run\nrun(['fuse', '--help'])\n"
        f"print('LOADED', [n for n in {heavy!r} if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "LOADED []"
    assert "Dangerous options" in done.stdout


def test_fusing_needs_no_transformers(place, tmp_path):
    """Nothing of a checkpoint is run, so its library need not even be there."""
    code = (
        "import sys\nfrom commonweight.cli.main import run\n"
        f"assert run(['fuse', {str(place / 'one')!r}, {str(place / 'two')!r}, '-o', {str(tmp_path / 'x')!r}]) == 0\n"
        "print('LOADED', 'transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "LOADED False"
