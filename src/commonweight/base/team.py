"""Several processes that work as one: the default group of ``torch.distributed``, or a process alone.

One process leads: it runs the command, writes and prints. The others follow: they wait for work and do their share.
Whatever is called a collective here has to be called by all processes, in the same order.
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from commonweight.base.errors import CommonweightError, MeasurementError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from torch import Tensor

_Told = tuple[type[Exception], str]
P = ParamSpec("P")
T = TypeVar("T")

LAUNCHERS = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")
"""Where launchers say how many processes they started."""

RENDEZVOUS = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun and accelerate say, and a group is made from."""

MEETING = timedelta(minutes=1)
"""How long processes wait for each other at the start; torch doubles it at times."""

PATIENCE = timedelta(days=7)
"""How long a process waits for the others then, which may train meanwhile; one that dies is noticed at once."""

BUNDLE = 2**24
"""Bytes of tensors that are summed over processes in one message."""

KNOWN = "raised in every process"
"""Note of an error that all processes know of."""

_is_led = False
"""Whether this process runs work that the others follow."""

_is_busy = False
"""Whether other processes may be in the middle of something now."""


@dataclass(frozen=True)
class Team:
    """The processes that work together."""

    rank: int = 0
    """Number of this process; 0 leads."""

    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes and prints."""
        return self.rank == 0

    def takes(self, number: int) -> bool:
        """Tell whether a numbered piece of work is this process's: they are dealt out in turn."""
        return number % self.size == self.rank

    def gather(self, value: T) -> list[T]:
        """Collect one value of every process, in all of them; a collective."""
        if self.size == 1:
            return [value]
        from torch.distributed import all_gather_object

        found: list[Any] = [None] * self.size
        all_gather_object(found, value)
        return found

    def add_up(self, tensors: Iterable[Tensor]) -> None:
        """Sum tensors over all processes, in place and in all of them; a collective."""
        if self.size == 1:
            return
        from torch import cat
        from torch.distributed import all_reduce

        for first, *others in _bundles(tensors):
            if not others and first.is_contiguous():
                all_reduce(first)
                continue
            bundle = [first, *others]
            whole = cat([tensor.reshape(-1) for tensor in bundle])
            all_reduce(whole)
            for tensor, part in zip(bundle, whole.split([tensor.numel() for tensor in bundle]), strict=True):
                tensor.copy_(part.view_as(tensor))

    @contextmanager
    def together(self) -> Iterator[None]:
        """Do something in every process; what one of them raises is raised in all; ends with a collective."""
        if self.size == 1:
            yield
            return
        raised: Exception | None = None
        try:
            yield
        except Exception as error:
            raised = error
        told = self.gather(None if raised is None else _told(raised))
        if raised is None:
            raised = next((_again(each, rank, self.size) for rank, each in enumerate(told) if each is not None), None)
        if raised is not None:
            raised.add_note(KNOWN)
            raise raised

    def of_leader(self, function: Callable[[], T]) -> T:
        """Let the leader compute a value, and give it to all; a collective."""
        with self.together():
            value: Any = function() if self.leads else None
        found: T = self.gather(value)[0]
        return found

    @contextmanager
    def ordered(self, work: Callable[[], Any]) -> Iterator[None]:
        """As the leader, do a part of some work while the followers do theirs; ``work`` can be pickled."""
        global _is_busy
        if _is_led:
            _send(work)
            _is_busy = True
        try:
            yield
        except Exception as error:
            _is_busy = _is_busy and not is_known(error)
            raise
        _is_busy = False

    def follow(self) -> Any:
        """As a follower, do what the leader orders until it lets go; give what it says last."""
        while True:
            work = _send(None)
            if isinstance(work, _Dismissal):
                _at_rest()
                if work.error is None:
                    return work.result
                error = _again(work.error, 0, self.size)
                error.add_note(KNOWN)
                raise error
            try:
                work()
            except Exception as error:
                if not is_known(error):
                    raise  # ends this process, which ends the others


ALONE = Team()


@dataclass(frozen=True)
class _Dismissal:
    """The last word of a leader."""

    result: Any = None
    error: _Told | None = None


