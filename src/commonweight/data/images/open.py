"""Open images by name: the embedded digits, idx and .npz files, a folder, or a Hugging Face id."""

from __future__ import annotations

import difflib
import gzip
import math
import os
import struct
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from commonweight.base.errors import IntegrityError, UsageError
from commonweight.base.names import nearby
from commonweight.data.images.datasets import dataset_images, is_pair
from commonweight.data.images.hugging_face import folder_images, saved_images, split_images
from commonweight.data.images.images import Images, digits
from commonweight.data.splits import hub_splits

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import IO, Any

    from torch import Tensor
    from torch.utils.data import Dataset

BYTES = 8
"""The only type of element that is read."""

MOST_AT_ONCE = 2**20

PARTS = {"train": "train", "test": "t10k"}
KINDS = {"images": 3, "labels": 1}
"""What a file holds, and its number of dimensions."""


def idx_files(folder: Path) -> dict[tuple[str, str], Path]:
    """Find the four files of a data set."""
    found = {}
    for part, prefix in PARTS.items():
        for kind, dimensions in KINDS.items():
            names = [f"{prefix}-{kind}{dot}idx{dimensions}-ubyte{end}" for end in ("", ".gz") for dot in "-."]
            file = next((folder / name for name in names if (folder / name).is_file()), None)
            if file is not None:
                found[part, kind] = file
    return found


def idx_images(folder: Path) -> Images:
    """Read the four files of a data set like MNIST."""
    files = idx_files(folder)
    missing = [
        f"{PARTS[part]}-{kind}-idx{KINDS[kind]}-ubyte" for part in PARTS for kind in KINDS if (part, kind) not in files
    ]
    if missing:
        raise UsageError(f"{folder} lacks {', '.join(missing)} (each may end in .gz); expected the four files of MNIST")
    pixels, labels = {}, {}
    for part in PARTS:
        pixels[part], labels[part] = (_read(files[part, kind], dimensions) for kind, dimensions in KINDS.items())
        if len(pixels[part]) != len(labels[part]):
            raise IntegrityError(
                f"{files[part, 'images']} has {len(pixels[part])} images and {files[part, 'labels']} "
                f"{len(labels[part])} labels; expected one label per image: the files are not of one data set"
            )
    return Images.of(pixels["train"], labels["train"], pixels["test"], labels["test"], name=folder.resolve().name)


def _read(file: Path, dimensions: int) -> Tensor:
    """Read one idx file of bytes; of what follows its last value, one byte."""
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
            shape = _idx_shape(file, stream, dimensions)
            expected = math.prod(shape)
            content = bytearray()
            while part := stream.read(min(MOST_AT_ONCE, expected + 1 - len(content))):
                content += part
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise IntegrityError(f"{file} cannot be unpacked: {error}; fetch it again") from error
    except IntegrityError:
        raise
    except OSError as error:
        raise IntegrityError(f"{file} cannot be read: {error}") from error
    if len(content) != expected:
        more = ", or more" if len(content) > expected else ""
        raise IntegrityError(
            f"{file} states {expected} values, {len(content)} came{more}; it is damaged: fetch it again"
        )
    return torch.frombuffer(content, dtype=torch.uint8).view(shape)


def _idx_shape(file: Path, stream: IO[bytes] | gzip.GzipFile, dimensions: int) -> tuple[int, ...]:
    magic = stream.read(4)
    if len(magic) < 4 or magic[:3] != bytes([0, 0, BYTES]) or not 1 <= magic[3] <= 4:
        raise IntegrityError(
            f"{file} starts with {magic.hex(' ') or 'nothing'}; expected 00 00 08 and the number of dimensions, the "
            "mark of an idx file of bytes: it is another kind of file, or damaged"
        )
    sizes = stream.read(4 * magic[3])
    if len(sizes) < 4 * magic[3]:
        raise IntegrityError(f"{file} ends before its sizes; fetch it again")
    shape = struct.unpack(f">{magic[3]}I", sizes)
    if len(shape) != dimensions or 0 in shape:
        raise IntegrityError(f"{file} states the sizes {list(shape)}; expected {dimensions}, none of them 0")
    return shape


DIGITS = "digits"


