"""From the words of the command line to the settings of a study."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from commonweight.cli import streams

if TYPE_CHECKING:
    from commonweight.models.options import LoadOptions
    from commonweight.studies.compare.measure import MeasureOptions


def note(sentence: str) -> None:
    """Tell the user something beside the result."""
    streams.tell(sentence)


def load_options(given: dict[str, Any]) -> LoadOptions:
    """Collect how models are read."""
    from commonweight.models.options import LoadOptions

    checkpoint = given.get("checkpoint")
    return LoadOptions(
        checkpoint=checkpoint if isinstance(checkpoint, str) else None,
        tokenizer=given["tokenizer"],
        device=given["device"],
        dtype=given["dtype"],
        allow_pickle=given["allow_pickle"],
        trust_remote_code=given["trust_remote_code"],
        allow_missing_weights=given["allow_missing_weights"],
    )


def measure_options(given: dict[str, Any]) -> MeasureOptions:
    """Collect how Fishers are measured."""
    from commonweight.studies.compare.measure import MeasureOptions
    from commonweight.studies.compare.prepare import ColumnOptions

    columns = ColumnOptions(given["text_column"], given["label_column"], given["input_column"], given["max_length"])
    return MeasureOptions(
        fisher_type=given["fisher_type"],
        folds=given["folds"],
        seed=given["seed"],
        samples=given["samples"],
        batch_size=given["batch_size"],
        loss=given["loss"],
        include=given["include"],
        exclude=given["exclude"],
        columns=columns,
    )
