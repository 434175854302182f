"""What a task may do to every image: another order of the pixels, or a rotation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from torch import Tensor


Change = Callable[[torch.Tensor], torch.Tensor]
"""Turns images into images of the same shape, each row by itself."""


@dataclass(frozen=True, eq=False)
class Permutation:
    """Orders the pixels of every image anew, all channels alike.

    Args:
        order: ``[height * width]``, int64: pixel ``i`` of the result is pixel ``order[i]`` of the image, counted row by
            row.

    Example:
        >>> turned = Permutation(torch.tensor([3, 2, 1, 0]))(torch.tensor([[[[0.1, 0.2], [0.3, 0.4]]]]))
        >>> turned.flatten().tolist() == torch.tensor([0.4, 0.3, 0.2, 0.1]).tolist()
        True
    """

    order: Tensor

    def __call__(self, images: Tensor) -> Tensor:
        """Order the pixels."""
        pixels = np.take(images.reshape(*images.shape[:2], -1).numpy(), self.order.numpy(), axis=2)
        return torch.from_numpy(pixels).view(images.shape)


class Rotation:
    """Rotates every image counter-clockwise about its centre, with bilinear interpolation; outside is 0.

    Multiples of 90 degrees of a square image move whole pixels: the result is exact, and equals ``torch.rot90``.

    Args:
        degrees: The angle.
        height: Pixels of a column.
        width: Pixels of a row.

    Example:
        >>> Rotation(90, 2, 2)(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])).tolist()
        [[[[2.0, 4.0], [1.0, 3.0]]]]
    """

    def __init__(self, degrees: float, height: int, width: int) -> None:
        cosine, sine = cosine_and_sine(degrees)
        down, right = torch.meshgrid(
            torch.arange(height, dtype=torch.float64) - (height - 1) / 2,
            torch.arange(width, dtype=torch.float64) - (width - 1) / 2,
            indexing="ij",
        )
        # where each pixel of the result comes from: its place turned back by the angle (rows count downwards)
        row = cosine * down + sine * right + (height - 1) / 2
        column = cosine * right - sine * down + (width - 1) / 2
        top, left = row.floor(), column.floor()
        self._neighbours: list[tuple[Tensor, Tensor]] = []
        for y, weight_y in ((top, top + 1 - row), (top + 1, row - top)):
            for x, weight_x in ((left, left + 1 - column), (left + 1, column - left)):
                inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
                weight = torch.where(inside, weight_y * weight_x, 0.0).flatten()
                if weight.any():
                    place = torch.where(inside, y * width + x, 0.0).flatten()
                    self._neighbours.append((place.long(), weight.float()))

    def __call__(self, images: Tensor) -> Tensor:
        """Rotate."""
        pixels = images.flatten(2)
        turned = torch.zeros_like(pixels)
        for place, weight in self._neighbours:
            turned += torch.from_numpy(np.take(pixels.numpy(), place.numpy(), axis=2)).mul_(weight)
        return turned.view(images.shape)


def cosine_and_sine(degrees: float) -> tuple[float, float]:
    """Compute both of an angle in degrees, exactly 0, 1 or -1 at multiples of 90 degrees."""
    quarters, rest = divmod(degrees, 90.0)
    cosine, sine = (1.0, 0.0) if rest == 0 else (math.cos(math.radians(rest)), math.sin(math.radians(rest)))
    for _ in range(int(quarters) % 4):
        cosine, sine = 0.0 - sine, cosine
    return cosine, sine
