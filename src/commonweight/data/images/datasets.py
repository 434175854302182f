"""Images in a pair of PyTorch data sets: each row an image and a label, read once and kept."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
import torch
from torch.utils.data import Dataset, IterableDataset

from commonweight.base.errors import UsageError
from commonweight.data.images.hugging_face import DEEP, GREY
from commonweight.data.images.images import CHANNELS, Images, without_gaps

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor


def is_pair(spec: object) -> TypeGuard[tuple[Dataset[Any], Dataset[Any]]]:
    """Tell whether something is a training and a test data set."""
    return isinstance(spec, tuple | list) and len(spec) == 2 and all(isinstance(part, Dataset) for part in spec)


def dataset_images(train: Any, test: Any) -> Images:
    """Read every row of both through their own transforms, which therefore may not be random."""
    name = type(train).__name__
    (pixels, labels), (test_pixels, test_labels) = (
        _read(f"{name} ({part})", rows) for part, rows in (("train", train), ("test", test))
    )
    names = _classes(train, int(labels.max()))
    classes, labels, test_labels = without_gaps(name, labels, test_labels, names)
    return Images(pixels, labels, test_pixels, test_labels, classes, name)


def _read(where: str, rows: Any) -> tuple[Tensor, Tensor]:
    images: list[Tensor] = []
    labels: list[int] = []
    for place, row in enumerate(_each(rows)):
        if not isinstance(row, tuple | list) or len(row) < 2:
            raise UsageError(f"row {place} of {where} is a {type(row).__name__}; expected a pair (image, label)")
        image = _image(f"row {place} of {where}", row[0])
        if images and image.shape != images[0].shape:
            raise UsageError(
                f"row {place} of {where} has an image of shape {list(image.shape)}, the first row "
                f"{list(images[0].shape)}; bring the images to one shape with a transform"
            )
        images.append(image)
        labels.append(_label(f"row {place} of {where}", row[1]))
    if not images:
        raise UsageError(f"{where} has no rows; expected at least one image")
    return torch.stack(images), torch.tensor(labels)


def _each(rows: Any) -> Iterator[Any]:
    return iter(rows) if isinstance(rows, IterableDataset) else (rows[place] for place in range(len(rows)))


def _image(where: str, image: Any) -> Tensor:
    """``[channels, height, width]``, as tensors come; PIL images and arrays have their channels last."""
    if _is_picture(image):
        if image.mode in DEEP:
            raise UsageError(f"{where} has an image of mode {image.mode}; expected one of 8 bits per value")
        image = np.array(image.convert("L" if image.mode in GREY else "RGB"))
    channels_last = isinstance(image, np.ndarray)
    pixels = torch.from_numpy(image) if isinstance(image, np.ndarray) else image
    if isinstance(pixels, torch.Tensor) and pixels.dim() in {2, 3}:
        found = pixels.detach().cpu()
        found = found[None] if found.dim() == 2 else found.permute(2, 0, 1) if channels_last else found
        if found.shape[0] in CHANNELS:
            return found.float() if found.is_floating_point() else found
    shape = f" of shape {list(image.shape)}" if isinstance(pixels, torch.Tensor) else ""
    raise UsageError(
        f"{where} has a {type(image).__name__}{shape} as image; expected a PIL image, a tensor [channels, height, "
        "width] or an array [height, width, channels], with 1 or 3 channels"
    )


def _is_picture(image: object) -> bool:
    """Tell whether something is a PIL image, without importing PIL."""
    pil = sys.modules.get("PIL.Image")
    return pil is not None and isinstance(image, pil.Image)


def _label(where: str, label: Any) -> int:
    if isinstance(label, torch.Tensor | np.ndarray | np.generic) and label.ndim == 0:
        label = label.item()
    if isinstance(label, bool) or not isinstance(label, int):
        raise UsageError(f"{where} has the label {label!r}; expected a whole number from 0")
    return label


def _classes(train: Any, most: int) -> Sequence[str] | None:
    """Take the names of the classes where the data set has one for each label, as those of torchvision have."""
    names = getattr(train, "classes", None)
    if not isinstance(names, list | tuple) or len(names) <= most:
        return None
    return [str(each) for each in names]
