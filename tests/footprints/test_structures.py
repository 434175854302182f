"""Footprints by head, neuron and expert: the same weights, under the names of structures."""

from __future__ import annotations

import pytest
import torch
import transformers
from torch import nn

import commonweight
from commonweight import Footprint
from commonweight.base.errors import NotComparableError, UsageError
from commonweight.cli.main import run as run_command
from commonweight.footprints.footprint import Spread
from commonweight.footprints.structures import by_structure
from commonweight.models.architectures import Piece, architecture_of_model, pieces_of

SIZES = {"vocab_size": 11, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 12}
MODELS = {
    "Bert": SIZES,
    "Roberta": SIZES,
    "DistilBert": {"vocab_size": 11, "dim": 8, "n_layers": 1, "n_heads": 2, "hidden_dim": 12},
    "GPT2": {"vocab_size": 11, "n_embd": 8, "n_layer": 1, "n_head": 2, "n_inner": 12, "n_positions": 8},
    "Llama": SIZES,
    "Mistral": SIZES | {"num_key_value_heads": 1},
    "Mixtral": SIZES | {"num_key_value_heads": 1, "num_local_experts": 3},
    "ViT": SIZES | {"image_size": 8, "patch_size": 4},
}


def footprint(name, kind="fisher", folds=0):
    model = getattr(transformers, f"{name}Model")(getattr(transformers, f"{name}Config")(**MODELS[name]))
    draws = [
        {name: torch.rand(each.shape, dtype=torch.float64) for name, each in model.named_parameters()}
        for _ in range(max(1, folds))
    ]
    mean = {name: sum(draw[name] for draw in draws) / len(draws) for name in draws[0]}
    parts = tuple(commonweight.footprints.Fold(4, draw) for draw in draws) if folds else ()
    facts = {"architecture": architecture_of_model(model), "folds": {"map": "any"}}
    return Footprint(kind, mean, 4 * max(1, folds), facts, folds=parts)


def two(name, **given):
    return {each: footprint(name, **given) for each in "ab"}


def pooled(tensors):
    a, b = (torch.cat([each.flatten() for each in one]).sqrt() for one in tensors)
    return float(a @ b / (a.norm() * b.norm()))


def test_a_head_of_bert_has_rows_of_query_key_and_value_and_columns_of_the_output():
    prints = two("Bert")
    table = commonweight.overlap(prints, structure="head")
    at = "encoder.layer.0.attention"
    for head, part in enumerate((slice(0, 4), slice(4, 8))):
        rows = [f"{at}.self.{of}.{what}" for of in ("query", "key", "value") for what in ("weight", "bias")]
        held = [[*(f[n][part] for n in rows), f[f"{at}.output.dense.weight"][:, part]] for f in prints.values()]
        assert table.by_layer[f"{at}.head.{head}"][0, 1] == pytest.approx(pooled(held))
    whole = commonweight.overlap(prints)
    assert table.pooled == pytest.approx(whole.pooled)
    assert f"{at}.output.dense" in table.layers  # the bias, which is no head's
    assert f"{at}.self.query" not in table.layers
    assert table.by_layer["pooler.dense"] == pytest.approx(whole.by_layer["pooler.dense"])


def test_the_sample_size_of_a_structure_is_the_smallest_of_its_layers():
    tensors = {"in.weight": torch.ones(2, 3), "in.bias": torch.ones(2), "out.weight": torch.ones(1, 2)}
    spread = {"": Spread(20.0, 80.0), "in": Spread(16.0, 64.0), "out": Spread(4.0, 8.0)}
    one = Footprint("fisher", tensors, 2, spread=spread)

    def units(name, shape):
        axis = 1 if name == "out.weight" else 0
        return [Piece(f"unit.{i}", name.replace(".", "_"), axis, i, i + 1) for i in range(shape[axis])]

    table = commonweight.overlap({"a": one, "b": one}, structure=units)
    assert table.effective_sample_size_of("a", "unit.0") == pytest.approx(2.0)  # of "in" 4, of "out" 2
    assert table.effective_sample_size_of("a") == 5.0
    assert by_structure(one, units).layer_traces() == {"unit.0": 5.0, "unit.1": 5.0}


def test_a_head_of_gpt2_has_columns_of_the_fused_matrix():
    prints = two("GPT2")
    heads, parts = (commonweight.overlap(prints, structure=each) for each in ("head", "qkv"))
    fused = [(f["h.0.attn.c_attn.weight"], f["h.0.attn.c_attn.bias"]) for f in prints.values()]
    second = torch.tensor([4, 5, 6, 7])
    places = torch.cat([second, 8 + second, 16 + second])
    out = [f["h.0.attn.c_proj.weight"][second] for f in prints.values()]
    held = [[weight[:, places], bias[places], each] for (weight, bias), each in zip(fused, out, strict=True)]
    assert heads.by_layer["h.0.attn.head.1"][0, 1] == pytest.approx(pooled(held))
    key = [[weight[:, 8:16], bias[8:16]] for weight, bias in fused]
    assert parts.by_layer["h.0.attn.k"][0, 1] == pytest.approx(pooled(key))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("structure", ["head", "neuron", "expert"])
