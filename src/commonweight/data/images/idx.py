"""Images in idx files, the format of MNIST and of many data sets made in its likeness.

Format: http://yann.lecun.com/exdb/mnist/ : two zero bytes, the type (8: bytes), the number of dimensions, the sizes as
big-endian 32-bit numbers, then the bytes.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from typing import TYPE_CHECKING

import torch

from commonweight.base.errors import IntegrityError, UsageError
from commonweight.data.images.images import Images

if TYPE_CHECKING:
    import io
    from pathlib import Path

    from torch import Tensor

BYTES = 8
"""The only type of element that is read."""

BLOCK = 1 << 24
"""Bytes read at a time, so that sizes that are wrong ask for no more memory than the file is long."""

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


def idx_images(folder: Path, *, name: str | None = None) -> Images:
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
    return Images.of(
        pixels["train"], labels["train"], pixels["test"], labels["test"], name=name or folder.resolve().name
    )


def read_idx(file: Path) -> Tensor:
    """Read one idx file of bytes."""
    try:
        with _opened(file) as stream:
            return _parsed(file, stream)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise IntegrityError(f"{file} cannot be unpacked: {error}; fetch it again") from error
    except IntegrityError:
        raise
    except OSError as error:
        raise IntegrityError(f"{file} cannot be read: {error}") from error


def _read(file: Path, dimensions: int) -> Tensor:
    found = read_idx(file)
    if found.dim() != dimensions or 0 in found.shape:
        raise IntegrityError(f"{file} states the sizes {list(found.shape)}; expected {dimensions}, none of them 0")
    return found


def _opened(file: Path) -> io.BufferedIOBase:
    return gzip.open(file, "rb") if file.suffix == ".gz" else file.open("rb")


def _parsed(file: Path, stream: io.BufferedIOBase) -> Tensor:
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
    expected = math.prod(shape)
    content = bytearray()
    while len(content) < expected and (part := stream.read(min(BLOCK, expected - len(content)))):
        content += part
    if len(content) < expected or stream.read(1):
        came = f"{len(content)}" if len(content) < expected else "more"
        raise IntegrityError(f"{file} states {expected} values, {came} came; it is damaged: fetch it again")
    return (
        torch.frombuffer(content, dtype=torch.uint8).view(shape) if expected else torch.empty(shape, dtype=torch.uint8)
    )
