"""What every room stands on: errors, records, folders, names, text, estimates."""

from commonweight.base.errors import IntegrityError, MeasurementError, NotComparableError, UsageError

__all__ = ["IntegrityError", "MeasurementError", "NotComparableError", "UsageError"]
