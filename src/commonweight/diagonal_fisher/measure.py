"""The diagonal Fisher of a model on data: exact per example, for most models at about the price of one pass."""

from __future__ import annotations

import platform
import sys
import warnings
from contextlib import ExitStack
from dataclasses import replace
from itertools import count, islice
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from commonweight.base.errors import UsageError
from commonweight.base.progress import is_shown, shown
from commonweight.base.team import ALONE, team_here
from commonweight.base.version import __version__
from commonweight.diagonal_fisher.accumulator import new_total
from commonweight.diagonal_fisher.batch import BatchReader, by_fold
from commonweight.diagonal_fisher.collector import FisherCollector, Patterns, Sums
from commonweight.diagonal_fisher.likelihood import Custom
from commonweight.diagonal_fisher.problem import TOLERANCE, least_accurate
from commonweight.diagonal_fisher.sharded import check_alike, gathered, original_class
from commonweight.diagonal_fisher.verification import ROWS, Route, Verification
from commonweight.footprints import files
from commonweight.footprints.copies import CopiesWarning
from commonweight.footprints.files import FolderWriter
from commonweight.footprints.folds import check_fold_dtype, fold_record, shortened
from commonweight.footprints.footprint import Fold, Footprint
from commonweight.footprints.weight_sample import weight_sample
from commonweight.models.architectures import architecture_of_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from commonweight.base.choices import FisherType
    from commonweight.base.team import Team
    from commonweight.diagonal_fisher.batch import Batch
    from commonweight.diagonal_fisher.likelihood import CustomLoss, LossFunction

    _Own = tuple[Sums, list[int]]
    """What one process measured, and the numbers of its batches."""

RECORDED = frozenset({
    "agreement",
    "architecture",
    "exclude",
    "folds",
    "generic",
    "include",
    "fisher_type",
    "loss",
    "samples",
    "seed",
    "unused",
    "verified",
    "versions",
    "weight_sample_scale",
})
"""Metadata that say how a footprint was measured, and cannot be set by hand."""


