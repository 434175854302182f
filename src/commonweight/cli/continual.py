"""``commonweight continual``: many tasks in one frozen network, one mask per task, alone or helped by similar tasks."""

from __future__ import annotations

from typing import Any

import click

from commonweight.cli import settings, streams
from commonweight.cli.lists import ListCommand, split
from commonweight.cli.options import Count, Suggesting, dry_run_option, ending

APPROACHES = "classic, classic-double, transfer, initialised"
INFERENCE = "one_shot binary lowest_entropy nearest_statistics"
EXAMPLE = "commonweight continual run --data digits --scenario rotated --approach classic transfer -o runs/rotated"


class _Numbers(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """Whole numbers, joined by commas or spaces."""

    name = "N ..."

    def __init__(self, least: int = 1) -> None:
        self.least = least

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """Read them."""
        if isinstance(value, tuple):
            return value
        return tuple(int(Count(least=self.least).convert(word, param, ctx) or 0) for word in split(value))


@click.group("continual", epilog=ending(EXAMPLE))
def command() -> None:
    """Do tasks share weights, are they alike, and does a similar task help the next one?

    A network with frozen weights learns one mask per task. Masks are compared with each other, batch-norm statistics
    say which tasks are alike, and in the transfer approach a similar prior task influences the mask of the next.
    """


@command.command(
    "run",
    cls=ListCommand,
    lists=("--approach", "--inference", "--hidden", "--random-labels", "--inference-batches"),
    epilog=ending(EXAMPLE),
)
@click.option(
    "--data",
    metavar="D",
    required=True,
    help="digits, a folder of idx files, a data set's id or folder, or an .npz file.",
)
@click.option(
    "--scenario",
    required=True,
    type=Suggesting(["permuted", "rotated", "partitioned", "patch"]),
    help="How tasks differ: order of pixels, angle, classes, order of central pixels.",
)
@click.option("--tasks", metavar="N", type=Count(), default=5, show_default=True, help="How many tasks.")
@click.option(
    "--approach",
    "approaches",
    metavar="A ...",
    default="classic transfer",
    show_default=True,
    help=f"Any of {APPROACHES}; the last two with -most_similar, -softmax, -least_similar, -random, -previous, -mean "
    "or -oracle, -every_layer, -first_layer or -probed, -one_prior, -betaX joined to them, as in transfer-random.",
)
@click.option("--seeds", metavar="N", type=Count(), default=1, show_default=True, help="Seeds 0 … N-1, paired.")
@click.option(
    "--vary",
    type=Suggesting(["all", "training"]),
    default="all",
    show_default=True,
    help="What differs between seeds: tasks, weights and training; or training alone, which gives masks noise "
    "ceilings.",
)
@click.option("-o", "--output", required=True, metavar="RUN", help="The run folder; the same command goes on.")
@click.option("--model", metavar="M", help="module:function of your own; default a perceptron with batch norm.")
@click.option(
    "--hidden",
    metavar="N ...",
    type=_Numbers(),
    default="300 300",
    show_default=True,
    help="Units of its hidden layers.",
)
@click.option(
    "--outputs", metavar="N", type=Count(), help="Its output units; default one per class. SupSup has many more."
)
@click.option(
    "--density", metavar="SHARE", type=float, help="Keep this share of weights; default scores of at least 0."
)
@click.option(
    "--score-initialisation",
    type=Suggesting(["independent", "shared"]),
    default="independent",
    show_default=True,
    help="Whether every task's scores start from their own draws.",
)
@click.option("--epochs", metavar="N", type=Count(), default=1, show_default=True, help="Passes over a task's images.")
@click.option("--batch-size", metavar="N", type=Count(least=2), default=128, show_default=True, help="Images per step.")
@click.option("--optimiser", type=Suggesting(["adam", "rmsprop"]), default="adam", show_default=True)
@click.option("--learning-rate", metavar="X", type=float, default=1e-3, show_default=True, help="Of the scores.")
@click.option(
    "--beta",
    metavar="X",
    type=float,
    help="Strength of prior tasks' influence, 0 (none) to below 1; default 0.25 for transfer, 0.5 for initialised.",
)
@click.option(
    "--rows",
    metavar="N|all",
    type=Count("all", least=2),
    default="all",
    show_default=True,
    help="Training images per task.",
)
@click.option(
    "--normalise",
    type=Suggesting(["unit", "standard"]),
    default="unit",
    show_default=True,
    help="Pixels from 0 to 1, or with mean 0 and standard deviation 1.",
)
@click.option(
    "--max-angle", metavar="DEGREES", type=float, default=180.0, show_default=True, help="Of the last rotated task."
)
@click.option(
    "--order",
    type=Suggesting(["given", "shuffled"]),
    default="shuffled",
    show_default=True,
    help="Rotated, partitioned, patch: in the given order the previous task is the most similar one.",
)
@click.option("--remap-labels", is_flag=True, help="Partitioned: count each task's labels from 0.")
@click.option(
    "--random-labels", metavar="N ...", type=_Numbers(least=0), default="", help="A control: tasks with random labels."
)
@click.option("--drop-scores", is_flag=True, help="Keep one bit per weight of a finished task, not its scores.")
@click.option(
    "--inference", metavar="M ...", default=INFERENCE, show_default=True, help="Ways to infer the task, or none."
)
@click.option(
    "--inference-rows", metavar="N", type=Count(), default=100, show_default=True, help="Test images per task for it."
)
@click.option(
    "--inference-batches",
    metavar="N ...",
    type=_Numbers(),
    default="1 20",
    show_default=True,
    help="Images asked about together; one run asks for each of these.",
)
@click.option("--image-column", metavar="C", help="Column of images of a Hugging Face data set.")
@click.option("--label-column", metavar="L", help="Column of labels; by default label or labels.")
@click.option("--test-split", metavar="S", help="Its test part; by default test.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:N or mps.")
@dry_run_option
def run(output: str, approaches: str, inference: str, drop_scores: bool, dry_run: bool, **given: Any) -> None:
    """Train, compare, infer; write masks, statistics, tables and figures, and show what was found.

    The similarities of every_layer (the usual) and first_layer need a classic network that has learned the task
    before; it is trained too, and its steps are counted.
    """
    from pathlib import Path

    from commonweight.report.terminal import show
    from commonweight.studies.continual.figure_files import write_figures, write_mask_figure, write_tables
    from commonweight.studies.continual.outlook import study_outlook
    from commonweight.studies.continual.plan import Plan
    from commonweight.studies.continual.reading import load_masks
    from commonweight.studies.continual.report import report
    from commonweight.studies.continual.run import run_study
    from commonweight.studies.run.outlook_words import continual_outlook

    methods: Any = () if inference == "none" else split(inference)
    folder = Path(output)
    with streams.only_results():
        plan = Plan(**given, approaches=split(approaches), inference=methods, keep_scores=not drop_scores)
        expected = study_outlook(folder, plan) if dry_run else None
    if expected is not None:
        show(continual_outlook(expected))
        return
    with streams.only_results():
        found = run_study(folder, plan, note=settings.note)
    show(report(found))
    write_tables(found, folder)
    try:
        write_figures(found, folder / "figures")
        write_mask_figure(load_masks(folder, found, next(iter(found.runs))), folder / "figures")
    except ModuleNotFoundError as error:
        settings.note(f"no figures: they need {error.name}; pip install 'commonweight[plot]', then the same command")
    settings.note(f"networks, masks, statistics, study.json, study.md and figures are in {folder}")
