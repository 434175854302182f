"""What used to be a traceback: one line, an exit code, a remedy; in the words of the command line."""

import json
import shutil
import sys
from functools import partial
from pathlib import Path

import click
import pytest

from commonweight.base import UsageError
from commonweight.base.records import sealed
from commonweight.cli.main import COMMANDS, group
from commonweight.cli.options import in_options

LOCALISE = ("localise", "A={one}", "--initialisation", "{one}", "--data", "A={films}")


@pytest.fixture
def plain(tmp_path, monkeypatch):
    """A folder with functions of every kind and a file of numbers."""
    (tmp_path / "kinds.py").write_text(
        "import torch\n\n\nprint('imported')\n\n\n"
        "def linear():\n    print('built')\n    return torch.nn.Linear(2, 2)\n\n\n"
        "def needy(width):\n    return torch.nn.Linear(width, 2)\n\n\n"
        "def broken():\n    raise KeyError('weights')\n"
    )
    (tmp_path / "syntax.py").write_text("def build(:\n")
    (tmp_path / "leaves.py").write_text("import sys\nsys.exit(3)\n")
    (tmp_path / "n.csv").write_text("u,v,w,label\n1,2.5,0,0\n3,4,1,1\n-1,0,1,1\n")
    monkeypatch.chdir(tmp_path)
    yield ["--data", "n.csv", "--input-column", "u", "--input-column", "v"]
    for name in ("kinds", "syntax", "leaves"):
        sys.modules.pop(name, None)


def test_functions_that_do_not_serve(cli, plain):
    for model, message in (
        ("kinds:needy", "needs arguments (missing a required argument: 'width')"),
        ("kinds:broken", "kinds:broken raised KeyError: 'weights'"),
        ("syntax:build", "syntax cannot be imported: SyntaxError"),
        ("leaves:build", "leaves cannot be imported: SystemExit"),
    ):
        found = cli("fisher", model, *plain, "-o", "f")
        assert (found.code, found.out) == (2, ""), found.err
        assert message in found.err
        assert "Traceback" not in found.err
        assert "Traceback" in cli("--debug", "fisher", model, *plain, "-o", "f").err


def test_options_that_are_not_for_plain_modules(cli, plain):
    for option in (["--text-column", "u"], ["--max-length", "9"], ["--tokenizer", "x"], ["--allow-pickle"],
                   ["--trust-remote-code"], ["--allow-missing-weights"]):  # fmt: skip
        found = cli("fisher", "kinds:linear", *plain, *option, "-o", "f")
        assert found.code == 2
        assert f"{option[0]} is for" in found.err


def test_a_wrong_number_of_columns_is_said_before_the_work(cli, plain):
    found = cli("fisher", "kinds:linear", *plain, "--input-column", "w", "-o", "f")
    assert (found.code, found.out) == (2, "")
    assert "kinds:linear cannot read rows of shape [3] made of u, v, w" in found.err
    assert "--input-column" in found.err


def test_what_user_code_prints_is_no_result(cli, plain):
    found = cli("fisher", "kinds:linear", *plain, "-o", "f")
    assert found.code == 0
    assert "built" in found.err
    assert found.out.startswith("Where does kinds:linear keep what it knows about n.csv?")


@pytest.mark.parametrize("command", ["fisher", "compare", "demo"])
def test_impossible_places_are_found_before_the_work(cli, place, tmp_path, command):
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    arguments = [] if command == "demo" else [place / "absent", "--data", place / "absent.tsv"]
    if command == "compare":
        arguments.append(place / "absent2")
    impossible = [tmp_path / "file" / "below", tmp_path / ("x" * 300), tmp_path / "loop", Path("/proc/commonweight/x")]
    for output in impossible:
        found = cli(command, *arguments, "-o", output)
        assert (found.code, found.out) == (2, ""), output
        assert "choose another folder" in found.err
        assert "absent" not in found.err
        assert "training" not in found.err


