"""What is measured, and the ordinary way to differentiate it: the definition that every rule is compared with."""

from __future__ import annotations

import math
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from commonweight.base.errors import MeasurementError
from commonweight.diagonal_fisher.agreement import Agreement
from commonweight.diagonal_fisher.likelihood import Likelihood, per_example
from commonweight.diagonal_fisher.sharded import gathered, reshard
from commonweight.diagonal_fisher.sites import CallShapes, Site

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from commonweight.base.choices import FisherType
    from commonweight.diagonal_fisher.batch import Batch

TOLERANCE = {torch.float64: 1e-6, torch.float32: 5e-3, torch.bfloat16: 0.1, torch.float16: 0.1}
"""Largest accepted difference of gradient magnitudes, as a share of the parameter's largest, per model type."""


@dataclass(frozen=True)
class Problem:
    """What is measured: the model, its parameters, and where labels come from."""

    model: nn.Module
    parameters: Mapping[str, nn.Parameter]
    in_use: Mapping[str, nn.Parameter]
    """The same as modules hold them while they run: others where the model is sharded."""

    trainable: Sequence[nn.Parameter]
    """All parameters that require a gradient, measured or not: with them free, autograd is as it was for the user."""

    likelihood: Likelihood
    fisher_type: FisherType
    seed: int
    samples: int
    alone: bool
    """Whether the generic route may freeze the parameters it does not differentiate by (cheaper; checked first)."""

    spread: bool = False
    """Whether a tuple or list of inputs are several arguments of the model; else it takes them whole."""

    sites: Mapping[str, Sequence[tuple[nn.Module, Site]]] = field(default_factory=dict)
    """What covers each parameter that takes a rule."""

    shapes: CallShapes = field(default_factory=CallShapes)
    """The ways layers were seen to be called."""

    agreement: Agreement = field(default_factory=Agreement)
    """Of the rows run so far, whether the model gives their labels."""

    is_sharded: bool = False
    """Whether processes share the weights of the model, and run every pass together."""

    @property
    def dtype(self) -> torch.dtype:
        """The least accurate floating type among the parameters."""
        return least_accurate(self.parameters.values())

    @property
    def slack(self) -> float:
        """How far the loss of an example alone may be from its loss in a batch, relative to 1 + the loss."""
        return {torch.float64: 1e-8, torch.float32: 1e-3}.get(self.dtype, 0.1)

    def probe(self) -> Problem:
        """Reduce the Fisher type to a single pass, which exercises every layer as well as all passes do."""
        return self if self.fisher_type == "empirical" else replace(self, fisher_type="mc", samples=1)

    def passes(self, batch: Batch) -> Iterator[tuple[Tensor, bool]]:
        """Run the model on a batch and give the passes of the Fisher type."""
        outputs = self.outputs(batch)
        self.agreement.look(self.likelihood, outputs, batch)
        vectors = self.likelihood.passes(outputs, batch, self.fisher_type, self.seed, self.samples)
        del outputs
        current = next(vectors)
        for following in vectors:
            yield per_example(current, batch), False
            current = following
        yield per_example(current, batch), True

    def outputs(self, batch: Batch) -> Any:
        """Run the model on a batch."""
        if self.is_sharded:
            reshard(self.model)
        with warnings.catch_warnings():
            # Reentrant checkpointing says so when it is about to lose a gradient. The comparison of routes sees what is
            # lost, and it is measured in another way.
            warnings.filterwarnings("ignore", "None of the inputs have requires_grad=True")
            outputs = batch.call(
                self.model,
                with_labels=self.likelihood.passes_labels,
                withhold=self.likelihood.reads_batch,
                spread=self.spread,
            )
        for parameter in self.trainable:
            parameter.grad = None  # of a backward pass inside the forward pass
        return outputs

    def fingerprint(self, batch: Batch) -> Tensor:
        """Run the model and give one number per example that changes whenever its outputs do."""
        return self.fingerprint_of(self.outputs(batch), batch)

    def fingerprint_of(self, outputs: Any, batch: Batch) -> Tensor:
        """Make of outputs one number per example that changes whenever they do."""
        return per_example(self.likelihood.fingerprint(outputs, batch, self.fisher_type, self.seed), batch)

    def single_gradients(
        self,
        example: Batch,
        names: Sequence[str],
        *,
        alone: bool | None = None,
        expected: Sequence[float] | None = None,
    ) -> Iterator[dict[str, Tensor]]:
        """Differentiate one example in the ordinary way: the definition that everything is compared with."""
        alone = self.alone if alone is None else alone
        chosen = {name: self.parameters[name] for name in names}
        with self.differentiating(names, alone=alone) as free:
            for k, (vector, last) in enumerate(self.passes(example)):
                if expected is not None and not math.isclose(
                    float(vector.detach()), expected[k], rel_tol=self.slack, abs_tol=self.slack
                ):
                    raise MeasurementError(
                        f"example {example.source_rows[0]} has loss {float(vector.detach()):.6g} alone and "
                        f"{expected[k]:.6g} in its batch: a module or the loss mixes examples, or a tensor shared by "
                        "the batch is as long as the batch and was taken apart"
                    )
                if not vector.requires_grad and not alone:
                    raise MeasurementError(
                        "the loss depends on no trainable parameter: it was detached from the model, computed under "
                        "torch.no_grad(), or made by torch.autograd.grad without create_graph=True"
                    )
                if vector.requires_grad:
                    vector.sum().backward(retain_graph=not last)
                gradients = {name: gathered(p.grad.to_dense()) for name, p in chosen.items() if p.grad is not None}
                for parameter in free:
                    parameter.grad = None
                yield gradients

    @contextmanager
    def differentiating(self, names: Sequence[str], *, alone: bool | None = None) -> Iterator[list[nn.Parameter]]:
        """Let autograd differentiate by parameters."""
        alone = self.alone if alone is None else alone
        free = [self.parameters[name] for name in names] if alone else list(self.trainable)
        try:
            for parameter in free:
                parameter.requires_grad_(True)
            yield free
        finally:
            for parameter in free:
                parameter.requires_grad_(False)
                parameter.grad = None


