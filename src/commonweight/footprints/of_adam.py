"""Adam's second moment as a footprint: the running mean of squared gradients that an optimiser leaves behind."""

from __future__ import annotations

import re
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from commonweight.base.errors import IntegrityError, NotComparableError, UsageError, check_kind
from commonweight.footprints.folds import accurate
from commonweight.footprints.footprint import Footprint
from commonweight.footprints.weight_sample import weight_sample
from commonweight.models.architectures import architecture_of_model

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

OPTIMIZER = "optimizer.pt"
"""What a Trainer calls the state of its optimiser."""

UNDECAYED = re.compile(r"bias|layernorm|rmsnorm|(?:^|\.)norm(?:$|\.)|_norm(?:$|\.)")
"""Names whose weights a Trainer does not decay, beside those in an ``nn.LayerNorm``: ``get_decay_parameter_names`` of
transformers 4.56 to 5."""


def adam_footprint(model: nn.Module, optimizer: str | Path) -> Footprint:
    r"""Take the second moment of Adam or AdamW as a footprint: squared gradients of the last training steps.

    .. math:: \hat v_k = \frac{1 - \beta_2}{1 - \beta_2^T} \sum_{t=1}^{T} \beta_2^{T-t} g_{t,k}^2

    Source: Kingma & Ba (2015), https://arxiv.org/abs/1412.6980, with their correction of the start at 0. It costs
    nothing, and it is no Fisher: g is the gradient of a whole batch, of training rows, at weights that moved meanwhile.
    So it is compared with others of its kind only; to set it against a Fisher, pass single tensors or ``.flat()`` of
    both to ``fisher_overlap``.

    Args:
        model: The model as it was trained: its class, and frozen parameters with ``requires_grad=False``. An optimiser
            numbers its parameters, and the model tells their names and order.
        optimizer: ``optimizer.pt`` of a Hugging Face ``Trainer``, or the ``checkpoint-N`` folder that holds it; or
            ``torch.save(optimizer.state_dict(), ...)`` of an Adam over ``model.parameters()``. Only tensors and plain
            values are read, and nothing in it is executed.

    Returns:
        A footprint of kind ``adam_v``, squared nats per squared weight unit, without the parameters that never had a
        gradient. Its metadata hold ``steps``, the most steps that a parameter has taken.

    Raises:
        UsageError: If there is no such file, or it holds no second moments.
        NotComparableError: If its groups or shapes are not those of the model.
        IntegrityError: If it cannot be read, or holds more than tensors and plain values.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> model = nn.Linear(2, 1, bias=False)
        >>> adam = torch.optim.Adam(model.parameters())
        >>> for _ in range(3):
        ...     model.weight.grad = torch.tensor([[0.5, -2.0]])
        ...     adam.step()
        >>> with TemporaryDirectory() as folder:
        ...     torch.save(adam.state_dict(), f"{folder}/optimizer.pt")
        ...     found = adam_footprint(model, folder)
        >>> [round(each, 4) for each in found.flat().tolist()]
        [0.25, 4.0]
    """
    check_kind("model", model, nn.Module, "load it, such as with from_pretrained(checkpoint)")
    path = Path(optimizer).expanduser()
    path = path / OPTIMIZER if path.is_dir() else path
    state, groups = _read(path)
    found: dict[str, Tensor] = {}
    steps = 0.0
    for names, group in zip(_named(model, groups, path), groups, strict=True):
        for name, number in zip(names, group["params"], strict=True):
            if number in state:
                found[name] = _second_moment(name, state[number], group, model.get_parameter(name), path)
                steps = max(steps, float(state[number]["step"]))
    if not found:
        raise UsageError(f"{path} holds no second moments: it was saved before the first step; give a later one")
    weights = {name: weight for name, weight in model.named_parameters() if name in found}
    sample, scale = weight_sample(weights.items())
    facts = {"steps": int(steps), "architecture": architecture_of_model(model), "weight_sample_scale": scale}
    return Footprint("adam_v", {name: found[name] for name in weights}, 0, facts, weight_sample=sample)


def _read(path: Path) -> tuple[Mapping[int, Any], Sequence[Mapping[str, Any]]]:
    """Read the state of every parameter by its number, and the groups that list the numbers."""
    if not path.is_file():
        raise UsageError(
            f"no file {path}; give {OPTIMIZER} of a Trainer, which is in its checkpoint-N folders unless it ran with "
            "save_only_model"
        )
    try:
        held = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return held["state"], held["param_groups"]
    except UnpicklingError:
        raise IntegrityError(
            f"{path} holds more than tensors and plain values, and reading these could run code; nothing was read: "
            "save optimizer.state_dict() of torch.optim.Adam or AdamW"
        ) from None
    except (EOFError, KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise IntegrityError(f"{path} is no state of an optimiser ({error}); copy the checkpoint again") from None


def _named(model: nn.Module, groups: Sequence[Mapping[str, Any]], path: Path) -> list[list[str]]:
    """Name the parameters of every group: all in one, or as a Trainer parts them, with weight decay and without."""
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    normalisations = tuple(f"{name}." for name, module in model.named_modules() if isinstance(module, nn.LayerNorm))
    decayed = [name for name in trained if not UNDECAYED.search(name.lower()) and not name.startswith(normalisations)]
    parted = [trained] if len(groups) == 1 else [decayed, [name for name in trained if name not in decayed]]
    expected, got = ([len(group) for group in each] for each in (parted, [group["params"] for group in groups]))
    if expected != got:
        raise NotComparableError(
            f"{path} has {_listed(got)} parameters, and of this {type(model).__name__} a Trainer makes groups of "
            f"{_listed([len(decayed), len(trained) - len(decayed)])}, with weight decay and without; load the model in "
            "the class it was trained in, with the same parameters frozen"
        )
    return parted


def _listed(counts: Sequence[int]) -> str:
    return " and ".join(map(str, counts))


def _second_moment(name: str, held: Mapping[str, Any], group: Mapping[str, Any], weight: Tensor, path: Path) -> Tensor:
    v = held.get("exp_avg_sq")
    if v is None or "betas" not in group:
        raise UsageError(
            f"{path} holds no second moment of {name}, so its optimiser is not Adam or AdamW; only theirs are read"
        )
    if v.shape != weight.shape:
        raise NotComparableError(
            f"{path} has a second moment of shape {list(v.shape)} where the model has {name} of shape "
            f"{list(weight.shape)}; load the model in the class it was trained in, with the same parameters frozen"
        )
    corrected: Tensor = v.to(accurate(v.dtype)) / (1 - group["betas"][1] ** float(held["step"]))
    return corrected
