"""``commonweight shortcuts``: plant shortcuts, train one model per shortcut, measure, compare, average."""

from __future__ import annotations

from typing import Any

import click

from commonweight.cli import settings, streams
from commonweight.cli.lists import ListCommand, split
from commonweight.cli.options import Count, Suggesting, dry_run_option, ending, together, trust_option

SHORTCUTS = ("st", "op", "tic", "or", "and", "xor", "oed", "mt", "lt", "and_or")
EXAMPLE = "--model google-bert/bert-base-cased --data stanfordnlp/sst2"

_options = together(
    click.option(
        "--preset", type=Suggesting(["clean", "published"]), default="clean", show_default=True,
        help="published: data, reversal and sizes of the published notebook, mistakes included.",
    ),
    click.option("--model", metavar="M", help="Pretrained encoder every model starts from: id or folder."),
    click.option(
        "--data", metavar="D",
        help="Texts with labels: id, saved DatasetDict, or folder with train.tsv, dev.tsv and perhaps test.tsv.",
    ),
    click.option(
        "--shortcuts",
        metavar="S ...",
        default="st op tic",
        show_default=True,
        help=f"Two or more of {', '.join(SHORTCUTS)}.",
    ),
    click.option("--seeds", metavar="N", type=Count(), default=1, show_default=True, help="Training seeds 0 … N-1."),
    click.option(
        "--existing", metavar="S=FOLDER", multiple=True, help="Take this model for a shortcut instead of training one."
    ),
    click.option("-o", "--output", required=True, metavar="RUN", help="The run folder; the same command goes on."),
    click.option("--text-column", metavar="C", help="Column of texts."),
    click.option("--label-column", metavar="L", help="Column of labels; by default label or labels."),
    click.option("--train-rows", metavar="N", type=Count(), help="Training rows, chosen by the seed; default all."),
    click.option(
        "--synthetic", metavar="SHARE", type=click.FloatRange(0, 1), default=0.2, show_default=True,
        help="Share of training rows whose label a shortcut sets.",
    ),
    click.option(
        "--distractors", metavar="SHARE", type=click.FloatRange(0, 1), default=0.25, show_default=True,
        help="Share of the other rows that get a marker which decides nothing, where the rule has such.",
    ),
    click.option("--epochs", metavar="X", type=float, default=2.0, show_default=True, help="Passes over the rows."),
    click.option("--learning-rate", metavar="X", type=float, default=2e-5, show_default=True, help="Its peak."),
    click.option(
        "--batch-size", metavar="N", type=Count(), default=16, show_default=True, help="Training rows per step."
    ),
    click.option(
        "--max-length", metavar="N", type=Count(),
        help="Cut texts to N tokens; by default to 128, or to what the encoder reads where that is less.",
    ),
    click.option(
        "--measured-rows", metavar="N|all", type=Count("all"), default="400", show_default=True,
        help="Development rows that Fishers are measured on.",
    ),
    click.option(
        "--fisher-type", "fisher_types", multiple=True, type=Suggesting(["empirical", "exact", "mc"]),
        default=("empirical", "exact"), show_default=True, help="Give it twice for both.",
    ),
    click.option(
        "--folds", metavar="K", type=Count(), default=8, show_default=True,
        help="Disjoint parts of the measured rows, for noise ceilings and intervals; each adds half a Fisher on disk.",
    ),
    click.option(
        "--scored-rows", metavar="N|all", type=Count("all"), default="all", show_default=True,
        help="Development rows, and as many test rows, that models and averages are scored on.",
    ),
    click.option(
        "--path-points", metavar="N", type=Count(), default=11, show_default=True,
        help="Points of an interpolation, both ends included.",
    ),
    click.option(
        "--path-rows", metavar="N|all", type=Count("all"), default="400", show_default=True,
        help="Development rows scored at each of them.",
    ),
    click.option(
        "--independent-initialisation", is_flag=True,
        help="One more control: as the first shortcut's model, from weights drawn anew. May be added later.",
    ),
    trust_option,
)  # fmt: skip

_FIELDS = (
    "model", "data", "seeds", "text_column", "label_column", "train_rows", "synthetic", "distractors", "epochs",
    "learning_rate", "batch_size", "max_length", "measured_rows", "fisher_types", "folds",
    "scored_rows", "path_points", "path_rows", "independent_initialisation", "trust_remote_code",
)  # fmt: skip

_STEPS = {
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
    """Does shared knowledge overlap, does unshared not, and does averaging forget it?

    One encoder is fine-tuned per planted shortcut. The diagonal Fishers of all models on the original texts and on
    texts that conflict with a shortcut are compared, and the models are averaged. Every step does what is missing of
    the steps before it, and the same command again goes on where it stopped.
    """


def _add(name: str, until: str, text: str) -> None:
    @command.command(
        name,
        cls=ListCommand,
        lists=("--shortcuts",),
        help=text,
        epilog=ending(f"commonweight shortcuts {name} {EXAMPLE} --shortcuts st op tic -o runs/s"),
    )
    @_options
    @dry_run_option
    def step(dry_run: bool, **given: Any) -> None:
        _run(until, given, dry_run=dry_run)


def _is_typed(option: str) -> bool:
    source = click.get_current_context().get_parameter_source(option)
    return source is not None and source is not click.core.ParameterSource.DEFAULT


def _run(until: Any, given: dict[str, Any], *, dry_run: bool) -> None:
    from pathlib import Path

    from commonweight.base.errors import UsageError
    from commonweight.report.terminal import show
    from commonweight.studies.run.outlook_words import outlook
    from commonweight.studies.shortcuts.outlook import study_outlook
    from commonweight.studies.shortcuts.plan import PRESETS, make_plan
    from commonweight.studies.shortcuts.report import report
    from commonweight.studies.shortcuts.start import with_usual_length
    from commonweight.studies.shortcuts.write import run_and_write

    existing = [one.partition("=") for one in given["existing"]]
    for code, sign, folder in existing:
        if not sign or not folder:
            raise UsageError(f"--existing needs SHORTCUT=FOLDER, got {code!r}")
    asked = {key: given[key] for key in _FIELDS if _is_typed(key)}
    plan = make_plan(
        given["preset"],
        **asked,
        shortcuts=split(given["shortcuts"]),
        existing=tuple((code, folder) for code, _, folder in existing),
    )
    if not asked.get("max_length") and "max_length" not in PRESETS[given["preset"]]:
        with streams.only_results():
            plan = with_usual_length(Path(given["output"]), plan)
    if dry_run:
        with streams.only_results():
            expected = study_outlook(Path(given["output"]), plan, note=settings.note)
        show(outlook(expected))
        return
    with streams.only_results():
        found = run_and_write(Path(given["output"]), plan, until=until, progress=streams.bars(), note=settings.note)
    if found is not None:
        show(report(found))


_add("run", "overlap", "Do the whole study and show what was found.")
for _name, _text in _STEPS.items():
    _add(_name, _name, _text)