def team_here() -> Team:
    """Find the processes that work together: those of an initialised process group."""
    if "torch" not in sys.modules:  # then there is no group, and a command that only helps need not wait for torch
        return ALONE
    from torch import distributed

    if not (distributed.is_available() and distributed.is_initialized()):
        return ALONE
    return Team(distributed.get_rank(), distributed.get_world_size())


def refuse_several() -> None:
    """Refuse to be one of several processes that are no group: each would do all of the work, on the same files."""
    if team_here().size > 1:
        return
    for name in LAUNCHERS:
        number = os.environ.get(name, "")
        if number.isdecimal() and int(number) > 1:
            raise UsageError(
                f"{name} is {number}, so this is one of {number} processes, and they would all do the same: several "
                "share compare, fisher, localise, merge-check and shortcuts, started by torchrun or accelerate launch; "
                f"start all else alone, or unset {name}"
            )


def join() -> None:
    """Make the processes that torchrun or accelerate started a group; a process alone stays so."""
    if int(os.environ.get("WORLD_SIZE", "1") or 1) > 1 and all(os.environ.get(name) for name in RENDEZVOUS):
        import torch
        from torch.distributed import DistError, init_process_group
        from torch.distributed.rendezvous import rendezvous

        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        try:
            store, rank, size = next(rendezvous("env://", timeout=MEETING))
            backend = None if torch.cuda.is_available() else "gloo"
            init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
        except DistError as error:
            address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
            raise MeasurementError(
                f"process {os.environ['RANK']} of {os.environ['WORLD_SIZE']} did not meet the others at {address} "
                f"within {MEETING.seconds} s: they or torchrun died, or cannot be reached from here; start all again"
            ) from error


def leave() -> None:
    """End the group when every process has said what it had to say; one that others may wait for just goes."""
    if team_here().size > 1 and not _is_busy:
        from torch.distributed import barrier, destroy_process_group

        with suppress(RuntimeError):  # another one died
            barrier()
            destroy_process_group()


def _at_rest() -> None:
    global _is_busy
    _is_busy = False


def is_known(error: BaseException) -> bool:
    """Tell whether all processes know of an error."""
    return KNOWN in getattr(error, "__notes__", ())


def led(function: Callable[P, T]) -> Callable[P, T]:
    """Let one process run a function, which every process calls, and the others do their share and get its result."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        global _is_led, _is_busy
        team = team_here()
        if team.size == 1 or _is_led:
            return function(*args, **kwargs)
        if not team.leads:
            _is_busy = True  # until the leader lets go
            found: T = team.follow()
            return found
        _is_led, _is_busy = True, False
        try:
            result = function(*args, **kwargs)
        except Exception as error:
            if not _is_busy or is_known(error):
                _send(_Dismissal(error=_told(error)))
                _at_rest()
            raise
        finally:
            _is_led = False
        _send(_Dismissal(result))
        return result

    return call


def _bundles(tensors: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Put tensors that follow each other, and are small, together: each message takes the time of a round trip."""
    bundle: list[Tensor] = []
    for tensor in tensors:
        size = sum(each.nbytes for each in bundle) + tensor.nbytes
        if bundle and (size > BUNDLE or (tensor.dtype, tensor.device) != (bundle[0].dtype, bundle[0].device)):
            yield bundle
            bundle = []
        bundle.append(tensor)
    if bundle:
        yield bundle


def _send(work: Any) -> Any:
    """Send what the leader gives to all; give what it sent."""
    from torch.distributed import broadcast_object_list

    sent = [work]
    broadcast_object_list(sent, src=0)
    return sent[0]


def _told(error: Exception) -> _Told:
    """Say what was raised, in words that can be sent."""
    from torch import OutOfMemoryError

    if isinstance(error, (CommonweightError, OutOfMemoryError)):
        return type(error), str(error)
    return MeasurementError, f"{type(error).__name__}: {error}"


def _again(told: _Told, rank: int, size: int) -> Exception:
    kind, words = told
    return kind(f"process {rank} of {size}: {words}")
