"""Per-example log-likelihoods, and the three Fisher types as weighted backward passes.

The diagonal Fisher of one example is an expectation over labels of a squared gradient,
``E_y[(∂ log p(y|x)/∂w)²]``. A Fisher type says which labels: the given ones (``empirical``), the
model's own distribution, exactly (``exact``), or draws from it (``mc``). Each is a list of *passes*:
vectors ``[batch]`` whose per-example gradients, squared and summed over the passes, are the Fisher of the example.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from commonweight.base.errors import CommonweightError, MeasurementError, UsageError
from commonweight.base.seeds import keyed
from commonweight.data.batching import IGNORED

if TYPE_CHECKING:
    from commonweight.base.choices import FisherType
    from commonweight.diagonal_fisher.batch import Batch

LossFunction = Callable[[Any, Any], Tensor]


@dataclass(frozen=True)
class CustomLoss:
    """A loss of the user's own, with what the Fisher types ``exact`` and ``mc`` need.

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

    reads_batch = False
    """Whether keys of a batch that the model does not take are for the loss."""

    @abstractmethod
    def nll(self, outputs: Any, batch: Batch) -> Tensor:
        """Negative log-likelihood of the given labels, ``[batch]``, in nats."""

    @abstractmethod
    def expectation(self, outputs: Any, batch: Batch) -> Iterator[Tensor]:
        """Passes whose squared gradients sum to the exact expectation over the model's own labels."""

    @abstractmethod
    def sampled_nll(self, outputs: Any, batch: Batch, seed: int, draw: int) -> Tensor:
        """Negative log-likelihood of labels drawn from the model, keyed by seed, source row and draw, ``[batch]``."""

    def right(self, outputs: Any, batch: Batch) -> tuple[Tensor, int] | None:  # noqa: ARG002 - for those with classes
        """Say which examples have the label found likeliest, bits ``[batch]``, of how many; None without classes."""
        return None

    def doubt(self, outputs: Any, batch: Batch) -> str:  # noqa: ARG002 - some have one
        """Why outputs may not be what the likelihood takes them for; empty without a doubt."""
        return ""

    def fingerprint(self, outputs: Any, batch: Batch, rule: FisherType, seed: int) -> Tensor:
        """One number per example that changes whenever its outputs do, ``[batch]``."""
        return self.nll(outputs, batch) if rule == "empirical" else self.sampled_nll(outputs, batch, seed, 0)

    def passes(self, outputs: Any, batch: Batch, rule: FisherType, seed: int, samples: int) -> Iterator[Tensor]:
        """Give the passes of a Fisher type."""
        if rule == "empirical":
            yield self.nll(outputs, batch)
        elif rule == "exact":
            yield from self.expectation(outputs, batch)
        else:
            for draw in range(samples):
                yield self.sampled_nll(outputs, batch, seed, draw) / math.sqrt(samples)


def per_example(vector: Tensor, batch: Batch) -> Tensor:
    """Check that a loss is one finite number per example."""
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


LARGEST_EXACT = 1000
"""Most classes for which the expectation over labels is taken exactly, one backward pass each."""


def picked(log_prob: Tensor, labels: Tensor) -> Tensor:
    """Pick the log-probability of one label per row: ``[..., C]`` and ``[...]`` to ``[...]``."""
    return log_prob.gather(-1, labels.unsqueeze(-1)).squeeze(-1)


def bernoulli(logits: Tensor, labels: Tensor) -> Tensor:
    """Sum the binary cross-entropies of independent labels: ``[batch, K]`` to ``[batch]``, in nats."""
    return F.binary_cross_entropy_with_logits(logits, labels, reduction="none").sum(-1)


def check_exact(classes: int) -> None:
    """Refuse an exact expectation over more than ``LARGEST_EXACT`` labels."""
    if classes > LARGEST_EXACT:
        raise UsageError(
            f"the Fisher type exact takes one backward pass per class, and there are {classes} "
            f"(at most {LARGEST_EXACT}): use {{fisher_type}}",
            fisher_type="mc",
        )


