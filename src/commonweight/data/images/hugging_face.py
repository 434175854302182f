"""Images in Hugging Face data sets: a saved ``DatasetDict``, a folder of image files, or an id."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from commonweight.base.errors import IntegrityError, UsageError
from commonweight.base.names import among
from commonweight.data import columns
from commonweight.data.images.images import Images, without_gaps
from commonweight.data.table import Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

GREY = ("1", "L")
DEEP = ("I", "F", "I;16", "I;16B", "I;16L")
"""Modes of more than 8 bits per value."""


def saved_images(folder: Path, name: str, **choice: str | None) -> Images:
    """Read a folder written by ``DatasetDict.save_to_disk``."""
    import datasets

    try:
        found = datasets.load_from_disk(str(folder))
    except (OSError, ValueError, KeyError) as error:
        raise IntegrityError(f"the saved data set in {folder} cannot be read: {error}") from error
    if not isinstance(found, datasets.DatasetDict):
        raise UsageError(
            f"{folder} holds a single split; expected a DatasetDict with train and test (train_test_split)"
        )
    return split_images(found, name, **choice)


def folder_images(folder: Path, name: str, **choice: str | None) -> Images:
    """Read image files in folders: ``train/CLASS/FILE`` and ``test/CLASS/FILE``."""
    import datasets

    try:
        found = datasets.load_dataset("imagefolder", data_dir=str(folder))
    except (OSError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"{folder} has neither idx files nor a saved data set, and cannot be read as folders of image files "
            f"(train/CLASS/FILE, test/CLASS/FILE): {error}"
        ) from error
    return split_images(found, name, **choice)


def split_images(
    splits: Mapping[str, Any],
    name: str,
    *,
    image_column: str | None = None,
    label_column: str | None = None,
    test_split: str | None = None,
) -> Images:
    """Read the images of two splits."""
    test = "test" if test_split is None else test_split
    for split in ("train", test):
        if split not in splits:
            raise UsageError(
                f"{name} has no split {split!r}; {among(split, splits)}; name the test part with {{test_split}}",
                test_split=None,
            )
    _check_pillow()
    parts = [splits["train"], splits[test]]
    image = _image_column(name, parts[0], image_column)
    label = columns.label_column(Table(name, parts[0], (), {}), label_column)
    arrays = [_arrays(f"{name} ({split})", rows, image) for split, rows in zip(("train", test), parts, strict=True)]
    in_colour = any(array.ndim == 3 for part in arrays for array in part)
    train, test_pixels = (_stacked(part, in_colour=in_colour) for part in arrays)
    classes = _classes(name, parts[0], label)
    train_labels, test_labels = (_labels(name, rows, label, classes) for rows in parts)
    classes, train_labels, test_labels = without_gaps(name, train_labels, test_labels, classes)
    return Images(train, train_labels, test_pixels, test_labels, classes, name)


def _check_pillow() -> None:
    try:
        import PIL.Image  # noqa: F401
    except ImportError as error:
        raise UsageError("reading image files needs Pillow, which is not installed: pip install pillow") from error


def _image_column(name: str, rows: Any, asked: str | None) -> str:
    import datasets

    found: list[str] = [column for column, feature in rows.features.items() if isinstance(feature, datasets.Image)]
    if asked is not None:
        if asked not in found:
            raise UsageError(f"{name} has no column of images {asked!r}; {among(asked, found)}")
        return asked
    if len(found) != 1:
        raise UsageError(
            f"{name} has {len(found)} columns of images; name one with {{image_column}}: {among('image', found)}",
            image_column=None,
        )
    return found[0]


def _arrays(where: str, rows: Any, column: str) -> list[np.ndarray]:
    """Per row ``[height, width]`` or ``[height, width, 3]``, uint8, all of one height and width."""
    found: list[np.ndarray] = []
    values = rows.select_columns([column])
    for row in range(len(rows)):
        try:
            image = values[row][column]
            if image is None or image.mode in DEEP:
                came = "no image" if image is None else f"an image of mode {image.mode}"
                raise UsageError(f"row {row} of {where} has {came}; expected one of 8 bits per value")
            array = np.asarray(image.convert("L" if image.mode in GREY else "RGB"))
        except OSError as error:
            raise UsageError(f"row {row} of {where} has an image that cannot be read: {error}") from error
        if found and array.shape[:2] != found[0].shape[:2]:
            raise UsageError(
                f"row {row} of {where} has {array.shape[0]} x {array.shape[1]} pixels, the first row "
                f"{found[0].shape[0]} x {found[0].shape[1]}; bring the images to one size"
            )
        found.append(array)
    if not found:
        raise UsageError(f"{where} has no rows; expected at least one image")
    return found


def _stacked(arrays: Sequence[np.ndarray], *, in_colour: bool) -> Tensor:
    if not in_colour:
        return torch.from_numpy(np.stack(arrays))[:, None]
    colour = [array if array.ndim == 3 else np.repeat(array[..., None], 3, axis=2) for array in arrays]
    return torch.from_numpy(np.stack(colour)).permute(0, 3, 1, 2).contiguous()


def _classes(name: str, rows: Any, column: str) -> tuple[str, ...]:
    names = getattr(rows.features[column], "names", None)
    if names:
        return tuple(names)
    values = set(rows[column])
    if all(isinstance(value, str) for value in values):
        return tuple(sorted(values))
    if all(isinstance(value, int) and not isinstance(value, bool) and value >= 0 for value in values):
        return tuple(map(str, range(max(values) + 1)))
    raise UsageError(f"column {column!r} of {name} holds neither names nor whole numbers from 0 alone; correct it")


def _labels(name: str, rows: Any, column: str, classes: tuple[str, ...]) -> Tensor:
    numbers = {label: number for number, label in enumerate(classes)}
    found: list[int] = []
    for row, value in enumerate(rows[column]):
        number = numbers.get(value) if isinstance(value, str) else value
        if number is None or not 0 <= number < len(classes):
            raise UsageError(
                f"row {row} of {name} has the label {value!r} in column {column!r}; expected one of the {len(classes)} "
                f"classes of the training part ({among(str(value), classes)})"
            )
        found.append(number)
    return torch.tensor(found, dtype=torch.int64)
