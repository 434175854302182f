"""``commonweight shortcuts``: plant shortcuts, train one model per shortcut, measure, compare, average."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from commonweight.base.errors import UsageError
from commonweight.cli import streams
from commonweight.cli.options import Command, dry_run_option, ending, options_of, scheduler_option, typed
from commonweight.cli.results import report_option, result_options, write_report, write_run
from commonweight.studies.shortcuts.plan import PRESETS, Plan, make_plan

EXAMPLE = "--model google-bert/bert-base-cased --data stanfordnlp/sst2"
STEPS = {
    "run": "Do the whole study and show what was found.",
    "build": "Make the start and plant the shortcuts.",
    "train": "Build, then fine-tune one model per shortcut and one on random labels.",
    "fuse": "Train, then average the models, score them all, and walk between them.",
    "fisher": "Fuse, then measure every model's Fisher on every set.",
    "overlap": "Measure, then compare: the same as run.",
}


@click.group(
    "shortcuts",
    epilog=ending(f"commonweight shortcuts run {EXAMPLE} --shortcuts st op tic --seeds 3 -o runs/s"),
)
def command() -> None:
    """Study which knowledge overlaps, and what averaging forgets.

    Does shared knowledge overlap, does unshared not, and does averaging forget it? One encoder is fine-tuned per
    planted shortcut. Every model's diagonal Fisher is measured on the original texts and on texts that conflict with a
    shortcut. The Fishers are compared, and the models are averaged. Every step first does what is missing of the
    earlier steps. The same command again resumes where it stopped.
    """


def _add(name: str, words: str) -> None:
    example = f"commonweight shortcuts {name} {EXAMPLE} --shortcuts st op tic -o runs/s"

    @command.command(name, cls=Command, help=words, epilog=ending(example))
    @click.option(
        "-o", "--output", required=True, metavar="RUN", help="The run folder; the same command resumes there."
    )
    @options_of(Plan)
    @click.option(
        "--existing", metavar="S=FOLDER", multiple=True, help="Use this model for shortcut S instead of training one."
    )
    @scheduler_option
    @dry_run_option
    @result_options
    @report_option
    def step(
        output: str,
        preset: Any,
        existing: tuple[str, ...],
        scheduler: str | None,
        dry_run: bool,
        form: str,
        verbose: bool,
        report: bool,
        **given: Any,
    ) -> None:
        until = "overlap" if name == "run" else name
        asked = typed(given) | {"existing": _pairs(existing)}
        is_there = _run(until, Path(output), preset, asked, scheduler, dry_run=dry_run)
        if is_there:
            if report:
                from commonweight.studies.shortcuts.page import write_page

                write_report(Path(output), write_page)
            write_run(Path(output), form, verbose=verbose)


def _pairs(existing: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    pairs = [one.partition("=") for one in existing]
    for code, sign, folder in pairs:
        if not sign or not folder:
            raise UsageError(f"{{argument}} needs SHORTCUT=FOLDER, got {code!r}", argument="existing")
    return tuple((code, folder) for code, _, folder in pairs)


def _run(until: Any, folder: Path, preset: Any, asked: dict[str, Any], scheduler: str | None, *, dry_run: bool) -> bool:
    """Do what is asked; tell whether there is a result."""
    plan = make_plan(preset, **asked)
    from commonweight.report.terminal import show
    from commonweight.studies.shortcuts.models import with_usual_length
    from commonweight.studies.shortcuts.run import run_and_write, study_outlook

    with streams.working():
        if "max_length" not in {*asked, *PRESETS[plan.preset]}:
            plan = with_usual_length(folder, plan)
        if not dry_run:
            found = run_and_write(folder, plan, until=until, scheduler=scheduler, note=streams.note)
            return found is not None
        blocks = study_outlook(folder, plan, note=streams.note).blocks()
    show(blocks)
    return False


for _name, _words in STEPS.items():
    _add(_name, _words)
