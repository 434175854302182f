"""What a table of overlaps answers: the question, two sentences, one small table; and all of it in every form."""

from __future__ import annotations

import json
import math
from itertools import combinations
from typing import TYPE_CHECKING

from commonweight.base.choices import STRUCTURES
from commonweight.base.records import without_nan
from commonweight.base.text import Block, Grid, number
from commonweight.footprints.footprint import IMPORTANCES
from commonweight.overlaps.table.evidence import ALIGNED
from commonweight.overlaps.table.numbers import WHOLE
from commonweight.report.answer import LINES, Answer, Result, short
from commonweight.report.verdicts import WITHOUT_FOLDS, contrasts_of, nulls_of, verdict_blocks, verdict_records
from commonweight.verdicts.rules import ABOVE, INCONCLUSIVE, LESS, MORE
from commonweight.verdicts.words import SHORT, sentence

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from commonweight.overlaps.table.table import OverlapTable
    from commonweight.report.verdicts import Contrast
    from commonweight.verdicts.evidence import Pair
    from commonweight.verdicts.verdict import Verdict

MOST_ROWS = LINES - 4
"""Rows of the small table, beside title, head and rule, and a line that says how many more there are."""

MOST_WARNINGS = 4
MOST_ASKED = 2
NO_SHARING = "They have no shared initialisation, so no overlap is sharing; "


def answer(
    table: OverlapTable, contrasts: Sequence[Contrast] = (), by: str | int = "layer", rest: Sequence[str] = ()
) -> Answer:
    """Say what a table of overlaps says, in one screen."""
    pairs = _pairs(table)
    one = len(table.names) == 2
    small = _by_layer(table, pairs[0], by) if one else _by_pair(table, pairs)
    asked = [contrast for contrast in contrasts if contrast.question]
    if asked:
        said = " ".join(f"{each.question} {_yes_or_no(table, each)}" for each in asked[:MOST_ASKED])
    else:
        said = _of_one(table, pairs[0]) if one else f"{_of_many(table, pairs)}{_clearest(table, contrasts)}"
    left = [f"--verbose answers {len(asked) - MOST_ASKED} more questions"] if len(asked) > MOST_ASKED else []
    return Answer(_question(table), said, small, _beware(table, pairs, contrasts), (*left, *rest))


def result(
    table: OverlapTable,
    contrasts: Sequence[Contrast] = (),
    by: str | int = "layer",
    *,
    beside: Sequence[Block] = (),
    rest: Sequence[str] = (),
) -> Result:
    """Give all of a table, with the answer and the verdicts, in every form; structures are layers of the table."""
    shown = table.roll_up(by) if isinstance(by, int) else table
    found = answer(table, contrasts, by, rest)
    nulls = nulls_of(shown) if _has_folds(shown) else {}
    verdicts = verdict_records(nulls | (contrasts_of(shown, contrasts) if nulls else {}))
    record = {"answer": found.record(), "verdicts": verdicts, **json.loads(shown.to_json())}
    lines = (
        f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False, allow_nan=False)}"
        for key, value in without_nan(record).items()
    )
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    blocks = [*table.blocks("layer" if by in STRUCTURES else by), *verdict_blocks(table, contrasts, by), *beside]
    return Result(found, blocks, text, _csv(shown, by, nulls))


def spoken(table: OverlapTable, name: str) -> str:
    """Name a footprint as a person would: ``rt on dev``; its plain name where it is of one thing."""
    model = table.alignment.models.get(name)
    if model is None or not name.startswith(f"{model}/"):
        return name
    models, data = set(table.alignment.models.values()), {each.partition("/")[2] for each in table.names}
    of = name[len(model) + 1 :]
    if len(models) == 1:
        return of
    return model if len(data) == 1 else f"{model} on {of}"


