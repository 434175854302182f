"""``commonweight.fuse``: one model out of several, in memory or from folder to folder."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload

import torch
from torch import nn

from commonweight.base.errors import UsageError
from commonweight.fusion.beside import computed
from commonweight.fusion.initialisation import shared_initialisation
from commonweight.fusion.methods import make_recipe
from commonweight.fusion.modules import open_modules, plan_modules
from commonweight.fusion.plan import notes_on, plan_checkpoints
from commonweight.fusion.tensors import module_tensors
from commonweight.fusion.writing import check_place, write_fusion

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from commonweight.footprints.footprint import Footprint
    from commonweight.fusion.fusion import Fusion
    from commonweight.fusion.methods import Method, Normalize

M = TypeVar("M", bound=nn.Module)


@overload
def fuse(
    models: Sequence[M],
    weights: Sequence[float] | None = None,
    method: Method = "average",
    *,
    base: nn.Module | None = None,
    footprints: Sequence[Footprint | str | Path] | None = None,
    floor: float | None = None,
    normalize: Normalize | None = None,
    scale: float | None = None,
    note: Callable[[str], None] | None = None,
) -> M: ...


@overload
def fuse(
    models: Sequence[str | Path],
    weights: Sequence[float] | None = None,
    method: Method = "average",
    *,
    base: str | Path | None = None,
    footprints: Sequence[Footprint | str | Path] | None = None,
    floor: float | None = None,
    normalize: Normalize | None = None,
    scale: float | None = None,
    output: str | Path,
    overwrite: bool = False,
    allow_pickle: bool = False,
    progress: bool = False,
    note: Callable[[str], None] | None = None,
) -> Path: ...


def fuse(
    models: Sequence[Any],
    weights: Sequence[float] | None = None,
    method: Method = "average",
    *,
    base: nn.Module | str | Path | None = None,
    footprints: Sequence[Footprint | str | Path] | None = None,
    floor: float | None = None,
    normalize: Normalize | None = None,
    scale: float | None = None,
    output: str | Path | None = None,
    overwrite: bool = False,
    allow_pickle: bool = False,
    progress: bool = False,
    note: Callable[[str], None] | None = None,
) -> nn.Module | Path:
    r"""Fuse the weights of several models into one.

    ``average``: the weighted average (Wortsman et al. 2022, https://arxiv.org/abs/2203.05482),

    .. math:: \theta = \sum_i w_i \theta_i, \qquad \sum_i w_i = 1.

    ``task_arithmetic``: task vectors added to a base (Ilharco et al. 2023, https://arxiv.org/abs/2212.04089),

    .. math:: \theta = \theta_b + \lambda \sum_i w_i (\theta_i - \theta_b).

    ``fisher``: each weight averaged by how much it matters to each model (Matena & Raffel 2022,
    https://arxiv.org/abs/2111.09832),

    .. math:: \theta = \sum_i w_i \max(\hat F_i, \varepsilon)\, \theta_i \Big/ \sum_i w_i \max(\hat F_i, \varepsilon),

    entry by entry, with each Fisher divided by its root mean square; where none exceeds the floor ε this is the plain
    weighted average. Their code floors the first model's Fisher alone, before it is divided; here the floor holds for
    all, after, so that neither the order of the models nor the scale of a Fisher decides what happens to dead weights.

    Everything that can be compared is compared first: class, configuration, labels, vocabulary, names, shapes, types.
    Averages are computed in float32 (float64 for float64 models and with Fishers) and kept in the models' type. Buffers
    are fused like weights; whole numbers must be equal, but for single counts, which are the first model's. Masks, and
    tensors that are neither parameter nor buffer (packed weights, extra state, plain attributes), must be equal too.

    Args:
        models: Modules of one class, or checkpoint folders (Hugging Face layout; also ids ``org/name@revision``).
        weights: One per model. ``average``: any sign, sum 1; ``fisher``: at least 0, sum 1; ``task_arithmetic``: any.
            None: equal ones, ``1 / len(models)``; for ``task_arithmetic`` 1 each, as in the paper.
        method: ``average``, ``task_arithmetic`` or ``fisher``.
        base: ``task_arithmetic``: what the models were fine-tuned from, of the same kind as they are.
        footprints: ``fisher``: a Fisher of each model, in their order, or folders of them.
        floor: ``fisher``: ε, above 0, in the unit that ``normalize`` says. None: 1e-6.
        normalize: ``fisher``: what each Fisher is divided by: its root mean square (``norm``, as in the paper's code),
            its mean (``trace``), or nothing (``none``). None: ``norm``.
        scale: ``task_arithmetic``: λ. None: 1.
        output: Where the fused checkpoint goes; for folders only, and needed there.
        overwrite: Replace a fused checkpoint that is there.
        allow_pickle: Read pickled weights, restricted to plain tensors; without it they are refused.
        progress: Show a progress bar on stderr.
        note: Takes one sentence at a time that the user should hear (no shared initialisation, or none of a head;
            labels without names; counts that differ; weights no Fisher covers, Fishers of few effective sample size,
            models that do not give the labels of their data). None: they become warnings.

    Returns:
        For modules a new one, a copy of the first with fused tensors; for folders the output folder, which loads with
        ``from_pretrained`` and holds a model card and ``fusion.json``. It is written tensor by tensor, and there whole
        or not at all.

    Raises:
        UsageError: If an argument is not what it should be; the message has the remedy.
        NotComparableError: If models differ in something that has to be equal; the first differences are named.
        IntegrityError: If a file is damaged.
        MeasurementError: If a weight is nan or infinite, before or after.

    Example:
        >>> import torch, commonweight
        >>> start = torch.nn.Linear(2, 1, bias=False)
        >>> a, b = copy.deepcopy(start), copy.deepcopy(start)
        >>> for model, weights in ((start, [4.0, 4.0]), (a, [5.0, 4.0]), (b, [4.0, 6.0])):
        ...     _ = model.weight.data.copy_(torch.tensor([weights]))
        >>> commonweight.fuse([a, b]).weight.tolist()
        [[4.5, 5.0]]
        >>> commonweight.fuse([a, b], method="task_arithmetic", base=start).weight.tolist()
        [[5.0, 6.0]]
    """
    tell = _warn if note is None else note
    if isinstance(models, str | Path | nn.Module):
        raise UsageError(f"expected a list of models, got one {type(models).__name__}; put it into a list")
    given = list(models)
    recipe = make_recipe(
        method,
        len(given),
        weights,
        scale=scale,
        floor=floor,
        normalize=normalize,
        has_base=base is not None,
        has_footprints=footprints is not None,
    )
    if any(isinstance(one, nn.Module) for one in [*given, base]):
        if output is not None:
            raise UsageError(
                "output is for checkpoint folders, and the models are modules; leave it out, and save the module that "
                "comes back"
            )
        opened = open_modules(given, base)  # type: ignore[arg-type]
        samples = opened.samples()
        fusion = plan_modules(recipe, opened, footprints, samples)
        for sentence in [*opened.notes, *notes_on(fusion, shared_initialisation(opened.names, samples))]:
            tell(sentence)
        return _fused(given[0], fusion)
    for one in [*given, *([] if base is None else [base])]:
        if not isinstance(one, str | Path):
            raise UsageError(f"expected modules or checkpoint folders, got a {type(one).__name__}")
    if output is None:
        raise UsageError("fusing folders needs an output folder; pass output=, such as output='fused'")
    named = [one for one in footprints or () if isinstance(one, str | Path)]
    inputs = [*given, *([] if base is None else [base]), *named]
    place = check_place(output, inputs, overwrite=overwrite)
    plan = plan_checkpoints(recipe, given, base=base, footprints=footprints, allow_pickle=allow_pickle)  # type: ignore[arg-type]
    for sentence in plan.notes:
        tell(sentence)
    options = {
        "weights": None if weights is None else recipe.weights,
        "method": None if method == "average" else method,
        "base": base,
        "footprints": footprints,
        "floor": floor,
        "normalize": normalize,
        "scale": scale,
        "output": output,
    }
    write_fusion(plan, place, _call(given, options), overwrite=overwrite, progress=progress)
    return place


def _fused(first: nn.Module, fusion: Fusion) -> nn.Module:
    """Copy the first model and load the fused tensors; what hooks compute from these is computed again."""
    old = [vars(module)[name] for module, name, _ in computed(first)]
    fused = copy.deepcopy(first, {id(tensor): tensor.detach().clone() for tensor in old})
    with torch.no_grad():
        for key, tensor in module_tensors(fused).items():
            tensor.copy_(fusion.tensor(key))
        for module, _, hook in list(computed(fused)):
            mode, module.training = module.training, False  # in training a spectral norm would take a step
            hook(module, ())
            module.training = mode
    return fused


def _warn(sentence: str) -> None:
    warnings.warn(sentence, stacklevel=3)


def _call(models: Sequence[str | Path], options: dict[str, Any]) -> str:
    """Write down the call, as it can be made again."""
    said = "".join(f", {key}={_plain(value)!r}" for key, value in options.items() if value is not None)
    return f"commonweight.fuse({_plain(models)!r}{said})"


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value
