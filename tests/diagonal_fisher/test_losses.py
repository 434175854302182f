"""The loss is inferred only where it is certain."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from diagonal_fisher.loop import (
    assert_exact,
)
from diagonal_fisher.zoo import VOCABULARY, text
from torch import nn

import commonweight
from commonweight.base import UsageError
from commonweight.diagonal_fisher.batch import BatchReader
from commonweight.diagonal_fisher.losses import choose_likelihood

# peft asks transformers for an attribute that was renamed
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def hollow(name):
    """A model's class without its weights; only its config is looked at."""
    import transformers

    kind = getattr(transformers, name)
    model = kind.__new__(kind)
    nn.Module.__init__(model)
    model.config = kind.config_class()
    return model


def inferred(model):
    return choose_likelihood(None, model, BatchReader().read(text(5, 7, labels="token"))).name


@pytest.mark.parametrize(
    ("name", "loss"),
    [
        ("GPT2LMHeadModel", "causal_lm"),
        ("OpenAIGPTLMHeadModel", "causal_lm"),
        ("LlamaForCausalLM", "causal_lm"),
        ("T5ForConditionalGeneration", "seq2seq"),
        ("BartForConditionalGeneration", "seq2seq"),
        ("BertForMaskedLM", "token"),
    ],
)
def test_the_loss_of_an_unmistakable_class_is_inferred(name, loss):
    assert inferred(hollow(name)) == loss


@pytest.mark.parametrize(
    "name",
    [
        "Gemma3ForConditionalGeneration",
        "LlavaForConditionalGeneration",
        "Qwen2VLForConditionalGeneration",
        "XLNetLMHeadModel",
        "XLMWithLMHeadModel",
        "FlaubertWithLMHeadModel",
        "GPT2DoubleHeadsModel",
    ],
)
def test_the_loss_of_a_class_that_means_several_things_is_not(name):
    with pytest.raises(UsageError, match=r"cannot be inferred: pass loss \(one of classification.*causal_lm.*seq2seq"):
        inferred(hollow(name))


def gemma3():
    import transformers as t

    words = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    config = t.Gemma3Config(
        text_config={**words, "head_dim": 4, "intermediate_size": 12, "vocab_size": VOCABULARY, "pad_token_id": 0},
        vision_config={
            "hidden_size": 8,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 12,
            "image_size": 16,
            "patch_size": 4,
        },
        mm_tokens_per_image=4,
        image_token_index=22,
        boi_token_index=20,
        eoi_token_index=21,
    )
    return t.Gemma3ForConditionalGeneration(config).double()


def test_a_decoder_that_is_called_conditional_generation_is_measured_with_shifted_labels():
    torch.manual_seed(0)
    model, batch = gemma3(), text(5, 7, labels="token")
    for key in ("input_ids", "labels"):
        batch[key].clamp_(max=19)
    with pytest.raises(UsageError, match="cannot be inferred"):
        commonweight.fisher(model, [batch])

    def shifted(model, example):
        logits = model(**{key: value for key, value in example.items() if key != "labels"}).logits[:, :-1]
        labels = example["labels"][:, 1:]
        return [F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100, reduction="sum")]

    assert_exact(model, [batch], loss="causal_lm", nll=shifted)
