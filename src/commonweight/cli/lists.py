"""Options that take several words: ``--approach classic transfer``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from commonweight.cli.options import Command

if TYPE_CHECKING:
    import click


class ListCommand(Command):
    """A command some of whose options take all words up to the next option."""

    def __init__(self, *args: Any, lists: tuple[str, ...] = (), **given: Any) -> None:
        super().__init__(*args, **given)
        self.lists = lists

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Join the words after such an option into one value, with commas."""
        joined: list[str] = []
        words = 0  # of the list that is being read; 0 outside of lists
        for word in args:
            if word.startswith("-"):
                option, sign, _ = word.partition("=")
                words = 1 + bool(sign) if option in self.lists else 0
                joined.append(word)
            elif words > 1:
                joined[-1] += f",{word}"
            else:
                words += words > 0
                joined.append(word)
        return super().parse_args(ctx, joined)


def split(value: str) -> tuple[str, ...]:
    """Split the value of such an option.

    Args:
        value: Words joined by commas or spaces.

    Returns:
        The words.

    Example:
        >>> split("classic,transfer")
        ('classic', 'transfer')
    """
    return tuple(value.replace(",", " ").split())
