"""What changes numbers changes the identity of a model, and loading twice gives one model."""

import json
import shutil
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from commonweight.nn.source import LoadOptions, load_model
from commonweight.studies.tiny_encoder import make_start, make_tokenizer, save


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("identity") / "tiny"
    save(make_start(0), make_tokenizer(), folder)
    return folder


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "copy")


def identity(folder, **options):
    return {key: value for key, value in load_model(str(folder), LoadOptions(**options)).identity.items()
            if key != "name"}  # fmt: skip


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes, indent=3))


def test_config_and_tokenizer_count_and_their_places_do_not(saved, copy):
    assert identity(copy) == identity(saved)
    edit(copy / "config.json", _name_or_path="elsewhere", transformers_version="9.9")
    assert identity(copy) == identity(saved)
    edit(copy / "config.json", hidden_act="relu")
    changed = identity(copy)
    assert changed["config"] != identity(saved)["config"]
    assert changed["weights"] == identity(saved)["weights"]
    edit(copy / "tokenizer_config.json", name_or_path="elsewhere")
    assert identity(copy)["tokenizer"] == identity(saved)["tokenizer"]
    edit(copy / "tokenizer_config.json", model_max_length=7)
    assert identity(copy)["tokenizer"] != identity(saved)["tokenizer"]


def test_another_tokenizer_is_another_model(saved, copy):
    edit(copy / "tokenizer_config.json", model_max_length=7)
    assert identity(saved, tokenizer=str(copy))["tokenizer"] == identity(copy)["tokenizer"]
    assert identity(saved, tokenizer=str(copy)) != identity(saved)


def test_a_missing_head_is_drawn_alike_each_time(copy):
    weights = load_file(copy / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if not name.startswith("classifier")}
    save_file(kept, copy / "model.safetensors", {"format": "pt"})
    torch.manual_seed(1)
    one = load_model(str(copy), LoadOptions(allow_missing_weights=True))
    state = torch.get_rng_state()
    two = load_model(str(copy), LoadOptions(allow_missing_weights=True))
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(one.model.classifier.weight, two.model.classifier.weight)
    assert float(one.model.classifier.weight.detach().std()) > 0
    assert (one.identity["random_seed"], one.identity) == (0, two.identity)


def test_the_source_of_a_function_counts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "sourced.py"
    text = "import torch\n\n\ndef build():\n    return torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU())\n"
    found = []
    for written in (text, text, text.replace("ReLU", "GELU"), text.replace("build", "other")):
        file.write_text(written)
        sys.modules.pop("sourced", None)
        shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)
        name = "other" if "other" in written else "build"
        save_file({"0.weight": torch.ones(2, 2), "0.bias": torch.ones(2)}, tmp_path / "w.safetensors")
        loaded = load_model(f"sourced:{name}", LoadOptions(checkpoint="w.safetensors"))
        found.append({key: value for key, value in loaded.identity.items() if key != "name"})
    sys.modules.pop("sourced", None)
    assert found[0] == found[1]
    assert found[0]["weights"] == found[2]["weights"]
    assert found[0]["code"] != found[2]["code"]
    assert found[3]["function"] == "other"


def test_a_function_that_draws_gives_one_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "drawn.py").write_text("import torch\n\n\ndef build():\n    return torch.nn.Linear(2, 2)\n")
    one, two = load_model("drawn:build"), load_model("drawn:build")
    sys.modules.pop("drawn", None)
    assert torch.equal(one.model.weight, two.model.weight)
    assert one.identity == two.identity
