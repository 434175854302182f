"""Files written as tensors come are those the library would write, and hold what was asked."""

import hashlib

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from commonweight.fusion.folders import write_stream
from commonweight.fusion.tensors import Facts

KINDS = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16]
KINDS += [torch.int8, torch.uint8, torch.bool]


def write(path, tensors):
    facts = {key: Facts(tuple(t.shape), t.dtype) for key, t in tensors.items()}
    return write_stream(path, facts, tensors.__getitem__)


def test_every_type_and_shape_comes_back(tmp_path):
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for dtype in KINDS:
        for shape in ((), (0,), (3,), (2, 0, 3), (4, 3)):
            name = f'{dtype} {list(shape)} ü"\\'
            tensors[name] = (10 * torch.randn(shape, generator=generator)).abs().to(dtype)
    tensors["columns"] = torch.arange(12.0).reshape(3, 4).t()  # not contiguous
    tensors["frozen"] = torch.nn.Parameter(torch.ones(2))
    found = write(tmp_path / "x.safetensors", tensors)
    read = load_file(tmp_path / "x.safetensors")
    assert set(read) == set(tensors)
    for name, tensor in tensors.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor)
    whole = (tmp_path / "x.safetensors").read_bytes()
    assert found == {"bytes": len(whole), "sha256": hashlib.sha256(whole).hexdigest()}
    with safe_open(tmp_path / "x.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_files_of_one_type_equal_the_librarys_byte_for_byte(tmp_path, dtype):
    tensors = {name: torch.arange(size, dtype=dtype) for name, size in (("b", 3), ("a.weight", 5), ("c", 0))}
    save_file(tensors, tmp_path / "theirs", metadata={"format": "pt"})
    write(tmp_path / "ours", tensors)
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


def test_tensors_are_aligned(tmp_path):
    write(tmp_path / "x", {"a": torch.ones(1, dtype=torch.bool), "b": torch.ones(1, dtype=torch.float64)})
    raw = (tmp_path / "x").read_bytes()
    assert int.from_bytes(raw[:8], "little") % 8 == 0
    assert raw.endswith(b"\x01")  # the wide tensor first


def test_what_was_not_announced_is_refused(tmp_path):
    for tensor in (torch.ones(3), torch.ones(2, dtype=torch.float64)):
        with pytest.raises(ValueError, match="w was announced as"):
            write_stream(tmp_path / f"{tensor.dtype}", {"w": Facts((2,), torch.float32)}, lambda _, t=tensor: t)
    (tmp_path / "there").write_text("mine")
    with pytest.raises(FileExistsError):
        write(tmp_path / "there", {"w": torch.ones(1)})
