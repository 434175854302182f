"""What a study is asked: a dataclass of settings. Equal plans give equal results."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from commonweight.base.errors import UsageError
from commonweight.base.settings import check_settings, settings_of
from commonweight.studies.run.record import RECORD, damaged, read_record

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from commonweight.base.settings import Role
    from commonweight.studies.run.record import StudyKind

P = TypeVar("P", bound="StudyPlan")


@dataclass(frozen=True)
class StudyPlan:
    """What every plan has; its fields are those of the study."""

    def __post_init__(self) -> None:
        check_settings(self)

    @classmethod
    def of_run(cls: type[P], run: Path, kind: StudyKind) -> P:
        """Read what a run was asked, with what it grew by."""
        record = read_record(run, kind)
        if not record:
            raise UsageError(f"{run} holds no run: give the folder that commonweight {kind.name} wrote")
        fields = {field.name for field in dataclasses.fields(cls)}
        return cls(**{
            name: _tuples(value) for name, value in (record["asked"] | record["grown"]).items() if name in fields
        })

    def deciding(self) -> dict[str, Any]:
        """Give what decides the numbers, as plain JSON values."""
        return self._of("decides")

    def growing(self) -> dict[str, Any]:
        """Give what the same run may be asked for more of, as plain JSON values."""
        return self._of("grows")

    def grown(self: P, run: Path, former: Mapping[str, Any]) -> P:
        """Add what a run of the same plan has more of: the larger number, the words of both."""
        more: dict[str, Any] = {}
        for name, value in self.growing().items():
            before = former.get(name, value)
            if type(before) is not type(value):
                raise damaged(run / RECORD, f"{name} is {before!r}")
            more[name] = tuple(dict.fromkeys([*before, *value])) if isinstance(value, list) else max(before, value)
        return dataclasses.replace(self, **more)

    def _of(self, role: Role) -> dict[str, Any]:
        chosen = {
            field.name: getattr(self, field.name)
            for field, said, _ in settings_of(type(self))
            if (said.role if said else "decides") == role
        }
        plain: dict[str, Any] = json.loads(json.dumps(chosen))
        return plain


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