def fisher(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    fisher_type: FisherType = "empirical",
    loss: str | LossFunction | CustomLoss | None = None,
    include: Patterns = None,
    exclude: Patterns = None,
    folds: int = 1,
    seed: int = 0,
    samples: int = 1,
    progress: bool = False,
    folder: str | Path | None = None,
    fold_dtype: torch.dtype | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Footprint:
    r"""Measure the diagonal Fisher of a model on data.

    For every weight w, the mean over examples of the squared per-example gradient of the log-likelihood,

    .. math::
        F_w = \frac1N \sum_{i=1}^N \mathbb E_y \bigl[ (\partial \log p(y \mid x_i) / \partial w)^2 \bigr],

    with the labels y given by ``fisher_type``. The example is the unit, always: a text is one example however many
    tokens it has, and its tokens' log-likelihoods are summed before they are differentiated and squared. The result
    is that of a loop with batch size 1, whatever the batch size, order or padding. Layers have rules that give it from
    one batched pass; every rule is first compared with single-example passes on a few rows, and a parameter that
    disagrees is measured one example at a time.

    Source: Kirkpatrick et al. (2017), https://arxiv.org/abs/1612.00796; on the empirical Fisher
    (``fisher_type="empirical"``) and why it is another quantity, Kunstner et al. (2019),
    https://arxiv.org/abs/1905.12558.

    Args:
        model: Any module. Parameters that require a gradient are measured; it is run in eval mode and comes back as
            it was.
        batches: Mappings, called as ``model(**batch)`` with ``labels`` (and optionally ``source_row``, see ``folds``),
            or pairs ``(inputs, targets)``. Inputs reach ``forward`` as they come; a tuple or list that it does not
            take whole becomes its arguments. Several targets are for a ``loss`` of your own, as are keys that
            ``forward`` does not take.
        fisher_type: ``empirical``: the labels given; ``exact``: the expectation over the model's
            own distribution, one backward pass per class; ``mc``: draws from it, keyed by seed and source row.
        loss: ``classification``, ``multilabel``, ``regression`` (unit variance), ``causal_lm``, ``token``, ``seq2seq``;
            or a callable ``(outputs, batch) -> [batch]``, the per-example negative log-likelihood in nats, or a
            :class:`CustomLoss`. None: inferred where a Hugging Face class or integer targets leave no doubt.
        include: Module paths or shell patterns of parameters to measure; None for all.
        exclude: The same, left out.
        folds: Number of disjoint parts of the examples, kept apart beside the whole; the fold of an example is a hash
            of its ``source_row`` (its running number where none is given: then every footprint to be compared needs
            the same rows in the same order). Copies of a row need one ``source_row``, independent draws that are
            equal one each; where none is given, equal rows are taken for copies, and a warning says where more than
            5 % of the rows have copies in other folds.
        seed: Seed of the draws of ``mc``.
        samples: Draws per example of ``mc``.
        progress: Show a progress bar on stderr.
        folder: Write the footprint here as it is measured and read it back lazily; with folds only two copies of the
            parameters are then in memory.
        fold_dtype: Type in which folds are written to ``folder``: ``torch.bfloat16`` halves them, rounding every entry
            by at most 0.4 % (parameters of fewer than 4096 weights, and those of float64 models, stay as they are).
            Sums and the whole are not rounded. None writes them as measured.
        metadata: Plain JSON values to record, such as the identity of the data; those under ``model`` are put beside
            what is recorded of the model.

    Returns:
        A footprint of kind ``fisher``, with one float32 tensor per parameter (float64 for float64 models).

    Raises:
        UsageError: If an argument is wrong, the loader is empty, the loss cannot be inferred, or outputs and labels do
            not fit it.
        MeasurementError: If the model stays random, mixes examples, or gives numbers that are not finite.

    Example:
        >>> import torch, commonweight
        >>> model = torch.nn.Linear(2, 3, bias=False)
        >>> x, y = torch.tensor([[1.0, 2.0], [3.0, 0.0]]), torch.tensor([0, 2])
        >>> footprint = commonweight.fisher(model, [(x, y)])
        >>> one = torch.autograd.functional.jacobian(
        ...     lambda w: torch.nn.functional.cross_entropy(x @ w.T, y, reduction="none"), model.weight)
        >>> torch.allclose(footprint["weight"], one.square().mean(0))
        True
    """
    if folds < 1:
        raise UsageError(f"{{argument}} must be at least 1, got {folds}", argument="folds")
    check_fold_dtype(fold_dtype, folder)
    _check_metadata(metadata or {})
    collector = FisherCollector(
        model,
        fisher_type=fisher_type,
        loss=loss,
        include=include,
        exclude=exclude,
        seed=seed,
        samples=samples,
    )
    team = team_here()
    with ExitStack() as opened:
        with team.together():
            writer = opened.enter_context(FolderWriter(folder)) if folder is not None and team.leads else None
            opened.enter_context(shown((progress or is_shown()) and team.leads))
            opened.enter_context(collector)

        def put_away(fold: int, mean: dict[str, Tensor]) -> dict[str, Tensor]:
            """Write the mean of a fold; what is written does not stay in memory."""
            if writer is not None:
                writer.add(files.fold_group(fold), shortened(mean, fold_dtype))
            return mean if folder is None else {}

        footprint = _measure(team, collector, batches, folds, metadata or {}, put_away, fold_dtype)
        with team.together():
            if writer is not None:
                footprint.write_whole(writer)
    if folder is not None:
        footprint = Footprint.load(folder)
    if footprint.copies:
        warnings.warn(footprint.copies, CopiesWarning, stacklevel=2)
    if footprint.metadata["loss"] == Custom.name and not footprint.spread[""].total:
        warnings.warn(
            "the Fisher is zero in every weight: the loss of your own has no slope at any example, as the "
            "cross-entropy of one output has none (of a yes or no label loss='multilabel' has one)",
            stacklevel=2,
        )
    return footprint


def verify(
    model: nn.Module,
    batch: Any,
    *,
    fisher_type: FisherType = "empirical",
    loss: str | LossFunction | CustomLoss | None = None,
    include: Patterns = None,
    exclude: Patterns = None,
    seed: int = 0,
) -> Verification:
    """Compare every rule with single-example passes on a few rows of a batch.

    Args:
        model: Any module.
        batch: One batch, as for :func:`fisher`; more than one example is needed to see rules that mix examples.
        fisher_type: As for :func:`fisher`.
        loss: As for :func:`fisher`.
        include: As for :func:`fisher`.
        exclude: As for :func:`fisher`.
        seed: As for :func:`fisher`.

    Returns:
        The largest error, and which route covers which parameter.

    Raises:
        UsageError: If the batch holds a single example.

    Example:
        >>> import torch, commonweight
        >>> report = commonweight.verify(torch.nn.Linear(2, 3), (torch.eye(2), torch.tensor([0, 2])))
        >>> report.largest_error < 1e-3, report.routes["weight"].rule
        (True, 'linear_weight')
    """
    collector = FisherCollector(model, fisher_type=fisher_type, loss=loss, include=include, exclude=exclude, seed=seed)
    with collector:
        read = BatchReader().read(batch)
        if read.size == 1:
            raise UsageError("expected a batch of at least 2 examples: one alone cannot show a rule that mixes them")
        routes = collector.choose_routes([read])
        dtype = least_accurate(collector.parameters.values())
        return Verification(routes, min(read.size, ROWS), TOLERANCE[dtype])


def _measure(
    team: Team,
    collector: FisherCollector,
    batches: Iterable[Any],
    folds: int,
    metadata: Mapping[str, Any],
    put_away: Callable[[int, dict[str, Tensor]], dict[str, Tensor]],
    fold_dtype: torch.dtype | None,
) -> Footprint:
    """Measure fold by fold; the processes of a team take batches in turn."""
    whole = Sums()
    parts: list[Sums] = []
    kept: list[Fold] = []
    streams, numbers = by_fold(batches, folds), count()
    for fold in range(folds):
        if collector.is_sharded:
            own, taken = _in_step(team, collector, next(streams), numbers)
        else:
            with team.together():
                own, taken = _in_turn(team, collector, next(streams), numbers)
        sums = _of_all(team, collector, own, taken)
        parts.append(sums)
        if folds == 1:
            whole = sums
            break
        if not sums.count:
            raise UsageError(f"fold {fold} of {folds} holds no example: use fewer folds or more examples")
        whole.add(sums)
        with team.together():
            kept.append(Fold(sums.count, put_away(fold, sums.used_up())))
    collector.meet(team)
    if (lost := collector.lost()) is not None:
        warnings.warn(lost, stacklevel=3)
    return footprint_of(collector, whole.used_up(), parts, kept, metadata, fold_dtype, team)


def _in_turn(team: Team, collector: FisherCollector, batches: Iterator[Batch], numbers: Iterator[int]) -> _Own:
    """Measure every batch in one of the processes, each at its own pace."""
    taken = []
    for batch, number in zip(batches, numbers, strict=False):
        if team.takes(number):
            collector.update(batch)
            taken.append(number)
    return collector.take(), taken


def _in_step(team: Team, collector: FisherCollector, batches: Iterator[Batch], numbers: Iterator[int]) -> _Own:
    """Measure as many batches as there are processes at once: the weights of the model are sharded over them."""
    # An error in one process ends it, and so the others: to tell them, it would have to run their passes to the end.
    taken = []
    numbered = zip(collector.settled(batches, team), numbers, strict=False)
    while check_alike(team, len(group := list(islice(numbered, team.size)))):
        collector.step([batch for batch, _ in group], team.rank)
        taken += [number for _, number in group[team.rank : team.rank + 1]]
    return collector.take(), taken


def _of_all(team: Team, collector: FisherCollector, own: Sums, numbers: list[int]) -> Sums:
    """Add up the sums of all processes; rows come in the order of the batches."""
    if team.size == 1:
        return own
    tensors = own.tensors or {name: new_total(parameter) for name, parameter in collector.parameters.items()}
    team.add_up(tensors.values())
    whole = Sums(tensors=tensors)
    batches: list[tuple[int, Tensor]] = []
    source_rows: list[tuple[int, Tensor]] | None = []
    for theirs, taken in team.gather((replace(own, tensors={}), numbers)):
        whole.add(replace(theirs, rows=[], source_rows=[]))
        batches += zip(taken, theirs.rows, strict=True)
        if source_rows is not None:
            known = theirs.source_rows
            source_rows = None if known is None else [*source_rows, *zip(taken, known, strict=True)]
    whole.rows = _in_order(batches)
    whole.source_rows = None if source_rows is None else _in_order(source_rows)
    return whole


def _in_order(numbered: list[tuple[int, Tensor]]) -> list[Tensor]:
    return [tensor for _, tensor in sorted(numbered, key=itemgetter(0))]


def footprint_of(
    collector: FisherCollector,
    tensors: Mapping[str, Tensor],
    parts: Sequence[Sums],
    folds: Sequence[Fold],
    metadata: Mapping[str, Any],
    fold_dtype: torch.dtype | None = None,
    team: Team = ALONE,
) -> Footprint:
    """Make a footprint of what a collector measured: its means, the sums of its parts, and its folds if it has any."""
    rows = {files.fold_group(k): torch.cat(part.rows) for k, part in enumerate(parts) if part.rows}
    numbers = {files.fold_group(k): torch.cat(part.source_rows) for k, part in enumerate(parts) if part.source_rows}
    sample, scale = weight_sample((name, gathered(weight)) for name, weight in collector.parameters.items())
    whole = Sums()
    for part in parts:
        whole.add(replace(part, tensors={}))
    return Footprint(
        kind="fisher",
        tensors=tensors,
        count=whole.count,
        metadata=team.of_leader(lambda: _describe(collector, fold_record(len(parts), fold_dtype), scale, metadata)),
        spread=whole.spread,
        folds=tuple(folds),
        weight_sample=sample,
        row_digests=rows,
        source_rows=numbers if len(numbers) == len(rows) else {},  # of some they are only running numbers
    )


def _check_metadata(metadata: Mapping[str, Any]) -> None:
    files.check_metadata(metadata)
    taken = sorted(RECORDED & set(metadata))
    if taken:
        raise UsageError(f"metadata may not set {', '.join(taken)}: these are recorded as they were measured")
    if not isinstance(metadata.get("model", {}), dict):
        raise UsageError('metadata["model"] must be a mapping: it is put beside the recorded class and sizes')


def _describe(
    collector: FisherCollector, folds: Mapping[str, Any], scale: Mapping[str, float], metadata: Mapping[str, Any]
) -> dict[str, Any]:
    problem = collector.problem
    if problem is None:
        raise UsageError("there is no example to measure: the loader yielded no batch")
    routes: Mapping[str, Route] = collector.routes
    generic = {name: route.reason for name, route in routes.items() if route.route == "generic"}
    errors = [route.error for route in routes.values() if route.route == "rule" and route.error == route.error]
    versions = {"python": platform.python_version(), "torch": torch.__version__, "commonweight": __version__}
    if "transformers" in sys.modules:
        versions["transformers"] = sys.modules["transformers"].__version__
    recorded: dict[str, Any] = {
        "fisher_type": problem.fisher_type,
        "loss": problem.likelihood.name,
        "seed": problem.seed,
        "samples": problem.samples if problem.fisher_type == "mc" else None,
        "folds": dict(folds),
        "verified": {"largest_error": max(errors, default=None)},
        "include": collector.include,
        "exclude": collector.exclude,
        "generic": generic,
        "agreement": problem.agreement.record(),
        "architecture": architecture_of_model(collector.model),
        "unused": [name for name in routes if name not in collector.used],
        "model": {
            "class": original_class(collector.model).__name__,
            "weights": sum(parameter.numel() for parameter in collector.model.parameters()),
            "measured_weights": sum(parameter.numel() for parameter in collector.parameters.values()),
            "measured_parameters": len(collector.parameters),
            "trainable_parameters": collector.trainable,
            "dtypes": sorted({str(parameter.dtype) for parameter in collector.parameters.values()}),
        },
        "versions": versions,
        "weight_sample_scale": dict(scale),
    }
    model = {**recorded["model"], **metadata.get("model", {})}
    return {**recorded, **metadata, "model": model}
