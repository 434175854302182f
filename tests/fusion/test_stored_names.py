"""Fishers name parameters as the class does; checkpoints may store them under other names and in other shapes."""

import json
import re

import pytest
import torch
import transformers
from click.testing import CliRunner
from fusion.conftest import moved
from reference import fusion as slow
from safetensors.torch import load_file, save_file

from commonweight import fisher, fuse, fuse_checkpoints
from commonweight.base import NotComparableError
from commonweight.cli.main import group
from commonweight.models.checkpoint import quiet_transformers
from commonweight.studies.demo.encoder import make_start, make_tokenizer, save

WORDS = 19
DECODER = {
    "vocab_size": WORDS,
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 16,
}
EXPERTS = {"num_experts": 12, "num_experts_per_tok": 2, "moe_intermediate_size": 8}
ENCODER = {**DECODER, "pad_token_id": 0}


def old(key):
    return re.sub(r"LayerNorm\.bias", "LayerNorm.beta", re.sub(r"LayerNorm\.weight", "LayerNorm.gamma", key))


def plain(prefix):
    return lambda key: key.removeprefix(prefix)


def decoder(name, **options):
    config = getattr(transformers, f"{name}Config")(**{**DECODER, "num_key_value_heads": 1, **options})
    return getattr(transformers, f"{name}ForCausalLM")(config)


def bert():
    return transformers.BertForSequenceClassification(transformers.BertConfig(**ENCODER))


def gpt2():
    config = transformers.GPT2Config(vocab_size=WORDS, n_positions=8, n_embd=8, n_layer=1, n_head=2)
    return transformers.GPT2LMHeadModel(config)


EXPERT_FAMILIES = {
    "mixtral": (lambda: decoder("Mixtral", num_local_experts=3), None),
    "qwen2_moe": (lambda: decoder("Qwen2Moe", **EXPERTS, shared_expert_intermediate_size=8), None),
    "qwen3_moe": (lambda: decoder("Qwen3Moe", **EXPERTS, head_dim=4), None),  # ten or more: not in the order of letters
    "olmoe": (lambda: decoder("Olmoe", num_key_value_heads=2, num_experts=4, num_experts_per_tok=2), None),
    "granitemoe": (lambda: decoder("GraniteMoe", num_local_experts=4, num_experts_per_tok=2), None),
}
FAMILIES = {
    **EXPERT_FAMILIES,
    "old layer norms": (bert, old),
    "no prefix": (bert, plain("bert.")),
    "no prefix, old layer norms": (bert, lambda key: old(plain("bert.")(key))),
    "gpt2 without its prefix": (gpt2, plain("transformer.")),
}


class Stored:
    """Two models of one start, their folders, and their Fishers."""

    def __init__(self, folder, make, rename, **options):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            start = make()
        self.models, self.folders, self.footprints = [], [], []
        for seed in (1, 2):
            place = folder / str(seed)
            with quiet_transformers():
                moved(start, seed, 0.01).save_pretrained(place)
                if rename is not None:
                    tensors = {rename(key): values for key, values in load_file(place / "model.safetensors").items()}
                    save_file(tensors, place / "model.safetensors", metadata={"format": "pt"})
                model = type(start).from_pretrained(place)
            self.models.append(model)
            self.folders.append(place)
            self.footprints.append(fisher(model, [batch(model, seed)], **options))

    def fused(self, output, **options):
        with quiet_transformers():
            place = fuse_checkpoints(
                self.folders, method="fisher", footprints=self.footprints, output=output, **options
            )
            return type(self.models[0]).from_pretrained(place)


def batch(model, seed):
    words = torch.randint(0, WORDS, (40, 5), generator=torch.Generator().manual_seed(seed))
    classes = words[:, 0] % 2
    is_decoder = type(model).__name__.endswith(("CausalLM", "LMHeadModel"))
    return {"input_ids": words, "attention_mask": torch.ones_like(words), "labels": words if is_decoder else classes}


def names(folder):
    return set(load_file(folder / "model.safetensors"))


