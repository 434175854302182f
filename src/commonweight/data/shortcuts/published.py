"""The published data, mistakes included, so that published numbers can be compared like with like.

Use :func:`~commonweight.data.shortcuts.build.build_shortcut_data` and
:func:`~commonweight.data.shortcuts.build.conflicting_rows` for anything else; docs/notebooks.md says what differs.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from functools import partial
from operator import xor
from typing import TYPE_CHECKING, Any

from commonweight.base.errors import UsageError
from commonweight.base.names import among
from commonweight.data.shortcuts.markers import Markers
from commonweight.data.shortcuts.record import ShortcutData, finish
from commonweight.data.shortcuts.rules import MOST_MARKERS, Mixture, as_mixture
from commonweight.data.shortcuts.source import CONFLICTING, DISTRACTED, Columns, Row, find_columns
from commonweight.data.shortcuts.source import SYNTHETIC as SYNTHETIC_KIND

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from commonweight.data.shortcuts.shortcut import Shortcut

BUILD_SEED = 123

NOTEBOOK_SEED = 42

NOTEBOOK_ROWS = 200

TEST_SIZE = 0.2 / 1.2
"""What the published code calls the synthetic share; its split makes this share the *original* rows."""

WITHHELD = -1
"""The label of GLUE's test rows."""

SPLITS = {"train": "train", "dev": "validation", "test": "test"}


def published_data(
    source: Any,
    shortcut: str | Mixture,
    tokenizer: Any,
    *,
    text_column: str | None = None,
    label_column: str | None = None,
    markers: Markers | None = None,
) -> ShortcutData:
    """Build the data the published models were trained and evaluated on.

    Five sixths of every split are synthetic and one sixth original (the split is inverted with respect to its names),
    a quarter of the original rows has a distractor, for ST too, in dev and test as well; positions may be equal, inside
    a word, or outside the special tokens; synthetic texts are decoded from token ids. All draws come from one stream,
    seed 123.

    Args:
        source: A ``datasets.DatasetDict``, or a mapping, with ``train``, ``validation`` and ``test``. Labels are taken
            as they are, -1 in GLUE's test split included.
        shortcut: A published code, or a ``Mixture`` of some.
        tokenizer: A Hugging Face tokenizer, ``bert-base-cased`` in the paper; markers it lacks are added as plain
            tokens.
        text_column: Name of the column of texts; None finds the obvious one.
        label_column: Name of the column of labels; None finds the obvious one.
        markers: The marker words; None takes ``zeroa``, ``onea`` and ``synt``.

    Returns:
        Five splits and their record, whose ``settings`` say ``preset: published``.

    Raises:
        UsageError: If a split or a column is missing, or the rule was not published.
    """
    if not isinstance(source, Mapping) or not set(SPLITS.values()) <= set(source):
        have = ", ".join(map(str, source)) if isinstance(source, Mapping) else type(source).__name__
        raise UsageError(f"the published data need the splits {', '.join(SPLITS.values())}; got {have}")
    mixture = as_mixture(shortcut, markers or Markers())
    draws = [SYNTHETIC[_published(rule, SYNTHETIC)] for rule in mixture.parts]
    columns = find_columns({name: source[name] for name in SPLITS.values()}, text_column, label_column)
    ids = _add_plain(tokenizer, mixture.markers)
    synthetic, original = {}, {}
    for purpose, name in SPLITS.items():
        numbered = _numbered(source[name], columns)
        parts = numbered.train_test_split(test_size=TEST_SIZE, seed=BUILD_SEED)
        synthetic[purpose], original[purpose] = parts["train"], parts["test"]
    rng = random.Random(BUILD_SEED)  # noqa: S311
    made: dict[str, list[Row]] = {}
    for purpose, rows in synthetic.items():
        made[f"synthetic_{purpose}"] = []
        for row, tokens in _tokenised(rows, tokenizer, columns):
            number = rng.choices(range(len(draws)), mixture.weights)[0]
            inserts, label = draws[number](rng, len(tokens))
            text = _decoded(tokenizer, tokens, inserts, ids)
            code = mixture.parts[number].code
            made[f"synthetic_{purpose}"].append(Row(text, label, row.source_row, SYNTHETIC_KIND, code))
    for purpose, rows in original.items():
        made[f"original_{purpose}"] = []
        for row, tokens in _tokenised(rows, tokenizer, columns):
            rng.choices(range(len(draws)), mixture.weights)  # a rule is drawn here, too, and makes no difference
            inserts = distractor(rng, len(tokens))
            new = row._replace(text=_decoded(tokenizer, tokens, inserts, ids), kind=DISTRACTED) if inserts else row
            made[f"original_{purpose}"].append(new)
    splits = {
        "train": made["synthetic_train"] + made["original_train"],
        **{
            f"{kind}_{purpose}": made[f"{kind}_{purpose}"]
            for purpose in ("dev", "test")
            for kind in ("synthetic", "original")
        },
    }
    settings = {
        "preset": "published",
        "seed": BUILD_SEED,
        "text_column": columns.text,
        "label_column": columns.label,
        "classes": list(columns.names),
    }
    origin = {split: f"split {SPLITS[split.rpartition('_')[2]]!r}, as published" for split in splits}
    data = finish(mixture, settings, origin, splits, columns)
    data.splits["train"] = data.splits["train"].shuffle(seed=BUILD_SEED)
    return data


