"""The command as its own process: clean streams, exit codes, a broken pipe, and a model from the Hub's cache."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from commonweight import Footprint
from commonweight.base import UsageError
from commonweight.cli import main
from commonweight.studies.run.hold import held


def command(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "commonweight", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"HF_HUB_OFFLINE": "1"} | environment,
    )


def test_streams_of_a_whole_measurement_from_the_hub_cache(place, tmp_path):
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "hub" / "models--org--tiny"
    shutil.copytree(place / "one", repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "v1").write_text(commit)
    arguments = ("fisher", "org/tiny@v1", "--data", place / "films.jsonl", "-o", tmp_path / "f")
    done = command(*arguments, HF_HUB_CACHE=str(tmp_path / "hub"))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("Where does org/tiny@v1 keep what it knows about")
    assert all("it/s" not in line and "Loading" not in line for line in lines)
    assert "measuring 30 rows" in done.stderr
    assert "it/s" not in done.stderr  # no progress bar where stderr is no terminal
    identity = Footprint.load(tmp_path / "f").metadata["model"]
    assert (identity["source"], identity["name"], identity["commit"]) == ("hub", "org/tiny@v1", commit)
    assert [*identity["weights"]] == ["model.safetensors"]


def test_json_on_stdout_is_json_and_nothing_else(footprints):
    done = command("overlap", footprints / "one", footprints / "two", "--format", "json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["format"] == "commonweight-overlap"


def test_errors_have_an_exit_code_and_no_traceback(footprints):
    done = command("overlap", footprints / "one", footprints / "three")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


def test_a_reader_that_leaves_early_is_no_error(footprints):
    done = subprocess.run(
        f"{sys.executable} -m commonweight overlap {footprints}/one {footprints}/two --by parameter | head -n 1; "
        "echo ${PIPESTATUS[0]}",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "0"
    assert done.stderr == ""


COMMANDS = {
    "fisher": ("fisher", "m", "--data", "d", "-o", "out"),
    "overlap": ("overlap", "a", "b"),
    "compare": ("compare", "m", "--data", "d", "-o", "out"),
    "dry compare": ("compare", "m", "--data", "d", "-o", "out", "--dry-run"),
    "fuse": ("fuse", "a", "b", "-o", "out"),
    "shortcuts": ("shortcuts", "run", "--model", "m", "--data", "d", "-o", "out"),
    "localise": ("localise", "a=m", "--initialisation", "s", "--data", "a=d", "-o", "out"),
    "merge-check": ("merge-check", "a=m", "b=n", "--initialisation", "s", "--data", "a=d", "-o", "out"),
    "continual": ("continual", "run", "--data", "digits", "--scenario", "rotated", "-o", "out"),
    "show": ("show", "run"),
    "report": ("report", "run"),
    "figures": ("figures", "run"),
    "status": ("status", "run"),
    "ls": ("ls",),
    "run": ("run", "config.yaml"),
    "verify": ("verify", "m", "--data", "d"),
    "demo": ("demo", "-o", "out"),
}


@pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS)
def test_one_of_several_processes_is_refused_by_every_command(cli, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    for variable in ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.setenv(variable, "2")
        found = cli(*arguments)
        assert (found.code, found.out) == (2, "")
        assert f"error: {variable} is 2, so this is one of 2 processes, and they would all do the same" in found.err
        monkeypatch.setenv(variable, "1")
    assert not list(tmp_path.iterdir())


def test_commands_are_all_tried():
    assert {arguments[0] for arguments in COMMANDS.values()} == set(main.COMMANDS)


def test_one_process_of_a_launcher_is_no_different(footprints):
    done = command("overlap", footprints / "one", footprints / "two", WORLD_SIZE="1", OMPI_COMM_WORLD_SIZE="")
    assert (done.returncode, done.stderr) == (0, "")
    assert command("--version", WORLD_SIZE="2").returncode == 0


def test_a_run_folder_is_held_by_one_process_of_a_launcher(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(UsageError, match="one of 4 processes, and they would all do the same"), held(tmp_path / "run"):
        pass
    assert not (tmp_path / "run").exists()
