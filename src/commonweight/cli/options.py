"""Options: those made of settings, their values that say what was probably meant, and how errors name them."""

from __future__ import annotations

import contextlib
import difflib
from dataclasses import MISSING, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from commonweight.base.choices import STRUCTURES
from commonweight.base.settings import settings_of
from commonweight.cli import streams
from commonweight.cli.config import NOT_KEPT, take_config, write_config

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from dataclasses import Field

    from commonweight.base.settings import Kind, Setting

    Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

T = TypeVar("T")

_EXIT_CODES = """Exit codes: 0 done · 1 the computation failed · 2 bad usage · 3 not comparable
            4 a file is damaged · 130 interrupted"""


def ending(example: str) -> str:
    """Make the end of a command's help."""
    return f"\b\nExample:\n  {example}\n\n\b\n{_EXIT_CODES}"


SECTIONS = {
    "Data": "data split examples data_seed text_column label_column input_column image_column test_split max_length "
    "rows train_rows normalise max_angle order remap_labels random_labels synthetic distractors preset",
    "Model": "model checkpoint checkpoints tokenizer device dtype merge_adapters allow_missing_weights hidden outputs "
    "density score_initialisation",
    "Batches and training": "epochs batch_size optimiser learning_rate beta keep_scores existing "
    "independent_initialisation",
    "Measuring": "fisher_type fisher_types samples seed loss folds include exclude common_only intervals measured_rows "
    "scored_rows path_points path_rows inference inference_rows inference_batches until_noise_ceiling resamples",
    "Output": "output overwrite fresh dry_run by form verbose contrasts config quiet",
}
"""Title -> the options in that section of the help; all others come first."""

DANGEROUS = "Dangerous options"


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


class Dangerous(click.Option):
    """An option that lets code of others run."""

    dangerous = True


def _be_quiet(_: click.Context, __: click.Parameter, value: bool) -> None:
    if value:  # what is not asked of a command may have been asked of ``run``
        streams.set_quiet(True)


class Command(click.Command):
    """A command with its options in sections, and options that take all words behind them."""

    def __init__(self, *args: Any, **given: Any) -> None:
        super().__init__(*args, **given)
        self.params.append(
            click.Option(
                ["-q", "--quiet"],
                is_flag=True,
                expose_value=False,
                callback=_be_quiet,
                help="Write nothing on stderr but errors.",
            )
        )
        if any(isinstance(param, click.Option) and param.name not in NOT_KEPT for param in self.params):
            self.params.append(
                click.Option(
                    ["--config"],
                    metavar="FILE",
                    is_eager=True,
                    expose_value=False,
                    callback=take_config,
                    help="Take options from a YAML file, such as config.yaml of a run; what is typed beside it wins.",
                )
            )

    def invoke(self, ctx: click.Context) -> Any:
        """Do what is asked; the run folder says what that was."""
        try:
            return super().invoke(ctx)
        finally:
            output = ctx.params.get("output")
            with contextlib.suppress(OSError):  # of a place that cannot be: the command has said so
                if output and (Path(output) / "run.json").is_file():
                    write_config(ctx, Path(output))

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options into the help, in sections."""
        found: dict[str, list[tuple[str, str]]] = {title: [] for title in ("Options", *SECTIONS, DANGEROUS)}
        of = {name: title for title, names in SECTIONS.items() for name in names.split()}
        for param in self.get_params(ctx):
            if (record := param.get_help_record(ctx)) is not None and record[1]:
                title = DANGEROUS if isinstance(param, Dangerous) else of.get(param.name or "", "Options")
                found[title].append(record)
        for title, records in found.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Join the words after an option that takes a list into one value, with commas."""
        lists = {option for param in self.params if isinstance(param.type, Words) for option in param.opts}
        joined: list[str] = []
        words = 0  # of the list that is being read; 0 outside of lists
        for word in args:
            if word.startswith("-"):
                option, sign, _ = word.partition("=")
                words = 1 + bool(sign) if option in lists else 0
                joined.append(word)
            elif words > 1:
                joined[-1] += f",{word}"
            else:
                words += words > 0
                joined.append(word)
        return super().parse_args(ctx, joined)


