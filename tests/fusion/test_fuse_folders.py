"""Fusing checkpoint folders: what comes out, how it was made, and how little of it is in memory at a time."""

import json
import shutil
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from fusion.conftest import moved
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from commonweight import Footprint, fisher, fuse, fuse_checkpoints
from commonweight.fusion.tensors import Tensors
from commonweight.models.identity import hash_files
from commonweight.models.load import load_model
from commonweight.studies.demo.encoder import make_start, make_tokenizer, save


def state(folder):
    found = {}
    for file in sorted(folder.glob("*.safetensors")):
        found.update(load_file(file))
    return found


def equal(a, b):
    assert set(a) == set(b)
    return all(torch.equal(a[key], b[key]) and a[key].dtype == b[key].dtype for key in a)


def test_one_model_with_weight_1_comes_back_bit_for_bit(tiny, tmp_path):
    found = fuse_checkpoints([tiny / "a"], output=tmp_path / "out")
    assert found == tmp_path / "out"
    assert equal(state(found), state(tiny / "a"))
    assert (found / "model.safetensors").read_bytes() == (tiny / "a" / "model.safetensors").read_bytes()


def test_the_average_loads_with_from_pretrained_and_equals_that_in_memory(tiny, tmp_path):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    weights = [0.5, 0.2, 0.3]
    found = fuse_checkpoints([tiny / name for name in "abc"], weights, output=tmp_path / "out")
    loaded, info = AutoModelForSequenceClassification.from_pretrained(found, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    models = [load_model(str(tiny / name)).model for name in "abc"]
    in_memory = fuse(models, weights)
    for key, values in in_memory.named_parameters():
        assert torch.equal(values, loaded.get_parameter(key))
    tokenizer = AutoTokenizer.from_pretrained(found)
    assert tokenizer("the soup")["input_ids"] == make_tokenizer()("the soup")["input_ids"]
    assert load_model(str(found)).task == "classification"
    again = fisher(loaded, [{**dict(tokenizer("the soup", return_tensors="pt")), "labels": torch.tensor([1])}])
    assert again.count == 1


def test_task_arithmetic_and_fisher_equal_those_in_memory(tiny, tmp_path, heard):
    models = {name: load_model(str(tiny / name)).model for name in ("a", "b", "start")}
    found = fuse_checkpoints(
        [tiny / "a", tiny / "b"],
        [1.0, -0.5],
        "task_arithmetic",
        base=tiny / "start",
        scale=0.4,
        output=tmp_path / "added",
    )
    expected = fuse([models["a"], models["b"]], [1.0, -0.5], "task_arithmetic", base=models["start"], scale=0.4)
    assert equal(state(found), expected.state_dict())
    tokens = dict(make_tokenizer()(["the soup is good", "the film is bad"], return_tensors="pt", padding=True))
    tokens.pop("token_type_ids", None)
    for name in "ab":
        fisher(models[name], [{**tokens, "labels": torch.tensor([1, 0])}], folder=tmp_path / "f" / name)
    footprints = [tmp_path / "f" / name for name in "ab"]
    options = {"method": "fisher", "note": heard.append}
    found = fuse_checkpoints([tiny / "a", tiny / "b"], footprints=footprints, output=tmp_path / "weighed", **options)
    opened = [Footprint.load(folder) for folder in footprints]
    expected = fuse([models["a"], models["b"]], footprints=opened, **options)
    assert all("Effective sample size below 20" in sentence for sentence in heard)
    assert equal(state(found), expected.state_dict())
    assert not equal(state(found), fuse([models["a"], models["b"]]).state_dict())
    record = json.loads((found / "fusion.json").read_text())
    assert record["models"][0]["footprint"]["count"] == 2
    assert (
        record["models"][0]["footprint"]["sha256"] == hash_files([footprints[0] / "footprint.json"])["footprint.json"]
    )
    dead = sum(
        int(((f[0] / rms(opened[0])).le(1e-6) & (f[1] / rms(opened[1])).le(1e-6)).sum())
        for f in ([o[key].double() for o in opened] for key in opened[0])
    )
    assert record["counts"]["at_floor_in_all_fishers"] == dead > 0
    assert f"{dead} (" in (found / "README.md").read_text()


def rms(footprint):
    return footprint.flat().double().square().mean().sqrt()


def sharded(folder, target, size="60KB"):
    from transformers import AutoModelForSequenceClassification

    from commonweight.models.checkpoint import quiet_transformers

    with quiet_transformers():
        AutoModelForSequenceClassification.from_pretrained(folder).save_pretrained(target, max_shard_size=size)
        make_tokenizer().save_pretrained(target)
    assert len(list(target.glob("*.safetensors"))) > 2
    return target


def test_sharded_checkpoints_keep_the_shards_of_the_first(tiny, tmp_path):
    whole = fuse_checkpoints([tiny / "a", tiny / "b"], output=tmp_path / "whole")
    parts = sharded(tiny / "a", tmp_path / "a")
    found = fuse_checkpoints([parts, tiny / "b"], output=tmp_path / "out")
    assert equal(state(found), state(whole))
    assert sorted(p.name for p in found.glob("*.safetensors")) == sorted(p.name for p in parts.glob("*.safetensors"))
    index, original = (json.loads((folder / "model.safetensors.index.json").read_text()) for folder in (found, parts))
    assert index["weight_map"] == original["weight_map"]
    assert index["metadata"]["total_size"] == original["metadata"]["total_size"]
    assert equal(load_model(str(found)).model.state_dict(), load_model(str(whole)).model.state_dict())
    other = fuse_checkpoints([tiny / "b", parts], output=tmp_path / "single")  # and the other way round
    assert [p.name for p in other.glob("*.safetensors")] == ["model.safetensors"]
    assert all(torch.allclose(t, state(whole)[key], atol=1e-7) for key, t in state(other).items())


def test_files_say_that_they_are_torchs_even_if_the_first_models_do_not(tiny, tmp_path):
    plain = shutil.copytree(tiny / "a", tmp_path / "plain")
    save_file(load_file(plain / "model.safetensors"), plain / "model.safetensors")
    found = fuse_checkpoints([plain, tiny / "b"], output=tmp_path / "out")
    with safe_open(found / "model.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_tied_weights(gpt2, tmp_path, heard):
    from transformers import AutoModelForCausalLM

    found = fuse_checkpoints([gpt2 / "a", gpt2 / "b"], [0.25, 0.75], output=tmp_path / "out", note=heard.append)
    assert heard == []
    assert "lm_head.weight" not in state(found)
    loaded = AutoModelForCausalLM.from_pretrained(found)
    assert loaded.lm_head.weight is loaded.transformer.wte.weight
    a, b = (AutoModelForCausalLM.from_pretrained(gpt2 / name) for name in "ab")
    expected = 0.25 * a.lm_head.weight + 0.75 * b.lm_head.weight
    assert torch.allclose(loaded.lm_head.weight, expected)
    assert (found / "generation_config.json").read_bytes() == (gpt2 / "a" / "generation_config.json").read_bytes()


def test_bfloat16_stays_bfloat16_and_is_rounded_at_the_end(start, tmp_path):
    models = [moved(start, seed).to(torch.bfloat16) for seed in range(3)]
    for name, model in zip("abc", models, strict=True):
        save(model, make_tokenizer(), tmp_path / name)
    found = state(fuse_checkpoints([tmp_path / name for name in "abc"], output=tmp_path / "out"))
    for key, values in found.items():
        exact = sum(model.state_dict()[key].double() for model in models) / 3
        least = (exact.to(torch.bfloat16).double() - exact).abs()
        assert values.dtype == torch.bfloat16
        assert ((values.double() - exact).abs() <= least + 1e-7).all()  # as near as bfloat16 can be


def test_at_most_one_tensor_of_each_model_is_in_memory(tiny, tmp_path, monkeypatch):
    held: dict[str, list[weakref.ref]] = {}
    most: list[int] = []
    per_model: list[int] = []
    original = Tensors.finite

    def finite(self, key):
        tensor = original(self, key)
        held.setdefault(self.name, []).append(weakref.ref(tensor))
        alive = {name: sum(ref() is not None for ref in refs) for name, refs in held.items()}
        most.append(sum(alive.values()))
        per_model.append(max(alive.values()))
        return tensor

    monkeypatch.setattr(Tensors, "finite", finite)
    fuse_checkpoints([tiny / name for name in "abc"], output=tmp_path / "out")
    assert max(per_model) == 1
    assert max(most) == 2  # the start of the sum, and the one that is added
    keep = []
    monkeypatch.setattr(Tensors, "finite", lambda self, key: keep.append(finite(self, key)) or keep[-1])
    fuse_checkpoints([tiny / name for name in "abc"], output=tmp_path / "hoarded")
    assert max(per_model) > 10  # the count does count


def test_the_record_says_how_it_was_made(tiny, tmp_path):
    found = fuse_checkpoints([tiny / "a", str(tiny / "b")], [0.75, 0.25], output=tmp_path / "out")
    record = json.loads((found / "fusion.json").read_text())
    assert (record["format"], record["version"], record["method"]) == ("commonweight-fusion", 2, "average")
    assert [model["weight"] for model in record["models"]] == [0.75, 0.25]
    for model, name in zip(record["models"], "ab", strict=True):
        assert model["weights"] == hash_files([tiny / name / "model.safetensors"])
        assert model["tokenizer"]
        assert model["source"] == "folder"
    assert (
        record["files"]["model.safetensors"]["sha256"] == hash_files([found / "model.safetensors"])["model.safetensors"]
    )
    assert record["files"]["model.safetensors"]["bytes"] == (found / "model.safetensors").stat().st_size
    assert record["shared_initialisation"]["distance"][0][0] == 0
    assert 0 < record["shared_initialisation"]["distance"][0][1] < 0.3
    assert record["shared_initialisation"]["sentence"].startswith("The models come from a shared initialisation")
    assert record["command"] == (
        f"commonweight.fuse_checkpoints(['{tiny / 'a'}', '{tiny / 'b'}'], weights=[0.75, 0.25], "
        f"output='{tmp_path / 'out'}')"
    )
    (tmp_path / "twice").mkdir()  # an empty folder is free
    again = fuse_checkpoints((tiny / "a", str(tiny / "b")), np.array([0.75, 0.25]), output=tmp_path / "twice")
    assert json.loads((again / "fusion.json").read_text())["command"] == record["command"].replace("/out'", "/twice'")
    assert (again / "model.safetensors").read_bytes() == (found / "model.safetensors").read_bytes()


def test_the_model_card_has_a_header_and_the_tables(tiny, tmp_path):
    from huggingface_hub import ModelCard

    found = fuse_checkpoints([tiny / "a", tiny / "b"], output=tmp_path / "out")
    card = ModelCard.load(found / "README.md")
    assert card.data.base_model == ["a", "b"]
    assert card.data.tags == ["merge", "commonweight"]
    assert card.data.library_name == "transformers"
    text = (found / "README.md").read_text()
    digest = hash_files([tiny / "a" / "model.safetensors"])["model.safetensors"]
    assert f"| {tiny / 'a'} | 0.5 | {digest} |" in text
    assert "| method | weighted average |" in text
    assert "The models come from a shared initialisation" in text
    assert "commonweight.fuse_checkpoints([" in text


def test_strangers_are_fused_with_a_warning(tiny, tmp_path):
    with pytest.warns(UserWarning, match=r"No shared initialisation for .*a and .*stranger"):
        found = fuse_checkpoints([tiny / "a", tiny / "stranger"], output=tmp_path / "out")
    assert "No shared initialisation" in (found / "README.md").read_text()
    assert (
        "No shared initialisation"
        in json.loads((found / "fusion.json").read_text())["shared_initialisation"]["sentence"]
    )


def test_an_output_is_replaced_only_if_it_is_a_fused_checkpoint_and_asked(tiny, tmp_path):
    from commonweight.base import UsageError

    out = fuse_checkpoints([tiny / "a"], output=tmp_path / "out")
    with pytest.raises(UsageError, match=r"holds a fused checkpoint already; .* pass overwrite=True"):
        fuse_checkpoints([tiny / "b"], output=out)
    assert equal(state(out), state(tiny / "a"))
    fuse_checkpoints([tiny / "b"], output=out, overwrite=True)
    assert equal(state(out), state(tiny / "b"))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    shutil.copytree(tiny / "c", tmp_path / "mine")
    with pytest.raises(UsageError, match="exists and is not a fused checkpoint; choose another folder"):
        fuse_checkpoints([tiny / "b"], output=tmp_path / "mine", overwrite=True)
    with pytest.raises(UsageError, match=r"the output .* is the input"):
        fuse_checkpoints([out, tiny / "a"], output=out, overwrite=True)
    shutil.copytree(tiny / "a", out / "inner")
    with pytest.raises(UsageError, match=r"the output .* holds the input"):
        fuse_checkpoints([out / "inner"], output=out, overwrite=True)
    assert equal(state(out / "inner"), state(tiny / "a"))


def test_a_failure_on_the_way_leaves_nothing(tiny, tmp_path, monkeypatch):
    out = fuse_checkpoints([tiny / "a"], output=tmp_path / "out")
    calls = []

    def fail(*_):
        calls.append(1)
        if len(calls) > 5:
            raise KeyboardInterrupt
        return original(*_)

    from commonweight.fusion.fusion import Fusion

    original = Fusion.tensor
    monkeypatch.setattr(Fusion, "tensor", fail)
    with pytest.raises(KeyboardInterrupt):
        fuse_checkpoints([tiny / "b"], output=out, overwrite=True)
    assert equal(state(out), state(tiny / "a"))
    calls.clear()
    with pytest.raises(KeyboardInterrupt):
        fuse_checkpoints([tiny / "b"], output=tmp_path / "deep" / "new")
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_dir()) == ["deep", "out"]


def pickled(folder, target):
    shutil.copytree(folder, target)
    (target / "model.safetensors").unlink()
    tensors = load_file(folder / "model.safetensors")
    if "transformer.wte.weight" in tensors:  # in a pickle a tied weight has both names
        tensors["lm_head.weight"] = tensors["transformer.wte.weight"]
    torch.save(tensors, target / "pytorch_model.bin")
    torch.save({"lr": 1.0}, target / "training_args.bin")
    return target


def test_pickles_are_read_only_when_asked(tiny, gpt2, tmp_path):
    from commonweight.base import UsageError

    old = pickled(tiny / "a", tmp_path / "old")
    with pytest.raises(UsageError, match=r"only as pickle .*allow_pickle=True"):
        fuse_checkpoints([old, tiny / "b"], output=tmp_path / "out")
    found = fuse_checkpoints([old, tiny / "b"], output=tmp_path / "out", allow_pickle=True)
    assert equal(state(found), state(fuse_checkpoints([tiny / "a", tiny / "b"], output=tmp_path / "safe")))
    tied = pickled(gpt2 / "a", tmp_path / "tied")
    fused = fuse_checkpoints([tied, gpt2 / "b"], output=tmp_path / "gpt2", allow_pickle=True)
    assert "lm_head.weight" not in state(fused)


def test_a_pickle_is_never_run_even_when_allowed(tiny, tmp_path):
    import pickle

    from commonweight.base import UsageError

    trace = tmp_path / "trace"

    class Trap:
        def __reduce__(self):
            return (Path.touch, (trace,))

    shutil.copytree(tiny / "a", tmp_path / "bad")
    (tmp_path / "bad" / "model.safetensors").unlink()
    (tmp_path / "bad" / "pytorch_model.bin").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(UsageError, match="damaged or holds no plain weights"):
        fuse_checkpoints([tmp_path / "bad", tiny / "b"], output=tmp_path / "out", allow_pickle=True)
    assert not trace.exists()


def test_code_of_a_checkpoint_is_copied_and_never_run(tiny, tmp_path):
    from commonweight.base import NotComparableError

    trace = tmp_path / "trace"
    for name in "ab":
        folder = shutil.copytree(tiny / name, tmp_path / name)
        config = json.loads((folder / "config.json").read_text()) | {"auto_map": {"AutoModel": "own.Own"}}
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "own.py").write_text(f"from pathlib import Path\nPath({str(trace)!r}).touch()\n")
    found = fuse_checkpoints([tmp_path / "a", tmp_path / "b"], output=tmp_path / "out")
    assert (found / "own.py").read_bytes() == (tmp_path / "a" / "own.py").read_bytes()
    (tmp_path / "b" / "own.py").write_text("other = 1\n")
    with pytest.raises(NotComparableError, match="different model code of their own"):
        fuse_checkpoints([tmp_path / "a", tmp_path / "b"], output=tmp_path / "again")
    assert not trace.exists()


def test_the_start_of_a_stranger_is_not_needed_for_one_model(tmp_path):
    save(make_start(3), make_tokenizer(), tmp_path / "one")
    found = fuse_checkpoints([tmp_path / "one"], output=tmp_path / "out")
    assert json.loads((found / "fusion.json").read_text())["shared_initialisation"]["sentence"].startswith("One model")