def invert(cumulative: Tensor, uniform: Tensor) -> Tensor:
    """Invert a cumulative distribution at uniform numbers: ``[n, C]`` and ``[n]`` to class numbers ``[n]``."""
    index = torch.searchsorted(cumulative, (uniform.double() * cumulative[:, -1]).unsqueeze(-1), right=True)
    return index.squeeze(-1).clamp_max(cumulative.shape[-1] - 1)


def uniforms(count: int, seed: int, row: int, draw: int) -> Tensor:
    """Draw uniform numbers keyed by seed, source row and draw, ``[count]``, float64."""
    generator = torch.Generator().manual_seed(keyed(seed, row, draw))
    return torch.rand(count, generator=generator, dtype=torch.float64)


def uniform_like(batch: Batch, like: Tensor, seed: int, draw: int) -> Tensor:
    """Draw uniform numbers for every output of every example, ``[batch, K]``, keyed in the same way."""
    rows = [uniforms(like.shape[-1], seed, row, draw) for row in batch.source_rows]
    return torch.stack(rows).to(like.device)


class Categorical(Likelihood):
    """One of several labels per example, with a log-probability of each."""

    @abstractmethod
    def log_prob(self, outputs: Any, batch: Batch) -> Tensor:
        """Normalised log-probabilities of every label, ``[batch, classes]``."""

    @override
    def expectation(self, outputs: Any, batch: Batch) -> Iterator[Tensor]:
        log_prob = self.log_prob(outputs, batch)
        check_exact(log_prob.shape[-1])
        weight = (log_prob.detach() / 2).exp()
        for c in range(log_prob.shape[-1]):  # √p_c · -log p_c: the squared gradients sum to the expectation
            # A probability that underflows to 0 has weight 0; its log would turn 0 · inf into nan.
            yield weight[:, c] * -log_prob[:, c].clamp_min(torch.finfo(log_prob.dtype).min)

    @override
    def sampled_nll(self, outputs: Any, batch: Batch, seed: int, draw: int) -> Tensor:
        log_prob = self.log_prob(outputs, batch)
        cumulative = log_prob.detach().double().exp().cumsum(-1)
        uniform = torch.cat([uniforms(1, seed, row, draw) for row in batch.source_rows]).to(log_prob.device)
        return -picked(log_prob, invert(cumulative, uniform))


class Classification(Categorical):
    """One of C classes: ``-log softmax(z)_y``; logits ``[batch, C]``, labels ``[batch]``."""

    name = "classification"

    @override
    def log_prob(self, outputs: Any, batch: Batch) -> Tensor:
        return _class_logits(outputs, batch, self.name, 2).log_softmax(-1)

    @override
    def doubt(self, outputs: Any, batch: Batch) -> str:
        return _doubt_of_logits(_class_logits(outputs, batch, self.name, 2), self.name)

    @override
    def nll(self, outputs: Any, batch: Batch) -> Tensor:
        log_prob = self.log_prob(outputs, batch)
        return -picked(log_prob, _class_labels(batch, log_prob.shape[-1]))

    @override
    def right(self, outputs: Any, batch: Batch) -> tuple[Tensor, int] | None:
        logits = _logits(outputs, batch, self.name, 2)
        if batch.labels is None or batch.labels.is_floating_point() or batch.labels.shape != (batch.size,):
            return None
        return logits.argmax(-1) == batch.labels, logits.shape[-1]


