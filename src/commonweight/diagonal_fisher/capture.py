"""Hooks that turn one ordinary backward pass into summed squares of per-example gradients.

Parameters are frozen, so autograd computes activation gradients only. A forward hook keeps each layer's input, a tensor
hook sees the gradient of its output, and the layer's rule makes a contribution of the two. A parameter used once is
squared at once and its input let go; one used several times waits until all its contributions are there, because they
are summed before squaring. A parameter used outside the calls that are watched is refused, unless its rule agreed with
single-example passes all the same. Recomputation by activation checkpointing fires the forward hooks again, inside the
backward pass; those calls are told apart and never counted as uses.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn
from typing_extensions import override

from commonweight.base.errors import MeasurementError
from commonweight.diagonal_fisher.accumulator import Workspace, add_square
from commonweight.diagonal_fisher.batch import map_tensors
from commonweight.diagonal_fisher.contribution import Contribution, Dense, OnePosition, Product, combine
from commonweight.diagonal_fisher.replay import ModuleCall, RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from types import TracebackType

    from torch.utils.hooks import RemovableHandle

    from commonweight.diagonal_fisher.sites import CallShapes, Signature, Site


@dataclass
class _Call:
    """One call of a layer: its input until the gradient of its output arrives."""

    x: Tensor | None
    version: int
    counted: bool


class Capture:
    """Hooks on the modules of a model, adding squared per-example gradients into accumulators."""

    def __init__(
        self,
        sites: Mapping[str, Sequence[tuple[nn.Module, Site]]],
        parameters: Mapping[str, nn.Parameter],
        totals: Mapping[str, Tensor],
        shapes: CallShapes,
        *,
        learning: bool,
    ) -> None:
        self._sites: dict[nn.Module, list[Site]] = defaultdict(list)
        for uses in sites.values():
            for module, site in uses:
                self._sites[module].append(site)
        self._watched = {
            name: parameters[name] for name, uses in sites.items() if uses and type(parameters[name]) is nn.Parameter
        }
        self._inside: Counter[str] = Counter()
        self._totals = totals
        self._shapes = shapes
        self._learning = learning
        self.refused: dict[str, str] = {}
        self.fired: set[str] = set()
        self.traces: dict[str, Tensor] = {}
        self._workspace = Workspace()
        self._handles: list[RemovableHandle] = []
        self._graph_handles: list[RemovableHandle] = []
        self._size = 0
        self._signature: Signature = ()
        self._uses: Counter[str] = Counter()
        self._pending: dict[str, list[Contribution]] = defaultdict(list)
        self._over_passes: dict[str, OnePosition] = {}
        self._in_backward = False
        self._last = True
        self._muted = False
        self._anchor = torch.zeros((), requires_grad=True)

    def __enter__(self) -> Self:
        for module, sites in self._sites.items():
            for hook, needed in (
                (self._after_layer, any(site.rule is not None for site in sites)),
                (self._after_module, any(site.rule is None for site in sites)),
            ):
                if needed:
                    self._handles.append(module.register_forward_hook(hook, prepend=True, with_kwargs=True))
            self._handles += [
                module.register_forward_pre_hook(self._enter_layer),
                module.register_forward_hook(self._leave_layer, prepend=True),
            ]
        for name, parameter in self._watched.items():
            parameter.__class__ = _Watched
            parameter.__dict__["_watch"] = (name, self._on_use)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for parameter in self._watched.values():
            parameter.__class__ = nn.Parameter
            del parameter.__dict__["_watch"]
        self._let_go_of_graph()
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _let_go_of_graph(self) -> None:
        """Take hooks on several tensors off: each refers to the graph that holds it, a cycle no collection can see."""
        for handle in self._graph_handles:
            handle.remove()
        self._graph_handles.clear()

    def begin(self, size: int, signature: Signature) -> None:
        """Start a batch: the model is about to be called."""
        self._size, self._signature = size, signature
        self._let_go_of_graph()
        self._uses.clear()
        self._inside.clear()
        self.traces = {}
        self._over_passes.clear()
        if self._learning:
            self._shapes.signatures.add(signature)

    def backward(self, vector: Tensor, *, last: bool) -> None:
        """Run one backward pass and add its squares."""
        if vector.requires_grad:
            self._differentiate(vector, last=last)
        if last:  # what the last pass did not reach
            for name in list(self._over_passes):
                self._add_passes(name)

    def _differentiate(self, vector: Tensor, *, last: bool) -> None:
        self._pending.clear()
        self._in_backward, self._last = True, last
        try:
            vector.sum().backward(retain_graph=not last)
        finally:
            self._in_backward = False
        for name, parts in self._pending.items():
            if name not in self.refused:
                with self._refusing(name):
                    self._add(name, combine(parts))
        self._pending.clear()

    @contextmanager
    def _refusing(self, *names: str) -> Iterator[None]:
        """Turn the refusal of a rule, and while learning any failure of one, into an entry in ``refused``."""
        try:
            yield
        except Exception as error:
            if not (self._learning or isinstance(error, RefusedError)):
                raise
            for name in names:
                self.refused.setdefault(name, str(error).splitlines()[0] if str(error) else repr(error))

    def _add(self, name: str, contribution: Contribution) -> None:
        if isinstance(contribution, Product) and contribution.left.shape[1] == 1:
            if name not in self._over_passes and not self._last:
                self._over_passes[name] = OnePosition(contribution)
                return
            if name in self._over_passes and self._over_passes[name].take(contribution):
                if self._last:
                    self._add_passes(name)
                return
        self._note(name, contribution.square_into(self._totals[name], self._workspace))

    def _add_passes(self, name: str) -> None:
        held = self._over_passes.pop(name)
        if name not in self.refused:
            self._note(name, held.square_into(self._totals[name]))

    def _note(self, name: str, traces: Tensor) -> None:
        self.fired.add(name)
        self.traces[name] = self.traces[name] + traces if name in self.traces else traces

    def _enter_layer(self, module: nn.Module, args: tuple[Any, ...]) -> None:  # noqa: ARG002 - a hook's arguments
        self._inside.update(site.name for site in self._sites[module])

    def _leave_layer(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:  # noqa: ARG002
        self._inside.subtract(site.name for site in self._sites[module])

    def _on_use(self, name: str, function: str) -> None:
        """Refuse a parameter that is used outside its layer, in a way that was not there when rules were compared."""
        if self._muted or self._in_backward or not self._size or self._inside[name] > 0:
            return
        if self._learning:
            self._shapes.outside.setdefault(name, set()).add(function)
        elif function not in self._shapes.outside.get(name, ()):
            self.refused.setdefault(name, f"used outside the call of its own layer, by {function}")

    def _after_layer(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        """Watch a layer that has rules: one tensor in, one tensor out."""
        if self._muted or not self._size or not torch.is_grad_enabled():
            return None
        sites = [site for site in self._sites[module] if site.rule is not None]
        x = args[0] if args else next(iter(kwargs.values()), None)
        if not isinstance(x, Tensor) or not isinstance(output, Tensor) or not output.is_floating_point():
            for site in sites:
                self.refused.setdefault(site.name, f"{type(module).__name__} was not called on one tensor")
            return None
        result = output
        if isinstance(module, nn.Embedding) and self._is_shared(module, x):
            # One look-up for the whole batch (position ids): repeated, so that its gradient keeps the examples apart.
            result = output.unsqueeze(0) if x.dim() == 1 else output
            x = x.unsqueeze(0) if x.dim() == 1 else x
            result = result.expand(self._size, *result.shape[1:])
            x = x.expand(self._size, *x.shape[1:])
        if not self._in_backward:
            self._uses.update(site.name for site in sites)
        call = _Call(x.detach(), x._version, counted=not self._in_backward)
        result, watched = watchable(result, self._anchor)
        shape = result.shape
        watched.register_hook(lambda gradient: self._fire(module, sites, call, gradient.reshape(shape)))
        return None if result is output else result

    def _after_module(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        """Watch a module that is replayed: anything in, any nest of tensors out."""
        if self._muted or not self._size or not torch.is_grad_enabled():
            return None
        sites = [site for site in self._sites[module] if site.rule is None]
        if self._in_backward:
            for site in sites:
                self.refused.setdefault(site.name, "its module is recomputed by activation checkpointing")
            return None
        self._uses.update(site.name for site in sites)
        result, watched = watchable_nest(output, self._anchor)
        if not watched:
            for site in sites:
                self.refused.setdefault(site.name, f"{type(module).__name__} does not return plain tensors")
            return None
        call = ModuleCall.of(module, args, kwargs)
        self._graph_handles.append(
            torch.autograd.graph.register_multi_grad_hook(
                watched, lambda gradients: self._replay(sites, call, gradients)
            )
        )
        return result

    def _is_shared(self, module: nn.Embedding, x: Tensor) -> bool:
        one_for_all = x.dim() == 1 or x.shape[0] == 1
        if self._learning and self._size > 1 and one_for_all and not (x.dim() == 1 and len(x) == self._size):
            self._shapes.shared.add(module)
        return one_for_all and module in self._shapes.shared

    def _fire(self, module: nn.Module, sites: Sequence[Site], call: _Call, gradient: Tensor) -> None:
        if not self._in_backward:
            for site in sites:
                self.refused[site.name] = "the model differentiates inside its own forward pass"
            return
        x = call.x
        if x is not None and x.dim() and not x.shape[0]:
            return  # an expert that got no token adds nothing
        if x is None:
            raise RuntimeError(f"{type(module).__name__} got a second gradient in the last pass")
        self._muted = True
        try:
            for site in sites:
                if site.rule is None or site.name in self.refused or site.name not in self._totals:
                    continue
                if not x.shape[0]:
                    self._note(site.name, self._totals[site.name].new_zeros(self._size))
                    continue
                with self._refusing(site.name):
                    self._check_call(module, x, call)
                    contribution = site.rule(module, site.attribute, x, gradient.detach(), self._size)
                    if call.counted and self._uses[site.name] == 1:
                        self._add(site.name, contribution)
                    else:
                        self._pending[site.name].append(contribution)
        finally:
            self._muted = False
        if self._last and call.counted:
            call.x = None

    def _replay(self, sites: Sequence[Site], call: ModuleCall, gradients: Sequence[Tensor | None]) -> None:
        here = {
            site.attribute: site.name for site in sites if site.name in self._totals and site.name not in self.refused
        }
        if not here:
            return
        reason = (
            "its module is called several times"
            if any(self._uses[name] > 1 for name in here.values())
            else ("the model differentiates inside its own forward pass" if not self._in_backward else "")
        )
        if reason:
            self.refused.update(dict.fromkeys(here.values(), reason))
            return
        self._muted = True
        try:
            with self._refusing(*here.values()):
                leaves = {attribute: call.module.get_parameter(attribute) for attribute in here}
                if self._size > 1 and not self._learning and self._shapes.together.issuperset(here.values()):
                    for attribute, each in call.gradients_together(self._size, leaves, gradients).items():
                        total = self._totals[here[attribute]]
                        self._add(here[attribute], Dense(each.unsqueeze(1).to(total.dtype)))
                    return
                traces: dict[str, Tensor] = {}
                # One batch cannot tell a length from a size; two of them can.
                shared = self._shapes.replay_shared.get(call.module, frozenset())
                if self._size > 1:
                    shared |= call.shared(self._size)
                    self._shapes.replay_shared[call.module] = shared
                repeatable = (
                    self._learning
                    and self._size > 1
                    and all(leaf.dim() > 1 and len(leaf) == 1 for leaf in leaves.values())
                )
                singles = []
                for example in range(self._size):
                    try:
                        found = call.gradients(example, self._size, shared, leaves, gradients)
                    except RefusedError as error:
                        if example == 0:
                            raise
                        raise MeasurementError(
                            f"{type(call.module).__name__} behaves differently for example {example} of a batch "
                            f"({error}): exclude {', '.join(here.values())}"
                        ) from None
                    if repeatable:
                        singles.append(found)
                    for attribute, gradient in found.items():
                        name = here[attribute]
                        total = self._totals[name]
                        traces.setdefault(name, total.new_zeros(self._size))[example] = add_square(total, gradient)
                for name, values in traces.items():
                    self._note(name, values)
                if repeatable and _same_together(call, leaves, gradients, singles):
                    self._shapes.together.update(here.values())
        finally:
            self._muted = False

    def _check_call(self, module: nn.Module, x: Tensor, call: _Call) -> None:
        if x._version != call.version:
            raise RefusedError("its input was changed in place after the call")
        if x.shape[0] == self._size or x.shape[0] % self._size:
            return
        key, rows = (module, self._signature), torch.Size([x.shape[0] // self._size, *x.shape[1:]])
        if self._learning:
            self._shapes.folded[key] = rows
        elif self._size > 1 and self._shapes.folded.get(key) != rows:
            raise RefusedError(
                f"its input has first dimension {x.shape[0]} in a batch of {self._size} examples, "
                "which was not seen when rules were compared"
            )


def _same_together(
    call: ModuleCall,
    parameters: Mapping[str, Tensor],
    gradients: Sequence[Tensor | None],
    singles: Sequence[Mapping[str, Tensor]],
) -> bool:
    """Whether one replay of the whole batch gives what replays of single examples gave."""
    try:
        found = call.gradients_together(len(singles), parameters, gradients)
    except Exception:  # whatever a module may raise where a parameter has another shape
        return False
    return all(
        single.keys() == found.keys()
        and all(
            torch.allclose(found[name][i], own[0], 1e-3, 1e-5 * float(own.abs().max())) for name, own in single.items()
        )
        for i, single in enumerate(singles)
    )


_WITHOUT_GRADIENT = {Tensor.detach, Tensor.requires_grad_, Tensor.data.__get__}  # type: ignore[attr-defined]


class _Watched(nn.Parameter):
    """A parameter that reports every operation that takes it; ``_watch`` holds its name and whom to tell.

    A rule sees a parameter only inside the call of the layer that owns it. A model that also uses the weight directly
    (``F.linear(h, self.embedding.weight)``) would go unnoticed by hooks on layers, so the parameter's class is this one
    while it is captured. Parameters of a class of their own (quantised, sharded) are left alone.
    """

    @classmethod
    @override
    def __torch_function__(
        cls, func: Callable[..., Any], types: Iterable[type], args: Iterable[Any] = (), kwargs: Any = None
    ) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            result = func(*args, **(kwargs or {}))
            if func not in _WITHOUT_GRADIENT and _differentiable(result):
                for parameter in _watched((args, kwargs)):
                    name, report = parameter.__dict__["_watch"]
                    report(name, torch.overrides.resolve_name(func) or repr(func))
        return result


def _watched(value: Any) -> Iterator[_Watched]:
    if type(value) is _Watched:
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _watched(item)
    elif isinstance(value, dict):
        yield from _watched(tuple(value.values()))


def _differentiable(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.is_floating_point()
    return isinstance(value, (tuple, list)) and any(_differentiable(item) for item in value)


class _Root(torch.autograd.Function):
    """Identity that makes a tensor part of the graph where nothing before it needs a gradient."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, anchor: Tensor) -> Tensor:  # noqa: ARG004
        return tensor.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[None, None]:  # noqa: ARG004
        return None, None