def spoken_pair(table: OverlapTable, pair: Pair) -> str:
    """Name a pair, and what both have in common once: ``rt and subj on dev``, ``dev and test in rt``."""
    models = table.alignment.models
    of = [name[len(models[name]) + 1 :] if name in models else name for name in pair]
    a, b = (models.get(name, name) for name in pair)
    if pair[0] not in models or len(set(models.values())) == 1 or len({n.partition("/")[2] for n in table.names}) == 1:
        return f"{spoken(table, pair[0])} and {spoken(table, pair[1])}"
    if a == b:
        return f"{of[0]} and {of[1]} in {a}"
    if of[0] == of[1]:
        return f"{a} and {b} on {of[0]}"
    return f"{a} on {of[0]}, {b} on {of[1]}"


def _pairs(table: OverlapTable) -> list[Pair]:
    """All pairs; those that differ in one thing, the model or the data, first."""
    models = table.alignment.models

    def differ(pair: Pair) -> int:
        if pair[0] not in models:
            return 0
        a, b = (models[name] for name in pair)
        return (a != b) + (pair[0][len(a) :] != pair[1][len(b) :])

    return sorted(combinations(table.names, 2), key=differ)


def _question(table: OverlapTable) -> str:
    models = set(table.alignment.models.values())
    shown = [spoken(table, name) for name in table.names]
    named = f"{', '.join(shown[:-1])} and {shown[-1]}" if len(shown) <= 4 else f"{len(shown)} footprints"
    if table.kind == "supermask":
        return f"Do the masks of {named} use the same weights?"
    if table.kind == "activity":
        return f"How alike are the batch-norm means of {named}?"
    if table.kind == "change":
        return f"Did the weights of {named} change the same way?"
    if models and len(models) < len(table.names):
        if len(models) == 1:
            return f"Does {next(iter(models))} use the same weights for {named}?"
        return f"Which of {len(models)} models on {len(table.names) // len(models)} data sets share the most weights?"
    return f"Which weights hold what {named} have in common?"


def _has_folds(table: OverlapTable) -> bool:
    return table.kind in IMPORTANCES and table.resampled is not None


def _interval(table: OverlapTable, pair: Pair, layer: str | None = None) -> str:
    found = table.estimate("corrected", *pair, layer)
    if math.isnan(found.value):
        return "undefined"
    return f"{number(found.value, 3)} [{number(found.low, 3)}, {number(found.high, 3)}]"


def _of_one(table: OverlapTable, pair: Pair) -> str:
    shown = [layer for layer in table.layers if not math.isnan(_value(table, pair, layer))]
    ranked = sorted(shown, key=lambda layer: _value(table, pair, layer))
    ends = ""
    if len(ranked) > 1:
        most, least = ranked[-1], ranked[0]
        ends = (
            f"; layer by layer the overlap goes from {number(_value(table, pair, least), 3)} ({_layer(least)}) to "
            f"{number(_value(table, pair, most), 3)} ({_layer(most)})"
        )
    if not _has_folds(table):
        whole = f"{number(_value(table, pair, None), 3)}{_beyond_chance(table, pair)}"
        return f"All weights together they overlap by {whole}{ends}."
    verdict = table.verdict(pair)
    null = table.estimate("null", *pair).value
    above = sum(table.verdict(pair, layer=layer).answer == ABOVE for layer in table.layers)
    said = {
        ABOVE: f"above the {number(null, 3)} of shuffled Fishers",
        INCONCLUSIVE: f"inconclusive against the {number(null, 3)} of shuffled Fishers",
    }.get(verdict.answer, f"not above the {number(null, 3)} of shuffled Fishers")
    begin = f"{NO_SHARING}with" if ALIGNED[table.shared_initialisation(*pair)] is False else "With"
    return (
        f"{begin} noise taken out they overlap by {_interval(table, pair)} (95 %): {said}. {above} of "
        f"{len(table.layers)} layers are above theirs{ends}."
    )