class Multilabel(Likelihood):
    """K independent yes/no labels: summed binary cross-entropy; logits and labels ``[batch, K]``, or ``[batch]``."""

    name = "multilabel"

    def _logits(self, outputs: Any, batch: Batch) -> Tensor:
        logits = _logits(outputs, batch, self.name, None)
        return logits[:, None] if logits.dim() == 1 else _logits(outputs, batch, self.name, 2)

    @override
    def nll(self, outputs: Any, batch: Batch) -> Tensor:
        logits = self._logits(outputs, batch)
        labels = _fitting(batch, logits, self.name, "loss 'multilabel': logits").to(logits)
        if not ((labels >= 0) & (labels <= 1)).all():
            raise UsageError(
                f"loss 'multilabel' expects labels from 0 to 1, got {float(labels.min()):g} to {float(labels.max()):g}"
            )
        return bernoulli(logits, labels)

    @override
    def expectation(self, outputs: Any, batch: Batch) -> Iterator[Tensor]:
        # The labels are independent given x, so the cross terms vanish and Var(y_k) = p_k(1 - p_k) weights each logit.
        logits = self._logits(outputs, batch)
        check_exact(logits.shape[-1])
        spread = (logits.sigmoid() * (-logits).sigmoid()).detach().sqrt()
        for k in range(logits.shape[-1]):
            yield spread[:, k] * logits[:, k]

    @override
    def sampled_nll(self, outputs: Any, batch: Batch, seed: int, draw: int) -> Tensor:
        logits = self._logits(outputs, batch)
        return bernoulli(logits, (uniform_like(batch, logits, seed, draw) < logits.detach().sigmoid()).to(logits))

    @override
    def right(self, outputs: Any, batch: Batch) -> tuple[Tensor, int] | None:
        logits = self._logits(outputs, batch)
        if batch.labels is None or batch.labels.numel() != batch.size or logits.shape[-1] != 1:
            return None  # of many labels most are no, and guessing is right of them in most cases
        return (logits > 0).reshape(-1) == (batch.labels > 0.5).reshape(-1), 2


class Regression(Likelihood):
    """Gaussian with unit variance: ``½‖z − y‖²``; outputs and labels ``[batch, ...]``."""

    name = "regression"

    def _mean(self, outputs: Any, batch: Batch) -> Tensor:
        return _logits(outputs, batch, self.name, None).reshape(batch.size, -1)

    @override
    def nll(self, outputs: Any, batch: Batch) -> Tensor:
        mean = _logits(outputs, batch, self.name, None)
        labels = _fitting(batch, mean, self.name, "regression: outputs").to(mean)
        return 0.5 * (mean - labels).square().reshape(batch.size, -1).sum(-1)

    @override
    def fingerprint(self, outputs: Any, batch: Batch, rule: FisherType, seed: int) -> Tensor:
        if rule == "empirical":
            return self.nll(outputs, batch)
        # The value of a drawn loss is the noise alone, whatever the mean.
        mean = self._mean(outputs, batch)
        return 0.5 * (mean - uniform_like(batch, mean, seed, 0).to(mean)).square().sum(-1)

    @override
    def expectation(self, outputs: Any, batch: Batch) -> Iterator[Tensor]:
        mean = self._mean(outputs, batch)
        check_exact(mean.shape[-1])
        for k in range(mean.shape[-1]):
            yield mean[:, k]

    @override
    def sampled_nll(self, outputs: Any, batch: Batch, seed: int, draw: int) -> Tensor:
        mean = self._mean(outputs, batch)
        noise: Tensor = torch.special.ndtri(uniform_like(batch, mean, seed, draw).double()).to(mean)
        return 0.5 * (mean - (mean.detach() + noise)).square().sum(-1)


