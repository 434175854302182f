"""The streams of the process: poor encodings, closed and full outputs, and the signal that ends it."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest


def shell(line, **environment):
    done = subprocess.run(
        line.replace("commonweight ", f"{sys.executable} -m commonweight "),
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        check=False,
        env=os.environ | environment,
    )
    return done.returncode, done.stdout, done.stderr.decode()


def test_a_poor_encoding_loses_no_result(place):
    line = f"commonweight verify {place}/one --data {place}/films.jsonl --verbose"
    code, out, err = shell(line, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert (code, err) == (0, "")
    assert out.isascii()
    assert out.count(b"?") == 1  # of the question
    (line,) = [line for line in out.splitlines() if line.startswith(b"classifier.bias")]
    assert line.split()[-1] == b"-"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("copies", [0, 8], ids=["at the end", "while it is written"])
def test_a_result_that_cannot_be_written_is_an_error(footprints, tmp_path, copies):
    for copy in range(copies):  # so that the result is larger than the buffer
        shutil.copytree(footprints / "one", tmp_path / f"{copy}-of-a-long-name")
    folders = " ".join([f"{footprints}/one", f"{footprints}/two", *map(str, sorted(tmp_path.iterdir()))])
    code, _, err = shell(f"commonweight overlap {folders} --format csv > /dev/full")
    assert code == 1
    assert err.startswith("error: ")
    assert "No space left" in err
    assert err.count("\n") == 1


def test_a_closed_stdout_is_said_before_the_work(footprints):
    code, _, err = shell(f"commonweight overlap {footprints}/one {footprints}/two >&-")
    assert code == 1
    assert err == "error: stdout is closed, so there is nowhere to write the result; redirect it to a file\n"
    assert shell("commonweight --version 2>&-")[0] == 0


def test_sigterm_is_as_ctrl_c(place, tmp_path):
    (tmp_path / "slow.py").write_text(
        "import time, torch\n\n\nclass Slow(torch.nn.Linear):\n    def forward(self, x):\n"
        "        print('forward', flush=True)\n        time.sleep(30)\n        return super().forward(x)\n\n\n"
        "def build():\n    return Slow(1, 2)\n"
    )
    (tmp_path / "n.csv").write_text("u,label\n1,0\n2,1\n")
    arguments = ["fisher", "slow:build", "--data", "n.csv", "--input-column", "u", "-o", "f"]
    command = [sys.executable, "-m", "commonweight", *arguments]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if line.startswith("forward"):
                break
        started = time.monotonic()
        process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
    assert process.returncode == 130
    assert time.monotonic() - started < 20
    assert "interrupted" in rest
    assert "Traceback" not in rest
    assert not (tmp_path / "f").exists()
