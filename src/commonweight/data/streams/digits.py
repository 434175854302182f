"""The embedded digits: 1797 images of 8 x 8 pixels, so that a stream needs no download. Source: ``digits.md``."""

from __future__ import annotations

from importlib.resources import files

import numpy as np
import torch

from commonweight.data.streams.images import Images

EVERY = 5
"""Of the images of a class, in the order of the file, each fifth is a test image."""


def digits() -> Images:
    """Open the embedded digits.

    Of every digit each fifth image, in the order of the source, is a test image: 355 of 1797. The 13 writers are in
    both parts.

    Returns:
        1442 training and 355 test images ``[1, 8, 8]`` of ten classes.

    Example:
        >>> len(digits().train), len(digits().test)
        (1442, 355)
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