@pytest.mark.parametrize("family", FAMILIES)
def test_folders_are_weighed_as_the_models_in_memory_are(family, tmp_path, heard):
    found = Stored(tmp_path, *FAMILIES[family])
    fused = found.fused(tmp_path / "out", weights=[0.3, 0.7], note=heard.append)
    assert names(tmp_path / "out") == names(found.folders[0])
    assert not any("No Fisher covers" in sentence for sentence in heard)
    if family not in EXPERT_FAMILIES or transformers.__version__ >= "5":  # before, experts were stored as they are
        assert names(found.folders[0]) != {name for name, _ in found.models[0].named_parameters()}
    for name, parameter in fused.named_parameters():
        values = [model.get_parameter(name).flatten().tolist() for model in found.models]
        fishers = [footprint[name].double().flatten().tolist() for footprint in found.footprints]
        rms = [float(footprint.flat().double().square().mean().sqrt()) for footprint in found.footprints]
        scaled = [[entry / unit for entry in entries] for entries, unit in zip(fishers, rms, strict=True)]
        expected, _ = slow.fisher_average(values, scaled, [0.3, 0.7], 1e-6, "none")
        assert parameter.flatten().tolist() == pytest.approx(expected, abs=1e-6)
    in_memory = fuse(found.models, [0.3, 0.7], "fisher", footprints=found.footprints, note=heard.append)
    assert all(torch.equal(p, fused.get_parameter(name)) for name, p in in_memory.named_parameters())
    plain_average = fuse(found.models, [0.3, 0.7], note=heard.append)
    assert not all(torch.allclose(p, fused.get_parameter(n), atol=1e-3) for n, p in plain_average.named_parameters())


@pytest.mark.parametrize("family", ["mixtral", "old layer norms"])
def test_footprints_of_other_models_are_noticed_there_too(family, tmp_path, heard):
    found = Stored(tmp_path, *FAMILIES[family])
    found.footprints.reverse()
    with pytest.raises(NotComparableError, match=r"'footprint 1' stands beside .*1', .* those of .*2'\. Give"):
        found.fused(tmp_path / "out", note=heard.append)
    with torch.no_grad():
        for model in found.models:
            next(iter(model.parameters())).add_(0.1)
    found.footprints = [fisher(model, [batch(model, 1)]) for model in found.models]
    with pytest.raises(NotComparableError, match=r"measured on other weights\. Measure this model"):
        found.fused(tmp_path / "out", note=heard.append)
    assert not (tmp_path / "out").exists()


def test_what_no_fisher_covers_is_averaged_plainly_and_named_as_it_is_stored(tmp_path, heard):
    found = Stored(tmp_path, *FAMILIES["mixtral"], include="*gate_up_proj")
    fused = found.fused(tmp_path / "out", note=heard.append)
    named = json.loads((tmp_path / "out" / "fusion.json").read_text())["plain_average"]
    assert set(named) == {key for key in names(found.folders[0]) if not re.search(r"experts\.\d+\.w[13]\.weight", key)}
    in_memory = fuse(found.models, method="fisher", footprints=found.footprints, note=heard.append)
    for name, parameter in in_memory.named_parameters():
        assert torch.equal(parameter, fused.get_parameter(name))


def test_fishers_of_another_architecture_are_still_refused(tmp_path, heard):
    found = Stored(tmp_path, *FAMILIES["mixtral"])
    other = gpt2()
    found.footprints = [fisher(other, [batch(other, 1)])] * 2
    with pytest.raises(NotComparableError, match=r"do not cover the models' parameters, .*not in the models\)"):
        found.fused(tmp_path / "out", note=heard.append)


@pytest.mark.parametrize("rename", [old, plain("bert.")])
def test_the_commands_in_the_order_of_the_docs(rename, tmp_path):
    start = make_start(0)
    rows = [{"text": f"the film is {word}", "label": label} for word, label in (("good", 1), ("bad", 0))] * 20
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for seed in (1, 2):
        place = tmp_path / str(seed)
        save(moved(start, seed, 0.005), make_tokenizer(), place)
        tensors = {rename(key): values for key, values in load_file(place / "model.safetensors").items()}
        save_file(tensors, place / "model.safetensors", metadata={"format": "pt"})
        run("fisher", place, "--data", tmp_path / "rows.jsonl", "-o", tmp_path / f"f{seed}")
    given = [tmp_path / "1", tmp_path / "2", "--method", "fisher"]
    fishers = ["--footprint", tmp_path / "f1", "--footprint", tmp_path / "f2"]
    run("fuse", *given, *fishers, "--dry-run")
    run("fuse", *given, *fishers, "-o", tmp_path / "out")
    assert names(tmp_path / "out") == names(tmp_path / "1")


def run(*words):
    result = CliRunner().invoke(group, [str(word) for word in words])
    assert result.exit_code == 0, result.output
