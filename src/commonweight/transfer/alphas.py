"""Alphas: how much each earlier task takes part in the training of a task, layer by layer."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from commonweight.base import text
from commonweight.base.errors import IntegrityError, UsageError, check_kind
from commonweight.base.records import Format, record_of, sealed, without_nan
from commonweight.base.seeds import checked_seed
from commonweight.overlaps.similarity.means import TaskSimilarity
from commonweight.supermasks.network import SupermaskNetwork
from commonweight.transfer.prior_rules import RULES, TIE, Question

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, NDArray

    from commonweight.base.choices import PriorRule

    Array = NDArray[np.float64]

WHOLE = ""
"""Names the one row of alphas that holds for every layer."""

ALPHAS = Format("commonweight-alphas", (2,), "alphas", "choose them again with transfer_alphas")


@dataclass(frozen=True)
class Alphas:
    """How much each prior task takes part in the training of a task.

    Example:
        >>> found = Alphas("b", "previous", {"bn1": {"a": 1.0}}, {"bn1": "the task before: 'a'"}, {"bn1": float("nan")})
        >>> Alphas.from_json(found.to_json()).layers
        {'bn1': {'a': 1.0}}
    """

    task: str
    """The task that is to be trained."""

    rule: str
    """The rule by which they were chosen."""

    layers: Mapping[str, Mapping[str, float]]
    """Batch norm -> prior task -> alpha. A row sums to 1 or 0, and is empty for the first task; the batch norm ``""``
    stands for all of them, where one choice holds for the whole network."""

    reasons: Mapping[str, str]
    """Batch norm -> why this choice, in words."""

    margins: Mapping[str, float]
    """Batch norm -> similarity of the best prior task less that of the second; nan where there are not two."""

    def to_json(self) -> str:
        """Write the alphas as JSON; nan is null.

        Returns:
            Text that :meth:`from_json` reads back without loss.
        """
        record = {"format": ALPHAS.name, "version": ALPHAS.versions[0], **asdict(self)}
        return json.dumps(sealed(without_nan(record)), indent=1, ensure_ascii=False)

    @classmethod
    def from_json(cls, written: str) -> Alphas:
        """Read back what :meth:`to_json` wrote.

        Args:
            written: The JSON text.

        Returns:
            The alphas.

        Raises:
            IntegrityError: If the text is not such a record, whole and of this format version.
        """
        record = record_of(written, "the text", ALPHAS, ())
        try:
            layers = {str(layer): {str(t): float(a) for t, a in row.items()} for layer, row in record["layers"].items()}
            margins = {layer: record["margins"][layer] for layer in layers}
            return cls(
                str(record["task"]),
                str(record["rule"]),
                layers,
                {layer: str(record["reasons"][layer]) for layer in layers},
                {layer: math.nan if margin is None else float(margin) for layer, margin in margins.items()},
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise IntegrityError(f"the alphas are damaged or were edited by hand ({error!r}): {ALPHAS.again}") from None

    def to_markdown(self, decimals: int = 4) -> str:
        """Write the alphas for people.

        Args:
            decimals: Digits after the point, from 1 to 9.

        Returns:
            GitHub Markdown: a row per layer, with the reason.

        Raises:
            UsageError: If ``decimals`` is out of range.
        """
        priors = list(dict.fromkeys(prior for row in self.layers.values() for prior in row))
        rows = tuple(
            (
                layer or "every layer",
                *(text.number(row.get(prior, 0.0), decimals) for prior in priors),
                text.number(self.margins[layer], decimals),
                self.reasons[layer],
            )
            for layer, row in self.layers.items()
        )
        return text.to_markdown([text.Grid(f"Alphas of {self.task}", ("layer", *priors, "margin", "reason"), rows)])


def transfer_alphas(
    table: TaskSimilarity,
    task: str,
    rule: PriorRule = "most_similar",
    *,
    per_layer: bool = True,
    null: bool = True,
    temperature: float = 0.1,
    truth: ArrayLike | None = None,
    seed: int = 0,
) -> Alphas:
    r"""Choose how much each earlier task takes part in the training of a task.

    Only tasks before it in ``table.tasks`` count: never the task itself, whose similarity is 1, and never a later one.

    ``most_similar`` gives 1 to the most similar prior task; ``softmax`` gives
    :math:`e^{s_i / T} / \sum_k e^{s_k / T}`. Both give nothing where the best prior task is not above its null.
    The others are controls and ask no null: ``least_similar``, ``random`` (drawn per layer), ``previous``, ``mean``
    (all alike), and ``oracle``, the prior task that is nearest by a known truth.

    Args:
        table: Similarities; row = the task, columns = the others.
        task: The task to be trained.
        rule: How to choose.
        per_layer: Choose in every layer by itself; if not, once for the whole network, by the mean of the similarity
            over the layers, held against the mean of their nulls. Undefined in one layer is then undefined.
        null: Whether ``most_similar`` and ``softmax`` take only prior tasks that are above their null. Without, the
            best one is taken however little similar it is; similarities of your own have no null
            (:meth:`~commonweight.overlaps.similarity.means.TaskSimilarity.of_matrices`).
        temperature: T of ``softmax``, over 0: the smaller, the closer to ``most_similar``.
        truth: For ``oracle``, a known similarity ``[n, n]`` of the tasks in the order of ``table.tasks``; the larger,
            the nearer.
        seed: Of ``random``.

    Returns:
        The alphas, per batch norm. A nan is never chosen; of equals the earliest is, and the reason says so.

    Raises:
        UsageError: If the task or the rule is unknown, the temperature is not over 0, the seed is below 0, or ``truth``
            is missing, not asked for, or of another shape.

    Example:
        >>> from torch import tensor
        >>> from commonweight.footprints.footprint import Footprint
        >>> from commonweight.overlaps.similarity.means import every_layer_similarity
        >>> ramp = [float(k) for k in range(8)]
        >>> means = {"a": ramp[::-1], "b": ramp, "c": [2 * k for k in ramp]}
        >>> table = every_layer_similarity(
        ...     {task: Footprint("activity", {"bn.running_mean": tensor(each)}, 0) for task, each in means.items()}
        ... )
        >>> transfer_alphas(table, "c").layers
        {'bn': {'a': 0.0, 'b': 1.0}}
        >>> transfer_alphas(table, "a").layers
        {'bn': {}}
    """
    check_kind("table", table, TaskSimilarity, "compute one with every_layer_similarity or probed_similarity")
    if task not in table.tasks:
        raise UsageError(f"no task {task!r} in this table; it has {', '.join(map(repr, table.tasks))}")
    if rule not in RULES:
        raise UsageError(f"rule must be one of {', '.join(RULES)}, got {rule!r}")
    checked_seed(seed)
    if isinstance(temperature, bool) or not isinstance(temperature, (int, float)) or not 0 < temperature < math.inf:
        raise UsageError(f"temperature must be a number over 0, got {temperature!r}")
    known = _known(truth, rule, len(table.tasks))
    index = table.tasks.index(task)
    layers: dict[str, dict[str, float]] = {}
    reasons, margins = {}, {}
    for place, (layer, facts) in enumerate(_facts(table, index, per_layer=per_layer, null=null).items()):
        if not index:
            layers[layer], reasons[layer], margins[layer] = {}, "the first task: there is no prior one", math.nan
            continue
        priors = table.tasks[:index]
        question = Question(priors, *facts, known[index, :index], temperature, (seed, index, place))
        alphas, reasons[layer] = RULES[rule](question)
        layers[layer] = dict(zip(priors, alphas.tolist(), strict=True))
        margins[layer] = _margin(question.similarity)
    return Alphas(task, rule, layers, reasons, margins)


def alphas_for(
    net: SupermaskNetwork, alphas: Alphas, inputs: Any, *, output: Literal["none", "last"] = "none"
) -> dict[str, dict[str, float]]:
    """Give every masked weight the alphas of the batch norm behind it, as ``net.influence`` takes them.

    Args:
        net: The network.
        alphas: Per batch norm, or one row for the whole network.
        inputs: One batch, as ``net.norm_behind`` takes it.
        output: What weights without a batch norm behind them get, such as the output layer: nothing, or the alphas of
            the last batch norm. Where tasks do not share their labels, an output layer has nothing to take over.

    Returns:
        Masked weight -> prior task -> alpha over 0; weights without any are left out.

    Raises:
        UsageError: If the alphas name a batch norm that the network does not have, or ``output`` is neither.
    """
    check_kind("net", net, SupermaskNetwork, "make one with SupermaskNetwork(model)")
    check_kind("alphas", alphas, Alphas, "choose them with transfer_alphas(similarity, task)")
    if output not in {"none", "last"}:
        raise UsageError(f"output must be 'none' or 'last', got {output!r}")
    unknown = [layer for layer in alphas.layers if layer != WHOLE and layer not in net.norms]
    if unknown:
        raise UsageError(
            f"alphas of {unknown[0]!r}, which is no batch norm of this network; it has {', '.join(net.norms) or 'none'}"
        )
    last = net.norms[-1] if net.norms and output == "last" else None
    found = {}
    for weight, behind in net.norm_behind(inputs).items():
        norm = last if behind is None else behind
        row = {} if norm is None else alphas.layers.get(norm, alphas.layers.get(WHOLE, {}))
        positive = {prior: alpha for prior, alpha in row.items() if alpha > 0}
        if positive:
            found[weight] = positive
    return found


def _facts(
    table: TaskSimilarity, index: int, *, per_layer: bool, null: bool
) -> dict[str, tuple[Array, NDArray[np.bool_], Array]]:
    """Give similarity, whether it beats its null, and the null of each prior task: per layer, or of the whole."""
    every = {
        layer: (
            table.values[layer][index, :index],
            table.beats_null(layer)[index, :index] if null else np.isfinite(table.values[layer][index, :index]),
            table.null[layer][index, :index],
        )
        for layer in table.layers
    }
    if per_layer:
        return every
    similarity = np.mean([values for values, _, _ in every.values()], axis=0)
    nulls = np.mean([each for _, _, each in every.values()], axis=0)
    return {WHOLE: (similarity, similarity > nulls + TIE if null else np.isfinite(similarity), nulls)}


def _known(truth: ArrayLike | None, rule: str, count: int) -> Array:
    if (truth is not None) != (rule == "oracle"):
        raise UsageError(
            f"the rule is {rule!r} and truth is {'not given' if truth is None else 'given'}: expected a truth with the "
            "rule 'oracle' and with no other"
        )
    if truth is None:
        return np.full((count, count), np.nan)
    known = np.asarray(truth, dtype=np.float64)
    if known.shape != (count, count):
        raise UsageError(
            f"truth must have shape {[count, count]}, one row and column per task, got {list(known.shape)}"
        )
    return known


def _margin(similarity: Array) -> float:
    ranked = np.sort(similarity[~np.isnan(similarity)])
    return float(ranked[-1] - ranked[-2]) if len(ranked) > 1 else math.nan
