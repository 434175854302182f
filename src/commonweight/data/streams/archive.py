"""Images in one ``.npz`` file of NumPy arrays; nothing in it is executed."""

from __future__ import annotations

import zipfile
import zlib
from typing import TYPE_CHECKING

import numpy as np

from commonweight.data.streams.images import Images
from commonweight.errors import IntegrityError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

NAMES = (
    ("train_images", "train_labels", "test_images", "test_labels"),
    ("x_train", "y_train", "x_test", "y_test"),
)
"""The two ways of naming the four arrays."""


def npz_images(file: Path, *, name: str | None = None) -> Images:
    """Read images from a ``.npz`` file.

    Args:
        file: Holds ``train_images``, ``train_labels``, ``test_images`` and ``test_labels``, or ``x_train``,
            ``y_train``, ``x_test`` and ``y_test``; shapes as for :meth:`Images.of`.
        name: A name for records; None takes the file's stem.

    Returns:
        The images.

    Raises:
        UsageError: If an array is missing, or is not as :meth:`Images.of` says.
        IntegrityError: If the file is damaged, or an array holds Python objects.
    """
    arrays = _arrays(file)
    names = next((names for names in NAMES if set(names) <= set(arrays)), None)
    if names is None:
        raise UsageError(
            f"{file} has the arrays {', '.join(arrays) or 'none'}; expected {', '.join(NAMES[0])}, or "
            f"{', '.join(NAMES[1])}"
        )
    train, train_labels, test, test_labels = (arrays[key] for key in names)
    return Images.of(train, train_labels, test, test_labels, name=name or file.stem)


def _arrays(file: Path) -> dict[str, np.ndarray]:
    wanted = {key for names in NAMES for key in names}
    try:
        with file.open("rb") as stream, np.lib.npyio.NpzFile(stream, allow_pickle=False) as stored:
            # what is not wanted is not read: it may be of any kind
            return {key: stored[key] if key in wanted else np.empty(0) for key in stored.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise IntegrityError(f"{file} cannot be read as a .npz file of plain arrays: {error}") from error
