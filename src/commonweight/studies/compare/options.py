"""What a measurement and a comparison may be asked: columns, Fisher type, folds, rows, how models are read."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from commonweight.base.choices import FisherType  # noqa: TC001 - the fields' types are read
from commonweight.base.settings import check_settings, setting
from commonweight.models.options import LoadOptions

FOLDS = 8
"""The usual number, and the one whose intervals were examined (docs/evidence.md)."""

Loss = Literal["classification", "multilabel", "regression"]
LOSSES: tuple[Loss, ...] = get_args(Loss)


@dataclass(frozen=True)
class ColumnOptions:
    """Which columns of a data set a model reads; empty or None takes the obvious ones."""

    text_column: tuple[str, ...] = setting((), "Column of texts; give it twice for text pairs.", metavar="C")
    label_column: str | None = setting(None, "Column of labels; default: label or labels.", metavar="L")
    input_column: tuple[str, ...] = setting(
        (), "For a plain torch module: columns of numbers, or one column of lists.", metavar="C"
    )
    max_length: int | None = setting(None, "Cut texts to N tokens; default: the model's limit.", metavar="N", least=1)

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True)
class MeasureOptions:
    """How a Fisher is measured."""

    fisher_type: FisherType = setting(
        "empirical", "Labels: those given, the exact expectation under the model, or draws from the model."
    )
    samples: int = setting(1, "Draws per row, for --fisher-type mc.", metavar="N", least=1)
    seed: int = setting(0, "Seed of the draws.", metavar="N", least=0)
    loss: Loss | None = setting(None, "Likelihood of a plain torch module; default: inferred from integer targets.")
    batch_size: int | None = setting(
        None, "Rows per batch; changes speed, never the result.", none="auto", least=1
    )  # None starts large and halves when memory runs out
    folds: int | None = setting(
        None,
        "Disjoint parts of the rows, for noise ceilings and intervals; auto: 8, or 1 if there are too few rows.",
        none="auto",
        metavar="K|auto",
        least=1,
    )
    include: tuple[str, ...] = setting(
        (),
        "Measure only these: a module path such as bert.encoder, or a shell pattern of parameter names such as "
        "'*.weight'; give as many as you like.",
        metavar="PATTERN",
    )
    exclude: tuple[str, ...] = setting((), "Leave these out; patterns as for --include.", metavar="PATTERN")
    columns: ColumnOptions = field(default_factory=ColumnOptions)

    def __post_init__(self) -> None:
        check_settings(self)

    def deciding(self) -> dict[str, Any]:
        """Give what decides the numbers."""
        found = asdict(self)
        for name in ("batch_size", *(() if self.fisher_type == "mc" else ("seed", "samples"))):
            del found[name]
        return found


@dataclass(frozen=True)
class CompareOptions:
    """How models are read, data chosen, and Fishers measured: the same for every cell."""

    common_only: bool = setting(False, "Compare only parameters of equal name and shape.")
    split: str | None = setting(None, "Which split, where the data have several.", metavar="S")
    examples: int | None = setting(None, "Measure N rows, chosen by --data-seed; default: all.", metavar="N", least=1)
    data_seed: int = setting(0, "Seed of the choice of rows.", metavar="N")
    measure: MeasureOptions = field(default_factory=MeasureOptions)
    checkpoints: tuple[str, ...] = setting(
        (), "A .safetensors file for each module:function, in order.", option="checkpoint", metavar="FILE"
    )
    load: LoadOptions = field(default_factory=LoadOptions)

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True)
class TrialOptions:
    """How models are read, and rows chosen and resampled, where changed models are scored on one half of the rows."""

    resamples: int = setting(2000, "Bootstrap samples of the rows.", metavar="N", least=400)
    split: str | None = setting(None, "Which split, where the data have several.", metavar="S")
    examples: int | None = setting(
        None, "Use N rows of each data set, chosen by --data-seed; default: all.", metavar="N", least=2
    )
    data_seed: int = setting(0, "Seed of the choice of rows.", metavar="N")
    measure: MeasureOptions = field(default_factory=MeasureOptions)
    checkpoints: tuple[str, ...] = setting(
        (),
        "A .safetensors file for each module:function, in order, the initialisation last.",
        option="checkpoint",
        metavar="FILE",
    )
    load: LoadOptions = field(default_factory=LoadOptions)

    def deciding(self) -> dict[str, Any]:
        """Give what decides the numbers, as plain JSON values; models and rows are recorded by what they hold."""
        elsewhere = {"measure", "load", "checkpoints", "split", "examples", "data_seed"}
        own = {name: value for name, value in asdict(self).items() if name not in elsewhere}
        reading = {"dtype": self.load.dtype, "tokenizer": self.load.tokenizer, "sets_seed": self.measure.seed}
        found: dict[str, Any] = json.loads(json.dumps(own | self.measure.deciding() | reading))
        return found
