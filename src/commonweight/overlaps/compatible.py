"""The preflight: do these footprints describe the same thing? Asked before any heavy work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from commonweight.base.errors import NotComparableError, UsageError
from commonweight.base.names import by_value, differ, first_of, quoted
from commonweight.footprints.footprint import FACTS, Footprint
from commonweight.footprints.slices import shape_of

MEASURE = "measure one with commonweight.fisher() or read one with Footprint.load(folder)"


@dataclass(frozen=True)
class LeftOut:
    """A parameter that is not compared, and why."""

    parameter: str
    reason: str

    def __str__(self) -> str:
        return f"{self.parameter} ({self.reason})"


@dataclass(frozen=True)
class Common:
    """What several footprints have in common: the parameters to compare, and those left out."""

    parameters: tuple[str, ...]
    """Equal name and shape in every footprint, in the order of the first."""

    left_out: tuple[LeftOut, ...]
    """The others; empty unless ``common_only``."""


def check_named(footprints: Mapping[str, Footprint], *unnamed: object, remedy: str = MEASURE) -> None:
    """Check that the argument is what it should be: at least two footprints by name."""
    if unnamed or not isinstance(footprints, Mapping):
        came = ", ".join(type(each).__name__ for each in (footprints, *unnamed))
        raise UsageError(
            "expected a mapping of names to footprints, such as {'a': f_a, 'b': f_b}, "
            f"got {came}; name the footprints"
        )
    if len(footprints) < 2:
        raise UsageError(f"expected at least two footprints to compare, got {len(footprints)}; add another")
    for name, footprint in footprints.items():
        if not isinstance(name, str) or not name:
            raise UsageError(
                f"a footprint's name must be a non-empty string, got {name!r}; name it by text, such as str(name)"
            )
        if not isinstance(footprint, Footprint):
            raise UsageError(f"{name!r} must be a Footprint, got {type(footprint).__name__}; {remedy}")


def common_parameters(footprints: Mapping[str, Footprint], *, common_only: bool = False) -> Common:
    """Check that kinds, Fisher types, losses and parameters agree, without reading the tensors of saved footprints."""
    kinds = {name: footprint.kind for name, footprint in footprints.items()}
    if differ(kinds):
        raise NotComparableError(
            f"footprints of different kinds cannot be compared: {by_value(kinds)}; pass footprints of one kind"
        )
    _check_rules(footprints)
    _check_bits(footprints)
    common = _split(footprints)
    differences = first_of(list(map(str, common.left_out)))
    if not common.parameters:
        raise NotComparableError(
            f"the footprints {quoted(footprints)} have no parameter of equal name and shape, "
            f"{differences}; no option compares them: measure the same parameters of models of one architecture"
        )
    if common.left_out and not common_only:
        count = len(common.parameters)
        raise NotComparableError(
            f"the footprints {quoted(footprints)} do not hold the same parameters, {differences}; "
            "expected equal names and shapes: measure models of one architecture, or pass {common_only} to compare "
            f"the {count} parameter{'' if count == 1 else 's'} with equal name and shape",
            common_only=True,
        )
    return common


def _check_rules(footprints: Mapping[str, Footprint]) -> None:
    differing = {}
    for key, words in FACTS.items():
        values = {name: footprint.metadata.get(key) for name, footprint in footprints.items()}
        if differ(values):
            differing[words] = by_value(values)
    if differing:
        differences = "; ".join(f"{words} differs: {shown}" for words, shown in differing.items())
        raise NotComparableError(
            f"the footprints {quoted(footprints)} were not measured alike, {differences}; measure them with "
            f"{' and '.join(f'one {words}' for words in differing)}"
        )


def _check_bits(footprints: Mapping[str, Footprint]) -> None:
    bits = {name: "flipped bits" if f.metadata.get("flipped") else "masks" for name, f in footprints.items()}
    if differ(bits):
        raise NotComparableError(
            f"masks and flipped bits cannot be compared: {by_value(bits)}; take all with flipped=True, or none"
        )


def _split(footprints: Mapping[str, Footprint]) -> Common:
    every = dict.fromkeys(name for footprint in footprints.values() for name in footprint.names)
    parameters: list[str] = []
    left_out: list[LeftOut] = []
    for parameter in every:
        holders = [name for name, footprint in footprints.items() if parameter in footprint]
        if len(holders) < len(footprints):
            left_out.append(LeftOut(parameter, f"only in {quoted(holders)}"))
            continue
        shapes = {name: list(shape_of(footprint.tensors, parameter)) for name, footprint in footprints.items()}
        if differ(shapes):
            left_out.append(LeftOut(parameter, f"shape differs: {by_value(shapes)}"))
        else:
            parameters.append(parameter)
    return Common(tuple(parameters), tuple(left_out))


def check_names(names: Sequence[str], *pairs: tuple[str, str]) -> None:
    """Check that pairs are what they should be."""
    for pair in pairs:
        wrong = isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != len(("a", "b"))
        if wrong or not all(isinstance(name, str) for name in pair):
            raise UsageError(
                f"expected pairs of two names each, such as ('a', 'b'), ('a', 'c'), got "
                f"{', '.join(map(repr, pairs))}; there are {', '.join(map(repr, names))}"
            )
