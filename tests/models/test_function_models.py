"""``module:function`` with ``--checkpoint``, placement, and hashes of weights."""

import sys

import pytest
import torch
from safetensors.torch import save_file

from commonweight.base import UsageError
from commonweight.models.function import load_weights
from commonweight.models.identity import hash_settings, hash_state
from commonweight.models.load import load_model, short_name
from commonweight.models.options import LoadOptions
from commonweight.models.placement import pick_device, pick_dtype


@pytest.fixture
def spec(tmp_path, monkeypatch):
    (tmp_path / "mymodels.py").write_text(
        "import torch\n\n\n"
        "def build():\n    torch.manual_seed(0)\n"
        "    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))\n\n\n"
        "def number():\n    return 3\n"
    )
    (tmp_path / "broken.py").write_text("import surely_absent_module\n")
    monkeypatch.chdir(tmp_path)
    yield "mymodels:build"
    for name in ("mymodels", "broken"):
        sys.modules.pop(name, None)


def test_the_function_is_called_and_the_checkpoint_loaded(spec, tmp_path):
    path_before = list(sys.path)
    plain = load_model(spec)
    assert plain.task is None
    assert "no checkpoint given" in plain.notes[0]
    weights = {name: tensor + 1 for name, tensor in plain.model.state_dict().items()}
    save_file(weights, tmp_path / "w.safetensors")
    loaded = load_model(spec, LoadOptions(checkpoint="w.safetensors", dtype="float64"))
    assert torch.equal(loaded.model[1].bias, weights["1.bias"].double())
    assert [*loaded.identity["weights"]] == ["w.safetensors"]
    assert plain.identity["weights"] != loaded.identity["weights"]
    assert load_model(spec).identity == plain.identity
    assert sys.path == path_before


def test_what_does_not_fit_is_named(spec, tmp_path):
    model = torch.nn.Linear(3, 2)
    good = dict(model.state_dict())
    for changed, message in (
        ({"weight": good["weight"]}, "the file lacks bias"),
        (good | {"more": torch.zeros(1)}, "the module lacks more"),
        (good | {"bias": torch.zeros(5)}, "size mismatch for bias"),
    ):
        save_file(changed, tmp_path / "w.safetensors")
        with pytest.raises(UsageError, match=message):
            load_weights(model, tmp_path / "w.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"no")
    (tmp_path / "w.bin").write_bytes(b"")
    for name, message in (
        ("bad.safetensors", "not a readable"),
        ("w.bin", "reads .safetensors only"),
        ("x", "no check"),
    ):
        with pytest.raises(UsageError, match=message):
            load_weights(model, tmp_path / name)


def test_functions_that_do_not_serve(spec):
    for wrong, message in (
        ("absentmodule:build", "no Python module 'absentmodule'"),
        ("mymodels:buid", "did you mean 'build'"),
        ("mymodels:number", "returned int, expected a torch.nn.Module"),
    ):
        with pytest.raises(UsageError, match=message):
            load_model(wrong)
    with pytest.raises(UsageError, match="broken cannot be imported: it imports 'surely_absent_module'"):
        load_model("broken:build")
    assert short_name(spec) == "build"


def test_devices_and_precisions():
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("auto").type in {"cpu", "cuda"}
    for wrong in ("gpu", "xla", "cuda:99"):
        with pytest.raises(UsageError, match="device"):
            pick_device(wrong)
    assert pick_dtype("float16") == torch.float16
    with pytest.raises(UsageError, match="dtype must be auto or one of float32"):
        pick_dtype("fp32")


def test_hashes_see_values_names_and_buffers():
    a, b = torch.nn.BatchNorm1d(2), torch.nn.BatchNorm1d(2)
    assert hash_state(a) == hash_state(b)
    b.running_mean += 1
    assert hash_state(a) != hash_state(b)
    assert hash_state(a) != hash_state(torch.nn.Sequential(a))
    assert hash_settings(torch.nn.LayerNorm(2)) != hash_settings(torch.nn.LayerNorm(2, eps=0.1))