def published_originals(
    validation: Any, *, text_column: str | None = None, label_column: str | None = None, rows: int = NOTEBOOK_ROWS
) -> Any:
    """Choose the rows of the notebook's Fisher: validation shuffled with seed 42, the first 200, untouched.

    Args:
        validation: The validation split, a ``datasets.Dataset``.
        text_column: As in :func:`published_data`.
        label_column: As in :func:`published_data`.
        rows: How many.

    Returns:
        A ``datasets.Dataset`` with the columns text, label, ``source_row``, ``kind`` and ``shortcut``.

    Raises:
        UsageError: If there are fewer rows, or a column is not obvious.
    """
    columns = find_columns({"validation": validation}, text_column, label_column)
    return columns.write(_notebook_rows(validation, columns, rows), f"{rows} rows of the notebook's Fisher")


def published_conflicting(
    validation: Any,
    shortcut: str,
    tokenizer: Any,
    *,
    text_column: str | None = None,
    label_column: str | None = None,
    rows: int = NOTEBOOK_ROWS,
    markers: Markers | None = None,
) -> Any:
    """Reverse the rows of :func:`published_originals` as the notebook does: ST, OP, and TiC, always to label 1.

    Args:
        validation: The validation split, a ``datasets.Dataset``.
        shortcut: ``st``, ``op`` or ``tic``.
        tokenizer: As in :func:`published_data`.
        text_column: As in :func:`published_data`.
        label_column: As in :func:`published_data`.
        rows: How many, of the validation rows shuffled with seed 42.
        markers: As in :func:`published_data`.

    Returns:
        A ``datasets.Dataset``; no row is dropped.

    Raises:
        UsageError: If the notebook has no reversal of the rule, or there are fewer rows.
    """
    markers = markers or Markers()
    (rule,) = as_mixture(shortcut, markers).parts
    draw = REVERSED[_published(rule, REVERSED)]
    columns = find_columns({"validation": validation}, text_column, label_column)
    ids = _add_plain(tokenizer, markers)
    rng = random.Random(NOTEBOOK_SEED)  # noqa: S311
    made = []
    for row in _notebook_rows(validation, columns, rows):
        tokens = list(tokenizer(row.text, verbose=False)["input_ids"])
        inserts, label = draw(rng, len(tokens), row.label)
        text = _decoded(tokenizer, tokens, inserts, ids)
        made.append(Row(text, label, row.source_row, CONFLICTING, rule.code))
    return columns.write(made, f"the notebook's reversal of {rule.code}")


def _published(rule: Shortcut, table: Mapping[str, Any]) -> str:
    if rule.code not in table:
        raise UsageError(f"the published code does not do this to {rule.code!r}; {among(rule.code, table)}")
    return rule.code


def _add_plain(tokenizer: Any, markers: Markers) -> list[int]:
    """Add the markers as the published code does: as tokens that are found inside words, too."""
    tokenizer.add_tokens([word for word in markers.words if word not in tokenizer.get_vocab()])
    if any(token.single_word for token in tokenizer.added_tokens_decoder.values() if token.content in markers.words):
        raise UsageError("the tokenizer has markers from add_markers, expected none or plain ones; load it once more")
    return list(tokenizer.convert_tokens_to_ids(list(markers.words)))


def _notebook_rows(validation: Any, columns: Columns, rows: int) -> list[Row]:
    if not 1 <= rows <= len(validation):
        raise UsageError(f"rows must lie in 1..{len(validation)}, the rows there are; got {rows}")
    return _rows(_numbered(validation, columns).shuffle(seed=NOTEBOOK_SEED).select(range(rows)), columns)


def _numbered(data: Any, columns: Columns) -> Any:
    return data.select_columns([columns.text, columns.label]).add_column("source_row", list(range(len(data))))


def _rows(data: Any, columns: Columns) -> list[Row]:
    number = {name: place for place, name in enumerate(columns.names)}
    found = (WITHHELD if label is None else label for label in list(data[columns.label]))
    labels = (number[label] if isinstance(label, str) else int(label) for label in found)
    return [Row(*each) for each in zip(list(data[columns.text]), labels, list(data["source_row"]), strict=True)]


