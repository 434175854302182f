"""What the studies of continual learning on MNIST share: options, progress, and the files they leave."""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from records import offer_tables

from commonweight.base.estimate import Estimate
from commonweight.report.files import write_figures
from commonweight.studies.continual.figures import figures_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from commonweight.studies.continual.results import ContinualStudy


class Given(NamedTuple):
    """What a script was given."""

    data: str
    work: Path
    seeds: int
    rows: int
    tables: bool
    """Write the tables anew from the JSON, and measure nothing."""

    note: Callable[[str], None]
    """Prints a sentence with the seconds since the start."""


def given(words: str, work: str, seeds: int = 5) -> Given:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=words, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--work", type=Path, default=Path("runs") / work)
    parser.add_argument("--seeds", type=int, default=seeds)
    parser.add_argument("--rows", type=int, default=20_000, help="training images per task, where not all are taken")
    offer_tables(parser)
    options = parser.parse_args()
    if options.data is None and not options.tables:
        parser.error("give --data, the folder of MNIST")
    start = time.time()

    def note(sentence: str) -> None:
        print(f"{time.time() - start:7.0f} s  {sentence}", file=sys.stderr, flush=True)

    return Given(str(options.data), options.work, options.seeds, options.rows, options.tables, note)


def recorded(study: ContinualStudy, data: str) -> dict:
    """The study as plain values, without the place of the images."""
    found: dict = json.loads(study.to_json().replace(data, "mnist"))
    return found


def keep_figures(study: ContinualStudy, work: Path, place: Path, names: Sequence[str]) -> None:
    """Write all figures into the run folder, and take some of them to the results."""
    place.mkdir(parents=True, exist_ok=True)
    for file in write_figures(figures_of(study), work / "figures"):
        if file.suffix == ".png" and file.stem in names:
            shutil.copyfile(file, place / file.name)


def estimate(found: dict) -> Estimate:
    """Read back an estimate over seeds."""
    value, *replicates = (math.nan if each is None else each for each in (found["mean"], *found["values"]))
    return Estimate(value, tuple(replicates), "seeds")