class Tokens(Likelihood):
    """One class per token, summed over the tokens of the example whose label is not -100.

    Logits ``[batch, T, C]``, labels ``[batch, T]``; with ``shift`` the logits at position t predict the label at t + 1.
    Where the model puts ``virtual`` tokens before the text and returns their logits too, those have no label.
    """

    def __init__(self, name: str, *, shift: bool, passes_labels: bool, virtual: int = 0) -> None:
        self.name = name
        self.shift = shift
        self.passes_labels = passes_labels
        self.virtual = virtual

    @override
    def doubt(self, outputs: Any, batch: Batch) -> str:
        return _doubt_of_logits(_class_logits(outputs, batch, self.name, 3), self.name)

    def _aligned(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        logits = _class_logits(outputs, batch, self.name, 3)
        if batch.labels is None:
            raise UsageError(
                f"loss {self.name!r} needs labels [batch, tokens] in the batch (they also say which tokens count: "
                "-100 is ignored); for a language model pass labels=input_ids with -100 at the padding"
            )
        labels = _one_target(batch, self.name)
        if self.virtual and labels.dim() == 2 and logits.shape[1] == labels.shape[1] + self.virtual:
            labels = F.pad(labels, (self.virtual, 0), value=IGNORED)
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
        bad = labels[((labels < 0) | (labels >= classes)) & (labels != IGNORED)]
        if len(bad):
            raise _out_of_range(bad, classes, f", or {IGNORED} for tokens that do not count")
        loss = F.cross_entropy(logits.transpose(1, 2), labels, ignore_index=-100, reduction="none")
        return loss.sum(-1)

    @override
    def expectation(self, outputs: Any, batch: Batch) -> Iterator[Tensor]:
        raise UsageError(
            f"the Fisher type exact needs one backward pass per token and class with loss {self.name!r}: "
            "use {fisher_type}",
            fisher_type="mc",
        )

    @override
    def sampled_nll(self, outputs: Any, batch: Batch, seed: int, draw: int) -> Tensor:
        logits, labels = self._aligned(outputs, batch)
        drawn = torch.full_like(labels, -100, dtype=torch.long)
        for i, row in enumerate(batch.source_rows):
            counted = (labels[i] != -100).nonzero().squeeze(-1)
            uniform = uniforms(len(counted), seed, row, draw).to(logits.device)
            cumulative = logits[i, counted].detach().double().softmax(-1).cumsum(-1)
            drawn[i, counted] = invert(cumulative, uniform)
        loss = F.cross_entropy(logits.transpose(1, 2), drawn, ignore_index=-100, reduction="none")
        return loss.sum(-1)


class Custom(Categorical):
    """A loss of the user's own."""

    name = "custom"
    passes_labels = True
    reads_batch = True

    def __init__(self, loss: CustomLoss) -> None:
        self.loss = loss

    @override
    def nll(self, outputs: Any, batch: Batch) -> Tensor:
        vector: Tensor = _called(self.loss.nll, "loss", outputs, batch)
        return vector

    @override
    def log_prob(self, outputs: Any, batch: Batch) -> Tensor:
        if self.loss.log_prob is None:
            raise UsageError(
                "a loss of your own gives no label distribution for the Fisher types exact and mc: use {fisher_type}, "
                "or in Python pass loss=CustomLoss(nll, log_prob) with log_prob(outputs, batch) -> [batch, classes]",
                fisher_type="empirical",
            )
        log_prob = _called(self.loss.log_prob, "log_prob", outputs, batch)
        if (
            not isinstance(log_prob, Tensor)
            or log_prob.dim() != 2
            or log_prob.shape[0] != batch.size
            or log_prob.shape[1] < 2
        ):
            got = list(log_prob.shape) if isinstance(log_prob, Tensor) else type(log_prob).__name__
            raise UsageError(
                f"log_prob must return [batch, classes] = [{batch.size}, classes], got {got}; of 2 classes or more"
            )
        if not torch.allclose(log_prob.detach().double().logsumexp(-1), log_prob.new_zeros(()).double(), atol=1e-3):
            raise UsageError("log_prob must return normalised log-probabilities: use log_softmax")
        return log_prob


_OWN = "in Python pass as loss a callable (outputs, batch) -> [batch]"

_ONE_OUTPUT = "one output is no choice among classes; use {loss} multilabel (yes or no, Bernoulli) or regression"


def _called(function: LossFunction, name: str, outputs: Any, batch: Batch) -> Any:
    original = batch.original()
    try:
        return function(outputs, original)
    except (CommonweightError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever a function of the user's own may raise
        form = f"a mapping with {', '.join(map(repr, original))}" if batch.is_mapping else "a pair (inputs, targets)"
        raise MeasurementError(
            f"the {name} of your own raised {type(error).__name__}: {str(error) or 'no reason given'}. It is called as "
            f"{name}(outputs, batch), where outputs is what the model returns, here a {type(outputs).__name__}, and "
            f"batch what the loader yields, here {form} of size {batch.size}, and returns "
            + ("one loss per example, [batch]" if name == "loss" else "[batch, classes]")
        ) from error


def _logits(outputs: Any, batch: Batch, loss: str, dimensions: int | None) -> Tensor:
    logits = outputs.get("logits") if isinstance(outputs, Mapping) else outputs
    if not isinstance(logits, Tensor):
        raise UsageError(
            f"loss {loss!r} needs a tensor or an output with 'logits', and the model returned "
            f"{type(outputs).__name__}: {_OWN}"
        )
    if dimensions is not None and logits.dim() != dimensions:
        layout = "[batch, classes]" if dimensions == 2 else "[batch, tokens, classes]"
        remedy = _ONE_OUTPUT if logits.dim() == 1 else "for another layout " + _OWN
        raise UsageError(f"loss {loss!r} expects logits {layout}, got shape {list(logits.shape)}: {remedy}", loss=None)
    if not logits.dim() or logits.shape[0] != batch.size:
        raise MeasurementError(
            f"the model returned outputs of shape {list(logits.shape)} for {batch.size} examples: "
            "the outputs do not match the batch"
        )
    return logits if logits.dtype == torch.float64 else logits.float()


def _class_logits(outputs: Any, batch: Batch, loss: str, dimensions: int) -> Tensor:
    """Give logits; of one class alone they are refused, since it is certain whatever the weights."""
    logits = _logits(outputs, batch, loss, dimensions)
    if logits.shape[-1] < 2:
        raise UsageError(
            f"loss {loss!r} expects 2 or more classes, got outputs of shape {list(logits.shape)}: {_ONE_OUTPUT}",
            loss=None,
        )
    return logits


def _doubt_of_logits(logits: Tensor, loss: str) -> str:
    sums = logits.detach().sum(-1)
    if bool((logits >= 0).all()) and torch.allclose(sums, torch.ones_like(sums), atol=5e-3):
        return (
            f"the outputs are probabilities already (none is negative, every row sums to 1), and loss {loss!r} takes "
            "logits, of which it makes probabilities: leave the softmax out of the model, or " + _OWN
        )
    return ""


def _one_target(batch: Batch, loss: str) -> Tensor:
    if batch.labels is None:
        raise UsageError(
            f"loss {loss!r} with the Fisher type empirical needs labels: give the batch 'labels' or targets, "
            "or use {fisher_type} exact or mc",
            fisher_type=None,
        )
    if not isinstance(batch.labels, Tensor):
        raise UsageError(
            f"loss {loss!r} expects one tensor of labels, got a {type(batch.labels).__name__} of {len(batch.labels)}: "
            f"for several targets {_OWN}"
        )
    return batch.labels


def _class_labels(batch: Batch, classes: int) -> Tensor:
    labels = _one_target(batch, "classification")
    if labels.is_floating_point() or labels.shape != (batch.size,):
        raise UsageError(
            f"loss 'classification' expects integer labels of shape [{batch.size}], got {labels.dtype} "
            f"{list(labels.shape)}"
        )
    if int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise _out_of_range(labels, classes)
    return labels.long()


def _out_of_range(labels: Tensor, classes: int, more: str = "") -> UsageError:
    return UsageError(
        f"labels run from {int(labels.min())} to {int(labels.max())}, and the model has {classes} classes: "
        f"expected 0 to {classes - 1}{more}"
    )


def _fitting(batch: Batch, outputs: Tensor, loss: str, what: str) -> Tensor:
    """Give the labels in the shape of the outputs; only ``[batch]`` and ``[batch, 1]`` stand for each other."""
    labels = _one_target(batch, loss)
    alike = {(batch.size,), (batch.size, 1)}
    if labels.shape != outputs.shape and not {tuple(labels.shape), tuple(outputs.shape)} <= alike:
        raise UsageError(
            f"{what} have shape {list(outputs.shape)}, labels {list(labels.shape)}: expected one label per output"
        )
    return labels.reshape(outputs.shape)
