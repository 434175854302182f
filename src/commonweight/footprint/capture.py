"""Hooks that turn one ordinary backward pass into summed squares of per-example gradients.

Parameters are frozen, so autograd computes activation gradients only. A forward hook keeps each layer's input, a tensor
hook sees the gradient of its output, and the layer's rule makes a contribution of the two. A parameter used once is
squared at once and its input let go; one used several times waits until all its contributions are there, because they
are summed before squaring. Recomputation by activation checkpointing fires the forward hooks again, inside the
backward pass; those calls are told apart and never counted as uses.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from commonweight.footprint.contribution import Contribution, Workspace, combine
from commonweight.footprint.rules import RefusedError, Rule, rules_for


class Site(NamedTuple):
    """One use of a parameter by a layer that has a rule."""

    attribute: str
    name: str
    rule: Rule


@dataclass
class _Call:
    """One call of a layer: its input until the gradient of its output arrives."""

    x: Tensor | None
    version: int
    counted: bool


class _Root(torch.autograd.Function):
    """Identity that makes a tensor part of the graph where nothing before it needs a gradient."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, anchor: Tensor) -> Tensor:  # noqa: ARG004
        return tensor.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[None, None]:  # noqa: ARG004
        return None, None


def find_sites(model: nn.Module, names: Iterable[str], *, hopeful: bool) -> dict[nn.Module, list[Site]]:
    """Find the layers whose rules cover parameters.

    Args:
        model: The model.
        names: Parameters, by their names in ``model.named_parameters()``.
        hopeful: Keep a parameter that is also owned by a module without a rule for it (a head's bias kept in two
            places); only for a measurement that is verified.

    Returns:
        Layer -> sites.
    """
    wanted = set(names)
    name_of = {id(parameter): name for name, parameter in model.named_parameters() if name in wanted}
    sites: dict[nn.Module, list[Site]] = defaultdict(list)
    without_rule = set()
    for module in model.modules():
        rules = rules_for(module)
        for attribute, parameter in module._parameters.items():
            name = name_of.get(id(parameter))
            if name is None:
                continue
            if attribute in rules:
                sites[module].append(Site(attribute, name, rules[attribute]))
            else:
                without_rule.add(name)
    if hopeful:
        return dict(sites)
    kept = {module: [site for site in here if site.name not in without_rule] for module, here in sites.items()}
    return {module: here for module, here in kept.items() if here}