def test_outputs_that_are_fine(cli, place, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    for name in ("empty", "link"):
        command = ["fisher", place / "one", "--data", place / "films.jsonl", "--examples", "4", "-o", tmp_path / name]
        assert cli(*command).code == 0
        assert cli(*command).code == 2
        assert cli(*command, "--overwrite").code == 0
    assert (tmp_path / "link").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "link", "target"]


def test_an_output_taken_meanwhile_is_not_overwritten(cli, place, tmp_path, monkeypatch):
    from commonweight.studies.compare.measure import measure

    def overtaken(*args, **options):
        (tmp_path / "f").mkdir()
        (tmp_path / "f" / "footprint.json").write_text("of another")
        return measure(*args, **options)

    monkeypatch.setattr("commonweight.studies.compare.measure.measure", overtaken)
    found = cli("fisher", place / "one", "--data", place / "films.jsonl", "--examples", "4", "-o", tmp_path / "f")
    assert found.code == 2
    assert "was taken while the work went on; the new footprint is in" in found.err
    assert (tmp_path / "f" / "footprint.json").read_text() == "of another"
    (kept,) = [path for path in tmp_path.iterdir() if path.name != "f"]
    assert (kept / "footprint.json").is_file()


def test_models_that_are_damaged(cli, place, tmp_path):
    data = ["--data", place / "films.jsonl", "-o", tmp_path / "f"]
    for written in ("{", "[]", '{"weight_map": 3}', "{}"):
        shutil.copytree(place / "one", tmp_path / "m", dirs_exist_ok=True)
        (tmp_path / "m" / "model.safetensors.index.json").write_text(written)
        found = cli("fisher", tmp_path / "m", *data)
        assert found.code == 4
        assert ("is not JSON" if written == "{" else "is no index of weights") in found.err
    shutil.rmtree(tmp_path / "m")
    shutil.copytree(place / "one", tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    own = {"auto_map": {"AutoModel": "own.OwnModel"}, "architectures": ["OwnModel"]}
    (tmp_path / "m" / "config.json").write_text(json.dumps(config | own))
    (tmp_path / "m" / "own.py").write_text("class Other:\n    pass\n")
    found = cli("fisher", tmp_path / "m", *data, "--trust-remote-code")
    assert found.code == 2
    assert "names its class own.OwnModel, and it cannot be loaded from there" in found.err


def test_a_tokenizer_of_another_model(cli, place, tmp_path):
    from transformers import BertConfig, BertForSequenceClassification

    small = BertConfig(
        vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8,
        max_position_embeddings=24,
    )  # fmt: skip
    BertForSequenceClassification(small).save_pretrained(tmp_path / "small")
    arguments = ["--tokenizer", place / "one", "--data", place / "films.jsonl", "-o", tmp_path / "f"]
    found = cli("fisher", tmp_path / "small", *arguments)
    assert found.code == 2
    assert "and the model knows 0..8" in found.err


@pytest.mark.parametrize("part", [{"models": []}, {"data": {"d": 1}}, {"settings": None}])
def test_a_run_json_of_wrong_types(cli, place, tmp_path, part):
    run = tmp_path / "run"
    run.mkdir()
    asked = {"settings": {}, "models": {}, "data": {}} | part
    record = {"format": "commonweight-run", "version": 3, "study": "comparison", "asked": asked, "grown": {}}
    (run / "run.json").write_text(json.dumps(sealed(record)))
    found = cli("compare", place / "one", place / "two", "--data", place / "films.jsonl", "-o", run)
    assert (found.code, found.out) == (4, "")
    assert "is damaged" in found.err


@pytest.mark.parametrize("command", ["show", "report", "figures", "status"])
def test_a_folder_that_holds_no_run(cli, place, command):
    for folder in (place / "one", place / "absent", place / "films.jsonl"):
        found = cli(command, folder)
        assert (found.code, found.out) == (2, "")
        assert f"{folder} holds no run: give the folder that a study or the demo wrote" in found.err


def test_overlap_of_what_is_no_footprint(cli, footprints, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    for folder, message in ((tmp_path / "absent", "no folder"), (tmp_path, "not a footprint"),
                            (tmp_path / "run", "its footprints are under footprints/")):  # fmt: skip
        found = cli("overlap", footprints / "one", folder)
        assert (found.code, found.out) == (2, "")
        assert message in found.err
    assert cli("overlap", "a", "b", "--by", "²").code == 2


def test_a_bit_that_flipped_gives_no_table(cli, footprints, tmp_path):
    shutil.copytree(footprints / "one", tmp_path / "f")
    shard = next((tmp_path / "f").glob("footprint-*.safetensors"))
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    found = cli("overlap", tmp_path / "f", footprints / "two")
    assert (found.code, found.out) == (4, "")
    assert "the SHA-256 is not the recorded one: the file was damaged" in found.err


def test_misspelled_models_are_guessed_without_a_network(cli, place, monkeypatch):
    monkeypatch.chdir(place)
    for wrong, right in (("ones", "one"), ("thre", "three"), (str(place / "tree"), str(place / "three"))):
        found = cli("fisher", wrong, "--data", place / "films.jsonl", "-o", "f")
        assert found.code == 2
        assert f"no folder {wrong!r}; did you mean {right!r}?" in found.err


def test_any_other_exception_is_one_line(cli, place, tmp_path, monkeypatch):
    def fail(*args, **options):
        raise ZeroDivisionError("of\nmany lines")

    monkeypatch.setattr("commonweight.studies.compare.measure.fisher", fail)
    command = ["fisher", place / "one", "--data", place / "films.jsonl", "-o", tmp_path / "f"]
    found = cli(*command)
    assert (found.code, found.out) == (1, "")
    assert found.err.splitlines()[-1] == "error: ZeroDivisionError: of many lines (--debug shows where)"
    assert "Traceback" not in found.err
    assert "Traceback" in cli("--debug", *command).err
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_nothing_says_what_was_expected(cli, place, monkeypatch):
    monkeypatch.chdir(place)
    found = cli("fisher", "onefold", "--data", "films.tsv", "-o", "f")
    assert (found.code, found.out) == (2, "")
    assert "'onefold' is no local model folder, and as a Hugging Face id it is not in the local cache" in found.err
    assert "Expected a folder (of similar name: 'one'), an id 'org/name'" in found.err
    assert "or module:function" in found.err


def test_footprints_without_a_common_parameter_are_offered_no_option(cli, place, tmp_path):
    for part in ("bert.pooler", "classifier"):
        command = ["fisher", place / "one", "--data", place / "films.jsonl", "--examples", "4", "--include", part]
        assert cli(*command, "-o", tmp_path / part).code == 0
    for options in ([], ["--common-only"]):
        found = cli("overlap", tmp_path / "bert.pooler", tmp_path / "classifier", *options)
        assert (found.code, found.out) == (3, "")
        assert "have no parameter of equal name and shape, 4 differences" in found.err
        assert "--common-only" not in found.err


def test_errors_speak_of_options(cli, footprints, place, tmp_path):
    found = cli("overlap", footprints / "one", footprints / "three")
    assert "pass --common-only to compare" in found.err
    assert "common_only" not in found.err
    model = tmp_path / "lm"
    from transformers import GPT2Config, GPT2LMHeadModel

    from commonweight.studies.demo.encoder import make_tokenizer, save

    config = GPT2Config(vocab_size=75, n_positions=24, n_embd=8, n_layer=1, n_head=1, bos_token_id=2, eos_token_id=3)
    save(GPT2LMHeadModel(config), make_tokenizer(), model)
    arguments = [
        "--data",
        place / "films.jsonl",
        "--fisher-type",
        "exact",
        "--text-column",
        "text",
        "-o",
        tmp_path / "f",
    ]
    found = cli("fisher", model, *arguments)
    assert "use --fisher-type mc" in found.err
    assert "fisher_type=" not in found.err


EVERY = {name: group.get_command(click.Context(group), name) for name in COMMANDS}


def heard(error, here):
    return error.told(partial(in_options, commands=EVERY, here=here))


@pytest.mark.parametrize(("here", "error", "said", "told"), [
    ("fisher", UsageError("pass {overwrite} to replace it", overwrite=True),
     "pass overwrite=True to replace it", "pass --overwrite to replace it"),
    ("fisher", UsageError("use {fisher_type}", fisher_type="mc"), "use fisher_type='mc'", "use --fisher-type mc"),
    ("compare", UsageError("pass {intervals}", intervals=False),
     "pass intervals=False", "pass --no-intervals to commonweight overlap"),
    ("overlap", UsageError("pass {intervals}", intervals=False), "pass intervals=False", "pass --no-intervals"),
    ("fisher", UsageError("{argument}: 'x' matches nothing", argument="exclude"),
     "exclude: 'x' matches nothing", "--exclude: 'x' matches nothing"),
    ("continual", UsageError("{argument} is 1, so transfer has no prior task", argument="tasks"),
     "tasks is 1, so transfer has no prior task", "--tasks is 1, so transfer has no prior task"),
    ("continual", UsageError("give a smaller {rows}", rows=None), "give a smaller rows", "give a smaller --rows"),
    ("continual", UsageError("change {inference_rows} or {inference_batches}", inference_rows=None,
                             inference_batches=None),
     "change inference_rows or inference_batches", "change --inference-rows or --inference-batches"),
    ("continual", UsageError("pass {keep_scores}", keep_scores=None), "pass keep_scores", "pass --drop-scores"),
    ("shortcuts", UsageError("{argument} must be at least 2", argument="path_points"),
     "path_points must be at least 2", "--path-points must be at least 2"),
    ("shortcuts", UsageError("take fewer {fisher_types}", fisher_types=None),
     "take fewer fisher_types", "take fewer --fisher-type"),
    ("compare", UsageError("{argument} is for plain modules", argument="input_column"),
     "input_column is for plain modules", "--input-column is for plain modules"),
    ("fuse", UsageError("{argument} must be above 0, got 0", argument="floor"),
     "floor must be above 0, got 0", "--floor must be above 0, got 0"),
    ("fisher", UsageError("pass {novel}", novel=3), "pass novel=3", "pass novel=3"),
])  # fmt: skip
def test_an_error_names_its_arguments_as_python_or_as_the_command_line_does(here, error, said, told):
    assert str(error) == said
    assert heard(error, here) == told


@pytest.mark.parametrize("said", [
    "the data is not there, and no model must be without data",
    "each fold of the rows must hold a row; take a smaller set of rows",
    "no folder runs/path_rows, and none in path_rows/seed-0 or in old-path_rows",
    "no folder {rows}/seed; path_rows must be there",
])  # fmt: skip
def test_ordinary_words_and_parts_of_paths_stay(said):
    for command in COMMANDS:
        assert heard(UsageError(said), command) == said
        assert heard(UsageError(said, argument="seeds", folds=None), command) == said


def test_a_model_called_like_an_argument_is_no_option_in_an_error(cli, place, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loss").write_text("")
    found = cli("fisher", "loss", "--data", place / "films.jsonl", "-o", "f")
    assert found.code == 2
    assert "error: loss is a file" in found.err


def bad_config(folder):
    (folder / "config.json").write_text("{")


def empty_config(folder):
    (folder / "config.json").write_text("{}")


def cut_weights(folder):
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:1000])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (bad_config, "config.json is not JSON (Expecting property name"),
        (empty_config, "config.json is no mapping, or an empty one: copy the checkpoint again"),
        (cut_weights, "are damaged or no plain weights (Error while deserializing"),
    ],
)
def test_a_damaged_checkpoint_is_said_with_its_remedy(cli, place, tmp_path, damage, message):
    shutil.copytree(place / "one", tmp_path / "m")
    damage(tmp_path / "m")
    found = cli("fisher", tmp_path / "m", "--data", place / "films.jsonl", "-o", tmp_path / "f")
    assert (found.code, found.out) == (4, "")
    assert message in found.err
    assert "again" in found.err