def open_images(
    spec: str | Path | tuple[Dataset[Any], Dataset[Any]],
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
            called digits is ``./digits``. Or a pair of PyTorch data sets, training and test, of rows ``(image,
            label)``; each row is read once, through the data set's own transforms, and kept.
        image_column: Column of images of a Hugging Face data set; None takes the only one.
        label_column: Column of labels of a Hugging Face data set; None takes ``label`` or ``labels``.
        test_split: Test part of a Hugging Face data set; None takes ``test``.

    Returns:
        The images.

    Raises:
        UsageError: If ``spec`` is no text, path or pair, there is no such data set, it is not as said, or a column or
            split is named where there are none.
        IntegrityError: If a file is damaged.

    Example:
        >>> open_images("digits").shape
        (1, 8, 8)
        >>> from torch.utils.data import TensorDataset
        >>> rows = TensorDataset(torch.zeros(4, 1, 5, 5), torch.tensor([0, 1, 0, 1]))
        >>> open_images((rows, rows))
        Images(TensorDataset: 4 and 4 of 1x5x5, 2 classes)
    """
    choice = {"image_column": image_column, "label_column": label_column, "test_split": test_split}
    if is_pair(spec):
        _check_no_choice("a pair of data sets", choice)
        return dataset_images(*spec)
    if not isinstance(spec, str | os.PathLike):
        raise UsageError(
            "expected 'digits', a folder, a .npz file, a Hugging Face id or a pair of PyTorch data sets, got "
            f"{type(spec).__name__}; save a DatasetDict with save_to_disk(folder) and open the folder, or make images "
            "of arrays and tensors with commonweight.data.images.Images.of(...)"
        )
    path = Path(spec).expanduser()
    plain = _plain(spec, path)
    if plain is not None:
        _check_no_choice(str(spec), choice)
        return plain
    if path.is_dir():
        name = path.resolve().name
        if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
            return saved_images(path, name, **choice)
        _check_not_above_idx(path)
        return folder_images(path, name, **choice)
    text = str(spec)
    close = nearby(text) or next(iter(difflib.get_close_matches(text, (DIGITS,), cutoff=0.75)), None)
    if path.is_file():
        raise UsageError(f"{text!r} is no .npz file; give 'digits', a folder, a .npz file, or a Hugging Face id")
    if path.exists() or close is not None or text.startswith((".", "/", "~")) or text.count("/") > 1 or path.suffix:
        meant = "." if close is None else f"; did you mean {close!r}?"
        raise UsageError(
            f"no images in {text!r}{meant} Give 'digits', a folder, a .npz file, or a Hugging Face id such as "
            "'org/name'"
        )
    return split_images(hub_splits(text), text.partition("@")[0].partition(":")[0].rpartition("/")[2], **choice)


def _check_no_choice(words: str, choice: Mapping[str, str | None]) -> None:
    if asked := [name for name, value in choice.items() if value is not None]:
        raise UsageError(f"{words} has no columns and no named splits; leave {{argument}} out", argument=asked[0])


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


NAMES = (
    ("train_images", "train_labels", "test_images", "test_labels"),
    ("x_train", "y_train", "x_test", "y_test"),
)
"""The two ways of naming the four arrays."""


def npz_images(file: Path) -> Images:
    """Read images from a ``.npz`` file."""
    arrays = _arrays(file)
    names = next((names for names in NAMES if set(names) <= set(arrays)), None)
    if names is None:
        raise UsageError(
            f"{file} has the arrays {', '.join(arrays) or 'none'}; expected {', '.join(NAMES[0])}, or "
            f"{', '.join(NAMES[1])}"
        )
    train, train_labels, test, test_labels = (arrays[key] for key in names)
    return Images.of(train, train_labels, test, test_labels, name=file.stem)


def _arrays(file: Path) -> dict[str, np.ndarray]:
    wanted = {key for names in NAMES for key in names}
    try:
        with file.open("rb") as stream, np.lib.npyio.NpzFile(stream, allow_pickle=False) as stored:
            # what is not wanted is not read: it may be of any kind
            return {key: stored[key] if key in wanted else np.empty(0) for key in stored.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise IntegrityError(f"{file} cannot be read as a .npz file of plain arrays: {error}") from error
