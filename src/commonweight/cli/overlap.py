"""``commonweight overlap``: how much footprints coincide."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import click

from commonweight.base.choices import STRUCTURES
from commonweight.base.errors import UsageError
from commonweight.cli import streams
from commonweight.cli.options import Command, ending
from commonweight.cli.results import by_option, result_options, write


@click.command("overlap", cls=Command, epilog=ending("commonweight overlap footprints/films footprints/food --by 3"))
@click.argument("folders", nargs=-1, required=True, metavar="FOLDER FOLDER ...")
@by_option
@result_options
@click.option("--common-only", is_flag=True, help="Compare only parameters of equal name and shape.")
@click.option(
    "--no-intervals",
    "intervals",
    is_flag=True,
    callback=lambda _, __, value: not value,
    help="Ignore folds: show raw overlaps only, even if numbers of folds differ.",
)
def command(
    folders: tuple[str, ...],
    by: str | int,
    form: str,
    verbose: bool,
    common_only: bool,
    intervals: bool,
) -> None:
    """Compare footprints: every pair, overall and layer by layer."""
    names = folder_names(folders)
    for folder in folders:
        _check_footprint(Path(folder))
    from commonweight.footprints.footprint import Footprint
    from commonweight.overlaps.table.table import overlap
    from commonweight.report.footprint import sources
    from commonweight.report.overlap import result

    footprints = {name: Footprint.load(Path(folder).expanduser()) for name, folder in zip(names, folders, strict=True)}
    with streams.working():
        structure = by if by in STRUCTURES else None
        table = overlap(footprints, common_only=common_only, intervals=intervals, structure=structure)
        found = result(table, by=by, beside=sources(footprints))
    write(found, form, verbose=verbose)


def _check_footprint(folder: Path) -> None:
    from commonweight.footprints.files import RECORD

    place = folder.expanduser()
    if not place.is_dir():
        raise UsageError(f"no folder {folder}; give one that commonweight fisher wrote")
    if not (place / RECORD).is_file():
        raise UsageError(
            f"{folder} holds no {RECORD}, so it is not a footprint"
            + ("; it is a run: its footprints are under footprints/" if (place / "run.json").is_file() else "")
            + "; give a folder that commonweight fisher wrote"
        )


def folder_names(folders: tuple[str, ...]) -> list[str]:
    """Name footprints after their folders: the last part, or as much of the path as tells them apart."""
    if len(folders) < 2:
        raise UsageError("an overlap needs two footprint folders at least, got one")
    paths = [Path(folder).expanduser().resolve() for folder in folders]
    twice = [folders[i] for i, path in enumerate(paths) if path in paths[:i]]
    if twice:
        raise UsageError(f"{twice[0]} is given twice; a footprint overlaps itself completely")
    names = [path.name for path in paths]
    for parts in range(2, max(len(path.parts) for path in paths) + 1):
        clashes = {name for name, count in Counter(names).items() if count > 1}
        if not clashes:
            break
        names = ["/".join(p.parts[-parts:]) if n in clashes else n for n, p in zip(names, paths, strict=True)]
    return names
