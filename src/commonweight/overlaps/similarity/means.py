"""How alike tasks are, layer by layer, from batch-norm statistics: with a null for each value."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from commonweight.base import text
from commonweight.base.errors import IntegrityError, UsageError
from commonweight.base.names import Named
from commonweight.base.records import Format, record_of, sealed, without_nan
from commonweight.base.seeds import checked_seed
from commonweight.base.text import Block, Grid, number
from commonweight.footprints.footprint import by_layer
from commonweight.overlaps.compatible import check_named
from commonweight.overlaps.table.files import as_matrix
from commonweight.overlaps.table.numbers import frozen
from commonweight.overlaps.table.table import overlap

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pandas as pd
    from numpy.typing import ArrayLike, NDArray

    from commonweight.base.choices import SimilarityName
    from commonweight.footprints.footprint import Footprint

    Array = NDArray[np.float64]

Given = Literal["given"]

LEVEL = 0.05
POINT = 0.95
DRAWS = 999
_TIE = 1e-9

MAKE = (
    "make one with activity_footprint(net, task), or of means of your own with "
    "Footprint('activity', {'LAYER.running_mean': mean}, count=0)"
)
"""How to come by an activity footprint."""

WORDS: dict[SimilarityName | Given, str] = {
    "given": "computed elsewhere",
    "first_layer": "absolute cosine of the first layer's batch-norm means",
    "every_layer": "absolute cosine of the batch-norm means",
    "probed": "rows: new data, columns: the task through whose mask they went",
}
TRAINED = "Every task was trained before its similarity was known: count that training when results are compared."
UNTRAINED = "No training on the new data was needed."
NULL = "A star marks what is no better than its null: at least 5 % of shuffles of the units reach it."

SIMILARITIES = Format("commonweight-similarity", (2,), "a table of similarities", "compute them again")
MATRICES = {"similarity": "values", "null": "null", "p": "p"}
"""Keys of a record, and the fields that they hold."""

TASKS_AT_A_TIME = 16
"""Rows of the null that are in memory together: 32 MB for 250 tasks and 999 shuffles."""

NUMBERS_AT_A_TIME = 1 << 16
"""Shuffled numbers that are made together: half a MB, which stays in cache."""


@dataclass(frozen=True, eq=False, repr=False)
class TaskSimilarity:
    """Similarities of tasks per layer, in [0, 1]; row = the task asked about, column = the one it is compared with.

    Undefined is nan: an untrained task, a zero vector, a pair that was not measured.

    Example:
        >>> from torch import tensor
        >>> from commonweight.footprints.footprint import Footprint
        >>> def activity(*means):
        ...     return Footprint("activity", {"bn.running_mean": tensor(means)}, count=0)
        >>> found = first_layer_similarity({"a": activity(1.0, 0.0), "b": activity(-2.0, 0.0), "c": activity(0.0, 1.0)})
        >>> found.values["bn"].tolist()
        [[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """

    approach: SimilarityName | Given
    """``first_layer``, ``every_layer`` or ``probed``; ``given`` where it was computed elsewhere."""

    tasks: tuple[str, ...]
    """In the order they were learned; of rows and columns."""

    layers: tuple[str, ...]
    """Batch norms, in the order of the model."""

    values: Mapping[str, Array]
    """Per layer ``[n, n]``."""

    null: Mapping[str, Array]
    """Per layer the similarity ``[n, n]`` that 95 % of shuffles of the units stay under."""

    p: Mapping[str, Array]
    """Per layer the share of shuffles ``[n, n]`` that reach the similarity; up to 0.05 it is better than its null."""

    def __post_init__(self) -> None:
        for matrices in (self.values, self.null, self.p):
            for matrix in matrices.values():
                frozen(matrix)

    @classmethod
    def of_matrices(cls, tasks: Sequence[str], values: Mapping[str, ArrayLike]) -> TaskSimilarity:
        """Make a table of similarities that were computed elsewhere; it has no nulls.

        Args:
            tasks: Their names, in the order they were learned.
            values: Layer -> ``[n, n]``, row = the task asked about; nan is undefined.

        Returns:
            The table, for :func:`commonweight.transfer_alphas` with ``null=False``.

        Raises:
            UsageError: If a matrix is not n times n.

        Example:
            >>> found = TaskSimilarity.of_matrices(("a", "b"), {"bn1": [[1.0, 0.4], [0.4, 1.0]]})
            >>> found.values["bn1"][1, 0], found.beats_null("bn1")[1, 0]
            (np.float64(0.4), np.False_)
        """
        n = len(tasks)
        found = {layer: np.array(matrix, dtype=np.float64) for layer, matrix in values.items()}
        for layer, matrix in found.items():
            if matrix.shape != (n, n):
                raise UsageError(f"expected {n} x {n} similarities of {n} tasks in {layer!r}, got {matrix.shape}")
        unknown = {layer: np.full((n, n), np.nan) for layer in found}
        return cls("given", tuple(tasks), tuple(found), found, unknown, {k: v.copy() for k, v in unknown.items()})

    def __repr__(self) -> str:
        return f"TaskSimilarity({self.approach} of {', '.join(self.tasks)}; {len(self.layers)} layers)"

    def beats_null(self, layer: str) -> NDArray[np.bool_]:
        """Tell which similarities of a layer are better than their null.

        Args:
            layer: A batch norm.

        Returns:
            ``[n, n]``: p is at most 0.05; False where undefined.
        """
        return np.asarray(self.p[layer] <= LEVEL)  # nan is not

    def to_frame(self) -> pd.DataFrame:
        """Give one row per layer and ordered pair of different tasks.

        Returns:
            Columns ``layer``, ``task``, ``other``, ``similarity``, ``null``, ``p``; undefined is nan.
        """
        import pandas as pd

        count = range(len(self.tasks))
        rows = [
            (layer, self.tasks[i], self.tasks[j], *(each[layer][i, j] for each in (self.values, self.null, self.p)))
            for layer in self.layers
            for i in count
            for j in count
            if i != j
        ]
        return pd.DataFrame(rows, columns=["layer", "task", "other", "similarity", "null", "p"])

    def to_json(self) -> str:
        """Write the similarities as JSON; nan is null.

        Returns:
            Text that :meth:`from_json` reads back without loss.
        """
        record = {
            "format": SIMILARITIES.name,
            "version": SIMILARITIES.versions[0],
            "approach": self.approach,
            "tasks": self.tasks,
            "layers": [
                {"layer": layer} | {key: getattr(self, field)[layer].tolist() for key, field in MATRICES.items()}
                for layer in self.layers
            ],
        }
        return json.dumps(sealed(without_nan(record)), indent=1, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, written: str) -> TaskSimilarity:
        """Read back what :meth:`to_json` wrote.

        Args:
            written: The JSON text.

        Returns:
            The similarities.

        Raises:
            IntegrityError: If the text is not such a record, whole and of this format version.
        """
        record = record_of(written, "the table of similarities", SIMILARITIES, ())
        try:
            return cls(**_fields(record))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise IntegrityError(
                f"the similarities are damaged or were edited by hand ({error!r}): compute them again"
            ) from None

    def to_markdown(self, decimals: int = 4) -> str:
        """Write the similarities for people: a matrix per layer, what beats its null, how they were measured.

        Args:
            decimals: Digits after the point, from 1 to 9.

        Returns:
            GitHub Markdown. Undefined is a dash; a star marks what is no better than its null.

        Raises:
            UsageError: If ``decimals`` is out of range.
        """
        return text.to_markdown(self._blocks(decimals))

    def _repr_html_(self) -> str:
        return text.to_html(self._blocks())

    def _blocks(self, decimals: int = 4) -> list[Block]:
        every = range(len(self.tasks))

        def cell(layer: str, i: int, j: int) -> str:
            value = self.values[layer][i, j]
            weak = i != j and value == value and not self.beats_null(layer)[i, j]
            return number(value, decimals) + ("*" if weak else "")

        grids = [
            Grid(
                f"Similarity of tasks at {layer}: {WORDS[self.approach]}",
                ("", *self.tasks),
                tuple((self.tasks[i], *(cell(layer, i, j) for j in every)) for i in every),
            )
            for layer in self.layers
        ]
        return [*grids, NULL, UNTRAINED if self.approach == "probed" else TRAINED]


def first_layer_similarity(
    footprints: Mapping[str, Footprint], *unnamed: Footprint, seed: int = 0, draws: int = DRAWS
) -> TaskSimilarity:
    r"""Compare tasks by the batch-norm means of the first layer: :math:`|\cos(\mu_a, \mu_b)|`, the classic approach.

    It needs every task trained, the current one included, since each is seen through its own mask: so it measures data
    and masks together. The same data under two independent masks of density p give about p, not 1. It depends on how
    inputs are normalised: with pixels in [0, 1] all mean images are alike.

    Args:
        footprints: At least two of kind ``activity``, by task, in the order the tasks were learned.
        *unnamed: None: without names footprints are refused.
        seed: Of the null's shuffles.
        draws: How many of them.

    Returns:
        The similarities of the first layer; symmetric.

    Raises:
        UsageError: If they are not such footprints, ``seed`` is below 0, or ``draws`` below 19.
        NotComparableError: If they differ in kind or in layers.
        MeasurementError: If an entry is not finite.
    """
    check_named(footprints, *unnamed, remedy=MAKE)
    return _by_means(footprints, "first_layer", seed, draws)


def every_layer_similarity(
    footprints: Mapping[str, Footprint], *unnamed: Footprint, seed: int = 0, draws: int = DRAWS
) -> TaskSimilarity:
    r"""Compare tasks by the batch-norm means of every layer: :math:`|\cos(\mu_a^l, \mu_b^l)|`, the novel approach.

    As :func:`first_layer_similarity`, layer by layer. Behind the first layer the inputs are activations of normalised
    units, much the same for every task: there the value follows the overlap of the masks more than the data.

    Args:
        footprints: At least two of kind ``activity``, by task, in the order the tasks were learned.
        *unnamed: None: without names footprints are refused.
        seed: Of the null's shuffles.
        draws: How many of them.

    Returns:
        The similarities; symmetric.

    Raises:
        UsageError: If they are not such footprints, ``seed`` is below 0, or ``draws`` below 19.
        NotComparableError: If they differ in kind or in layers.
        MeasurementError: If an entry is not finite.
    """
    check_named(footprints, *unnamed, remedy=MAKE)
    return _by_means(footprints, "every_layer", seed, draws)


def check_shuffles(seed: int, draws: int) -> None:
    """Refuse a seed that is none, and too few shuffles."""
    checked_seed(seed)
    if isinstance(draws, bool) or not isinstance(draws, int) or draws < round(1 / LEVEL) - 1:
        raise UsageError(f"draws must be a whole number of at least 19, to show a 95 % point, got {draws!r}")


def _by_means(footprints: Mapping[str, Footprint], approach: SimilarityName, seed: int, draws: int) -> TaskSimilarity:
    check_shuffles(seed, draws)
    first = next(iter(footprints.values()))
    if first.kind != "activity":
        raise UsageError(
            f"expected footprints of kind activity, got {first.kind}; make them with activity_footprint(net, task)"
        )
    table = overlap(footprints)
    owned = by_layer(table.terms)
    chosen = table.layers[:1] if approach == "first_layer" else table.layers
    values, null, p = {}, {}, {}
    for index, layer in enumerate(chosen):
        rows = _directions(footprints, owned[layer])
        values[layer] = np.abs(table.by_layer[layer])
        null[layer], p[layer] = _null_of(rows, values[layer], (seed, index), draws)
    named = (Named("layer", matrices) for matrices in (values, null, p))
    return TaskSimilarity(approach, table.names, tuple(chosen), *named)


def _null_of(rows: Array, observed: Array, seed: tuple[int, ...], draws: int) -> tuple[Array, Array]:
    """Shuffle a few tasks at a time, all with the same shuffles: all at once would take gigabytes for hundreds."""
    null, p = np.empty_like(observed), np.empty_like(observed)
    columns = np.ascontiguousarray(rows.T)
    for start in range(0, len(rows), TASKS_AT_A_TIME):
        part = slice(start, start + TASKS_AT_A_TIME)

        def shuffled(orders: NDArray[np.intp], part: slice = part) -> Array:
            return np.asarray(np.abs(rows[part] @ columns[orders]))

        null[part], p[part] = permutation_null(shuffled, rows.shape, observed[part], seed, draws)
    lower = np.tril_indices(len(rows), -1)  # the null of a pair is that of its earlier task
    for matrix in (null, p):
        matrix[lower] = matrix.T[lower]
    return null, p


def permutation_null(
    similarity: Callable[[NDArray[np.intp]], Array],
    shape: tuple[int, int],
    observed: Array,
    seed: tuple[int, ...],
    draws: int,
) -> tuple[Array, Array]:
    """Compare similarities with those of shuffled units: the 95 % point, and the share that reaches them."""
    # ``similarity`` takes shuffles [d, units] and gives [d, *observed]; ``shape`` is that of what it shuffles, [rows,
    # units], from which follows how many shuffles are made together.
    # Shuffling keeps everything a vector is made of and takes away only which unit is which. A similarity that
    # shuffled units have too says nothing about the tasks: two vectors of positive numbers are alike whatever they are.
    generator = np.random.default_rng(seed)
    rows, units = shape
    at_a_time = max(1, NUMBERS_AT_A_TIME // max(1, rows * units))
    parts = []
    for start in range(0, draws, at_a_time):
        unshuffled = np.tile(np.arange(units), (min(at_a_time, draws - start), 1))
        parts.append(similarity(generator.permuted(unshuffled, axis=1)))
    values = np.concatenate(parts)
    reached = (values >= observed - _TIE).sum(axis=0)
    p = np.where(np.isnan(observed), np.nan, (1 + reached) / (1 + draws))
    return np.asarray(np.quantile(values, POINT, axis=0)), p


def _directions(footprints: Mapping[str, Footprint], names: Sequence[str]) -> Array:
    """Scale the vectors of a layer to length 1, ``[n, units]``; a zero vector becomes nan."""
    X = np.stack([
        np.concatenate([footprint[name].detach().double().cpu().numpy().reshape(-1) for name in names])
        for footprint in footprints.values()
    ])
    lengths = np.linalg.norm(X, axis=1, keepdims=True)
    return np.asarray(X / np.where(lengths > 0, lengths, np.nan))


def _fields(record: dict[str, Any]) -> dict[str, Any]:
    tasks = tuple(str(task) for task in record["tasks"])
    layers = tuple(str(each["layer"]) for each in record["layers"])
    if record["approach"] not in WORDS or len(set(tasks)) != len(tasks) or len(set(layers)) != len(layers):
        raise ValueError("approach, tasks or layers")
    matrices = {
        field: Named("layer", {str(each["layer"]): as_matrix(each[key], len(tasks)) for each in record["layers"]})
        for key, field in MATRICES.items()
    }
    return {"approach": record["approach"], "tasks": tasks, "layers": layers, **matrices}
