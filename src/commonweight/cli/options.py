"""Options that several commands share, and values that say what was probably meant."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable

_EXIT_CODES = """Exit codes: 0 done · 1 the computation failed · 2 bad usage · 3 not comparable
            4 a file is damaged · 130 interrupted"""


def ending(example: str) -> str:
    """Make the end of a command's help."""
    return f"\b\nExample:\n  {example}\n\n\b\n{_EXIT_CODES}"


class Suggesting(click.Choice):  # type: ignore[type-arg,unused-ignore]
    """A choice that guesses what a mistyped value was meant to be."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Accept a listed value."""
        if value not in self.choices:
            words = [str(choice) for choice in self.choices]
            close = difflib.get_close_matches(str(value), words, n=1)
            guess = f" Did you mean {close[0]!r}?" if close else ""
            self.fail(f"{value!r} is not one of {', '.join(map(repr, words))}.{guess}", param, ctx)
        return value


DANGEROUS = frozenset({"allow_pickle", "trust_remote_code"})


class Command(click.Command):
    """A command whose help shows the options that can run code of others in a section of their own."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options into the help."""
        ordinary: list[tuple[str, str]] = []
        dangerous: list[tuple[str, str]] = []
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                (dangerous if param.name in DANGEROUS else ordinary).append(record)
        for title, records in (("Options", ordinary), ("Dangerous options", dangerous)):
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


class Count(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """A whole number of at least 1, or one word."""

    def __init__(self, word: str | None = None, least: int = 1) -> None:
        self.word, self.least = word, least
        self.name = f"N|{word}" if word else "N"

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:  # noqa: ARG002
        """Name the value in the help."""
        return self.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        """Read the number; the word is None."""
        if value is None or (self.word is not None and value == self.word):
            return None
        try:
            number = int(value)
        except ValueError:
            number = self.least - 1
        if number < self.least:
            self.fail(
                f"{value!r} is not a whole number of at least {self.least}"
                + (f", and not {self.word!r}" if self.word else ""),
                param,
                ctx,
            )
        return number


class By(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """``layer``, ``parameter``, or a depth of the module tree."""

    name = "layer|parameter|DEPTH"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str | int:
        """Read it."""
        if isinstance(value, str) and value.isascii() and value.isdecimal():
            return int(value)
        return str(Suggesting(["layer", "parameter"]).convert(value, param, ctx))


def together(
    *options: Callable[[Callable[..., Any]], Callable[..., Any]],
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Join options into one decorator."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def row_options(
    examples: str = "Measure N rows, chosen by --data-seed; default all.",
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make the options that say which rows and columns of the data are read."""
    return together(
        click.option("--split", metavar="S", help="Which split, where the data have several."),
        click.option("--text-column", metavar="C", multiple=True, help="Column of texts; twice for pairs."),
        click.option("--label-column", metavar="L", help="Column of labels; by default label or labels."),
        click.option(
            "--input-column",
            metavar="C",
            multiple=True,
            help="For a plain torch module: columns of numbers, or one of lists.",
        ),
        click.option("--examples", metavar="N", type=Count(), help=examples),
        click.option(
            "--data-seed", metavar="N", type=int, default=0, show_default=True, help="Names the choice of rows."
        ),
        click.option(
            "--max-length", metavar="N", type=Count(), help="Cut texts to N tokens; default the model's limit."
        ),
    )


trust_option = click.option("--trust-remote-code", is_flag=True, help="Run code that comes with the model.")

model_options = together(
    click.option("--tokenizer", metavar="ID", help="Tokenizer's id or folder; default the model's own."),
    click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps."),
    click.option(
        "--dtype",
        type=Suggesting(["auto", "float32", "bfloat16", "float16", "float64"]),
        default="float32",
        show_default=True,
        help="Precision of the weights; auto is as stored.",
    ),
    click.option("--allow-missing-weights", is_flag=True, help="Accept weights drawn at random."),
    click.option("--allow-pickle", is_flag=True, help="Read weights from pickle files."),
    trust_option,
)

dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Check everything, say what disk and memory it will take, and stop."
)

checkpoint_option = click.option(
    "--checkpoint", metavar="FILE", help="A .safetensors file for a MODEL given as module:function."
)

measure_options = together(
    click.option(
        "--fisher-type",
        type=Suggesting(["empirical", "exact", "mc"]),
        default="empirical",
        show_default=True,
        help="Whose labels: the given ones, the model's exact expectation, or draws from it.",
    ),
    click.option(
        "--samples", metavar="N", type=Count(), default=1, show_default=True, help="Draws, for --fisher-type mc."
    ),
    click.option("--seed", metavar="N", type=int, default=0, show_default=True, help="Seed of the draws."),
    click.option(
        "--loss",
        type=Suggesting(["classification", "multilabel", "regression"]),
        help="Likelihood of a plain torch module; default by its integer targets.",
    ),
    click.option(
        "--batch-size",
        type=Count("auto"),
        default="auto",
        show_default=True,
        help="Rows per batch; changes speed, never the result.",
    ),
    click.option(
        "--folds",
        metavar="K|auto",
        type=Count("auto"),
        default="auto",
        show_default=True,
        help="Disjoint parts of the rows, kept apart, for noise ceilings and intervals; auto: 8, or 1 for too few "
        "rows.",
    ),
    click.option(
        "--include",
        metavar="PATTERN",
        multiple=True,
        help="Measure only this: a module path such as bert.encoder, or a shell pattern of parameter names such as "
        "'*.weight'; give as many as you like.",
    ),
    click.option("--exclude", metavar="PATTERN", multiple=True, help="Leave this out; patterns as for --include."),
)