class Words(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """Several values, joined by commas or spaces."""

    def __init__(self, of: click.ParamType, none: str | None = None) -> None:  # type: ignore[type-arg,unused-ignore]
        self.of, self.none = of, none
        self.name = f"{of.name} ..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Any, ...]:
        """Read them."""
        if isinstance(value, tuple):
            return tuple(self.of.convert(str(word), param, ctx) for word in value)
        if value == self.none:
            return ()
        return tuple(self.of.convert(word, param, ctx) for word in value.replace(",", " ").split())


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
    """``layer``, ``parameter``, a structure such as ``head``, or a depth of the module tree."""

    name = "|".join(["layer", "parameter", *STRUCTURES, "DEPTH"])

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str | int:
        """Read it."""
        if isinstance(value, str) and value.isascii() and value.isdecimal():
            return int(value)
        try:
            return str(Suggesting(["layer", "parameter", *STRUCTURES]).convert(value, param, ctx))
        except click.BadParameter as error:
            raise click.BadParameter(f"{error.message} Or give a number of module levels.", ctx, param) from None


def together(*options: Decorator) -> Decorator:
    """Join options into one decorator."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def options_of(of: Any, *, only: Iterable[str] | None = None, words: Mapping[str, str] | None = None) -> Decorator:
    """Make the options of a dataclass of settings and of those in it; ``words`` replace what is said of a field."""
    return together(*_options(of, only, words or {}).values())


def read_options(of: Callable[..., T], given: Mapping[str, Any]) -> T:
    """Make a dataclass of settings from the values of a command; fields that it has no option for stay as usual."""
    found: dict[str, Any] = {}
    for field, _, kind in settings_of(of):
        if is_dataclass(kind.type):
            nested: Any = kind.type
            found[field.name] = read_options(nested, given)
        elif field.name in given:
            found[field.name] = given[field.name]
    return of(**found)


def typed(given: Mapping[str, Any]) -> dict[str, Any]:
    """Choose the values that were typed, not left as usual."""
    source = click.get_current_context().get_parameter_source
    return {name: value for name, value in given.items() if source(name) is not click.core.ParameterSource.DEFAULT}


def in_options(argument: str, value: object, commands: Mapping[str, click.Command], here: str) -> str:
    """Name an argument of the library as an option, of another command if the one that ran ``here`` has none."""
    for name in (here, *commands):
        group = commands.get(name)
        every = [group, *group.commands.values()] if isinstance(group, click.Group) else [group]
        for parameter in (parameter for each in every if each is not None for parameter in each.params):
            if parameter.name == argument and isinstance(parameter, click.Option):
                shown = max(parameter.opts, key=len)
                if value is not None and not parameter.is_flag:
                    shown += f" {value}"
                return shown if name == here else f"{shown} to commonweight {name}"
    return argument if value is None else f"{argument}={value!r}"


def _options(of: Any, only: Iterable[str] | None, words: Mapping[str, str]) -> dict[str, Decorator]:
    """Options by what is typed; of two that are typed alike the first one holds."""
    found: dict[str, Decorator] = {}
    for field, said, kind in settings_of(of):
        if only is not None and field.name not in only:
            continue
        if is_dataclass(kind.type):
            found |= {typed: option for typed, option in _options(kind.type, None, words).items() if typed not in found}
        elif said is not None and said.typed:
            name = f"--{said.option or field.name.replace('_', '-')}"
            found[name] = _option(name, field, said, kind, words.get(field.name, said.words))
    return found


def _option(name: str, field: Field[Any], said: Setting, kind: Kind, words: str) -> Decorator:
    given: dict[str, Any] = {"help": words, "metavar": said.metavar}
    given["cls"] = Dangerous if said.dangerous else click.Option
    if kind.type is bool:
        callback = (lambda _, __, value: not value) if said.off else None
        return click.option(name, field.name, is_flag=True, callback=callback, **given)
    one: Any
    if kind.choices and not (kind.is_many and said.many == "listed"):
        one = Suggesting(kind.choices)
    elif kind.type is int and (said.least is not None or said.none is not None):
        one = Count(None if kind.is_many else said.none, int(said.least or 0))
    elif kind.type is int:
        one = click.INT
    elif kind.type is float:
        one = click.FLOAT
    else:
        one = click.STRING
    default = None if field.default is MISSING else field.default
    if kind.is_many and said.many == "listed":
        one, default = Words(one, said.none), " ".join(map(str, default or ()))
    elif kind.is_many:
        given["multiple"] = True
    elif default is None:
        default = said.none
    is_shown = default not in {None, "", ()}
    if said.required:
        return click.option(name, field.name, type=one, required=True, **given)
    return click.option(name, field.name, type=one, default=default, show_default=is_shown, **given)


data_option = click.option(
    "--data", required=True, metavar="DATA", help="A file, a save_to_disk folder, or a Hugging Face data set."
)

scheduler_option = click.option(
    "--scheduler",
    metavar="WHERE",
    help="Share the work over Dask: local, local:N workers, an address such as tcp://host:8786, or a scheduler file.",
)

dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Check everything, print the disk space and memory needed, and stop."
)
