"""How the words of ``commonweight shortcuts`` are read."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from studies.shortcut_texts import tiny_plan
from transformers import AutoModelForSequenceClassification

from commonweight.cli.shortcuts import command
from commonweight.data.reviews import LABELS
from commonweight.models.load import load_model
from commonweight.models.options import LoadOptions
from commonweight.studies.shortcuts.models import make_start
from commonweight.studies.shortcuts.run import run_study, study_outlook


@pytest.mark.parametrize(
    "words",
    [
        ["--shortcuts", "st", "op", "or", "--seeds", "2"],
        ["--shortcuts=st", "op", "or", "--seeds=2"],
        ["--seeds", "2", "--shortcuts", "st,op", "or"],
        ["--shortcuts=st,op,or", "--seeds", "2"],
    ],
)
def test_shortcuts_are_several_words_in_either_form(words):
    found = command.commands["build"].make_context("build", [*words, "-o", "run"]).params
    assert found["shortcuts"] == ("st", "op", "or")
    assert (found["seeds"], found["output"]) == (2, "run")


def test_a_word_that_belongs_to_nothing_is_refused(cli):
    found = cli("shortcuts", "build", "-o", "run", "op")
    assert found.code == 2
    assert "unexpected extra argument (op)" in found.err
    found = cli("shortcuts", "build", "--shortcuts", "-o", "run")
    assert found.code == 2


def test_errors_of_the_plan_name_options(cli, tmp_path):
    found = cli("shortcuts", "run", "--model", "m", "--data", "d", "--path-points", "1", "-o", tmp_path / "run")
    assert found.code == 2
    assert "Invalid value for '--path-points': '1' is not a whole number of at least 2" in found.err
    found = cli("shortcuts", "run", "--model", "m", "--data", "d", "--epochs", "0", "-o", tmp_path / "run")
    assert found.code == 2
    assert "error: --epochs must be above 0, got 0.0" in found.err


def test_a_dry_run_says_what_it_takes_and_leaves_nothing(cli, tmp_path):
    plan = tiny_plan(tmp_path)
    run = tmp_path / "run"
    words = ["--model", plan.model, "--data", plan.data, "--shortcuts", "st", "op"]
    found = cli("shortcuts", "run", *words, "--seeds", "2", "-o", run, "--dry-run")
    assert found.code == 0, found.err
    assert "Footprints with 8 folds to measure (60; the first 40)" in found.out
    assert "models and their training" in found.out
    assert not run.exists()
    assert cli("shortcuts", "run", *words, "--text-column", "absent", "-o", run, "--dry-run").code == 2
    found = cli("shortcuts", "run", *words, "--train-rows", "300", "-o", run, "--dry-run")
    assert found.code == 2
    assert "--train-rows must lie in 1..240, the rows that are left to train on; got 300" in found.err
    assert not run.exists()


def test_a_dry_run_says_what_it_finds_of_existing_models(cli, tmp_path):
    plan = tiny_plan(tmp_path)
    make_start(plan.model, LABELS, 0, tmp_path / "drawn", plan.preset)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "drawn")
    torch.nn.init.normal_(model.classifier.weight, std=0.02)
    model.save_pretrained(tmp_path / "drawn")
    words = ["--model", plan.model, "--data", plan.data, "--shortcuts", "st", "op", "-o", tmp_path / "run", "--dry-run"]
    found = cli("shortcuts", "run", *words, "--existing", f"st={tmp_path / 'drawn'}")
    assert found.code == 0, found.err
    assert "has matrices unlike those of the shared initialisation" in found.err
    found = cli("shortcuts", "run", *words, "--existing", f"st={plan.model}")
    assert (found.code, found.out) == (2, "")
    assert "the existing model" in found.err


def test_texts_are_not_longer_than_the_encoder_reads(cli, tmp_path):
    plan = tiny_plan(tmp_path)
    words = ["--model", plan.model, "--data", plan.data, "--shortcuts", "st", "op", "-o", tmp_path / "run", "--dry-run"]
    found = cli("shortcuts", "run", *words, "--max-length", "128")
    assert "--max-length 128 is more than the model can read; give at most 24" in found.err
    found = cli("shortcuts", "run", *words, "--preset", "published")  # its 512 are asked for, too
    assert "--max-length 512 is more than the model can read" in found.err


def test_the_try_out_of_the_docs_can_be_copied(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[2] / "docs" / "shortcuts.md").read_text(encoding="utf-8")
    made = next(block for block in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL) if "make_start" in block)
    exec(compile(made, "shortcuts.md", "exec"), {})
    (typed,) = re.findall(r"```\n(commonweight shortcuts run --model try.*?)```", page, flags=re.DOTALL)
    found = cli(*typed.replace("\\\n", " ").split()[1:], "--dry-run")
    assert found.code == 0, found.err
    assert "Footprints with 4 folds to measure (15" in found.out


OWN = """
from pathlib import Path
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast
Path({trace!r}).touch()
class OwnConfig(BertConfig):
    model_type = "own-kind"
