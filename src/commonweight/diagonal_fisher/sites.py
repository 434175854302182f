"""What covers a parameter: rules of the layers that own it, or a replay of one module."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn

from commonweight.diagonal_fisher.rules import Rule, rules_for

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Signature = tuple[torch.Size, ...]
"""Shapes of one example's tensors, padding included."""


class Site(NamedTuple):
    """One use of a parameter by a module, and the rule for it; None replays the module one example at a time."""

    attribute: str
    name: str
    rule: Rule | None


@dataclass
class CallShapes:
    """What verification saw of the ways layers are called; nothing else is trusted later."""

    shared: set[nn.Module] = field(default_factory=set)
    """Embeddings called once for the whole batch (broadcast positions)."""

    folded: dict[tuple[nn.Module, Signature], torch.Size] = field(default_factory=dict)
    """Layers whose rows are a multiple of the batch: shape of one example's rows, for examples of a signature."""

    uneven: set[str] = field(default_factory=set)
    """Integer inputs (masks, labels) of which examples were seen to have different numbers of entries that count."""

    replay_shared: dict[nn.Module, frozenset[str]] = field(default_factory=dict)
    """Arguments of a replayed module that belong to the batch as a whole."""

    together: set[str] = field(default_factory=set)
    """Parameters ``[1, ...]`` that a replay of the whole batch covers, repeated for every example."""

    outside: dict[str, set[str]] = field(default_factory=dict)
    """Functions that use a parameter outside its layer, harmlessly: its rule agreed all the same."""

    signatures: set[Signature] = field(default_factory=set)
    """Signatures of the batches looked at."""


def owners_of(model: nn.Module, names: Iterable[str]) -> dict[str, list[tuple[nn.Module, str]]]:
    """Find the modules that own each parameter."""
    wanted = set(names)
    name_of = {id(parameter): name for name, parameter in model.named_parameters() if name in wanted}
    owners: dict[str, list[tuple[nn.Module, str]]] = {name: [] for name in name_of.values()}
    for module in model.modules():
        if isinstance(module, torch.jit.ScriptModule):
            continue
        for attribute, parameter in module._parameters.items():
            if id(parameter) in name_of:
                owners[name_of[id(parameter)]].append((module, attribute))
    return owners


def find_sites(model: nn.Module, names: Iterable[str]) -> dict[str, list[tuple[nn.Module, Site]]]:
    """Find what covers each parameter: rules of the layers that own it, or else a replay of the one owner."""
    found: dict[str, list[tuple[nn.Module, Site]]] = {}
    for name, owners in owners_of(model, names).items():
        ruled = [
            (module, Site(attribute, name, rules_for(module)[attribute]))
            for module, attribute in owners
            if attribute in rules_for(module)
        ]
        # A parameter may also be owned by a module without a rule for it (a head's bias kept in two places).
        found[name] = ruled or replay_sites(model, name, owners)
    return found


def replay_sites(
    model: nn.Module, name: str, owners: Sequence[tuple[nn.Module, str]], *, above: int = 0
) -> list[tuple[nn.Module, Site]]:
    """Cover a parameter by replaying the module that owns it, or one above."""
    if len(owners) != 1:
        return []
    parts = name.split(".")
    at = len(parts) - 1 - above
    if at < 1:
        return [(owners[0][0], Site(parts[-1], name, None))] if above == 0 else []
    return [(model.get_submodule(".".join(parts[:at])), Site(".".join(parts[at:]), name, None))]
