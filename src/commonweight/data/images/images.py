"""Labelled images in two parts, training and test: what every task of a stream is made from."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np
import torch

from commonweight.base.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

CHANNELS = (1, 3)
"""How many channels an array of four dimensions may have; tells channels-first from channels-last."""

MOST_NAMED = 12
"""Classes that a message names."""


@dataclass(frozen=True, eq=False)
class Images:
    """Training and test images with their labels.

    Bytes stay bytes: a task turns them into floats when its inputs are asked for.

    Args:
        train: ``[n, channels, height, width]``, uint8 from 0 to ``brightest``, or float32 from 0 to 1.
        train_labels: ``[n]``, int64, positions in ``classes``.
        test: Like ``train``, with the same channels, height and width.
        test_labels: Like ``train_labels``.
        classes: Names of the classes, each of which has a training image.
        name: A short name for records.
        brightest: The byte that becomes 1. For floats it is 1.

    Raises:
        UsageError: If shapes, types or values are not as said.

    Example:
        >>> pixels = torch.zeros(4, 1, 2, 2, dtype=torch.uint8)
        >>> images = Images(pixels, torch.tensor([0, 1, 0, 1]), pixels[:2], torch.tensor([0, 1]), ("0", "1"), "blank")
        >>> images.shape
        (1, 2, 2)
    """

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor
    classes: tuple[str, ...]
    name: str
    brightest: int = 255

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.shape))
        return f"Images({self.name}: {len(self.train)} and {len(self.test)} of {shape}, {len(self.classes)} classes)"

    def __post_init__(self) -> None:
        if len(self.classes) < 2:
            raise UsageError(f"{self.name} needs at least two classes, got {len(self.classes)}")
        for part in ("train", "test"):
            where = f"{self.name} ({part})"
            pixels, labels = getattr(self, part), getattr(self, f"{part}_labels")
            _check_pixels(where, pixels, self.brightest)
            _check_labels(where, labels, len(pixels), len(self.classes))
        used = set(self.train_labels.tolist())
        if empty := [name for number, name in enumerate(self.classes) if number not in used]:
            raise UsageError(
                f"{self.name} has no training image of {_some(empty)}; leave such classes out, and count labels "
                "without gaps: Images.of(...) does it where no classes are given"
            )
        if self.train.shape[1:] != self.test.shape[1:] or self.train.dtype != self.test.dtype:
            raise UsageError(
                f"{self.name} has training images {list(self.train.shape[1:])} of {self.train.dtype} and test images "
                f"{list(self.test.shape[1:])} of {self.test.dtype}; bring both parts to one shape and type"
            )
        if self.train.dtype == torch.float32 and self.brightest != 1:
            object.__setattr__(self, "brightest", 1)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one image."""
        channels, height, width = self.train.shape[1:]
        return channels, height, width

    @cached_property
    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each channel over all training images, on the scale from 0 to 1."""
        parts = [_moments(self.train[:, channel], self.brightest) for channel in range(self.shape[0])]
        return tuple(mean for mean, _ in parts), tuple(deviation for _, deviation in parts)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of pixels, labels, class names and ``brightest``: equal exactly for equal data."""
        found = hashlib.sha256(repr((self.classes, self.brightest)).encode())
        for tensor in (self.train, self.train_labels, self.test, self.test_labels):
            found.update(repr((tensor.dtype, tuple(tensor.shape))).encode())
            found.update(tensor.contiguous().numpy().data)
        return found.hexdigest()

    @classmethod
    def of(
        cls,
        train: np.ndarray | Tensor,
        train_labels: Sequence[int] | np.ndarray | Tensor,
        test: np.ndarray | Tensor,
        test_labels: Sequence[int] | np.ndarray | Tensor,
        *,
        classes: Sequence[str] | None = None,
        name: str = "arrays",
        brightest: int = 255,
    ) -> Images:
        """Take arrays or tensors as they come.

        Args:
            train: ``[n, height, width]``, ``[n, height, width, channels]`` or ``[n, channels, height, width]``; bytes,
                or floats from 0 to 1.
            train_labels: ``[n]`` (or ``[n, 1]``) whole numbers from 0.
            test: Like ``train``.
            test_labels: Like ``train_labels``.
            classes: Names of the classes; None calls them by the training labels, and counts labels with gaps anew,
                with a warning: of 3, 7 and 9 the first becomes 0, and its class is called ``3``.
            name: A short name for records.
            brightest: The byte that becomes 1.

        Returns:
            The images.

        Raises:
            UsageError: If an array is none of these, or it cannot be told which dimension holds the channels.

        Example:
            >>> Images.of(np.zeros((4, 5, 6)), [0, 1, 0, 1], np.zeros((2, 5, 6)), [0, 1]).shape
            (1, 5, 6)
        """
        labels = [
            _as_labels(f"{name} ({part})", given) for part, given in (("train", train_labels), ("test", test_labels))
        ]
        if classes is None:
            classes, labels[0], labels[1] = without_gaps(name, labels[0], labels[1])
        pixels = [_as_pixels(f"{name} ({part})", given) for part, given in (("train", train), ("test", test))]
        return cls(pixels[0], labels[0], pixels[1], labels[1], tuple(classes), name, brightest)