def _root(tensor: Tensor, anchor: Tensor) -> Tensor:
    rooted: Tensor = _Root.apply(tensor, anchor)  # type: ignore[no-untyped-call]
    return rooted


def watchable(tensor: Tensor, anchor: Tensor) -> tuple[Tensor, Tensor]:
    """Make one tensor fit for a hook."""
    if not tensor.requires_grad:
        tensor = _root(tensor, anchor)
    if not tensor._is_view():
        return tensor, tensor
    # An in-place activation on a view would cut the view's own hook out of the graph; its base keeps one.
    base = tensor._base
    if base is not None and tensor.is_contiguous() and base.is_contiguous() and base.numel() == tensor.numel():
        return tensor, base
    copy = tensor.clone()
    return copy, copy


def watchable_nest(output: Any, anchor: Tensor) -> tuple[Any, list[Tensor]]:
    """Make the floating tensors in a nest fit for one hook on all of them."""
    watched: list[Tensor] = []

    def watch(tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor
        if not tensor.requires_grad:
            tensor = _root(tensor, anchor)
        elif tensor._is_view():
            tensor = tensor.clone()
        watched.append(tensor)
        return tensor

    result = map_tensors(output, watch)
    if isinstance(output, Mapping) and type(output) is not dict:
        try:
            result = type(output)(**result)
        except TypeError:
            watched.clear()
    return result, watched
