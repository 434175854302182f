"""What a study of continual learning asks, and where everything of it lies in the run folder."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from commonweight.base.errors import UsageError
from commonweight.studies.continual.approaches import Approach, read_approach
from commonweight.supermasks.inference import METHODS

if TYPE_CHECKING:
    from pathlib import Path

    from commonweight.supermasks.inference import Method

Scenario = Literal["permuted", "rotated", "partitioned", "patch"]
SCENARIOS: tuple[Scenario, ...] = get_args(Scenario)
Optimiser = Literal["adam", "rmsprop"]
OPTIMISERS: tuple[Optimiser, ...] = get_args(Optimiser)
CLASSIC: Literal["classic"] = "classic"
GROWING = ("seeds", "approaches")
"""What the same run may be asked for more of."""


@dataclass(frozen=True)
class Plan:
    """What is trained and measured; equal plans give equal results."""

    data: str
    """Images with labels: ``digits``, a folder of idx files, a Hugging Face data set, or an ``.npz`` file."""

    image_column: str | None = None
    """Column of images of a Hugging Face data set; None takes the only one."""

    label_column: str | None = None
    test_split: str | None = None
    """Test part of a Hugging Face data set; None takes ``test``."""

    scenario: Scenario = "permuted"
    tasks: int = 5
    approaches: tuple[str, ...] = (CLASSIC, "transfer")
    """Words that :func:`~commonweight.studies.continual.approaches.read_approach` reads, in canonical form."""

    seeds: int = 1
    """Seeds 0, 1, …; each names the tasks, the weights, the score initialisations and the order of training, the same
    for all approaches, so that their differences are paired."""

    vary: Literal["all", "training"] = "all"
    """What differs between seeds: all of that, or with the tasks and weights of seed 0 the score initialisations and
    the order of training alone. Then the masks of a task can be compared between seeds, and have noise ceilings."""

    model: str | None = None
    """``module:function`` of the user's own; None is the multilayer perceptron."""

    hidden: tuple[int, ...] = (300, 300)
    outputs: int | None = None
    """Output units of the perceptron; None is one per class. SupSup infers the task with more of them than classes."""

    density: float | None = None
    """Fraction of each layer's weights a mask keeps, the largest scores; None keeps scores of at least 0."""

    score_initialisation: Literal["independent", "shared"] = "independent"
    """Whether every task's scores start from draws of their own."""

    epochs: int = 1
    batch_size: int = 128
    optimiser: Optimiser = "adam"
    learning_rate: float = 1e-3
    beta: float | None = None
    """Strength of the influence of prior tasks, from 0 (none: the classic approach) to below 1; None is what served
    best for each kind of approach."""

    rows: int | None = None
    """Training images per task, chosen by the seed; None for all."""

    normalise: Literal["unit", "standard"] = "unit"
    max_angle: float = 180.0
    """Rotated: the last task's angle in degrees; the others are spaced evenly from 0."""

    remap_labels: bool = False
    """Partitioned: count the labels of each task from 0, so that all tasks share the outputs. Else every class has an
    output of its own."""

    order: Literal["given", "shuffled"] = "shuffled"
    """Rotated, partitioned, patch: whether angles, classes and sizes come in an order drawn from the seed. In the given
    order the previous task is the most similar one, and the two choices of a prior could not be told apart."""

    random_labels: tuple[int, ...] = ()
    """A control: numbers of tasks whose labels are random, so that nothing about classes can be learned or shared."""

    keep_scores: bool = True
    """Keep the scores of finished tasks; without them a prior's influence is that of its mask, ``2m - 1``."""

    curve_points: int = 12
    """How often accuracy is measured while a task is learned, both ends included."""

    curve_rows: int | None = 2000
    """Test images it is measured on, the first ones; None for all."""

    probe_rows: int = 1024
    """Training images of a new task that the probed similarity passes through the masks of prior tasks, the first."""

    inference: tuple[Method, ...] = METHODS
    """Ways to infer the task once all are learned."""

    inference_rows: int = 100
    """Test images per task for it, the first ones."""

    inference_batches: tuple[int, ...] = (1, 20)
    """Images that are known to be of one task and are asked about together: the study asks for each of these sizes."""

    device: str = "cpu"

    def __post_init__(self) -> None:
        _one_of("scenario", self.scenario, SCENARIOS)
        _one_of("vary", self.vary, ("all", "training"))
        _one_of("optimiser", self.optimiser, OPTIMISERS)
        _one_of("score_initialisation", self.score_initialisation, ("independent", "shared"))
        _one_of("normalise", self.normalise, ("unit", "standard"))
        _one_of("order", self.order, ("given", "shuffled"))
        for method in self.inference:
            _one_of("inference", method, METHODS)
        named = tuple(read_approach(word).name for word in self.approaches)
        if not named or len(set(named)) < len(named):
            raise UsageError(f"give at least one approach, and each once; got {', '.join(self.approaches) or 'none'}")
        object.__setattr__(self, "approaches", named)
        least = {"tasks": 1, "seeds": 1, "epochs": 1, "batch_size": 2, "rows": 2, "curve_points": 2, "curve_rows": 1}
        least |= {"probe_rows": 2, "inference_rows": 1, "outputs": 1}
        for name, smallest in least.items():
            value = getattr(self, name)
            if value is not None and value < smallest:
                raise UsageError(f"{name} must be at least {smallest}, got {value}")
        for name in ("hidden", "inference_batches"):
            if any(size < 1 for size in getattr(self, name)):
                raise UsageError(f"{name} must be whole numbers of at least 1, got {list(getattr(self, name))}")
        if not self.learning_rate > 0:
            raise UsageError(f"learning_rate must be above 0, or nothing is learned; got {self.learning_rate}")
        if self.beta is not None and not 0 <= self.beta < 1:
            raise UsageError(f"beta is from 0 to below 1, which would leave nothing to train; got {self.beta}")
        if self.density is not None and not 0 < self.density <= 1:
            raise UsageError(f"density is the fraction of weights kept, above 0 and at most 1, got {self.density}")
        _check_effects(self)

    def world(self, seed: int) -> int:
        """Say which seed names the tasks and the frozen weights.

        Args:
            seed: The seed of a training.

        Returns:
            The same, or 0 where seeds vary the training alone.
        """
        return 0 if self.vary == "training" else seed

    def deciding(self) -> dict[str, Any]:
        """Give what decides the numbers, as plain JSON values.

        Returns:
            Every field but the number of seeds and the approaches, which may grow.
        """
        found = asdict(self)
        for name in GROWING:
            del found[name]
        return {key: list(value) if isinstance(value, tuple) else value for key, value in found.items()}

    def runs(self) -> tuple[Approach, ...]:
        """List what is trained for each seed, in order.

        Returns:
            The approaches; the classic one comes first where it is asked for or a similarity needs it.
        """
        asked = [read_approach(word) for word in self.approaches]
        first = [Approach(CLASSIC)] if any(a.needs_classic or a.kind == CLASSIC for a in asked) else []
        return (*first, *(approach for approach in asked if approach.kind != CLASSIC))