class OwnForSequenceClassification(BertForSequenceClassification):
    config_class = OwnConfig
class OwnTokenizer(PreTrainedTokenizerFast):
    pass
"""


@pytest.fixture
def with_code(tmp_path, monkeypatch):
    """A tiny encoder whose class, configuration and tokenizer come with it; anybody who is asked answers yes."""
    plan = tiny_plan(tmp_path)
    folder, trace = Path(plan.model), tmp_path / "trace"
    (folder / "own.py").write_text(OWN.format(trace=str(trace)))
    for file, own in {
        "config.json": {
            "model_type": "own-kind",
            "architectures": ["OwnForSequenceClassification"],
            "auto_map": {
                "AutoConfig": "own.OwnConfig",
                "AutoModelForSequenceClassification": "own.OwnForSequenceClassification",
            },
        },
        "tokenizer_config.json": {
            "tokenizer_class": "OwnTokenizer",
            "auto_map": {"AutoTokenizer": [None, "own.OwnTokenizer"]},
        },
    }.items():
        path = folder / file
        path.write_text(json.dumps(json.loads(path.read_text()) | own))
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    for name in [name for name in sys.modules if name.partition(".")[0] == "transformers_modules"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    return plan, trace


@pytest.mark.parametrize("step", ["run", "build", "train", "overlap"])
@pytest.mark.parametrize("dry", [["--dry-run"], []])
@pytest.mark.parametrize("length", [[], ["--max-length", "24"]])
def test_code_of_a_checkpoint_is_run_only_if_it_is_trusted(cli, tmp_path, with_code, step, dry, length):
    plan, trace = with_code
    words = ["--model", plan.model, "--data", plan.data, "--shortcuts", "st", "op", "-o", tmp_path / "run"]
    found = cli("shortcuts", step, *words, *length, *dry)
    assert (found.code, found.out) == (2, "")
    assert "comes with code of its own; it was not run. Read it, and pass --trust-remote-code" in found.err
    assert not trace.exists()


@pytest.mark.parametrize("only", ["config.json", "tokenizer_config.json"])
def test_code_of_a_configuration_or_a_tokenizer_alone_is_not_run_either(cli, tmp_path, with_code, only):
    plan, trace = with_code
    path = Path(plan.model) / ("config.json" if only != "config.json" else "tokenizer_config.json")
    plain = json.loads(path.read_text())
    if path.name == "config.json":
        plain |= {"model_type": "bert", "architectures": ["BertForSequenceClassification"]}
    else:
        plain["tokenizer_class"] = "PreTrainedTokenizerFast"
    path.write_text(json.dumps({key: value for key, value in plain.items() if key != "auto_map"}))
    words = ["--model", plan.model, "--data", plan.data, "--shortcuts", "st", "op", "-o", tmp_path / "run"]
    cli("shortcuts", "run", *words, "--dry-run")
    assert not trace.exists()


def test_a_study_of_trusted_code_is_done_and_gone_on_with(tmp_path, with_code):
    plan, trace = with_code
    plan = replace(plan, trust_remote_code=True, measured_rows=16, folds=2)
    assert study_outlook(tmp_path / "run", plan).pieces
    found = run_study(tmp_path / "run", plan)
    assert trace.exists()
    model = load_model(str(tmp_path / "run" / "seed-0" / "models" / "st"), LoadOptions(trust_remote_code=True))
    assert model.identity["class"] == "OwnForSequenceClassification"
    assert run_study(tmp_path / "run", plan).scores == found.scores
    assert "trust_remote_code" not in json.loads((tmp_path / "run" / "run.json").read_text())["asked"]
