"""Which likelihood a model has: the losses that can be named, and the inference of one from the model's class."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from commonweight.base.errors import UsageError
from commonweight.diagonal_fisher.likelihood import (
    Classification,
    Custom,
    CustomLoss,
    Likelihood,
    LossFunction,
    Multilabel,
    Regression,
    Tokens,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from commonweight.diagonal_fisher.batch import Batch

LOSSES: Mapping[str, Likelihood] = {
    "classification": Classification(),
    "multilabel": Multilabel(),
    "regression": Regression(),
    "causal_lm": Tokens("causal_lm", shift=True, passes_labels=False),
    "token": Tokens("token", shift=False, passes_labels=False),
    "seq2seq": Tokens("seq2seq", shift=False, passes_labels=True),
}
"""Every loss that can be named."""


# Suffix of a Hugging Face class name -> loss; None: config.problem_type decides.
_HUGGING_FACE = {
    "ForSequenceClassification": None,
    "ForImageClassification": None,
    "ForAudioClassification": None,
    "ForMultipleChoice": "classification",
    "ForTokenClassification": "token",
    "ForMaskedLM": "token",
    "ForCausalLM": "causal_lm",
    "GPT2LMHeadModel": "causal_lm",
    "OpenAIGPTLMHeadModel": "causal_lm",
    "ForConditionalGeneration": "seq2seq",
    "ForSeq2SeqLM": "seq2seq",
}

_PROBLEM_TYPES = {
    "single_label_classification": "classification",
    "multi_label_classification": "multilabel",
    "regression": "regression",
}


def choose_likelihood(loss: str | LossFunction | CustomLoss | None, model: nn.Module, batch: Batch) -> Likelihood:
    """Turn the ``loss`` argument into a likelihood; infer it only where the class or the labels leave no doubt."""
    if isinstance(loss, str):
        if loss not in LOSSES:
            expected = f"one of {', '.join(LOSSES)}, or a callable"
            raise UsageError(f"{{argument}} must be {expected}; got {loss!r}", argument="loss")
        return _beside_virtual(LOSSES[loss], model)
    if isinstance(loss, CustomLoss):
        return Custom(loss)
    if loss is not None:
        return Custom(CustomLoss(loss))
    labels = batch.labels
    integer_classes = isinstance(labels, Tensor) and labels.dim() == 1 and not labels.is_floating_point()
    hugging_face = [base for base in type(model).__mro__ if base.__module__.split(".")[0] in {"transformers", "peft"}]
    if hugging_face:
        for suffix, name in _HUGGING_FACE.items():
            if type(model).__name__.endswith(suffix) or any(base.__name__.endswith(suffix) for base in hugging_face):
                config = getattr(model, "config", None)
                problem = getattr(config, "problem_type", None)
                if name == "seq2seq" and not getattr(config, "is_encoder_decoder", False):
                    continue
                name = name or _PROBLEM_TYPES.get(str(problem)) or ("classification" if integer_classes else None)
                if name is not None:
                    return _beside_virtual(LOSSES[name], model)
    elif integer_classes and not batch.is_mapping:
        return LOSSES["classification"]
    if batch.is_mapping and batch.labels is None and "label" in batch.inputs:
        raise UsageError("the batch has 'label', and Hugging Face models are called with 'labels': rename the column")
    raise UsageError(
        f"the loss of {type(model).__name__} cannot be inferred: pass {{loss}} (one of {', '.join(LOSSES)}), or in "
        "Python a callable (outputs, batch) -> [batch] giving the per-example negative log-likelihood",
        loss=None,
    )


def _beside_virtual(likelihood: Likelihood, model: nn.Module) -> Likelihood:
    """Let a loss over tokens know of the virtual ones that prompt tuning puts before every text."""
    virtual = getattr(getattr(model, "active_peft_config", None), "num_virtual_tokens", None)
    if virtual and isinstance(likelihood, Tokens):
        return Tokens(likelihood.name, shift=likelihood.shift, passes_labels=likelihood.passes_labels, virtual=virtual)
    return likelihood