def least_accurate(parameters: Iterable[Tensor]) -> torch.dtype:
    """Find the floating type that limits how exactly a model can be compared with itself."""
    dtypes = {parameter.dtype for parameter in parameters}
    return max((d for d in dtypes if d in TOLERANCE), key=TOLERANCE.__getitem__, default=torch.float32)


ALL = 1.0
"""Share of the parameters compared at a time before anything is measured: their totals and gradients, two copies."""

BESIDE_SUMS = 0.4
"""The same once sums of earlier batches take a copy of their own: three copies would be too many."""


def portions(problem: Problem, names: Collection[str], share: float) -> list[list[str]]:
    """Split parameters into few portions."""
    size = {name: parameter.numel() for name, parameter in problem.parameters.items()}
    room = share * sum(size.values())
    found: list[list[str]] = []
    filled: list[int] = []
    for name in sorted(names, key=size.__getitem__, reverse=True):
        at = next((k for k, held in enumerate(filled) if held + size[name] <= room), len(found))
        if at == len(found):
            found.append([])
            filled.append(0)
        found[at].append(name)
        filled[at] += size[name]
    return found


def single_gradients_of(
    problem: Problem, example: Batch, names: Collection[str], *, together: Collection[str] | None = None
) -> dict[str, Tensor]:
    """Differentiate one example in the ordinary way and keep a portion of the gradients."""
    free = names if together is None else together
    with only_gradients_of(problem, names):
        (found,) = problem.single_gradients(example, list(free), alone=together is not None)
    return found


@contextmanager
def only_gradients_of(problem: Problem, names: Collection[str]) -> Iterator[None]:
    """Let go of the gradients of all other parameters as soon as autograd has made them."""
    kept = {id(problem.parameters[name]) for name in names}
    others = [(p, p._post_accumulate_grad_hooks) for p in problem.trainable if id(p) not in kept]
    ours = {0: _let_go}
    try:
        for parameter, _ in others:
            parameter._post_accumulate_grad_hooks = ours
        yield
    finally:
        ours.clear()  # autograd holds on to it where there were none before
        for parameter, hooks in others:
            parameter._post_accumulate_grad_hooks = hooks


def _let_go(parameter: Tensor) -> None:
    parameter.grad = None
