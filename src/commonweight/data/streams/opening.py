"""Open images by name: the embedded digits, a folder, a file, or a Hugging Face id."""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from commonweight.data.streams.archive import npz_images
from commonweight.data.streams.digits import digits
from commonweight.data.streams.hugging_face import folder_images, hub_images, saved_images
from commonweight.data.streams.idx import idx_files, idx_images
from commonweight.data.suggest import nearby
from commonweight.errors import UsageError

if TYPE_CHECKING:
    from commonweight.data.streams.images import Images

DIGITS = "digits"


def open_images(
    spec: str | Path,
    *,
    image_column: str | None = None,
    label_column: str | None = None,
    test_split: str | None = None,
) -> Images:
    """Open labelled images in two parts, training and test.

    Args:
        spec: ``digits``, the embedded ones; a folder of idx files like MNIST's; a ``.npz`` file; a folder written by
            ``DatasetDict.save_to_disk``; a folder of image files (``train/CLASS/FILE``, ``test/CLASS/FILE``); or a
            Hugging Face id ``org/name:config@revision``. What exists on disk comes before an id; a folder that is
            called digits is ``./digits``.
        image_column: Column of images of a Hugging Face data set; None takes the only one.
        label_column: Column of labels of a Hugging Face data set; None takes ``label`` or ``labels``.
        test_split: Test part of a Hugging Face data set; None takes ``test``.

    Returns:
        The images.

    Raises:
        UsageError: If ``spec`` is no text or path, there is no such data set, it is not as said, or a column or split
            is named where there are none.
        IntegrityError: If a file is damaged.

    Example:
        >>> open_images("digits").shape
        (1, 8, 8)
    """
    if not isinstance(spec, str | os.PathLike):
        raise UsageError(
            f"expected 'digits', a folder, a .npz file or a Hugging Face id, got {type(spec).__name__}; save a "
            "DatasetDict with save_to_disk(folder) and open the folder, or make images of arrays and tensors with "
            "commonweight.data.streams.Images.of(...)"
        )
    choice = {"image_column": image_column, "label_column": label_column, "test_split": test_split}
    path = Path(spec).expanduser()
    plain = _plain(spec, path)
    if plain is not None:
        if asked := [name for name, value in choice.items() if value is not None]:
            raise UsageError(f"{spec} has no columns and no named splits; leave {', '.join(asked)} out")
        return plain
    if path.is_dir():
        name = path.resolve().name
        if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
            return saved_images(path, name, **choice)
        _check_not_above_idx(path)
        return folder_images(path, name, **choice)
    text = str(spec)
    close = nearby(text) or next(iter(difflib.get_close_matches(text, (DIGITS,), cutoff=0.75)), None)
    if path.exists() or close is not None or text.startswith((".", "/", "~")) or text.count("/") > 1 or path.suffix:
        meant = "." if close is None else f"; did you mean {close!r}?"
        raise UsageError(
            f"no images in {text!r}{meant} Give 'digits', a folder, a .npz file, or a Hugging Face id such as "
            "'org/name'"
        )
    return hub_images(text, text.partition("@")[0].partition(":")[0].rpartition("/")[2], **choice)


def _plain(spec: str | Path, path: Path) -> Images | None:
    """Open what has no columns; None if it is something else."""
    if spec == DIGITS:
        return digits()
    if path.is_file() and path.suffix == ".npz":
        return npz_images(path)
    return idx_images(path) if path.is_dir() and idx_files(path) else None


def _check_not_above_idx(folder: Path) -> None:
    below = next((inner for pattern in ("*/", "*/raw/") for inner in folder.glob(pattern) if idx_files(inner)), None)
    if below is not None:
        raise UsageError(f"{folder} has no idx files itself; did you mean {str(below)!r}?")
