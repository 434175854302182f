r"""What one call of a layer contributes to a parameter's per-example gradients, before squaring.

A contribution stands for B gradients of one parameter, one per example, without holding them all. It can be merged
with others of the same parameter (a layer called twice, a head tied to an embedding), because contributions of one
example are summed **before** squaring, and it can add the sum of the squares to an accumulator:

.. math:: F \mathrel{+}= \sum_i g_i^2, \qquad t_i = \sum_w g_{i,w}^2 .

Names of sizes used throughout: B examples, T positions, M × N the parameter.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor
from typing_extensions import override

from commonweight.diagonal_fisher.accumulator import BLOCK, Workspace, is_transposed
from commonweight.diagonal_fisher.replay import RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ROWS = 256
"""Examples whose squares are held at a time."""

CHUNK = 2**19
"""Entries of per-example convolution kernels made at a time: more fall out of the processor's cache."""


class Contribution(ABC):
    """B gradients of one parameter."""

    @abstractmethod
    def square_into(self, total: Tensor, workspace: Workspace) -> Tensor:
        """Add the sum of squared gradients to an accumulator."""

    @classmethod
    @abstractmethod
    def merge(cls, parts: Sequence[Self]) -> Contribution:
        """Sum the gradients of several contributions, example by example."""


def combine(parts: Sequence[Contribution]) -> Contribution:
    """Sum contributions to one parameter, example by example."""
    if len(parts) == 1:
        return parts[0]
    products = [part for part in parts if isinstance(part, Product)]
    sparse = [part for part in parts if isinstance(part, Sparse)]
    if len(products) == len(parts):
        return Product.merge(products)
    if len(sparse) == len(parts):
        return Sparse.merge(sparse)
    if products and sparse and len(products) + len(sparse) == len(parts):
        return Tied(Product.merge(products), Sparse.merge(sparse))
    kind = type(parts[0])
    if any(type(part) is not kind for part in parts):
        raise RefusedError("uses of different kinds: " + ", ".join(sorted({type(part).__name__ for part in parts})))
    return kind.merge(parts)


@dataclass(frozen=True)
class Dense(Contribution):
    """Gradients held one by one, ``[B, *parameter]``: for vectors such as biases and norm weights."""

    gradients: Tensor

    @override
    def square_into(self, total: Tensor, workspace: Workspace) -> Tensor:
        squares = self.gradients.square()
        total.add_(squares.sum(0))
        return squares.flatten(1).sum(1)

    @override
    @classmethod
    def merge(cls, parts: Sequence[Self]) -> Dense:
        return cls(torch.stack([part.gradients for part in parts]).sum(0))


