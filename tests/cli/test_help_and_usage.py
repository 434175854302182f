"""Help that is quick and complete, and mistyped words that are guessed."""

import subprocess
import sys

import pytest

from commonweight import __version__
from commonweight.cli.main import COMMANDS


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["fisher", "--help"],
        ["compare", "-h"],
        ["demo", "-h"],
        ["fishr"],
        ["verify", "-h"],
        ["continual", "run", "-h"],
        ["shortcuts", "run", "-h"],
    ],
)
def test_help_loads_nothing_heavy(arguments):
    heavy = ("torch", "transformers", "datasets", "numpy", "pandas", "rich", "safetensors")
    code = (
        "import sys\nfrom commonweight.cli.main import run\n"
        f"run({arguments!r})\nprint('LOADED', [n for n in {heavy!r} if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "LOADED []"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example_and_the_exit_codes(cli, command):
    found = cli(command, "--help")
    assert found.code == 0
    assert f"Example:\n    commonweight {command}" in found.out
    assert "2 bad usage · 3 not comparable" in found.out
    assert "130 interrupted" in found.out


def test_dangerous_options_stand_apart(cli):
    ordinary, dangerous = cli("fisher", "--help").out.split("Dangerous options:")
    assert "--allow-pickle" in dangerous
    assert "--trust-remote-code" in dangerous
    assert "--allow-pickle" not in ordinary


def test_help_says_what_a_pattern_is_and_which_rows_are_taken(cli):
    fisher, verify = (" ".join(cli(name, "--help").out.split()) for name in ("fisher", "verify"))
    assert "a module path such as bert.encoder, or a shell pattern of parameter names such as '*.weight'" in fisher
    assert "--exclude PATTERN Leave these out; patterns as for --include." in fisher
    assert "--examples N Measure N rows, chosen by --data-seed; default: all." in fisher
    assert "--examples N Take them from N rows only, chosen by --data-seed; default: from all rows." in verify
    assert "Measure N rows" not in verify


def test_version_and_no_command(cli):
    assert cli("--version").out == f"commonweight, version {__version__}\n"
    assert cli().code == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fishr"], "No such command 'fishr'. Did you mean 'fisher'?"),
        (["fisher", "m", "--dat", "d"], "--data"),
        (["overlap", "a", "b", "--formt", "csv"], "Did you mean '--format'?"),
        (["overlap", "a", "b", "--format", "cvs"], "Did you mean 'csv'?"),
        (["overlap", "a", "b", "--by", "parametr"], "Did you mean 'parameter'?"),
        (["overlap", "a", "b", "--by", "-1"], "'-1' is not one of"),
        (["overlap", "a"], "needs two footprint folders at least"),
        (["overlap", "a", "./a"], "./a is given twice"),
        (["overlap"], "Missing argument"),
        (["fisher", "m", "--data", "d"], "Missing option '-o'"),
        (["fisher", "m", "--data", "d", "-o", "x", "--fisher-type", "exakt"], "Did you mean 'exact'?"),
        (["fisher", "m", "--data", "d", "-o", "x", "--batch-size", "many"], "at least 1, and not 'auto'"),
        (["fisher", "m", "--data", "d", "-o", "x", "--folds", "0"], "'0' is not a whole number of at least 1"),
        (["fisher", "m", "--data", "d", "-o", "x", "--dtype", "flaot32"], "Did you mean 'float32'?"),
        (["compare", "m", "-o", "x"], "Missing option '--data'"),
    ],
)
def test_mistakes_are_explained_on_stderr(cli, arguments, message):
    found = cli(*arguments)
    assert (found.code, found.out) == (2, "")
    assert message in found.err
    assert "Traceback" not in found.err
