"""The fusion methods, in one table: a new one is a class in a file of its own, and a line here."""

from __future__ import annotations

from commonweight.base.errors import UsageError
from commonweight.base.names import among
from commonweight.fusion.methods.average import Average
from commonweight.fusion.methods.fisher import FisherAverage
from commonweight.fusion.methods.method import Entries, Method, Parameter, parameter
from commonweight.fusion.methods.task_arithmetic import TaskArithmetic

__all__ = ["METHODS", "Entries", "Method", "Parameter", "make_method", "parameter"]

METHODS: dict[str, type[Method]] = {method.name: method for method in (Average, TaskArithmetic, FisherAverage)}
"""Every method by its name."""


def make_method(name: str, *, has_base: bool, has_footprints: bool, **given: float | str | None) -> Method:
    """Make a method with its parameters, all of them checked together.

    Args:
        name: Its name in ``METHODS``.
        has_base: Whether a base was given.
        has_footprints: Whether footprints were given.
        **given: Parameters by name; None is not given.

    Returns:
        The method.

    Raises:
        UsageError: If the method is unknown, lacks what it needs, was given what it does not use, or a value is out of
            range.

    Example:
        >>> make_method("task_arithmetic", has_base=True, has_footprints=False, scale=0.5)
        TaskArithmetic(scale=0.5)
    """
    if name not in METHODS:
        raise UsageError(f"no method {name!r}; {among(str(name), METHODS)}")
    method = METHODS[name]
    parameters = method.parameters()
    settings = {key: value for key, value in given.items() if value is not None}
    unused = [key for key in settings if key not in parameters]
    unused += ["base"] if has_base and not method.needs_base else []
    unused += ["footprints"] if has_footprints and not method.needs_fishers else []
    for key in unused:
        owners = [other.in_words() for other in METHODS.values() if key in takes(other)]
        if not owners:
            known = dict.fromkeys(name for other in METHODS.values() for name in other.parameters())
            raise UsageError(f"no fusion method takes {key!r}; {among(key, known)}")
        raise UsageError(
            f"{{argument}} is for {' and '.join(owners)}, and the method is {method.in_words()}; leave it out",
            argument=key,
        )
    if method.needs_base and not has_base:
        raise UsageError(
            f"{method.in_words()} needs the base the models were fine-tuned from, got none; give the starting "
            "checkpoint as the base, with the head it had before fine-tuning"
        )
    if method.needs_fishers and not has_footprints:
        raise UsageError(
            f"{method.in_words()} needs a footprint of each model, got none; measure them with commonweight fisher, "
            "and give them in the order of the models"
        )
    return method(**{key: parameters[key].checked(key, value) for key, value in settings.items()})


def takes(method: type[Method]) -> tuple[str, ...]:
    """List what may be given to a method beside models and weights."""
    needs = [*(["base"] if method.needs_base else []), *(["footprints"] if method.needs_fishers else [])]
    return (*needs, *method.parameters())