class Capture:
    """Hooks on the layers of a model, adding squared per-example gradients into accumulators."""

    def __init__(
        self,
        sites: Mapping[nn.Module, Sequence[Site]],
        totals: Mapping[str, Tensor],
        *,
        shared: set[nn.Module],
        folded: bool,
    ) -> None:
        """Prepare hooks.

        Args:
            sites: Layer -> uses of parameters.
            totals: Accumulator per parameter name.
            shared: Embeddings seen to be called once for the whole batch (broadcast positions); added to while
                ``learning`` is on.
            folded: Allow layers whose rows are a multiple of the batch (only after verification).
        """
        self._sites = sites
        self._totals = totals
        self._shared = shared
        self._folded = folded
        self.learning = False
        self.refused: dict[str, str] = {}
        self.fired: set[str] = set()
        self.traces: dict[str, Tensor] = {}
        self._workspace = Workspace()
        self._handles: list[RemovableHandle] = []
        self._size = 0
        self._uses: Counter[str] = Counter()
        self._pending: dict[str, list[Contribution]] = defaultdict(list)
        self._in_backward = False
        self._last = True
        self._muted = False
        self._anchor = torch.zeros((), requires_grad=True)

    def __enter__(self) -> Self:
        for module in self._sites:
            hook = module.register_forward_hook(self._after_forward, prepend=True, with_kwargs=True)
            self._handles.append(hook)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def begin(self, size: int) -> None:
        """Start a batch: the model is about to be called on ``size`` examples.

        Args:
            size: Number of examples.
        """
        self._size = size
        self._uses.clear()
        self.traces = {}

    def backward(self, vector: Tensor, *, last: bool) -> None:
        """Run one backward pass and add its squares.

        Args:
            vector: One number per example, ``[batch]``; its per-example gradients are squared.
            last: Whether the graph may be freed.
        """
        if not vector.requires_grad:
            return
        self._pending.clear()
        self._in_backward, self._last = True, last
        try:
            vector.sum().backward(retain_graph=not last)
        finally:
            self._in_backward = False
        for name, parts in self._pending.items():
            if name in self.refused:
                continue
            try:
                whole = combine(parts)
            except TypeError as error:
                self.refused[name] = str(error)
            else:
                self._add(name, whole)
        self._pending.clear()

    def _add(self, name: str, contribution: Contribution) -> None:
        traces = contribution.square_into(self._totals[name], self._workspace)
        self.fired.add(name)
        self.traces[name] = self.traces[name] + traces if name in self.traces else traces

    def _after_forward(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        if self._muted or not self._size or not torch.is_grad_enabled():
            return None
        x = args[0] if args else next(iter(kwargs.values()), None)
        if not isinstance(x, Tensor) or not isinstance(output, Tensor) or not output.is_floating_point():
            for site in self._sites[module]:
                self.refused.setdefault(site.name, f"{type(module).__name__} was not called on one tensor")
            return None
        result = output
        if isinstance(module, nn.Embedding) and self._is_shared(module, x):
            # One look-up for the whole batch (position ids): repeated, so that its gradient keeps the examples apart.
            result = output.unsqueeze(0) if x.dim() == 1 else output
            x = x.unsqueeze(0) if x.dim() == 1 else x
            result = result.expand(self._size, *result.shape[1:])
            x = x.expand(self._size, *x.shape[1:])
        if not result.requires_grad:
            result = _Root.apply(result, self._anchor)
        if not self._in_backward:
            self._uses.update(site.name for site in self._sites[module])
        call = _Call(x.detach(), x._version, counted=not self._in_backward)
        watched = result
        if result._is_view():
            # An in-place activation on a view would cut the view's own hook out of the graph; its base keeps one.
            base = result._base
            if base is None or not (result.is_contiguous() and base.is_contiguous() and base.numel() == result.numel()):
                watched = result = result.clone()
            else:
                watched = base
        shape = result.shape
        watched.register_hook(lambda gradient: self._fire(module, call, gradient.reshape(shape)))
        return None if result is output else result

    def _is_shared(self, module: nn.Embedding, x: Tensor) -> bool:
        looks_shared = self._size > 1 and (x.shape[0] == 1 if x.dim() > 1 else x.dim() == 1 and len(x) != self._size)
        if looks_shared and self.learning:
            self._shared.add(module)
        return module in self._shared and (x.dim() == 1 or x.shape[0] == 1)

    def _fire(self, module: nn.Module, call: _Call, gradient: Tensor) -> None:
        x = call.x
        if x is None:
            raise RuntimeError(f"{type(module).__name__} got a second gradient in the last pass")
        self._muted = True
        try:
            for site in self._sites[module]:
                if site.name in self.refused:
                    continue
                try:
                    self._check(x, call, gradient)
                    contribution = site.rule(module, site.attribute, x, gradient.detach(), self._size)
                except RefusedError as error:
                    self.refused[site.name] = str(error)
                    continue
                if call.counted and self._uses[site.name] == 1:
                    self._add(site.name, contribution)
                else:
                    self._pending[site.name].append(contribution)
        finally:
            self._muted = False
        if self._last and call.counted:
            call.x = None

    def _check(self, x: Tensor, call: _Call, gradient: Tensor) -> None:
        if x._version != call.version:
            raise RefusedError("its input was changed in place after the call")
        if not self._folded and gradient.shape[0] != self._size:
            raise RefusedError(
                f"its output has first dimension {gradient.shape[0]} in a batch of {self._size} examples; "
                "verify=True lets a rule fold such rows back"
            )