@pytest.mark.parametrize(
    ("name", "written", "message"),
    [
        ("half.jsonl", '{"text": "a", "label": 0}\n{"text": oops\n', "is not a readable JSONL file (JSON parse error"),
        ("none.jsonl", "", "is not a readable JSONL file (Empty JSON file): correct it, or save it again"),
        ("not.parquet", "text", "is not a readable PARQUET file ("),
        ("seven.jsonl", '{"text": "a", "label": 7}\n', "expected a class in 0..1; correct or remove the row, or name"),
    ],
)
def test_data_that_cannot_be_used_are_said_with_their_remedy(cli, place, tmp_path, name, written, message):
    (tmp_path / name).write_text(written)
    found = cli("fisher", place / "one", "--data", tmp_path / name, "-o", tmp_path / "f")
    assert (found.code, found.out) == (2, "")
    assert message in found.err


def test_a_damaged_record_is_said_with_its_remedy(cli, footprints, tmp_path):
    for written, message in (
        (
            "{",
            "is not JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1)): it was damaged",
        ),
        ("{}", "is not a commonweight-footprint record: give that of a footprint"),
    ):
        shutil.copytree(footprints / "two", tmp_path / "f", dirs_exist_ok=True)
        (tmp_path / "f" / "footprint.json").write_text(written)
        found = cli("overlap", footprints / "one", tmp_path / "f")
        assert (found.code, found.out) == (4, "")
        assert message in found.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["overlap", "a", "b", "--by", "-1"], "Or give a number of module levels."),
        (
            ["shortcuts", "run", "--model", "m", "--data", "d", "--learning-rate", "inf"],
            "--learning-rate must be a finite number, above 0, got inf",
        ),
        (
            ["shortcuts", "run", "--model", "m", "--data", "d", "--existing", "zz=m"],
            "--existing names 'zz', which is not",
        ),
        (
            ["continual", "run", "--data", "digits", "--scenario", "rotated", "--image-column", "c"],
            "leave --image-column",
        ),
        (
            ["continual", "run", "--data", "digits", "--scenario", "rotated", "--learning-rate", "inf"],
            "--learning-rate",
        ),
        (
            ["continual", "run", "--data", "{films}", "--scenario", "rotated"],
            "is no .npz file; give 'digits', a folder",
        ),
        (["shortcuts", "run", "--model", "{one}", "--data", "{films}"], "films.jsonl', a file"),
        (
            ["shortcuts", "run", "--model", "{place}", "--data", "{place}", "--shortcuts", "st", "op"],
            "is a folder but not a checkpoint: it has no config.json",
        ),
        ([*LOCALISE, "--seed", "-1"], "'-1' is not a whole number of at least 0"),
        (
            [*LOCALISE, "--fractions", "0.01", "0.01"],
            "--fractions must be different numbers, got 0.01, 0.01",
        ),
    ],
)
def test_wrong_values_are_said_in_the_words_of_the_command_line(cli, place, tmp_path, arguments, message):
    given = [each.format(films=place / "films.jsonl", one=place / "one", place=place) for each in arguments]
    found = cli(*given, *([] if given[0] == "overlap" else ["--dry-run", "-o", tmp_path / "o"]))
    assert (found.code, found.out) == (2, "")
    assert message in found.err
    assert "shows where" not in found.err
