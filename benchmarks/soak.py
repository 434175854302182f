"""Kills runs at random moments, again and again, and looks whether the same command still ends with the same numbers.

Each study is first run undisturbed. Then a run is started, killed, and started again with the same command, until it
ends by itself; its numbers are compared with those of the undisturbed run. SIGKILL goes to any process of the run (a
worker of Dask, a process of torchrun, the command itself), SIGTERM and SIGINT to the command. Writes per study: kills,
exit codes, runs that ended, and what must be none: other numbers, lost or foreign files, processes that stay, commands
that do not end, tracebacks.

    python benchmarks/soak.py --minutes 60 --work runs/soak --out benchmarks/results/soak.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import psutil

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
SOON = 15.0
"""Seconds within which SIGTERM and SIGINT end a command: ten of its own, and torchrun's."""

PATIENCE = 180.0
"""Seconds within which a command ends of which a process was killed, and its other processes are gone."""

MOST = 8
"""Kills of one run; then it is left alone."""

CLOSE = 1e-6
"""Largest difference of two numbers that are the same; several processes sum in another order."""


def studies(work: Path) -> dict[str, list[str]]:
    """Prepare models and data, and give the command lines without their run folder."""
    from studies.shortcut_texts import tiny_plan

    from commonweight.data.reviews import reviews
    from commonweight.studies.demo.encoder import make_start, make_tokenizer, save

    for seed, name in enumerate(("one", "two", "three")):
        save(make_start(seed), make_tokenizer(), work / name)
    data = []
    for domain in ("films", "food"):
        rows = [json.dumps({"text": row["text"], "label": row["label"]}) for row in reviews(120, domain=domain)]
        (work / f"{domain}.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
        data += ["--data", f"{domain}={work / f'{domain}.jsonl'}"]
    plan = tiny_plan(work)
    alone = [sys.executable, "-m", "commonweight"]
    several = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    compare = ["compare", *(str(work / name) for name in ("one", "two", "three")), *data, "--no-report"]
    shortcuts = ["shortcuts", "run", "--model", str(plan.model), "--data", str(plan.data), "--shortcuts", "st", "op"]
    shortcuts += ["--epochs", "1", "--folds", "2", "--path-points", "2", "--path-rows", "8", "--no-report"]
    shortcuts += ["--measured-rows", "16", "--scored-rows", "16", "--train-rows", "128"]
    continual = [
        "continual",
        "run",
        "--data",
        "digits",
        "--scenario",
        "rotated",
        "--tasks",
        "3",
        "--rows",
        "400",
        "--epochs",
        "1",
    ]
    continual += ["--hidden", "32", "--approach", "classic", "transfer", "--seeds", "2", "--no-report"]
    return {
        "compare": [*alone, *compare],
        "compare, two workers of Dask": [*alone, *compare, "--scheduler", "local:2"],
        "compare, two processes of torchrun": [*several, "commonweight", *compare],
        "shortcuts": [*alone, *shortcuts],
        "continual": [*alone, *continual],
    }


def start(command: list[str], run: Path) -> subprocess.Popen[str]:
    """Start a command."""
    quiet = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
    with (run.parent / f"{run.name}.log").open("a", encoding="utf-8") as log:
        return subprocess.Popen(
            [*command, "-o", str(run)],
            env=os.environ | quiet,
            stdout=log,
            stderr=log,
            text=True,
        )


def ended(process: subprocess.Popen[str], seconds: float, others: Sequence[psutil.Process]) -> bool:
    """Wait for a command and its other processes."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return not psutil.wait_procs(others, timeout=PATIENCE)[1]


def disturbed(command: list[str], run: Path, usual: float, chance: random.Random, found: Counter[str]) -> bool:
    """Start, kill and start again, until a run ends by itself; tell whether it did."""
    for kill in range(MOST + 1):
        process, seconds, every, sent = start(command, run), PATIENCE, [], "nothing"
        try:
            process.wait(chance.uniform(0, usual) if kill < MOST else None)
        except subprocess.TimeoutExpired:
            command_itself, which = psutil.Process(process.pid), chance.choice(SIGNALS)
            every = [command_itself, *command_itself.children(recursive=True)]
            target = chance.choice(every) if which == signal.SIGKILL else every[0]
            seconds = PATIENCE if which == signal.SIGKILL else SOON
            with suppress(psutil.NoSuchProcess):  # it has just ended
                target.send_signal(which)
            sent = f"{which.name} to {'the command' if target == command_itself else 'another process'}"
            found[sent] += 1
        if not ended(process, seconds, every[1:]):
            found[f"did not end after {sent}"] += 1
            for each in (process, *every[1:]):
                with suppress(psutil.NoSuchProcess):
                    each.kill()
            process.wait()
        found[f"exit {process.returncode}"] += 1
        if process.returncode == 0:
            return True
    return False


def files(run: Path) -> set[str]:
    """List the files of a run."""
    return {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}


def difference(run: Path, undisturbed: Path) -> float:
    """Find the largest difference between the numbers of two runs; infinite where their words differ."""
    mine, other = (pd.read_csv(place / "study.csv") for place in (run, undisturbed))
    if list(mine) != list(other) or len(mine) != len(other):
        return float("inf")
    largest = 0.0
    for name in mine:
        if pd.api.types.is_numeric_dtype(mine[name]) and pd.api.types.is_numeric_dtype(other[name]):
            if (mine[name].isna() != other[name].isna()).any():
                return float("inf")
            largest = max(largest, float(np.nanmax(np.abs(mine[name] - other[name]).to_numpy(float), initial=0.0)))
        elif not mine[name].equals(other[name]):
            return float("inf")
    return largest


def main() -> None:
    """Prepare, disturb, count, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, required=True, help="a new folder for models, data and runs")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job of a shell in the background ignores it
    asked.work.mkdir(parents=True)
    commands = studies(asked.work)
    whole: dict[str, Counter[str]] = {name: Counter() for name in commands}
    usual: dict[str, float] = {}
    worst = dict.fromkeys(commands, 0.0)
    foreign: dict[str, list[str]] = {name: [] for name in commands}
    for number, (name, command) in enumerate(commands.items()):
        run = asked.work / f"undisturbed-{number}"
        began = time.monotonic()
        if start(command, run).wait() != 0:
            raise SystemExit(f"{name} failed undisturbed: see {run}.log")
        usual[name] = time.monotonic() - began
    chance = random.Random(asked.seed)
    until, round_number = time.monotonic() + 60 * asked.minutes, 0
    while time.monotonic() < until:
        for number, (name, command) in enumerate(commands.items()):
            found, run = whole[name], asked.work / f"{number}-{round_number}"
            if not disturbed(command, run, usual[name], chance, found):
                found["failed although left alone"] += 1
                continue
            found["runs that ended"] += 1
            undisturbed = asked.work / f"undisturbed-{number}"
            worst[name] = max(worst[name], difference(run, undisturbed))
            is_other = difference(run, undisturbed) > CLOSE
            odd = sorted(files(run) ^ files(undisturbed))
            said = Path(f"{run}.log").read_text(encoding="utf-8")
            is_raw = "Traceback" in said and "torchrun" not in name  # torchrun itself prints one of a killed process
            found["other numbers"] += is_other
            found["lost or foreign files"] += len(odd)
            foreign[name] += odd
            found["tracebacks"] += is_raw
            if not (is_other or odd or is_raw):
                shutil.rmtree(run)
            record = {
                "asked": {"minutes": asked.minutes, "seed": asked.seed},
                "python": platform.python_version(),
                "machine": f"{platform.machine()}, {os.cpu_count()} processors",
                "seconds undisturbed": {key: round(value, 1) for key, value in usual.items()},
                "kills": sum(count for each in whole.values() for key, count in each.items() if key.startswith("SIG")),
                "largest difference": worst,
                "lost or foreign": foreign,
                "studies": {key: dict(sorted(each.items())) for key, each in whole.items()},
            }
            asked.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        round_number += 1


if __name__ == "__main__":
    main()
