"""Reads and checks what a saved network says of its tasks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from commonweight.errors import IntegrityError
from commonweight.nn.masks.layer import Influence

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping


@dataclass(frozen=True)
class SavedTask:
    """One task of a saved network."""

    name: str
    finished: bool
    scores: bool
    """Whether its scores were kept."""

    moved_towards: frozenset[int]
    """Prior tasks that its scores were moved towards; none in files of before this was recorded."""

    influences: Mapping[str, Influence]
    """Masked weight -> the influence that is on."""

    @property
    def point(self) -> tuple[str, bool, bool]:
        """What two networks must share for the tensors of one to fit the other."""
        return self.name, self.finished, self.scores


def read_tasks(state: Mapping[str, Any], masked: Collection[str]) -> list[SavedTask]:
    """Read the tasks of a saved network.

    Args:
        state: What ``net.state()`` gave, possibly damaged.
        masked: Names of masked weights.

    Returns:
        The tasks, in the order they were added.

    Raises:
        IntegrityError: If anything is not as ``net.state()`` writes it.
    """
    try:
        tasks = [_task(entry, index, masked) for index, entry in enumerate(state["tasks"])]
        _expect(len({task.name for task in tasks}) == len(tasks), "two tasks of one name")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise IntegrityError(f"the tasks of a saved network are damaged ({error!r}): save it again") from None
    return tasks


def _task(entry: Mapping[str, Any], index: int, masked: Collection[str]) -> SavedTask:
    name = entry["name"]
    _expect(isinstance(name, str) and name != "", f"a task called {name!r}")
    _expect(isinstance(entry["finished"], bool) and isinstance(entry["scores"], bool), f"the state of {name!r}")
    moved = frozenset(_prior(prior, index) for prior in entry.get("moved_towards", ()))
    influences = {weight: _influence(each, index) for weight, each in entry["influences"].items()}
    _expect(influences.keys() <= set(masked), f"an influence on {sorted(influences.keys() - set(masked))}")
    return SavedTask(name, entry["finished"], entry["scores"], moved, influences)


def _influence(entry: Mapping[str, Any], index: int) -> Influence:
    alphas = {_prior(prior, index): float(alpha) for prior, alpha in entry["alphas"]}
    beta = float(entry["beta"])
    _expect(bool(alphas) and all(0 < alpha < math.inf for alpha in alphas.values()), f"alphas {alphas}")
    _expect(0 < beta < 1, f"beta {beta}")
    return Influence(alphas, beta)


def _prior(prior: Any, index: int) -> int:
    _expect(isinstance(prior, int) and not isinstance(prior, bool) and 0 <= prior < index, f"prior task {prior!r}")
    return int(prior)


def _expect(condition: bool, what: str) -> None:
    if not condition:
        raise ValueError(what)
