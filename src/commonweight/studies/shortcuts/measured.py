"""Which source rows the Fishers of a seed were measured on: read from the rows themselves, checked against the run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from commonweight.data.table import open_table
from commonweight.errors import IntegrityError
from commonweight.studies.run_record import read_record
from commonweight.studies.same_rows import rows_key
from commonweight.studies.shortcuts.plan import ORIGINAL

if TYPE_CHECKING:
    from collections.abc import Mapping

    from commonweight.studies.shortcuts.plan import Plan, SeedFolder


def has_measured_rows(plan: Plan, folder: SeedFolder) -> bool:
    """Tell whether all files of rows that Fishers are measured on are there.

    Args:
        plan: The plan.
        folder: The seed.

    Returns:
        Whether they are.
    """
    return all(folder.measured(name).is_file() for name in (ORIGINAL, *plan.shortcuts))


def measured_rows(plan: Plan, folder: SeedFolder) -> Mapping[str, str]:
    """Name the source rows of every set that Fishers were measured on.

    Args:
        plan: The plan.
        folder: The seed, its Fishers measured.

    Returns:
        Set -> a digest of its column ``source_row``, equal for sets made of the same rows.

    Raises:
        IntegrityError: If a file of rows is not the one that was measured.
    """
    found = {}
    for name in (ORIGINAL, *plan.shortcuts):
        place = folder.measured(name)
        table = open_table(str(place))
        for rule in plan.label_rules:
            measured = (read_record(folder.grid(rule)) or {}).get("data", {}).get(name, {}).get("sha256")
            if measured != table.identity["sha256"]:
                raise IntegrityError(
                    f"{place} is not what the Fishers in {folder.grid(rule)} were measured on: expected SHA-256 "
                    f"{measured}, got {table.identity['sha256']}; put the file back, or remove that folder and run the "
                    "study again"
                )
        found[name] = rows_key(table)
    return found
