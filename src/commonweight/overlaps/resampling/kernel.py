"""The sums over folds of a large parameter, compiled by numba: sums of folds, their roots, and products of these.

A part of a row of all folds and footprints is worked on at a time, so that all that is made of it stays in cache.
Numbers are float32 until a sum of them goes to float64.
"""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from commonweight.overlaps.resampling.splits import Design

    Array = NDArray[Any]

WIDTH = 512
"""Columns that are worked on at a time."""

RUN = 64
"""Rows whose roots are summed before they go to float64: of equal ones more would be off by above 1e-6."""

AT_A_TIME = 4
"""Folds that are added at a time."""


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    compiler = partial(njit, nogil=True, fastmath={"reassoc", "contract", "nsz"}, error_model="numpy")
    try:
        return compiler(cache=True)(function)
    except RuntimeError:  # what was compiled can be kept nowhere, in a container that is read only
        return compiler()(function)


def add_sums(
    design: Design,
    known: int,
    column: int,
    S: Tensor,
    traces: Tensor,
    full: Tensor,
    half: Tensor,
    over_rows: Tensor,
    over_columns: Tensor,
) -> None:
    """Add the sums of some rows of a parameter, or of parts of them, to tensors in float64.

    Args:
        design: What is summed and multiplied.
        known: How many footprints, from the first, are not multiplied by each other: their products are known.
        column: Where S begins in the rows of ``over_rows``.
        S: ``[n, K, rows, columns]``, at least 0.
        traces: ``[K, n]``.
        full: ``[K, n, n]``.
        half: ``[splits, products, n, n]``.
        over_rows: ``[splits, slots, n, C]``, roots summed over rows; nothing is added if C is 0.
        over_columns: ``[splits, slots, n, rows]``, roots summed over columns.
    """
    tensors = (S, traces, full, half, over_rows, over_columns)
    _add_sums(*_members(design), known, column, *(each.numpy() for each in tensors))


@cache
def _members(design: Design) -> tuple[Array, Array, Array, Array]:
    """Write a design as arrays, in which sums have their folds four by four; fold K stands for none."""
    K = len(design.without)

    def filled(parts: Sequence[Sequence[int]]) -> list[list[int]]:
        length = -(-max(map(len, parts)) // AT_A_TIME) * AT_A_TIME
        return [[*part, *[K] * (length - len(part))] for part in parts]

    slots = np.array([filled(parts) for parts in design.slots])
    return np.array(filled(design.without)), slots, np.array(design.left), np.array(design.right)


@_compiled
def _take_roots(folds: Array, parts: Array, i: int, out: Array, over_rows: Array, over_columns: Array, w: int) -> None:
    """Take roots of sums of folds ``[K + 1, n, w]`` of a footprint, and add them to sums over rows and columns."""
    for slot in range(len(parts)):
        total = np.float32(0)
        last = parts.shape[1] - AT_A_TIME
        for first in range(0, last, AT_A_TIME):
            a, b, c, d = parts[slot, first], parts[slot, first + 1], parts[slot, first + 2], parts[slot, first + 3]
            for x in range(w):
                before = out[slot, i, x] if first else np.float32(0)
                out[slot, i, x] = before + folds[a, i, x] + folds[b, i, x] + folds[c, i, x] + folds[d, i, x]
        a, b, c, d = parts[slot, last], parts[slot, last + 1], parts[slot, last + 2], parts[slot, last + 3]
        for x in range(w):
            before = out[slot, i, x] if last else np.float32(0)
            root = np.sqrt(before + folds[a, i, x] + folds[b, i, x] + folds[c, i, x] + folds[d, i, x])
            out[slot, i, x] = root
            over_rows[slot, i, x] += root
            total += root
        over_columns[slot, i] += total


@_compiled
def _add_products(x: Array, y: Array, known: int, w: int, products: Array) -> None:
    """Add products of rows of x with rows of y to ``[n, n]``, of two rows with two at a time."""
    n = len(x)
    for i in range(0, n, 2):
        a, b = x[i], x[min(i + 1, n - 1)]
        for j in range(known - known % 2 if i + 1 < known else 0, n, 2):
            c, d = y[j], y[min(j + 1, n - 1)]
            ac = ad = bc = bd = np.float32(0)
            for at in range(w):
                ac += a[at] * c[at]
                ad += a[at] * d[at]
                bc += b[at] * c[at]
                bd += b[at] * d[at]
            products[i, j] += ac
            if j + 1 < n:
                products[i, j + 1] += ad
            if i + 1 < n:
                products[i + 1, j] += bc
                if j + 1 < n:
                    products[i + 1, j + 1] += bd


@_compiled
def _add_sums(
    without: Array,
    slots: Array,
    left: Array,
    right: Array,
    known: int,
    column: int,
    S: Array,
    traces: Array,
    full: Array,
    half: Array,
    over_rows: Array,
    over_columns: Array,
) -> None:
    n, K, rows, columns = S.shape
    folds = np.zeros((K + 1, n, WIDTH), np.float32)
    roots = np.empty((max(K, slots.shape[1]), n, WIDTH), np.float32)
    some_rows = np.empty((len(slots), slots.shape[1], n, WIDTH), np.float32)
    unused = np.zeros((K, n, WIDTH), np.float32), np.zeros((K, n))
    for start in range(0, columns, WIDTH):
        w = min(WIDTH, columns - start)
        for top in range(0, rows, RUN):
            some_rows[:] = 0
            for row in range(top, min(rows, top + RUN)):
                is_used = False
                for k in range(K):
                    for i in range(n):
                        fold, entries, trace = folds[k, i], S[i, k, row], np.float32(0)
                        for x in range(w):
                            fold[x] = entries[start + x]
                            trace += entries[start + x]
                        traces[k, i] += trace
                        is_used = is_used or bool(trace > 0)
                if not is_used:  # a row of an embedding that no example read adds 0 to every sum
                    continue
                for i in range(n):
                    _take_roots(folds, without, i, roots, *unused, w)
                for k in range(K):
                    _add_products(roots[k], roots[k], known, w, full[k])
                for split in range(len(slots)):
                    for i in range(n):
                        _take_roots(folds, slots[split], i, roots, some_rows[split], over_columns[split, :, :, row], w)
                    for product in range(len(left)):
                        x, y = roots[left[product]], roots[right[product]]
                        _add_products(x, y, known, w, half[split, product])
            if over_rows.shape[3]:
                for split in range(len(slots)):
                    for slot in range(slots.shape[1]):
                        for i in range(n):
                            for x in range(w):
                                over_rows[split, slot, i, column + start + x] += some_rows[split, slot, i, x]
