"""The fusion methods, in one table: a new one is a class in a file of its own, and a line here."""

from __future__ import annotations

from typing import Any

from commonweight.base.errors import UsageError
from commonweight.base.names import among
from commonweight.base.settings import check_settings
from commonweight.fusion.methods.average import Average
from commonweight.fusion.methods.fisher import FisherAverage
from commonweight.fusion.methods.method import Entries, Method, is_number
from commonweight.fusion.methods.task_arithmetic import TaskArithmetic

__all__ = ["METHODS", "Entries", "Method", "make_method"]

METHODS: dict[str, type[Method]] = {method.name: method for method in (Average, TaskArithmetic, FisherAverage)}
"""Every method by its name."""


def make_method(name: str, *, has_base: bool, has_footprints: bool, **given: float | str | None) -> Method:
    """Make a method with its parameters, all of them checked together; None is a parameter that was not given."""
    if name not in METHODS:
        raise UsageError(f"no method {name!r}; {among(str(name), METHODS)}")
    method = METHODS[name]
    parameters = method.parameters()
    settings: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
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
    for key in [key for key in settings if parameters[key][1].type is float]:
        if not is_number(settings[key]):
            raise UsageError(f"{{argument}} must be a finite number, got {settings[key]!r}", argument=key)
        settings[key] = float(settings[key])
    made = method(**settings)
    check_settings(made)
    return made


def takes(method: type[Method]) -> tuple[str, ...]:
    """List what may be given to a method beside models and weights."""
    needs = [*(["base"] if method.needs_base else []), *(["footprints"] if method.needs_fishers else [])]
    return (*needs, *method.parameters())
