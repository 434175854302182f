"""Per-example log-likelihoods, and the three label rules as weighted backward passes.

The diagonal Fisher of one example is an expectation over labels of a squared gradient,
``E_y[(∂ log p(y|x)/∂w)²]``. A label rule says which labels: the given ones (``data``, the empirical Fisher), the
model's own distribution, exactly (``model``), or draws from it (``sampled``). Each is a list of *passes*:
vectors ``[batch]`` whose per-example gradients, squared and summed over the passes, are the Fisher of the example.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from commonweight.errors import MeasurementError, UsageError
from commonweight.footprint.folds import keyed

if TYPE_CHECKING:
    from commonweight.footprint.batch import Batch

LabelRule = Literal["data", "model", "sampled"]
LABEL_RULES: tuple[LabelRule, ...] = ("data", "model", "sampled")
LARGEST_EXACT = 1000
"""Most classes for which the expectation over labels is taken exactly, one backward pass each."""

LossFunction = Callable[[Any, Any], Tensor]


@dataclass(frozen=True)
class CustomLoss:
    """A loss of the user's own, with what the label rules ``model`` and ``sampled`` need.

    Args:
        nll: ``(outputs, batch) -> [batch]``, the per-example negative log-likelihood of the given labels.
        log_prob: ``(outputs, batch) -> [batch, classes]``, normalised log-probabilities of every possible label.

    Example:
        >>> import torch.nn.functional as F
        >>> loss = CustomLoss(
        ...     nll=lambda outputs, batch: F.cross_entropy(outputs, batch[1], reduction="none"),
        ...     log_prob=lambda outputs, batch: outputs.log_softmax(-1),
        ... )
    """

    nll: LossFunction
    log_prob: LossFunction | None = None


class Likelihood(ABC):
    """How outputs and labels become per-example log-likelihoods."""

    name: str
    passes_labels = False
    """Whether the model is called with the labels (it needs them to make decoder inputs, or the user's loss may)."""

    @abstractmethod
    def nll(self, outputs: Any, batch: Batch) -> Tensor:
        """Negative log-likelihood of the given labels, ``[batch]``, in nats."""

    @abstractmethod
    def expectation(self, outputs: Any, batch: Batch) -> Iterator[Tensor]:
        """Passes whose squared gradients sum to the exact expectation over the model's own labels."""

    @abstractmethod
    def sampled_nll(self, outputs: Any, batch: Batch, seed: int, draw: int) -> Tensor:
        """Negative log-likelihood of labels drawn from the model, keyed by seed, source row and draw, ``[batch]``."""

    def fingerprint(self, outputs: Any, batch: Batch, rule: LabelRule, seed: int) -> Tensor:
        """One number per example that changes whenever its outputs do, ``[batch]``."""
        return self.nll(outputs, batch) if rule == "data" else self.sampled_nll(outputs, batch, seed, 0)

    def passes(self, outputs: Any, batch: Batch, rule: LabelRule, seed: int, samples: int) -> Iterator[Tensor]:
        """Give the passes of a label rule.

        Args:
            outputs: What the model returned.
            batch: The batch it was called on.
            rule: Where the labels come from.
            seed: Seed of the draws of ``sampled``.
            samples: Draws per example of ``sampled``.

        Yields:
            Vectors ``[batch]``.
        """
        if rule == "data":
            yield self.nll(outputs, batch)
        elif rule == "model":
            yield from self.expectation(outputs, batch)
        else:
            for draw in range(samples):
                yield self.sampled_nll(outputs, batch, seed, draw) / math.sqrt(samples)


class Classification(Likelihood):
    """One of C classes: ``-log softmax(z)_y``; logits ``[batch, C]``, labels ``[batch]``."""

    name = "classification"

    def _log_prob(self, outputs: Any, batch: Batch) -> Tensor:
        return _logits(outputs, batch, self.name, 2).log_softmax(-1)

    @override
    def nll(self, outputs: Any, batch: Batch) -> Tensor:
        log_prob = self._log_prob(outputs, batch)
        return -_picked(log_prob, _class_labels(batch, log_prob.shape[-1]))

    @override
    def expectation(self, outputs: Any, batch: Batch) -> Iterator[Tensor]:
        return _categorical_expectation(self._log_prob(outputs, batch))

    @override
    def sampled_nll(self, outputs: Any, batch: Batch, seed: int, draw: int) -> Tensor:
        return _categorical_draw(self._log_prob(outputs, batch), batch, seed, draw)


class Multilabel(Likelihood):
    """K independent yes/no labels: summed binary cross-entropy; logits and labels ``[batch, K]``."""

    name = "multilabel"

    @override
    def nll(self, outputs: Any, batch: Batch) -> Tensor:
        logits = _logits(outputs, batch, self.name, 2)
        labels = _same_shape(batch, logits, self.name).to(logits)
        if not ((labels >= 0) & (labels <= 1)).all():
            raise UsageError(
                f"loss 'multilabel' expects labels from 0 to 1, got {float(labels.min()):g} to {float(labels.max()):g}"
            )
        return _bernoulli(logits, labels)

    @override
    def expectation(self, outputs: Any, batch: Batch) -> Iterator[Tensor]:
        # The labels are independent given x, so the cross terms vanish and Var(y_k) = p_k(1 - p_k) weights each logit.
        logits = _logits(outputs, batch, self.name, 2)
        _check_exact(logits.shape[-1])
        spread = (logits.sigmoid() * (-logits).sigmoid()).detach().sqrt()
        for k in range(logits.shape[-1]):
            yield spread[:, k] * logits[:, k]

    @override
    def sampled_nll(self, outputs: Any, batch: Batch, seed: int, draw: int) -> Tensor:
        logits = _logits(outputs, batch, self.name, 2)
        return _bernoulli(logits, (_uniform(batch, logits, seed, draw) < logits.detach().sigmoid()).to(logits))


class Regression(Likelihood):
    """Gaussian with unit variance: ``½‖z − y‖²``; outputs and labels ``[batch]`` or ``[batch, K]``."""

    name = "regression"

    def _mean(self, outputs: Any, batch: Batch) -> Tensor:
        return _logits(outputs, batch, self.name, None).reshape(batch.size, -1)

    @override
    def nll(self, outputs: Any, batch: Batch) -> Tensor:
        mean = self._mean(outputs, batch)
        if batch.labels is None:
            raise _no_labels(self.name)
        labels = batch.labels.to(mean)
        if labels.numel() != mean.numel():
            raise UsageError(f"regression: outputs have shape {list(mean.shape)}, labels {list(labels.shape)}")
        return 0.5 * (mean - labels.reshape(mean.shape)).square().sum(-1)

    @override
    def fingerprint(self, outputs: Any, batch: Batch, rule: LabelRule, seed: int) -> Tensor:
        if rule == "data":
            return self.nll(outputs, batch)
        # The value of a drawn loss is the noise alone, whatever the mean.
        mean = self._mean(outputs, batch)
        return 0.5 * (mean - _uniform(batch, mean, seed, 0).to(mean)).square().sum(-1)

    @override
    def expectation(self, outputs: Any, batch: Batch) -> Iterator[Tensor]:
        mean = self._mean(outputs, batch)
        _check_exact(mean.shape[-1])
        for k in range(mean.shape[-1]):
            yield mean[:, k]

    @override
    def sampled_nll(self, outputs: Any, batch: Batch, seed: int, draw: int) -> Tensor:
        mean = self._mean(outputs, batch)
        noise: Tensor = torch.special.ndtri(_uniform(batch, mean, seed, draw).double()).to(mean)
        return 0.5 * (mean - (mean.detach() + noise)).square().sum(-1)


class Tokens(Likelihood):
    """One class per token, summed over the tokens of the example whose label is not -100.

    Logits ``[batch, T, C]``, labels ``[batch, T]``; with ``shift`` the logits at position t predict the label at t + 1.
    """

    def __init__(self, name: str, *, shift: bool, passes_labels: bool) -> None:
        self.name = name
        self.shift = shift
        self.passes_labels = passes_labels

    def _aligned(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        logits = _logits(outputs, batch, self.name, 3)
        if batch.labels is None:
            raise UsageError(
                f"loss {self.name!r} needs labels [batch, tokens] in the batch (they also say which tokens count: "
                "-100 is ignored); for a language model pass labels=input_ids with -100 at the padding"
            )
        labels = batch.labels
        if self.shift:
            logits, labels = logits[:, :-1], labels[:, 1:]
        if labels.shape != logits.shape[:2]:
            raise UsageError(
                f"loss {self.name!r}: logits have shape {list(logits.shape)}, labels {list(labels.shape)}: "
                "expected one label per token"
            )
        return logits, labels

    @override
    def nll(self, outputs: Any, batch: Batch) -> Tensor:
        logits, labels = self._aligned(outputs, batch)
        if labels.is_floating_point():
            raise UsageError(f"loss {self.name!r} expects integer labels, got {labels.dtype}")
        labels, classes = labels.long(), logits.shape[-1]
        bad = ((labels < 0) | (labels >= classes)) & (labels != -100)
        if bad.any():
            raise UsageError(
                f"labels run from {int(labels[bad].min())} to {int(labels[bad].max())}, and the model has {classes} "
                f"classes: expected 0 to {classes - 1}, or -100 for tokens that do not count"
            )
        loss = F.cross_entropy(logits.transpose(1, 2), labels, ignore_index=-100, reduction="none")
        return loss.sum(-1)

    @override
    def expectation(self, outputs: Any, batch: Batch) -> Iterator[Tensor]:
        raise UsageError(
            f"label_rule='model' needs one backward pass per token and class with loss {self.name!r}: "
            "use label_rule='sampled'"
        )

    @override
    def sampled_nll(self, outputs: Any, batch: Batch, seed: int, draw: int) -> Tensor:
        logits, labels = self._aligned(outputs, batch)
        drawn = torch.full_like(labels, -100, dtype=torch.long)
        for i, row in enumerate(batch.source_rows):
            counted = (labels[i] != -100).nonzero().squeeze(-1)
            uniform = _uniforms(len(counted), seed, row, draw).to(logits.device)
            cumulative = logits[i, counted].detach().double().softmax(-1).cumsum(-1)
            drawn[i, counted] = _invert(cumulative, uniform)
        loss = F.cross_entropy(logits.transpose(1, 2), drawn, ignore_index=-100, reduction="none")
        return loss.sum(-1)


class Custom(Likelihood):
    """A loss of the user's own."""

    name = "custom"
    passes_labels = True

    def __init__(self, loss: CustomLoss) -> None:
        self.loss = loss

    @override
    def nll(self, outputs: Any, batch: Batch) -> Tensor:
        vector: Tensor = self.loss.nll(outputs, batch.original())
        return vector

    def _log_prob(self, outputs: Any, batch: Batch) -> Tensor:
        if self.loss.log_prob is None:
            raise UsageError(
                "a loss of your own gives no label distribution for label_rule='model' or 'sampled': "
                "pass loss=CustomLoss(nll, log_prob) with log_prob(outputs, batch) -> [batch, classes], "
                "or use label_rule='data'"
            )
        log_prob = self.loss.log_prob(outputs, batch.original())
        if log_prob.dim() != 2 or log_prob.shape[0] != batch.size:
            raise UsageError(
                f"log_prob must return [batch, classes] = [{batch.size}, classes], got {list(log_prob.shape)}"
            )
        if not torch.allclose(log_prob.detach().double().logsumexp(-1), log_prob.new_zeros(()).double(), atol=1e-3):
            raise UsageError("log_prob must return normalised log-probabilities: use log_softmax")
        return log_prob

    @override
    def expectation(self, outputs: Any, batch: Batch) -> Iterator[Tensor]:
        return _categorical_expectation(self._log_prob(outputs, batch))

    @override
    def sampled_nll(self, outputs: Any, batch: Batch, seed: int, draw: int) -> Tensor:
        return _categorical_draw(self._log_prob(outputs, batch), batch, seed, draw)


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
    """Turn the ``loss`` argument into a likelihood; infer it only where the class or the labels leave no doubt.

    Args:
        loss: A name from ``LOSSES``, a callable, a :class:`CustomLoss`, or None to infer.
        model: The model; a Hugging Face class and its ``problem_type`` say the loss.
        batch: The first batch; integer targets ``[batch]`` of a plain model say classification.

    Returns:
        The likelihood.

    Raises:
        UsageError: If the name is unknown or the loss cannot be inferred.
    """
    if isinstance(loss, str):
        if loss not in LOSSES:
            raise UsageError(f"loss must be one of {', '.join(LOSSES)}, or a callable; got {loss!r}")
        return LOSSES[loss]
    if isinstance(loss, CustomLoss):
        return Custom(loss)
    if loss is not None:
        return Custom(CustomLoss(loss))
    integer_classes = batch.labels is not None and batch.labels.dim() == 1 and not batch.labels.is_floating_point()
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
                    return LOSSES[name]
    elif integer_classes and not batch.is_mapping:
        return LOSSES["classification"]
    if batch.is_mapping and batch.labels is None and "label" in batch.inputs:
        raise UsageError("the batch has 'label', and Hugging Face models are called with 'labels': rename the column")
    raise UsageError(
        f"the loss of {type(model).__name__} cannot be inferred: pass loss= one of {', '.join(LOSSES)}, "
        "or a callable (outputs, batch) -> [batch] giving the per-example negative log-likelihood"
    )


def per_example(vector: Tensor, batch: Batch) -> Tensor:
    """Check that a loss is one finite number per example.

    Args:
        vector: What the loss returned.
        batch: The batch it was computed on.

    Returns:
        The same vector.

    Raises:
        MeasurementError: If the shape is not ``[batch]`` or a value is not finite.
    """
    if not isinstance(vector, Tensor) or vector.shape != (batch.size,):
        got = list(vector.shape) if isinstance(vector, Tensor) else type(vector).__name__
        raise MeasurementError(
            f"expected one loss per example, shape [{batch.size}], got {got}: the outputs do not match the batch, "
            "or the loss is averaged (use reduction='none' and sum over everything but the batch)"
        )
    finite = vector.detach().isfinite()
    if not finite.all():
        row = batch.source_rows[int((~finite).nonzero()[0])]
        raise MeasurementError(
            f"the loss of example {row} is {float(vector.detach()[~finite][0])}: expected a finite number"
        )
    return vector


def _logits(outputs: Any, batch: Batch, loss: str, dimensions: int | None) -> Tensor:
    logits = outputs.get("logits") if isinstance(outputs, Mapping) else outputs
    if not isinstance(logits, Tensor):
        raise UsageError(
            f"loss {loss!r} needs a tensor or an output with 'logits', and the model returned "
            f"{type(outputs).__name__}: pass loss= a callable (outputs, batch) -> [batch]"
        )
    if dimensions is not None and logits.dim() != dimensions:
        layout = "[batch, classes]" if dimensions == 2 else "[batch, tokens, classes]"
        raise UsageError(f"loss {loss!r} expects logits {layout}, got shape {list(logits.shape)}")
    if not logits.dim() or logits.shape[0] != batch.size:
        raise MeasurementError(
            f"the model returned outputs of shape {list(logits.shape)} for {batch.size} examples: "
            "the outputs do not match the batch"
        )
    return logits if logits.dtype == torch.float64 else logits.float()


def _no_labels(loss: str) -> UsageError:
    return UsageError(
        f"loss {loss!r} with label_rule='data' needs labels: give the batch 'labels' or targets, "
        "or use label_rule='model' or 'sampled'"
    )


def _class_labels(batch: Batch, classes: int) -> Tensor:
    if batch.labels is None:
        raise _no_labels("classification")
    labels = batch.labels
    if labels.is_floating_point() or labels.shape != (batch.size,):
        raise UsageError(
            f"loss 'classification' expects integer labels of shape [{batch.size}], got {labels.dtype} "
            f"{list(labels.shape)}"
        )
    if int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise UsageError(
            f"labels run from {int(labels.min())} to {int(labels.max())}, and the model has {classes} classes: "
            f"expected 0 to {classes - 1}"
        )
    return labels.long()


def _same_shape(batch: Batch, logits: Tensor, loss: str) -> Tensor:
    if batch.labels is None:
        raise _no_labels(loss)
    if batch.labels.shape != logits.shape:
        raise UsageError(f"loss {loss!r}: logits have shape {list(logits.shape)}, labels {list(batch.labels.shape)}")
    return batch.labels


def _picked(log_prob: Tensor, labels: Tensor) -> Tensor:
    return log_prob.gather(-1, labels.unsqueeze(-1)).squeeze(-1)


def _bernoulli(logits: Tensor, labels: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, labels, reduction="none").sum(-1)


def _check_exact(classes: int) -> None:
    if classes > LARGEST_EXACT:
        raise UsageError(
            f"label_rule='model' takes one backward pass per class, and there are {classes} "
            f"(at most {LARGEST_EXACT}): use label_rule='sampled'"
        )


def _categorical_expectation(log_prob: Tensor) -> Iterator[Tensor]:
    _check_exact(log_prob.shape[-1])
    weight = (log_prob.detach() / 2).exp()
    for c in range(log_prob.shape[-1]):
        # A probability that underflows to 0 has weight 0; its log would turn 0 · inf into nan.
        yield weight[:, c] * -log_prob[:, c].clamp_min(torch.finfo(log_prob.dtype).min)


def _categorical_draw(log_prob: Tensor, batch: Batch, seed: int, draw: int) -> Tensor:
    cumulative = log_prob.detach().double().exp().cumsum(-1)
    uniform = torch.cat([_uniforms(1, seed, row, draw) for row in batch.source_rows]).to(log_prob.device)
    return -_picked(log_prob, _invert(cumulative, uniform))


def _invert(cumulative: Tensor, uniform: Tensor) -> Tensor:
    index = torch.searchsorted(cumulative, (uniform.double() * cumulative[:, -1]).unsqueeze(-1), right=True)
    return index.squeeze(-1).clamp_max(cumulative.shape[-1] - 1)


def _uniforms(count: int, seed: int, row: int, draw: int) -> Tensor:
    generator = torch.Generator().manual_seed(keyed(seed, row, draw))
    return torch.rand(count, generator=generator, dtype=torch.float64)


def _uniform(batch: Batch, like: Tensor, seed: int, draw: int) -> Tensor:
    rows = [_uniforms(like.shape[-1], seed, row, draw) for row in batch.source_rows]
    return torch.stack(rows).to(like.device)