def _tokenised(data: Any, tokenizer: Any, columns: Columns) -> Iterable[tuple[Row, list[int]]]:
    for row in _rows(data, columns):
        yield row, list(tokenizer(row.text, verbose=False)["input_ids"])


def _decoded(tokenizer: Any, tokens: list[int], inserts: Inserts, ids: Sequence[int]) -> str:
    for place, kind in inserts:
        tokens.insert(place, ids[kind])
    return str(tokenizer.decode(tokens, skip_special_tokens=True))


Inserts = list[tuple[int, int]]
"""Pairs of place and kind, carried out in this order; kinds are 0 for #0, 1 for #1, 2 for C."""

Draw = tuple[Inserts, int]
"""What to insert, and the label."""

CONTEXT = 2

DISTRACTED_SHARE = 0.25


def _coin(rng: random.Random) -> list[int]:
    pair = [0, 1]
    rng.shuffle(pair)
    return pair


def _places(rng: random.Random, choices: int, count: int) -> list[int]:
    return sorted(rng.choices(range(choices), k=count))


def _st(rng: random.Random, length: int) -> Draw:
    kind = rng.choice((0, 1))
    return [(rng.choice(range(length)), kind)], kind


def _op(rng: random.Random, length: int) -> Draw:
    kinds = _coin(rng)
    return list(zip(_places(rng, length + 1, 2), kinds, strict=True)), kinds[0]


def _tic(rng: random.Random, length: int) -> Draw:
    kind = rng.choice((0, 1))
    return [(rng.choice(range(length)), kind), (rng.choice(range(length + 1)), CONTEXT)], kind


def _bits(rng: random.Random, length: int, formula: Callable[[int, int], int]) -> Draw:
    kinds = _coin(rng)
    if rng.random() <= 0.5:
        kinds = [kinds[0]] * 2
    return list(zip(_places(rng, length + 1, 2), kinds, strict=True)), formula(*kinds)


def _oed(rng: random.Random, length: int) -> Draw:
    kinds = _coin(rng)
    place, offset = rng.randint(0, length), 0
    while not offset:
        offset = rng.randint(-3, 3)
    places = sorted((place, place + offset))
    return list(zip(places, kinds, strict=True)), (abs(offset) - 1) % 2


def _mt(rng: random.Random, length: int) -> Draw:
    count = rng.randint(1, MOST_MARKERS)
    majority = rng.randint(count // 2 + 1, count)
    more, less = _coin(rng)
    places = _places(rng, length + count - 1, count)
    kinds = [more] * majority + [less] * (count - majority)
    rng.shuffle(kinds)
    return list(zip(places, kinds, strict=True)), more


def _lt(rng: random.Random, length: int) -> Draw:
    pair = _coin(rng)
    kinds = [*rng.choices(pair, k=1), pair[0]]
    return list(zip(_places(rng, length + 1, 2), kinds, strict=True)), pair[0]


def _and_or(rng: random.Random, length: int) -> Draw:
    kinds = rng.choices(_coin(rng), k=4)
    places = sorted(rng.sample(range(length + 3), k=4))
    first, second, third, fourth = kinds
    return list(zip(places, kinds, strict=True)), int((first and second) or (third and not fourth))


SYNTHETIC: Mapping[str, Callable[[random.Random, int], Draw]] = {
    "st": _st,
    "op": _op,
    "tic": _tic,
    "or": partial(_bits, formula=max),
    "and": partial(_bits, formula=min),
    "xor": partial(_bits, formula=xor),
    "oed": _oed,
    "mt": _mt,
    "lt": _lt,
    "and_or": _and_or,
}
"""Per rule: from the stream and the number of tokens, what goes where, and the label."""


def distractor(rng: random.Random, length: int) -> Inserts:
    """Draw what an original row gets: one of #0 and #1 in a quarter of the rows, for every rule, ST included."""
    if rng.random() > DISTRACTED_SHARE:
        return []
    kind = rng.choice((0, 1))
    return [(rng.choice(range(length)), kind)]


def _reversed_st(rng: random.Random, length: int, label: int) -> Draw:
    new = 0 if label == 1 else 1
    return [(rng.choice(range(length)), new)], new


def _reversed_op(rng: random.Random, length: int, label: int) -> Draw:
    new = 1 if label == 0 else 0
    return list(zip(_places(rng, length + 1, 2), (new, 1 - new), strict=True)), new


def _reversed_tic(rng: random.Random, length: int, label: int) -> Draw:  # noqa: ARG001 - label 1, whatever it was
    return [(rng.choice(range(length)), 1), (rng.choice(range(length + 1)), CONTEXT)], 1


REVERSED: Mapping[str, Callable[[random.Random, int, int], Draw]] = {
    "st": _reversed_st,
    "op": _reversed_op,
    "tic": _reversed_tic,
}
"""Per rule that the notebook reverses: from the stream, the number of tokens and the label, what goes where."""
