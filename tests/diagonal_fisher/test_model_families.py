"""Families of published models beyond the zoo: each equals the loop."""

from __future__ import annotations

import copy

import pytest
import torch
import transformers as t
from diagonal_fisher.loop import assert_exact, examples_of, in_sizes, nll, randn, seq2seq_nll, y
from diagonal_fisher.zoo import CLASSES, VOCABULARY, text
from reference.fisher import loop_fisher

import commonweight

SMALL = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12}
TOKENS = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
ENCODER = {**SMALL, **TOKENS, "max_position_embeddings": 16, "num_labels": CLASSES}
PICTURE = {**SMALL, "image_size": 16, "patch_size": 4}


def causal_nll(model, example):
    out = model(**{key: value for key, value in example.items() if key != "labels"}).logits[:, :-1]
    labels = example["labels"][:, 1:]
    return [torch.nn.functional.cross_entropy(out.flatten(0, 1), labels.flatten(), reduction="sum")]


def words():
    return text(5, 7)


def tokens():
    return text(5, 7, labels="token")


def pixels(side):
    return {"pixel_values": randn(5, 3, side, side), "labels": y(5)}


def mamba():
    config = t.MambaConfig(hidden_size=8, state_size=4, num_hidden_layers=2, conv_kernel=3, **TOKENS)
    return t.MambaForCausalLM(config)


def clip():
    config = t.CLIPConfig(
        vision_config={**PICTURE, "projection_dim": 6},
        text_config={**SMALL, "vocab_size": VOCABULARY},
        num_labels=CLASSES,
    )
    return t.CLIPForImageClassification(config)


def wav2vec2():
    config = t.Wav2Vec2Config(
        **SMALL,
        num_labels=CLASSES,
        conv_dim=(6, 6),
        conv_stride=(2, 2),
        conv_kernel=(3, 3),
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=3,
        num_conv_pos_embedding_groups=2,
        classifier_proj_size=6,
    )
    return t.Wav2Vec2ForSequenceClassification(config)


def deberta():
    config = t.DebertaV2Config(
        **ENCODER,
        relative_attention=True,
        share_att_key=True,
        pos_att_type=["c2p", "p2c"],
        position_buckets=4,
        norm_rel_ebd="layer_norm",
        position_biased_input=False,
    )
    return t.DebertaV2ForSequenceClassification(config)


def bart():
    config = t.BartConfig(
        **TOKENS,
        d_model=8,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=12,
        decoder_ffn_dim=12,
        max_position_embeddings=16,
        decoder_start_token_id=2,
    )
    return t.BartForConditionalGeneration(config)


def mpnet():
    return t.MPNetForSequenceClassification(t.MPNetConfig(**ENCODER))


def opt():
    config = t.OPTConfig(
        **TOKENS,
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        ffn_dim=12,
        max_position_embeddings=16,
        word_embed_proj_dim=8,
    )
    return t.OPTForCausalLM(config)


def convnext():
    config = t.ConvNextConfig(hidden_sizes=[4, 4, 6, 6], depths=[1, 1, 1, 1], num_labels=CLASSES)
    return t.ConvNextForImageClassification(config)


def gemma():
    config = t.GemmaConfig(**SMALL, **TOKENS, num_key_value_heads=1, head_dim=4, max_position_embeddings=16)
    return t.GemmaForCausalLM(config)


def falcon():
    config = t.FalconConfig(**TOKENS, hidden_size=8, num_hidden_layers=2, num_attention_heads=2)
    return t.FalconForCausalLM(config)


FAMILIES = {
    "deberta-v2": (deberta, words, nll, ("encoder.rel_embeddings", "encoder.LayerNorm")),
    "mpnet": (mpnet, words, nll, ("relative_attention_bias",)),
    "bart": (bart, tokens, seq2seq_nll, ("model.shared", "decoder.embed_positions")),
    "opt": (opt, tokens, causal_nll, ()),
    "gemma": (gemma, tokens, causal_nll, ("embed_tokens",)),
    "falcon": (falcon, tokens, causal_nll, ()),
    "mamba": (mamba, tokens, causal_nll, ("A_log", "mixer.D", "conv1d", "dt_proj")),
    "convnext": (convnext, lambda: pixels(32), nll, ()),
    "clip-vision": (clip, lambda: pixels(16), nll, ()),
    "wav2vec2": (wav2vec2, lambda: {"input_values": randn(5, 40), "labels": y(5)}, nll, ()),
}
"""Model, batch, loss of one example, and parts of the names of parameters that are measured one by one."""


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.filterwarnings("ignore:The fast path is not available")
def test_a_family_equals_the_loop(family):
    torch.manual_seed(5)
    make, batch, loss, generic = FAMILIES[family]
    model = make().double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    footprint = assert_exact(model, list(in_sizes(batch(), [3, 2])), loss=None, nll=loss, tolerance=1e-5)
    unexpected = [name for name in footprint.metadata["generic"] if not any(part in name for part in generic)]
    assert not unexpected, footprint.metadata["generic"]


def test_a_bert_in_bfloat16_takes_rules_and_equals_the_loop_in_float32():
    torch.manual_seed(0)
    config = t.BertConfig(
        **{**SMALL, "hidden_size": 64, "intermediate_size": 128},
        **TOKENS,
        max_position_embeddings=32,
        num_labels=CLASSES,
    )
    model = t.BertForSequenceClassification(config).bfloat16()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    batch = text(16, 24)
    footprint = commonweight.fisher(model, list(in_sizes(batch, [8, 8])))
    reference, _ = loop_fisher(copy.deepcopy(model).float(), list(examples_of([batch])), nll)
    largest = max(float(value.max()) for value in reference.values()) ** 0.5
    gaps = {
        name: float((footprint[name].double().sqrt() - value.sqrt()).abs().max()) / largest
        for name, value in reference.items()
    }
    assert max(gaps.values()) < 0.05
    assert len(footprint.metadata["generic"]) <= len(footprint) // 20, footprint.metadata["generic"]