@dataclass(frozen=True)
class Product(Contribution):
    """Gradients that are products over positions, ``g_i = left_iᵀ right_i``: the weights of linear layers."""

    left: Tensor
    """``[B, T, M]``"""

    right: Tensor
    """``[B, T, N]``"""

    @override
    @classmethod
    def merge(cls, parts: Sequence[Self]) -> Product:
        if len(parts) == 1:
            return parts[0]
        return cls(torch.cat([part.left for part in parts], 1), torch.cat([part.right for part in parts], 1))

    @override
    def square_into(self, total: Tensor, workspace: Workspace) -> Tensor:
        spans = self._spans()
        if all(stop - start <= 1 for start, stop in spans):
            return self._square_single(total, [start for start, _ in spans])
        if total.device.type == "cuda":
            return self.square_in_chunks(total)
        size, positions, rows = self.left.shape
        columns = self.right.shape[2]
        # ‖leftᵀ right‖² = ⟨left leftᵀ, right rightᵀ⟩ costs T²(M + N); reading the product back costs M·N.
        by_gram = positions * positions * (rows + columns) <= 8 * rows * columns
        traces = self._traces_by_gram() if by_gram else total.new_zeros(size)
        wide = is_transposed(total)
        step = max(1, BLOCK // (rows if wide else columns))
        for first in range(0, columns if wide else rows, step):
            block = total[:, first : first + step] if wide else total[first : first + step]
            lefts = (self.left if wide else self.left[:, :, first : first + step]).transpose(1, 2).unbind()
            rights = (self.right[:, :, first : first + step] if wide else self.right).unbind()
            scratch = workspace.like(block)
            for i, (left, right, (start, stop)) in enumerate(zip(lefts, rights, spans, strict=True)):
                if stop <= start:
                    continue
                if stop - start < positions:
                    torch.mm(left[:, start:stop], right[start:stop], out=scratch)
                else:
                    torch.mm(left, right, out=scratch)
                block.addcmul_(scratch, scratch)
                if not by_gram:
                    flat = scratch.t().reshape(-1) if wide else scratch.reshape(-1)
                    traces[i] += torch.dot(flat, flat)
        return traces

    def square_in_chunks(self, total: Tensor, entries: int = 2**26) -> Tensor:
        """Add the sum of squared gradients, many examples in one batched product: for GPUs, where launches cost."""
        size, (rows, columns) = len(self.left), total.shape
        height = min(rows, max(1, entries // columns))
        count = max(1, entries // (height * columns))
        traces = total.new_zeros(size)
        for top in range(0, rows, height):
            for first in range(0, size, count):
                left, right = self.left[first : first + count, :, top : top + height], self.right[first : first + count]
                squares = torch.bmm(left.transpose(1, 2), right).square_()
                total[top : top + height] += squares.sum(0)
                traces[first : first + count] += squares.sum((1, 2))
        return traces

    def rows_of(self, example: int, rows: Tensor) -> Tensor:
        """Compute some rows of one example's gradient."""
        return self.left[example].index_select(1, rows).t() @ self.right[example]

    def _spans(self) -> list[tuple[int, int]]:
        """Per example, the positions that matter: padding has no gradient and is skipped (looked up on CPU only)."""
        size, positions, _ = self.left.shape
        if positions == 1 or self.left.device.type != "cpu":
            return [(0, positions)] * size
        if _nonzero(self.left[:, :: positions - 1]).all():  # first and last, of every example
            return [(0, positions)] * size
        used = _nonzero(self.left)
        ramp = torch.arange(1, positions + 1)
        stop = (used * ramp).amax(1)
        start = positions - (used * ramp.flip(0)).amax(1)
        return [(min(a, b), b) for a, b in zip(start.tolist(), stop.tolist(), strict=True)]

    def _square_single(self, total: Tensor, at: Sequence[int]) -> Tensor:
        """One position per example: Σ (l_i r_iᵀ)² is one matrix product of squares."""
        if self.left.shape[1] == 1:
            left, right = self.left[:, 0], self.right[:, 0]
        else:
            examples = torch.arange(len(at))
            positions = torch.tensor(at).clamp_max(self.left.shape[1] - 1)
            left, right = self.left[examples, positions], self.right[examples, positions]
        return torch.cat([
            _add_product(total, left[first : first + ROWS].square(), right[first : first + ROWS].square())
            for first in range(0, len(left), ROWS)
        ])

    def _traces_by_gram(self) -> Tensor:
        left = torch.bmm(self.left, self.left.transpose(1, 2))
        right = torch.bmm(self.right, self.right.transpose(1, 2))
        return (left * right).sum((1, 2)).clamp_min(0)


class OnePosition:
    """Products of several passes over one forward pass, one position each: ``Σ_c (l_c rᵀ)² = (Σ_c l_c²) (r²)ᵀ``."""

    def __init__(self, product: Product) -> None:
        self._right = product.right
        self._squares = product.left[:, 0].square()

    def take(self, product: Product) -> bool:
        """Add another pass, if its right side is the very same input."""
        one, other = self._right, product.right
        if one.data_ptr() != other.data_ptr() or (one.shape, one.stride()) != (other.shape, other.stride()):
            return False
        self._squares.addcmul_(product.left[:, 0], product.left[:, 0])
        return True

    def square_into(self, total: Tensor) -> Tensor:
        """Add the sum of squared gradients to an accumulator."""
        return torch.cat([
            _add_product(total, squares, right.square())
            for squares, right in zip(self._squares.split(ROWS), self._right[:, 0].split(ROWS), strict=True)
        ])


def _nonzero(rows: Tensor) -> Tensor:
    """Tell which rows hold anything but zeros; nan counts."""
    return ~((rows.amax(-1) == 0) & (rows.amin(-1) == 0))


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Add products of squares, ``[B, M]`` and ``[B, N]``, and give their traces."""
    total.addmm_(left.t(), right)
    return left.sum(1) * right.sum(1)


@dataclass(frozen=True)
class Sparse(Contribution):
    """Gradients with few non-zero rows, sorted by example, each (example, row) once: embeddings."""

    size: int
    """B"""

    examples: Tensor
    """``[U]``, ascending"""

    rows: Tensor
    """``[U]``"""

    values: Tensor
    """``[U, N]``"""

    @classmethod
    def from_uses(cls, size: int, examples: Tensor, rows: Tensor, values: Tensor, row_count: int) -> Sparse:
        """Sum repeated uses of a row by the same example."""
        keys, inverse = torch.unique(examples * row_count + rows, return_inverse=True)
        summed = values.new_zeros(len(keys), values.shape[1]).index_add_(0, inverse, values)
        return cls(size, keys // row_count, keys % row_count, summed)

    @override
    @classmethod
    def merge(cls, parts: Sequence[Self]) -> Sparse:
        if len(parts) == 1:
            return parts[0]
        rows = torch.cat([part.rows for part in parts])
        examples = torch.cat([part.examples for part in parts])
        count = int(rows.max()) + 1 if len(rows) else 1
        return cls.from_uses(parts[0].size, examples, rows, torch.cat([part.values for part in parts]), count)

    @override
    def square_into(self, total: Tensor, workspace: Workspace) -> Tensor:
        squares = self.values.square()
        total.index_add_(0, self.rows, squares)
        return total.new_zeros(self.size).index_add_(0, self.examples, squares.sum(1))


@dataclass(frozen=True)
class Tied(Contribution):
    """A matrix used as a linear weight and as an embedding: ``(h + e)² = h² + e(2h + e)``, e non-zero in few rows."""

    head: Product
    embedding: Sparse

    @override
    @classmethod
    def merge(cls, parts: Sequence[Self]) -> Tied:
        return cls(Product.merge([part.head for part in parts]), Sparse.merge([part.embedding for part in parts]))

    @override
    def square_into(self, total: Tensor, workspace: Workspace) -> Tensor:
        traces = self.head.square_into(total, workspace)
        bounds = torch.searchsorted(self.embedding.examples, torch.arange(self.embedding.size + 1).to(traces.device))
        for i, (start, stop) in enumerate(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)):
            if stop > start:
                rows, e = self.embedding.rows[start:stop], self.embedding.values[start:stop]
                change = e * (2 * self.head.rows_of(i, rows) + e)
                total.index_add_(0, rows, change)
                traces[i] += change.sum()
        # h² + e(2h + e) is a square, and rounding may leave it a hair below zero.
        total.clamp_min_(0)
        return traces.clamp_min(0)


@dataclass(frozen=True)
class Kernel(Contribution):
    """Gradients computed a few examples at a time by a function, for convolutions."""

    gradients: tuple[Callable[[int, int], Tensor], ...]
    """Each gives the gradients of examples ``first`` to ``stop``, ``[stop - first, *parameter]``; they are summed."""

    size: int
    """B"""

    @override
    @classmethod
    def merge(cls, parts: Sequence[Self]) -> Kernel:
        return cls(tuple(function for part in parts for function in part.gradients), parts[0].size)

    @override
    def square_into(self, total: Tensor, workspace: Workspace) -> Tensor:
        step = max(1, min(16, CHUNK // total.numel()))
        traces = []
        for first in range(0, self.size, step):
            stop = min(first + step, self.size)
            gradients = self.gradients[0](first, stop)
            for more in self.gradients[1:]:
                gradients = gradients + more(first, stop)
            if len(gradients) == 1:
                total.addcmul_(gradients[0], gradients[0])
                traces.append(torch.dot(gradients.reshape(-1), gradients.reshape(-1)).view(1))
            else:
                squares = gradients.square_()
                total.add_(squares.sum(0))
                traces.append(squares.flatten(1).sum(1))
                del squares
            del gradients
        return torch.cat(traces)
