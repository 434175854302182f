"""What a study of continual learning asks, and where everything of it lies in the run folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from commonweight.base.choices import METHODS, Method, Normalise, Order, ScenarioName
from commonweight.base.errors import UsageError
from commonweight.base.settings import setting
from commonweight.studies.continual.approaches import KINDS, Approach, read_approach
from commonweight.studies.run.plan import StudyPlan

if TYPE_CHECKING:
    from pathlib import Path

Optimiser = Literal["adam", "rmsprop"]
CLASSIC: Literal["classic"] = "classic"


@dataclass(frozen=True)
class Plan(StudyPlan):
    """What is trained and measured."""

    data: str = setting(
        words="digits, a folder of idx files, a data set's id or folder, or an .npz file.", metavar="D", required=True
    )
    scenario: ScenarioName = setting(
        "permuted", "How tasks differ: order of pixels, angle, classes, order of central pixels.", required=True
    )
    tasks: int = setting(5, "How many tasks.", metavar="N", least=1)
    approaches: tuple[str, ...] = setting(
        (CLASSIC, "transfer"),
        f"Any of {', '.join(KINDS)}; the last two with -most_similar, -softmax, -least_similar, -random, -previous, "
        "-mean or -oracle, -every_layer, -first_layer or -probed, -one_prior, -betaX joined to them, as in "
        "transfer-random.",
        option="approach",
        metavar="A ...",
        many="listed",
        role="grows",
    )
    """In canonical form, however they are given."""

    seeds: int = setting(1, "Seeds 0 … N-1, paired.", metavar="N", least=1, role="grows")
    """Each names the tasks, the weights, the score initialisations and the order of training, for all approaches."""

    vary: Literal["all", "training"] = setting(
        "all",
        "What differs between seeds: tasks, weights and training; or training alone, which gives masks noise ceilings.",
    )
    model: str | None = setting(None, "Your own module:function; default: a perceptron with batch norm.", metavar="M")
    hidden: tuple[int, ...] = setting(
        (300, 300), "Units of the perceptron's hidden layers.", metavar="N ...", least=1, many="listed"
    )
    outputs: int | None = setting(
        None, "Output units; default: one per class. SupSup has many more.", metavar="N", least=1
    )
    density: float | None = setting(
        None,
        "Keep this share of weights; default: keep those with scores of at least 0.",
        metavar="SHARE",
        above=0,
        most=1,
    )
    score_initialisation: Literal["independent", "shared"] = setting(
        "independent", "Whether each task's scores start from their own draw, or all from one."
    )
    epochs: int = setting(1, "Passes over a task's images.", metavar="N", least=1)
    batch_size: int = setting(128, "Images per step.", metavar="N", least=2)
    optimiser: Optimiser = setting("adam", "Optimiser of the scores.")
    learning_rate: float = setting(1e-3, "Learning rate of the scores.", metavar="X", above=0)
    beta: float | None = setting(
        None,
        "Strength of prior tasks' influence, 0 (none) to below 1; default: 0.25 for transfer, 0.5 for initialised.",
        metavar="X",
        least=0,
        below=1,
    )
    rows: int | None = setting(None, "Training images per task.", metavar="N|all", none="all", least=2)
    normalise: Normalise = setting("unit", "Pixels from 0 to 1, or with mean 0 and standard deviation 1.")
    max_angle: float = setting(180.0, "Angle of the last rotated task.", metavar="DEGREES")
    order: Order = setting(
        "shuffled", "Rotated, partitioned, patch: in the given order the previous task is the most similar one."
    )
    remap_labels: bool = setting(False, "Partitioned: count each task's labels from 0.")
    random_labels: tuple[int, ...] = setting(
        (), "A control: the numbers of tasks that get random labels.", metavar="N ...", least=0, many="listed"
    )
    keep_scores: bool = setting(
        True, "Keep one bit per weight of a finished task, not its scores.", option="drop-scores", off=True
    )
    curve_points: int = setting(12, typed=False, least=2)
    """How often accuracy is measured while a task is learned, both ends included."""

    curve_rows: int | None = setting(2000, typed=False, least=1)
    """Test images it is measured on, the first ones; None for all."""

    probe_rows: int = setting(1024, typed=False, least=2)
    """Training images of a new task that the probed similarity passes through the masks of prior tasks, the first."""

    inference: tuple[Method, ...] = setting(
        METHODS, "Ways to infer the task, or none.", metavar="M ...", none="none", many="listed"
    )
    inference_rows: int = setting(100, "Test images per task for inference.", metavar="N", least=1)
    inference_batches: tuple[int, ...] = setting(
        (1, 20),
        "Images per batch from which a task is inferred; each number is tried.",
        metavar="N ...",
        least=1,
        many="listed",
    )
    localise: bool = setting(
        False,
        "Also switch off the bits that two masks share, or one has alone, in the first approach of seed 0.",
        role="each time",
    )
    image_column: str | None = setting(None, "Column of images of a Hugging Face data set.", metavar="C")
    label_column: str | None = setting(None, "Column of labels; default: label or labels.", metavar="L")
    test_split: str | None = setting(None, "Test split of a Hugging Face data set; default: test.", metavar="S")
    device: str = setting("cpu", "cpu, cuda, cuda:N or mps.")

    def __post_init__(self) -> None:
        super().__post_init__()
        asked = [read_approach(word) for word in self.approaches]
        named = tuple(approach.name for approach in asked)
        if not named or len(set(named)) < len(named):
            raise UsageError(f"give at least one approach, and each once; got {', '.join(self.approaches) or 'none'}")
        object.__setattr__(self, "approaches", named)
        _check_effects(self, asked)

    def world(self, seed: int) -> int:
        """Say which seed names the tasks and the frozen weights: 0 where seeds vary the training alone."""
        return 0 if self.vary == "training" else seed

    def runs(self) -> tuple[Approach, ...]:
        """List what is trained for each seed: classic first, where it is asked for or a similarity needs it."""
        asked = [read_approach(word) for word in self.approaches]
        first = [Approach(CLASSIC)] if any(a.needs_classic or a.kind == CLASSIC for a in asked) else []
        return (*first, *(approach for approach in asked if approach.kind != CLASSIC))


@dataclass(frozen=True)
class ApproachFolder:
    """Where everything of one approach and seed lies; its overlaps of masks lie as an ``OverlapTable`` is saved."""

    path: Path

    @property
    def network(self) -> Path:
        """The network with the tasks it has learned so far."""
        return self.path / "network"

    @property
    def localised(self) -> Path:
        """What switching off bits of masks did."""
        return self.path / "localised.json"

    @property
    def inference(self) -> Path:
        """How well tasks are inferred; written last."""
        return self.path / "inference.json"

    def task(self, index: int) -> Path:
        """Name the record of a task that was learned."""
        return self.path / "tasks" / f"{index}.json"

    def footprint(self, kind: str, task: str) -> Path:
        """Name the footprint of a task."""
        return self.path / kind / task

    def similarity(self, name: str) -> Path:
        """Name the table of a similarity."""
        return self.path / f"similarity-{name}.json"


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


def _check_effects(plan: Plan, asked: list[Approach]) -> None:
    """Refuse what would change nothing: a field that is not as usual where nothing asks for it, priors of one task."""
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
            raise UsageError(f"{{argument}} is for {what}; leave it out", argument=name)
    with_priors = [approach.name for approach in asked if approach.has_priors]
    if plan.tasks == 1 and plan.localise:
        raise UsageError("{localise} compares the masks of two tasks, got one; take at least 2 tasks", localise=None)
    if plan.tasks == 1 and with_priors:
        raise UsageError(
            f"{{argument}} is 1, so {with_priors[0]} has no prior task, and would be classic; take at least 2 tasks, "
            "or the approach classic alone",
            argument="tasks",
        )
