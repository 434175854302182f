"""Elastic weight consolidation: what an earlier task needs is held in place while a later one is learned."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real

import torch
from torch import Tensor, nn

from commonweight.base.errors import IntegrityError, MeasurementError, NotComparableError, UsageError, check_kind
from commonweight.base.names import among, first_of
from commonweight.footprints.footprint import Footprint
from commonweight.footprints.slices import shape_of

COPIES = "{name: p.detach().clone() for name, p in model.named_parameters()}"


def ewc_penalty(
    model: nn.Module, footprint: Footprint, anchor: Mapping[str, Tensor], *, strength: float = 1.0
) -> Tensor:
    r"""Charge a model for moving weights that an earlier task needs, to be added to the loss of a later one.

    .. math:: \frac{\lambda}{2} \sum_i F_i \, (\theta_i - \theta^*_i)^2

    Source: Kirkpatrick et al. (2017), https://arxiv.org/abs/1612.00796, equation 3. Deviation: none. For several
    earlier tasks add their penalties. F is a mean over examples, so beside a loss that is a mean over the later task's
    examples ``strength = examples of the earlier task / examples of the later one`` is Laplace's approximation of the
    posterior; the paper searches for a value, and values far above 1 are usual.

    Sums are in float32, or float64 for float64 models. Tensors are brought to the device and out of the files they are
    in at every call: for speed hold both there, ``replace(footprint, tensors={name: f.to(device) for name, f in
    footprint.items()})``.

    Args:
        model: The model in training; the gradient flows into it. Parameters that the footprint does not hold, such as
            a new head, are free.
        footprint: Fisher of the earlier task, measured at the end of its training. Rather with the Fisher type
            ``exact``, the Fisher of the formula, than with ``empirical``.
        anchor: The model's weights :math:`\theta^*` of that moment by parameter name, as copies:
            ``{name: p.detach().clone() for name, p in model.named_parameters()}``. Other entries are not looked at.
        strength: :math:`\lambda`, at least 0, a number of Python or NumPy; 0 gives a penalty of 0 with a gradient of 0.

    Returns:
        A number, at least 0, in nats where the loss is in nats.

    Raises:
        UsageError: If an argument is of the wrong type or kind, ``strength`` is negative or not finite, the anchor
            holds the model's own tensors, which would move with it, or no parameter of the footprint is trained.
        NotComparableError: If a parameter of the footprint is missing from the model or the anchor, or differs in
            shape.
        IntegrityError: If the Fisher is negative, nan or infinite somewhere.
        MeasurementError: If a weight or the anchor is not finite, or the penalty overflows.

    Example:
        >>> import torch, commonweight
        >>> model = torch.nn.Linear(2, 3)
        >>> x, y = torch.tensor([[1.0, 2.0], [3.0, 0.0]]), torch.tensor([0, 2])
        >>> earlier = commonweight.fisher(model, [(x, y)], fisher_type="exact")
        >>> anchor = {name: p.detach().clone() for name, p in model.named_parameters()}
        >>> ewc_penalty(model, earlier, anchor, strength=100.0).item()
        0.0
        >>> with torch.no_grad():
        ...     _ = model.bias.add_(0.1)
        >>> loss = torch.nn.functional.cross_entropy(model(x), y) + ewc_penalty(model, earlier, anchor, strength=100.0)
        >>> loss.backward()
    """
    check_kind("model", model, nn.Module, "pass the model that is being trained")
    check_kind("footprint", footprint, Footprint, "measure one with fisher()")
    if footprint.kind != "fisher":
        raise UsageError(f"expected a footprint of kind fisher, got {footprint.kind}; measure one with fisher()")
    check_kind("anchor", anchor, Mapping, f"take copies by parameter name, {COPIES}")
    factor = _number(strength) / 2
    parameters = dict(model.named_parameters())
    _check_names(footprint, parameters, anchor)
    terms, lowest = [], []
    for name, stored in footprint.items():
        parameter = parameters[name]
        dtype = torch.promote_types(parameter.dtype, torch.float32)
        values, start = (each.detach().to(parameter.device, dtype) for each in (stored, anchor[name]))
        terms.append((values * (parameter.to(dtype) - start).square()).sum())
        if values.numel():
            lowest.append(values.min())
    home = terms[0].device
    penalty = torch.stack([term.to(home) for term in terms]).sum() * factor
    least = torch.stack([value.to(home) for value in lowest]).min() if lowest else torch.zeros((), device=home)
    if not bool(penalty.detach().isfinite() & (least >= 0)):
        _complain(footprint, parameters, anchor)
    return penalty


def _number(strength: object) -> float:
    if isinstance(strength, bool) or not isinstance(strength, Real):
        remedy = "; take its .item()" if isinstance(strength, Tensor) else ""
        raise UsageError(f"strength must be a number of at least 0, got {type(strength).__name__}{remedy}")
    try:
        found = float(strength)
    except OverflowError:
        raise UsageError("strength must be a number of at least 0, got one too large for a float") from None
    if not 0 <= found < math.inf:
        raise UsageError(f"strength must be a number of at least 0, got {found:g}")
    return found


def _check_names(footprint: Footprint, parameters: Mapping[str, Tensor], anchor: Mapping[str, Tensor]) -> None:
    wrong = []
    for name in footprint.names:
        shape = list(shape_of(footprint.tensors, name))
        for words, held in (("model", parameters), ("anchor", anchor)):
            if not isinstance(held.get(name), Tensor):
                wrong.append(f"{name} (not in the {words}; {among(name, held)})")
            elif list(held[name].shape) != shape:
                wrong.append(f"{name} (shape {list(held[name].shape)} in the {words}, {shape} in the footprint)")
    if wrong:
        raise NotComparableError(
            f"the footprint does not fit, {first_of(wrong)}. Measure the model that is trained on, with 'exclude' for "
            "what is replaced; of a wrapped model (DistributedDataParallel, torch.compile) give the one inside"
        )
    for name in footprint.names:
        if anchor[name].data_ptr() == parameters[name].data_ptr() and parameters[name].numel():
            raise UsageError(
                f"the anchor holds the model's own {name}, which moves with the model: the penalty would always be 0; "
                f"take copies, {COPIES}"
            )
    if not any(parameters[name].requires_grad for name in footprint.names):
        raise UsageError(
            f"none of the {len(footprint)} parameters of the footprint is trained (requires_grad is False for all), so "
            "the penalty would have no gradient: unfreeze what is to be held in place, or leave the penalty out"
        )


def _complain(footprint: Footprint, parameters: Mapping[str, Tensor], anchor: Mapping[str, Tensor]) -> None:
    """Find what made the penalty undefined, and raise."""
    for name, values in footprint.items():
        if not bool(values.isfinite().all()) or bool((values < 0).any()):
            raise IntegrityError(
                f"{name} of the footprint is negative, nan or infinite somewhere; a Fisher is a mean of squares, so "
                "the footprint is damaged: measure it again"
            )
        for words, held in (("model", parameters), ("anchor", anchor)):
            if not bool(held[name].detach().isfinite().all()):
                raise MeasurementError(f"{name} of the {words} is nan or infinite somewhere: training has diverged")
    raise MeasurementError("the penalty is too large for its type: take a smaller strength, or smaller steps")