def _of_many(table: OverlapTable, pairs: Sequence[Pair]) -> str:
    defined = [pair for pair in pairs if not math.isnan(_value(table, pair, None))]
    if not defined:
        return "No overlap is defined."
    ranked = sorted(defined, key=lambda pair: _value(table, pair, None))
    most, least = ranked[-1], ranked[0]
    largest = f"{number(_value(table, most, None), 3)} ({spoken_pair(table, most)})"
    ends = (
        f"largest overlap{_beyond_chance(table, most)} is {largest}, "
        f"the smallest {number(_value(table, least, None), 3)} ({spoken_pair(table, least)})."
    )
    if not _has_folds(table):
        return f"The {ends}"
    above = sum(table.verdict(pair).answer == ABOVE for pair in pairs)
    return f"{above} of {len(pairs)} pairs overlap more than shuffled Fishers do: the {ends}"


def _clearest(table: OverlapTable, contrasts: Sequence[Contrast]) -> str:
    """Say how many contrasts of two pairs are decided, and which of them most clearly; nothing where there are none."""
    if not contrasts or not _has_folds(table):
        return ""
    judged = [(c, table.verdict(c.first, c.second, same_rows=c.same_rows)) for c in contrasts]
    decided = [(c, verdict) for c, verdict in judged if verdict.answer in {MORE, LESS}]
    said = f" {len(decided)} of {len(judged)} contrasts of two pairs {'is' if len(decided) == 1 else 'are'} decided"
    if not decided:
        return f"{said}."
    (first, second, *_), verdict = max(decided, key=lambda each: abs(each[1].estimate.value))
    if verdict.answer == LESS:
        first, second = second, first
    return (
        f"{said}{', the clearest' if len(decided) > 1 else ''}: {spoken_pair(table, first)} share more than "
        f"{spoken_pair(table, second)}, by {number(abs(verdict.estimate.value), 3)}."
    )


def _yes_or_no(table: OverlapTable, contrast: Contrast) -> str:
    verdict = table.verdict(contrast.first, contrast.second, same_rows=contrast.same_rows)
    estimate = verdict.estimate
    said = f"{estimate.value:+.3f} [{estimate.low:+.3f}, {estimate.high:+.3f}]"
    if verdict.answer == INCONCLUSIVE:
        why = sentence(verdict.lacking[0])
        return f"Inconclusive: {why}." if math.isnan(estimate.value) else f"Inconclusive ({said}): {why}."
    return f"{'Yes' if verdict.answer == MORE else 'No, less'}: {said}."


def _value(table: OverlapTable, pair: Pair, layer: str | None) -> float:
    is_corrected = _has_folds(table) or _beyond_chance(table, pair)
    return table.estimate("corrected" if is_corrected else "raw", *pair, layer).value


def _beyond_chance(table: OverlapTable, pair: Pair) -> str:
    """Words for two masks of which it is known what chance gives; nothing for others."""
    known = table.kind == "supermask" and not math.isnan(table.estimate("corrected", *pair).value)
    return " beyond chance" if known else ""


def cells(table: OverlapTable, pair: Pair, layer: str | None = None) -> tuple[str, ...]:
    """Write the cells of one pair, in the order of ``_head``."""
    if _has_folds(table):
        found = table.estimate("corrected", *pair, layer)
        verdict = table.verdict(pair, layer=layer)
        interval = "–" if math.isnan(found.low) else f"[{number(found.low, 3)}, {number(found.high, 3)}]"
        null = table.estimate("null", *pair, layer).value
        return number(found.value, 3), interval, number(null, 3), SHORT[verdict.answer]
    raw = number(table.estimate("raw", *pair, layer).value, 3)
    i, j = (table.names.index(name) for name in pair)
    if table.kind == "change":
        beside = [table.sign_agreement, table.norm_ratio]
        return raw, *(number(float((of.pooled if layer is None else of.by_layer[layer])[i, j]), 3) for of in beside)
    if table.kind != "supermask":
        return (raw,)
    chance = table.chance.pooled if layer is None else table.chance.by_layer[layer]
    return raw, number(float(chance[i, j]), 3), number(table.estimate("corrected", *pair, layer).value, 3)