def without_gaps(
    name: str, train: Tensor, test: Tensor, classes: Sequence[str] | None = None
) -> tuple[tuple[str, ...], Tensor, Tensor]:
    """Leave out classes without training images, count the labels anew where that leaves gaps, and warn of it."""
    used = train.unique()
    least, most = (int(used[0]), int(used[-1])) if len(used) else (0, -1)
    if least < 0:
        raise UsageError(f"{name} has labels from {least} to {most}; expected 0 to {most}")
    names = tuple(str(label) if classes is None else classes[label] for label in used.tolist())
    if len(used) == (most + 1 if classes is None else len(classes)):
        return names, train, test
    if stray := test[~torch.isin(test, used)].unique().tolist():
        labels = ", ".join(map(str, stray[:MOST_NAMED]))
        raise UsageError(f"{name} (test) has labels that no training image has, such as {labels}; leave such rows out")
    warnings.warn(
        f"{name} has training images of {_some(names)} alone: these {len(names)} classes are counted from 0 in this "
        "order, and there are no others",
        stacklevel=3,
    )
    return names, torch.searchsorted(used, train), torch.searchsorted(used, test)


def _some(names: Sequence[str]) -> str:
    """Name classes, and say how many there are beyond the first few."""
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f"{'class' if len(names) == 1 else 'classes'} {', '.join(names[:MOST_NAMED])}{more}"


def _as_pixels(where: str, given: np.ndarray | Tensor) -> Tensor:
    pixels = _tensor(where, given)
    if pixels.dtype.is_floating_point:
        pixels = pixels.float()
    if pixels.dim() == 3:
        return pixels[:, None]
    if pixels.dim() != 4:
        raise UsageError(
            f"{where} has images of shape {list(pixels.shape)}; expected [n, height, width], "
            "[n, height, width, channels] or [n, channels, height, width]"
        )
    first, last = pixels.shape[1] in CHANNELS, pixels.shape[3] in CHANNELS
    if first == last:
        raise UsageError(
            f"{where} has images of shape {list(pixels.shape)}, and it cannot be told which dimension holds the "
            f"channels (1 or 3 of them); build Images(...) from tensors [n, channels, height, width] instead"
        )
    return pixels if first else pixels.permute(0, 3, 1, 2).contiguous()


def _as_labels(where: str, given: Sequence[int] | np.ndarray | Tensor) -> Tensor:
    labels = _tensor(where, given)
    if labels.dim() == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.dtype.is_floating_point or labels.dtype == torch.bool:
        raise UsageError(f"{where} has labels of {labels.dtype}; expected whole numbers from 0")
    return labels.to(torch.int64)


def _tensor(where: str, given: Sequence[int] | np.ndarray | Tensor) -> Tensor:
    if isinstance(given, torch.Tensor):
        return given.detach().cpu()
    array = np.asarray(given)
    if array.dtype.kind not in "biuf":
        raise UsageError(f"{where} has an array of {array.dtype}; expected numbers")
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    return torch.from_numpy(native if native.flags.writeable and native.flags.c_contiguous else native.copy())


def _check_pixels(where: str, pixels: Tensor, brightest: int) -> None:
    if pixels.dim() != 4 or 0 in pixels.shape:
        raise UsageError(
            f"{where} has images of shape {list(pixels.shape)}; expected [n, channels, height, width], none of them 0"
        )
    if pixels.dtype not in {torch.uint8, torch.float32}:
        raise UsageError(f"{where} has images of {pixels.dtype}; expected uint8, or float32 from 0 to 1")
    lowest, highest = (float(value) for value in torch.aminmax(pixels))
    most = brightest if pixels.dtype == torch.uint8 else 1
    if not (lowest >= 0 and highest <= most):
        remedy = "give brightest" if pixels.dtype == torch.uint8 else "scale the images to 0..1, or give bytes"
        raise UsageError(f"{where} has values from {lowest:g} to {highest:g}; expected 0 to {most}: {remedy}")


def _check_labels(where: str, labels: Tensor, rows: int, classes: int) -> None:
    if labels.dtype != torch.int64 or labels.shape != (rows,):
        raise UsageError(
            f"{where} has {rows} images and labels of {labels.dtype} {list(labels.shape)}; expected one int64 per image"
        )
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0 or highest >= classes:
        raise UsageError(f"{where} has labels from {lowest} to {highest}; expected 0 to {classes - 1}")


def _moments(pixels: Tensor, brightest: int) -> tuple[float, float]:
    """Mean and standard deviation of one channel; bytes are counted, so that the sums are exact."""
    if pixels.dtype == torch.uint8:
        counts = torch.bincount(pixels.flatten(), minlength=256).double()
        values = torch.arange(256, dtype=torch.float64) / brightest
    else:
        values = pixels.flatten().double()
        counts = torch.ones(1, dtype=torch.float64).expand(len(values))
    total = counts.sum()
    mean = (counts * values).sum() / total
    return float(mean), float(((counts * (values - mean) ** 2).sum() / total).sqrt())


EVERY = 5
"""Of the images of a class, in the order of the file, each fifth is a test image."""


def digits() -> Images:
    """Open the embedded digits: 1442 training and 355 test images ``[1, 8, 8]`` of ten classes.

    Of every digit each fifth image, in the order of the source, is a test image. The 13 writers are in both parts.

    Returns:
        The images.
    """
    with files(__package__).joinpath("digits.npz").open("rb") as file, np.load(file, allow_pickle=False) as stored:
        pixels, labels = stored["images"][:, None], stored["labels"].astype(np.int64)
    earlier = np.zeros(len(labels), dtype=np.int64)  # images of the same digit before this one
    for digit in range(10):
        places = np.flatnonzero(labels == digit)
        earlier[places] = np.arange(len(places))
    is_test = earlier % EVERY == EVERY - 1
    train, test = (torch.from_numpy(pixels[part]) for part in (~is_test, is_test))
    train_labels, test_labels = (torch.from_numpy(labels[part]) for part in (~is_test, is_test))
    return Images(train, train_labels, test, test_labels, tuple(map(str, range(10))), "digits", brightest=16)
