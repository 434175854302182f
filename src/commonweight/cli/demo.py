"""``commonweight demo``: tiny encoders and a supermask network, trained, measured and compared in a few minutes."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path

import click

from commonweight.cli import streams
from commonweight.cli.options import Command, ending
from commonweight.cli.results import report_option, result_options, write, write_report, write_run


@click.command("demo", cls=Command, epilog=ending("commonweight demo -o runs/demo"))
@click.option(
    "-o", "--output", metavar="RUN", help="Keep data, models and footprints there; by default nothing is kept."
)
@click.option(
    "--seed", metavar="N", type=int, default=0, show_default=True, help="Seed of the reviews and of the shared start."
)
@result_options
@report_option
def command(output: str | None, seed: int, form: str, verbose: bool, report: bool) -> None:
    """Run the whole pipeline with tiny networks, offline.

    It trains encoders on reviews, and a network with masks on digits, and shows what they share. First it compares two
    encoders trained on reviews of two kinds, tests whether the weights that their footprints name hold what they
    learned, and merges them. Then it trains three encoders with a planted shortcut each, compares and averages them.
    Last, one network learns five rotations of digits, with a mask per task. The demo takes about two minutes, and
    needs no network connection and no other file. With -o the run folder holds data/, models/, comparison/, localised/,
    merged/, shortcuts-SEED/ and continual/.
    """
    import torch

    from commonweight.report.answer import write_result
    from commonweight.studies.demo import demo
    from commonweight.studies.demo.answer import result
    from commonweight.studies.demo.page import write_page

    torch.set_num_threads(1)  # as fast for networks this small, and by far faster where other programs are busy
    with ExitStack() as stack:
        folder = Path(output or stack.enter_context(tempfile.TemporaryDirectory(prefix="commonweight-demo-")))
        if output is not None:
            demo.check_demo_folder(folder)
        with streams.working():
            encoders = demo.run_demo(folder, seed=seed, note=streams.note)
            trials = demo.run_trial_demo(folder, note=streams.note)
            shortcuts = demo.run_shortcut_demo(folder / f"shortcuts-{seed}", seed=seed, note=streams.note)
            tasks = demo.run_continual_demo(folder / "continual", note=streams.note)
            found = result(encoders, trials, shortcuts, tasks, folder, is_kept=output is not None)
        if output is None:
            write(found, form, verbose=verbose)
            return
        write_result(folder, found)
        if report:
            write_report(folder, write_page)
        write_run(folder, form, verbose=verbose)
