"""Footprints of change: what training did to every weight, and what that is worth for a data set."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn
from typing_extensions import override

from commonweight.base.errors import NotComparableError, UsageError
from commonweight.base.names import some
from commonweight.base.records import json_file
from commonweight.footprints.files import StoredTensors
from commonweight.footprints.folds import accurate
from commonweight.footprints.footprint import Fold, Footprint
from commonweight.footprints.slices import Sliceable, part_of, shape_of
from commonweight.footprints.weight_sample import weight_sample
from commonweight.models.architectures import architecture_of, architecture_of_model
from commonweight.models.identity import weight_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from torch import Tensor

STATISTICS = ("running_mean", "running_var")
"""Buffers that a checkpoint stores among its weights, by the ends of their names."""


def change_footprint(model: nn.Module | str | Path, initialisation: nn.Module | str | Path) -> Footprint:
    r"""Take what training changed as a footprint: weight less shared initialisation, signed.

    .. math:: \Delta_k = w_k - w_k^{(0)}

    Task vectors (Ilharco et al. 2023, https://arxiv.org/abs/2212.04089), one tensor per parameter. Only parameters
    that share name and shape with the initialisation are in it: of a head that was drawn anew nothing is known. The
    initialisation may be the encoder alone (``layer.0.weight`` for ``bert.layer.0.weight``). Buffers are left out.

    Args:
        model: The trained model: a module, or a checkpoint folder with safetensors.
        initialisation: What it was trained from: a module or a checkpoint folder.

    Returns:
        A footprint of kind ``change``, in weight units, float32 (float64 if the weights are). Of two folders its
        tensors are read from the files one at a time; else it is a snapshot in memory. The metadata name the
        initialisation by a digest: changes from two different ones are not compared.

    Raises:
        UsageError: If an argument is neither a module nor a checkpoint folder.
        NotComparableError: If no parameter has name and shape in common with the initialisation.
        IntegrityError: If a file is damaged.

    Example:
        >>> import torch
        >>> from copy import deepcopy
        >>> start = nn.Linear(2, 1, bias=False)
        >>> trained = deepcopy(start)
        >>> _ = trained.weight.data.add_(torch.tensor([[0.5, -1.0]]))
        >>> [round(each, 4) for each in change_footprint(trained, start).flat().tolist()]
        [0.5, -1.0]
    """
    weights, start = weights_of("model", model), weights_of("initialisation", initialisation)
    names = shared_names(weights, start)
    sample, scale = weight_sample((name, weights[name]) for name in names)
    tensors: Mapping[str, Tensor] = _Combined(weights, start, names, _difference)
    if isinstance(model, nn.Module) or isinstance(initialisation, nn.Module):
        tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    facts = {
        "initialisation": _digest(start),
        "architecture": _architecture(model),
        "weight_sample_scale": scale,
    }
    return Footprint("change", tensors, 0, facts, weight_sample=sample)


def saliency_footprint(fisher: Footprint, change: Footprint) -> Footprint:
    r"""Weigh a change by a Fisher: what each change is worth for a data set, to second order.

    .. math:: s_k = F_k \Delta_k^2

    Half their sum approximates the loss in log-likelihood, in nats per example, when the changes are undone one at a
    time (LeCun et al. 1990, *Optimal brain damage*). Folds of the Fisher become folds of the saliency, so that it has
    noise ceilings and intervals as well.

    Args:
        fisher: The Fisher of the model on a data set.
        change: The change of the same model, as :func:`change_footprint` gives it.

    Returns:
        A footprint of kind ``saliency``, in squared nats, over the parameters that the change holds; computed a tensor
        at a time when it is asked for. Effective sample sizes are those of another sum and are not in it.

    Raises:
        UsageError: If a footprint is of another kind.
        NotComparableError: If they have no parameter of equal name and shape.

    Example:
        >>> from torch import tensor
        >>> fisher = Footprint("fisher", {"fc.weight": tensor([4.0, 1.0])}, count=8)
        >>> saliency_footprint(fisher, Footprint("change", {"fc.weight": tensor([-0.5, 2.0])}, count=0)).flat()
        tensor([1., 4.])
    """
    for argument, footprint, kind in (("fisher", fisher, "fisher"), ("change", change, "change")):
        if not isinstance(footprint, Footprint) or footprint.kind != kind:
            got = footprint.kind if isinstance(footprint, Footprint) else type(footprint).__name__
            raise UsageError(f"{argument} must be a footprint of kind {kind}, got {got}")
    names = {
        name: name
        for name in fisher
        if name in change and shape_of(fisher.tensors, name) == shape_of(change.tensors, name)
    }
    if not names:
        raise NotComparableError(
            f"the Fisher holds {some(fisher.names)} and the change {some(change.names)}, and no parameter has equal "
            "name and shape; take both of one model"
        )

    def weighed(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return _Combined(tensors, change.tensors, names, _worth)

    return Footprint(
        "saliency",
        weighed(fisher.tensors),
        fisher.count,
        {**fisher.metadata, "initialisation": change.metadata.get("initialisation")},
        folds=tuple(Fold(fold.count, weighed(fold.tensors)) for fold in fisher.folds),
        weight_sample={name: each for name, each in fisher.weight_sample.items() if name in names},
        row_digests=fisher.row_digests,
        source_rows=fisher.source_rows,
    )


def shared_names(weights: Mapping[str, Tensor], start: Mapping[str, Tensor]) -> dict[str, str]:
    """Map parameters of a model to those of its initialisation, which may be named without the encoder's prefix."""
    found: dict[str, str] = {}
    for prefix in dict.fromkeys(["", *(f"{name.partition('.')[0]}." for name in weights)]):
        named = {name: name.removeprefix(prefix) for name in weights if name.startswith(prefix)}
        shared = {
            name: other
            for name, other in named.items()
            if other in start and not name.endswith(STATISTICS) and shape_of(weights, name) == shape_of(start, other)
        }
        found = max(found, shared, key=len)
    if not found:
        raise NotComparableError(
            f"no parameter has name and shape in common with the initialisation, which holds {some(list(start))}, and "
            f"the model {some(list(weights))}; give the checkpoint that the model was trained from"
        )
    return found


def weights_of(argument: str, given: nn.Module | str | Path) -> Mapping[str, Tensor]:
    """Give the parameters of a module, or open those of a checkpoint folder."""
    if isinstance(given, nn.Module):
        return {name: parameter.detach() for name, parameter in given.named_parameters()}
    if isinstance(given, str | Path) and Path(given).expanduser().is_dir():
        return StoredTensors.of_files(weight_files(Path(given).expanduser()))
    got = repr(str(given)) if isinstance(given, str | Path) else type(given).__name__
    raise UsageError(
        f"{argument} must be a module or a checkpoint folder, got {got}; give the folder that holds model.safetensors"
    )


def _architecture(model: nn.Module | str | Path) -> dict[str, Any] | None:
    if isinstance(model, nn.Module):
        return architecture_of_model(model)
    config = Path(model).expanduser() / "config.json"
    return architecture_of(json_file(config, "copy the checkpoint again")) if config.is_file() else None


def _digest(weights: Mapping[str, Tensor]) -> str:
    """Name an initialisation by samples of its weight matrices, whatever they are called."""
    sample, _ = weight_sample(weights.items())
    each = sorted(hashlib.sha256(values.numpy().tobytes()).hexdigest() for values in sample.values())
    return hashlib.sha256("".join(each).encode()).hexdigest()[:16]


class _Combined(Sliceable):
    """Tensors made of those of two mappings, one at a time when they are asked for."""

    def __init__(
        self,
        first: Mapping[str, Tensor],
        second: Mapping[str, Tensor],
        names: Mapping[str, str],
        combine: Callable[[Tensor, Tensor], Tensor],
    ) -> None:
        self._first, self._second, self._names, self._combine = first, second, names, combine

    @override
    def __getitem__(self, name: str) -> Tensor:
        return self._combine(self._first[name].detach(), self._second[self._names[name]].detach())

    @override
    def rows(self, name: str, start: int, stop: int) -> Tensor:
        first = part_of(self._first, name, start, stop)
        return self._combine(first, part_of(self._second, self._names[name], start, stop))

    @override
    def shape(self, name: str) -> tuple[int, ...]:
        return shape_of(self._first, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names


def _difference(weight: Tensor, start: Tensor) -> Tensor:
    dtype = accurate(weight.dtype)
    return weight.cpu().to(dtype) - start.cpu().to(dtype)


def _worth(importance: Tensor, change: Tensor) -> Tensor:
    return importance.to(accurate(importance.dtype)) * change.square()