def _head(table: OverlapTable) -> tuple[str, ...]:
    if _has_folds(table):
        return "corrected", "95 %", "null", "above?"
    heads = {"supermask": ("Jaccard", "by chance", "beyond"), "change": ("cosine", "sign agreement", "norm ratio")}
    return heads.get(table.kind, ("overlap",))


def _by_layer(table: OverlapTable, pair: Pair, by: str | int) -> Grid:
    """The layers of one pair, of as deep a roll-up as fits a screen where none is asked for."""
    depth = max(layer.count(".") + 1 for layer in table.layers)
    shown = table.roll_up(by) if isinstance(by, int) else table
    while by in {"layer", "parameter"} and len(shown.layers) > MOST_ROWS and depth > 1:
        depth -= 1
        shown = table.roll_up(depth)
    layers = shown.layers[:MOST_ROWS]
    rows = tuple((layer or WHOLE, *cells(shown, pair, layer)) for layer in layers)
    left = len(shown.layers) - len(layers)
    rest = f"; {left} more with --verbose" if left else ""
    word = by if by in STRUCTURES else "layer"
    title = f"Overlap of {spoken_pair(table, pair)}, {word} by {word}{rest}"
    return Grid(title, (str(word), *_head(table)), rows, ((WHOLE, *cells(table, pair)),))


def _by_pair(table: OverlapTable, pairs: Sequence[Pair]) -> Grid:
    shown = pairs[:MOST_ROWS]
    rows = tuple((spoken_pair(table, pair), *cells(table, pair)) for pair in shown)
    left = len(pairs) - len(shown)
    return Grid(
        f"Overlap of all weights together{f'; {left} more pairs with --verbose' if left else ''}",
        ("pair", *_head(table)),
        rows,
    )


def _beware(table: OverlapTable, pairs: Sequence[Pair], contrasts: Sequence[Contrast]) -> tuple[str, ...]:
    if table.kind not in IMPORTANCES:
        return ()
    aligned = {ALIGNED[table.shared_initialisation(*pair)] for pair in pairs}
    is_said = len(table.names) == 2 and False in aligned and _has_folds(table)  # by the answer
    is_fine = aligned == {True} and not table.alignment.strange_layers()
    strangers = () if is_said or is_fine else (table.alignment.sentence(),)
    if table.resampled is None:
        return (*strangers, WITHOUT_FOLDS)
    judged: list[Verdict] = [table.verdict(pair) for pair in pairs]
    judged += [table.verdict(c.first, c.second, same_rows=c.same_rows) for c in contrasts]
    found: dict[str, str] = {}
    for verdict in judged:
        for each in (*verdict.lacking, *verdict.beware):
            if each.code not in {"excludes 0", "same rows", "shared initialisation"}:
                found.setdefault(each.code, sentence(each))
    said = [f"{words[0].upper()}{words[1:]}." for words in found.values()]
    return (*strangers, *said[: MOST_WARNINGS - len(strangers)])


def _csv(table: OverlapTable, by: str | int, nulls: Mapping[str, Mapping[str | None, Verdict]]) -> str:
    """One row per layer and pair, without totals, at full precision; undefined is an empty field."""
    frame = table.to_frame("parameter") if by == "parameter" else table.to_frame()
    if by != "parameter":
        if nulls:
            keys = zip(frame["layer"], frame["a"], frame["b"], strict=True)
            frame = frame.assign(verdict=[nulls[f"{a} and {b}"][layer].answer for layer, a, b in keys])
        frame = frame.replace({"layer": {"": WHOLE}})
    return str(frame.to_csv(index=False, lineterminator="\n"))


def _layer(name: str) -> str:
    """Name a layer in a sentence."""
    return short(name or WHOLE)
