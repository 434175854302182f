"""Adapters merged into their base: footprints in the coordinates of the base, whatever the adapter's own are."""

from __future__ import annotations

import json

import pytest
import torch

from commonweight import Footprint, change_footprint, fisher, overlap
from commonweight.base import UsageError
from commonweight.cli.main import run as run_command
from commonweight.data.reviews import reviews
from commonweight.models.load import load_model
from commonweight.models.options import LoadOptions
from commonweight.studies.demo.encoder import make_start, make_tokenizer, save
from commonweight.studies.localise.results import read_localisation

peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

MERGED = LoadOptions(merge_adapters=True)
PLACES = [f"bert.encoder.layer.{layer}.attention.self.query" for layer in range(3)]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base") / "tiny"
    save(make_start(0), make_tokenizer(), folder)
    return folder


def adapter(base, folder, rank, turn=None, **more):
    """Save an adapter that changes the queries; ``turn`` writes its factors in other coordinates."""
    config = peft.LoraConfig(task_type="SEQ_CLS", r=rank, lora_alpha=rank, target_modules=["query"], **more)
    model = peft.get_peft_model(load_model(str(base)).model, config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for place in PLACES:
            layer = model.base_model.model.get_submodule(place)
            left, right = torch.randn(64, 2, generator=generator), torch.randn(2, 64, generator=generator)
            A, B = torch.zeros(rank, 64), torch.zeros(64, rank)
            A[:2], B[:, :2] = 0.1 * right, left
            turned = torch.eye(rank) if turn is None else turn
            layer.lora_A["default"].weight.copy_(turned @ A)
            layer.lora_B["default"].weight.copy_(B @ torch.linalg.inv(turned))
    model.save_pretrained(folder)
    return str(folder)


def batches():
    ids = torch.randint(3, 20, (12, 6), generator=torch.Generator().manual_seed(1))
    return [{"input_ids": ids[i : i + 4], "labels": torch.arange(4) % 2} for i in (0, 4, 8)]


def test_the_fisher_of_one_change_is_one_whatever_its_factors_and_their_rank(base, tmp_path):
    turn = torch.tensor([[2.0, 1.0], [-1.0, 0.5]])
    folders = {
        "one": adapter(base, tmp_path / "one", 2),
        "turned": adapter(base, tmp_path / "turned", 2, turn),
        "wider": adapter(base, tmp_path / "wider", 5),
    }
    prints = {name: fisher(load_model(folder, MERGED).model, batches()) for name, folder in folders.items()}
    assert {*PLACES} <= {name.removesuffix(".weight") for name in prints["one"]}
    assert all("query" in name or name.startswith("classifier") for name in prints["one"])
    for name in ("turned", "wider"):
        for key, tensor in prints["one"].items():
            torch.testing.assert_close(prints[name][key], tensor, rtol=1e-4, atol=1e-9)
    factors = {name: fisher(load_model(folders[name]).model, batches()) for name in ("one", "turned")}
    records = overlap(factors, intervals=False).records("layer")
    assert min(each.value for each in records if "lora_A" in each.name) < 0.95  # factors can be written in many ways


def test_it_is_that_of_the_wrapped_layer_in_the_adapted_model(base, tmp_path):
    folder = adapter(base, tmp_path / "adapter", 2)
    adapted = load_model(folder).model.requires_grad_(False)
    for place in PLACES:
        adapted.base_model.model.get_submodule(place).base_layer.weight.requires_grad_(True)
    expected = fisher(adapted, batches())
    found = fisher(load_model(folder, MERGED).model, batches())
    for place in PLACES:
        wrapped = expected[f"base_model.model.{place}.base_layer.weight"]
        torch.testing.assert_close(found[f"{place}.weight"], wrapped, rtol=1e-4, atol=1e-9)


def test_its_change_is_that_of_the_base(base, tmp_path):
    loaded = load_model(adapter(base, tmp_path / "adapter", 3, use_dora=True), MERGED)
    assert loaded.identity["merged"] is True
    change = change_footprint(loaded.model, load_model(str(base)).model)
    changed = {name for name, tensor in change.items() if tensor.any()}
    assert {f"{place}.weight" for place in PLACES} <= changed
    assert changed == {name for name, weight in loaded.model.named_parameters() if weight.requires_grad}


def test_the_commands_take_the_weights_of_the_base_that_an_adapter_changes(base, tmp_path, capfd):
    folder, data, run = adapter(base, tmp_path / "adapter", 2), tmp_path / "A.jsonl", tmp_path / "run"
    data.write_text("".join(json.dumps({"text": row["text"], "label": row["label"]}) + "\n" for row in reviews(40)))
    quiet = ["--merge-adapters", "--folds", "1", "--quiet"]
    assert run_command(["fisher", folder, "--data", str(data), "-o", str(tmp_path / "fisher"), *quiet]) == 0
    asked = [f"A={folder}", "--initialisation", str(base), "--data", f"A={data}", "--map", "saliency"]
    few = ["--fractions", "0.1", "--primary", "0.1", "--draws", "2", "--resamples", "400", "--no-report"]
    assert run_command(["localise", *asked, *few, *quiet, "-o", str(run)]) == 0
    capfd.readouterr()
    queries = {f"{place}.weight" for place in PLACES}
    assert queries <= set(Footprint.load(tmp_path / "fisher").names)
    assert queries <= set(Footprint.load(run / "footprints" / "A" / "change").names)
    assert not any("lora" in name for name in Footprint.load(run / "footprints" / "A" / "fisher").names)
    assert json.loads((run / "run.json").read_text())["asked"]["models"]["A"]["merged"] is True
    found = read_localisation(run)
    whole, base_score = (found.find("A", None, way, metric="log-likelihood").score.value for way in ("model", "base"))
    assert whole != base_score


def test_an_adapter_that_changes_nothing_or_cannot_be_merged_is_refused(base, tmp_path, monkeypatch):
    model = peft.get_peft_model(
        load_model(str(base)).model, peft.LoraConfig(task_type="SEQ_CLS", target_modules=["query"])
    )
    model.save_pretrained(tmp_path / "new")
    with pytest.raises(UsageError, match="changes no weight of its base, as before its first training step"):
        load_model(str(tmp_path / "new"), MERGED)

    def unmergeable(*args, **kwargs):
        raise NotImplementedError("no merging here")

    monkeypatch.setattr(peft.PeftModel, "merge_and_unload", unmergeable, raising=False)
    monkeypatch.setattr("peft.tuners.lora.LoraModel.merge_and_unload", unmergeable)
    with pytest.raises(UsageError, match=r"cannot be merged into its base \(NotImplementedError: no merging here\)"):
        load_model(str(tmp_path / "new"), MERGED)