@dataclass(frozen=True)
class ApproachFolder:
    """Where everything of one approach and seed lies."""

    path: Path

    @property
    def network(self) -> Path:
        """The network with the tasks it has learned so far."""
        return self.path / "network"

    def task(self, index: int) -> Path:
        """Name the record of a task that was learned."""
        return self.path / "tasks" / f"{index}.json"

    def footprint(self, kind: str, task: str) -> Path:
        """Name the footprint of a task."""
        return self.path / kind / task

    @property
    def overlap(self) -> Path:
        """Jaccard indices of all masks."""
        return self.path / "overlap.json"

    def similarity(self, name: str) -> Path:
        """Name the table of a similarity."""
        return self.path / f"similarity-{name}.json"

    @property
    def inference(self) -> Path:
        """How well tasks are inferred."""
        return self.path / "inference.json"


@dataclass(frozen=True)
class SeedFolder:
    """Where everything of one seed lies."""

    path: Path
    seed: int

    def approach(self, approach: Approach) -> ApproachFolder:
        """Name the folder of an approach."""
        return ApproachFolder(self.path / approach.name)

    @property
    def facts(self) -> Path:
        """What the tasks are: angles, permutations' seeds, classes, and the true similarity where there is one."""
        return self.path / "tasks.json"


def seed_folders(run: Path, plan: Plan) -> list[SeedFolder]:
    """List the folders of the seeds."""
    return [SeedFolder(run / f"seed-{seed}", seed) for seed in range(plan.seeds)]


def _check_effects(plan: Plan) -> None:
    """Refuse what would change nothing: a field that is not as usual where nothing asks for it, priors of one task."""
    asked = [read_approach(word) for word in plan.approaches]
    perceptron = plan.model is None, f"the perceptron, and {plan.model} has layers of its own"
    inferring = bool(plan.inference), "inferring the task, and no way to infer it is asked for"
    uses = {
        "max_angle": (plan.scenario == "rotated", f"the scenario rotated, got {plan.scenario}"),
        "order": (plan.scenario != "permuted", "the scenarios rotated, partitioned and patch, got permuted"),
        "remap_labels": (plan.scenario == "partitioned", f"the scenario partitioned, got {plan.scenario}"),
        "beta": (
            any(approach.has_priors and approach.beta is None for approach in asked),
            f"transfer and initialised without a beta of their own, got {', '.join(plan.approaches)}",
        ),
        "hidden": perceptron,
        "outputs": perceptron,
        "inference_rows": inferring,
        "inference_batches": inferring,
    }
    for name, (used, what) in uses.items():
        if not used and getattr(plan, name) != getattr(Plan, name):
            raise UsageError(f"{name} is for {what}; leave it out")
    with_priors = [approach.name for approach in asked if approach.has_priors]
    if plan.tasks == 1 and with_priors:
        raise UsageError(
            f"tasks is 1, so {with_priors[0]} has no prior task, and would be classic; take at least 2 tasks, or the "
            "approach classic alone"
        )


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UsageError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