def test_every_weight_is_in_one_place(name, structure):
    if (structure == "expert") is not (name == "Mixtral") and structure != "head":
        with pytest.raises(NotComparableError, match=f"belong to which {structure} is not known, only of"):
            by_structure(footprint(name), structure)
        return
    whole = footprint(name)
    found = by_structure(whole, structure)
    assert sorted(found.flat().tolist()) == sorted(whole.flat().tolist())
    numbers = {layer.rpartition(".")[2] for layer in found.layers if f".{structure}." in layer}
    assert len(numbers) == {"head": 2, "neuron": 12, "expert": 3}[structure]
    assert any(".key_value_head." in layer for layer in found.layers) is (structure == "head" and "Mi" in name)


def test_names_of_earlier_releases_of_transformers():
    architecture = {"model_type": "mixtral", "heads": 2, "key_value_heads": 2}
    moe = "model.layers.3.block_sparse_moe"
    assert pieces_of(architecture, "expert", f"{moe}.experts.5.w2.weight", (8, 12)) == [
        Piece(f"{moe}.expert.5", "experts_5_w2_weight", 0, 0, 8)
    ]
    architecture |= {"model_type": "vit"}
    assert pieces_of(architecture, "head", "vit.encoder.layer.1.attention.output.dense.weight", (8, 8)) == [
        Piece(f"vit.encoder.layer.1.attention.head.{i}", "output_dense_weight", 1, 4 * i, 4 * i + 4) for i in (0, 1)
    ]
    with pytest.raises(UsageError, match="does not part into 2 equal heads"):
        pieces_of(architecture, "head", "vit.encoder.layer.1.attention.attention.key.bias", (9,))


def test_folds_are_cut_too_and_come_from_files(tmp_path, capfd):
    prints = two("Bert", folds=4)
    table = commonweight.overlap(prints, structure="head")
    whole = commonweight.overlap(prints)
    for of in ("raw", "corrected"):
        one, other = (each.estimate(of, "a", "b") for each in (table, whole))
        assert (one.value, one.low, one.high) == pytest.approx((other.value, other.low, other.high))
    head = "encoder.layer.0.attention.head.1"
    in_order = ["embeddings.LayerNorm", head.replace("1", "0"), head, "encoder.layer.0.attention.output.dense"]
    assert list(table.layers[3:7]) == in_order
    assert table.estimate("above_null", "a", "b", head).low < table.estimate("above_null", "a", "b", head).high
    for name, each in prints.items():
        each.save(tmp_path / name)
    assert run_command(["overlap", str(tmp_path / "a"), str(tmp_path / "b"), "--by", "head", "--format", "csv"]) == 0
    rows = [row.split(",") for row in capfd.readouterr().out.splitlines()]
    (found,) = (row for row in rows if row[0] == head)
    assert float(found[rows[0].index("overlap")]) == pytest.approx(table.by_layer[head][0, 1])


def test_a_rule_of_ones_own_and_what_is_refused():
    found = Footprint("change", {"w": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2)}, 0)

    def columns(name, shape):
        return [Piece(f"in.{i}", name, 1, i, i + 1) for i in range(shape[1])] if name == "w" else []

    assert {name: each.tolist() for name, each in by_structure(found, columns).items()} == {
        **{f"in.{i}.w": [[float(i)], [float(i + 3)]] for i in range(3)},
        "b": [1.0, 1.0],
    }
    for pieces, said in (
        ([Piece("x", "w", 0, 0, 1)], "must hold each of its rows .* got 0 to 1 of axis 0"),
        ([Piece("x", "w", 0, 0, 2), Piece("y", "w", 0, 1, 2)], "got 0 to 2, 1 to 2 of axis 0"),
        ([Piece("x", "w", 0, 0, 1), Piece("x", "w", 0, 1, 2)], r"'x\.w' is a part of w and of w; name them apart"),
    ):
        with pytest.raises(UsageError, match=said):
            by_structure(found, lambda _, shape, pieces=pieces: pieces if len(shape) == 2 else [])
    with pytest.raises(NotComparableError, match="no parameter of w, b has pieces by this rule"):
        by_structure(found, lambda *_: [])
    with pytest.raises(NotComparableError, match="and this footprint records none; measure it again, or give a rule"):
        by_structure(found, "head")
    with pytest.raises(UsageError, match="a structure is one of head, qkv, neuron, expert, or a rule, got 'heads'"):
        by_structure(found, "heads")


def test_measured_and_changed_models_record_their_architecture(tmp_path):
    model = transformers.BertModel(transformers.BertConfig(**SIZES))
    model.save_pretrained(tmp_path)
    assert commonweight.change_footprint(tmp_path, tmp_path).metadata["architecture"] == {
        "model_type": "bert",
        "heads": 2,
        "key_value_heads": 2,
    }
    rows = [(torch.randn(4, 2), torch.tensor([0, 1, 0, 1]))]
    assert commonweight.fisher(nn.Linear(2, 2), rows).metadata["architecture"] is None
