"""Scenarios that change the images and keep the labels: permuted, rotated, and a permuted central patch."""

from __future__ import annotations

import hashlib
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from commonweight.base.errors import UsageError
from commonweight.data.images.changes import Permutation, Rotation, Unchanged, cosine_and_sine
from commonweight.data.images.draws import Purpose, permutation
from commonweight.data.images.scenarios import Order, Recipe, Setting, checked_order, in_order, listed, whole

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


@dataclass(frozen=True)
class Permuted:
    """Every task has a pixel order of its own, drawn from the seed and the task; the labels stay.

    Source: Goodfellow et al. (2014), https://arxiv.org/abs/1312.6211.

    Args:
        first: Whether task 0 shows the images as they are, or permuted as well.

    Raises:
        UsageError: If ``first`` is another word.
    """

    first: Literal["identity", "permuted"] = "identity"
    name = "permuted"
    count = None

    def __post_init__(self) -> None:
        if self.first not in {"identity", "permuted"}:
            raise UsageError(f"first must be 'identity' or 'permuted', got {self.first!r}")

    @property
    def options(self) -> Mapping[str, Any]:
        """``first``."""
        return asdict(self)

    def recipe(self, setting: Setting, index: int) -> Recipe:
        """Draw the task's pixel order.

        Args:
            setting: The stream.
            index: The task.

        Returns:
            The recipe.
        """
        if index == 0 and self.first == "identity":
            return Recipe("identity", facts={"permutation": "identity"})
        _, height, width = setting.shape
        order = permutation(height * width, setting.seed, Purpose.PIXELS, index)
        return Recipe("permuted", Permutation(order), facts={"permutation": _digest(order)})

    def truth(self, setting: Setting) -> None:
        """Say nothing: no two tasks are known to be more alike than two others.

        Args:
            setting: The stream.
        """


@dataclass(frozen=True)
class Rotated:
    """Every task shows the images at an angle of its own, counter-clockwise; the labels stay.

    Args:
        max_angle: The largest angle, in degrees, above 0 and below 360; the angles lie evenly from 0 to it.
        angles: The angles themselves, one per task; they replace ``max_angle``.
        order: ``given``: as listed, or ascending. ``shuffled``: in an order drawn from the seed; then the previous task
            is not always the nearest.

    Raises:
        UsageError: If an angle or ``order`` is not as said.
    """

    max_angle: float = 180.0
    angles: tuple[float, ...] | None = None
    order: Order = "given"
    name = "rotated"

    def __post_init__(self) -> None:
        checked_order(self.order)
        if self.angles is not None:
            angles = listed("angles", self.angles)
            if not angles or not all(map(_is_finite, angles)):
                raise UsageError(f"angles must be finite numbers of degrees, one per task, got {angles}")
            object.__setattr__(self, "angles", tuple(map(float, angles)))
        elif not _is_finite(self.max_angle) or not 0 < self.max_angle < 360:
            raise UsageError(
                f"{{argument}} must lie between 0 and 360, both excluded, got {self.max_angle!r}; or give angles",
                argument="max_angle",
            )

    @property
    def count(self) -> int | None:
        """One task per given angle."""
        return None if self.angles is None else len(self.angles)

    @property
    def options(self) -> Mapping[str, Any]:
        """The angles, given or asked for, and their order."""
        if self.angles is not None:
            return {"angles": list(self.angles), "order": self.order}
        return {"max_angle": float(self.max_angle), "order": self.order}

    def recipe(self, setting: Setting, index: int) -> Recipe:
        """Make the task's rotation.

        Args:
            setting: The stream.
            index: The task.

        Returns:
            The recipe.
        """
        angle = self._angles(setting)[index]
        change = Unchanged() if angle % 360 == 0 else Rotation(angle, *setting.shape[1:])
        return Recipe(f"{angle:g}deg", change, facts={"angle": angle})

    def truth(self, setting: Setting) -> np.ndarray:
        """Compare the angles.

        Args:
            setting: The stream.

        Returns:
            The cosine of the angle between two tasks, to 12 decimals, so that equal angles tie: 1 at 0 degrees, 0 at
            90, -1 at 180.
        """
        angles = self._angles(setting)
        return np.array([[round(cosine_and_sine(abs(a - b))[0], 12) for b in angles] for a in angles])

    def _angles(self, setting: Setting) -> list[float]:
        if self.angles is not None:
            return in_order(list(self.angles), self.order, setting.seed)
        step = self.max_angle / max(1, setting.tasks - 1)
        return in_order([step * index for index in range(setting.tasks)], self.order, setting.seed)


@dataclass(frozen=True)
class Patched:
    """Every task permutes a central square of pixels, of a size of its own, and leaves the rest in place.

    Source: the networks of Kirkpatrick et al. (2017), https://arxiv.org/abs/1612.00796, figure 2C, which compare a
    small and a large central square.

    Args:
        sizes: Side of the square in pixels, one per task; None takes evenly spaced sizes from 0 to the shorter side of
            the images. A square of side 0 or 1 changes nothing. Where image and square do not share parity, the centre
            lies half a pixel up and left.
        order: ``given``: as listed, or ascending. ``shuffled``: in an order drawn from the seed.

    Raises:
        UsageError: If a size or ``order`` is not as said.
    """

    sizes: tuple[int, ...] | None = None
    order: Order = "given"
    name = "patch"

    def __post_init__(self) -> None:
        checked_order(self.order)
        if self.sizes is not None:
            given = listed("sizes", self.sizes)
            sizes = tuple(size for size in map(whole, given) if size is not None and size >= 0)
            if not given or len(sizes) < len(given):
                raise UsageError(f"sizes must be whole numbers of at least 0, one per task, got {given}")
            object.__setattr__(self, "sizes", sizes)

    @property
    def count(self) -> int | None:
        """One task per given size."""
        return None if self.sizes is None else len(self.sizes)

    @property
    def options(self) -> Mapping[str, Any]:
        """The sizes, if given, and their order."""
        return {"sizes": None if self.sizes is None else list(self.sizes), "order": self.order}

    def recipe(self, setting: Setting, index: int) -> Recipe:
        """Draw the order of the task's central pixels.

        Args:
            setting: The stream.
            index: The task.

        Returns:
            The recipe.

        Raises:
            UsageError: If the square does not fit into the images.
        """
        size = self._sizes(setting)[index]
        _, height, width = setting.shape
        if size > min(height, width):
            raise UsageError(
                f"a square of {size} pixels does not fit into images of {height} x {width}; give smaller sizes"
            )
        share = size * size / (height * width)
        if size < 2:
            return Recipe(f"patch{size}", facts={"patch": size, "share": share, "permutation": "identity"})
        top, left = (height - size) // 2, (width - size) // 2
        places = torch.arange(height * width).view(height, width)[top : top + size, left : left + size].flatten()
        order = torch.arange(height * width)
        order[places] = places[permutation(size * size, setting.seed, Purpose.PIXELS, index)]
        return Recipe(
            f"patch{size}", Permutation(order), facts={"patch": size, "share": share, "permutation": _digest(order)}
        )

    def truth(self, setting: Setting) -> np.ndarray:
        """Compare the squares.

        Args:
            setting: The stream.

        Returns:
            The share of pixels that lie outside both squares, and so are where they were in both tasks.
        """
        _, height, width = setting.shape
        areas = np.array([size * size if size > 1 else 0 for size in self._sizes(setting)], dtype=np.float64)
        known = 1 - np.maximum.outer(areas, areas) / (height * width)
        np.fill_diagonal(known, 1)
        return known

    def _sizes(self, setting: Setting) -> list[int]:
        if self.sizes is not None:
            return in_order(list(self.sizes), self.order, setting.seed)
        side, last = min(setting.shape[1:]), max(1, setting.tasks - 1)
        sizes = [(2 * side * index + last) // (2 * last) for index in range(setting.tasks)]
        return in_order(sizes, self.order, setting.seed)


def _is_finite(number: object) -> bool:
    return isinstance(number, (int, float, np.number)) and math.isfinite(number)


def _digest(order: Tensor) -> str:
    return hashlib.sha256(order.numpy().astype("<i8").tobytes()).hexdigest()[:16]
