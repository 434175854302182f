"""Seeds that vary the training alone: one frozen network, one set of tasks, and masks with noise ceilings."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from studies.continual_parts import small_plan

from commonweight import Footprint
from commonweight.base import UsageError
from commonweight.base.text import Grid
from commonweight.overlaps import overlap_over_seeds
from commonweight.studies.continual.report import pair_blocks, report
from commonweight.studies.continual.run import run_study
from commonweight.verdicts.verdict import contrast_verdict, null_verdict

if TYPE_CHECKING:
    from pathlib import Path

    from commonweight.studies.continual.results import ContinualStudy

PLAN = small_plan(
    scenario="rotated", rows=300, hidden=(16, 12), seeds=3, vary="training", approaches=("classic", "transfer-random"),
    inference_rows=4, inference_batches=(4,), random_labels=(2,),
)  # fmt: skip
Done = tuple["Path", "ContinualStudy"]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    run = tmp_path_factory.mktemp("trainings") / "run"
    return run, run_study(run, PLAN)


def masks(run: Path, study: ContinualStudy, kind: str = "masks") -> list[dict[str, Footprint]]:
    return [
        {name: Footprint.load(run / f"seed-{seed}" / "classic" / kind / name) for name in study.tasks[seed]}
        for seed in range(3)
    ]


def test_tasks_and_weights_stay_and_trainings_differ(done: Done) -> None:
    run, study = done
    assert study.same_tasks
    assert len({json.dumps(facts) for facts in study.facts}) == 1
    records = [json.loads((run / f"seed-{seed}/classic/tasks/0.json").read_text()) for seed in range(3)]
    assert len({record["weights_sha256"] for record in records}) == 1
    assert len({tuple(record["curve"]["accuracies"]) for record in records}) == 3
    starts = {footprint.metadata["score_initialisation"] for each in masks(run, study) for footprint in each.values()}
    assert len(starts) == 3 * 3
    priors = {
        json.dumps(json.loads((run / f"seed-{seed}/transfer-random/tasks/2.json").read_text())["alphas"]["layers"])
        for seed in range(3)
    }
    assert len(priors) > 1  # the random prior is drawn anew


def test_the_first_seed_is_that_of_a_study_in_which_everything_varies(done: Done, tmp_path: Path) -> None:
    run, study = done
    other = run_study(tmp_path / "all", replace(PLAN, vary="all", seeds=2, approaches=("classic",)))
    assert np.array_equal(other.runs["classic"][0].R, study.runs["classic"][0].R, equal_nan=True)
    assert not np.array_equal(other.runs["classic"][1].R, study.runs["classic"][1].R, equal_nan=True)
    assert not any(other.trainings.values())
    with pytest.raises(UsageError, match="vary was 'training', is now 'all'"):
        run_study(run, replace(PLAN, vary="all"))


def test_noise_ceilings_are_those_of_the_footprints_on_disk(done: Done) -> None:
    run, study = done
    for kind in ("masks", "activity"):
        found, again = study.trainings["classic"][kind], overlap_over_seeds(masks(run, study, kind))
        a, b, _ = study.tasks[0]
        for layer in (None, *found.layers):
            assert found.noise_ceiling(a, layer) == again.noise_ceiling(a, layer)
            assert str(found.estimate("corrected", a, b, layer)) == str(again.estimate("corrected", a, b, layer))
    assert study.trainings["classic"]["masks"].kind == "supermask"
    within = study.trainings["classic"]["masks"].estimate("within", *study.tasks[0][:2])
    assert within.replicates == pytest.approx(study.beyond_chance("classic", *study.tasks[0][:2]).replicates)
    moved = study.trainings["transfer-random"]["masks"]
    assert math.isnan(moved.estimate("within", *study.tasks[0][:2]).value)  # moved towards each other
    assert math.isfinite(moved.estimate("between", *study.tasks[0][:2]).value)


def test_they_are_written(done: Done) -> None:
    run, study = done
    written = json.loads((run / "study.json").read_text())["approaches"]["classic"]["over_seeds"]
    found = study.trainings["classic"]["masks"]
    a, b, c = study.tasks[0]
    assert written["masks"]["pooled"]["noise_ceiling"][a]["mean"] == found.noise_ceiling(a).value
    assert [each["tasks"] for each in written["masks"]["fc1"]["pairs"]] == [[a, b], [a, c], [b, c]]
    assert written["masks"]["fc1"]["pairs"][0]["between"]["values"] == list(
        found.estimate("between", a, b, "fc1").replicates
    )
    assert set(written["activity"]) == {"bn1", "bn2", "pooled"}


def grids(study: ContinualStudy) -> dict[str, Grid]:
    return {block.title: block for block in report(study) if isinstance(block, Grid)}


def told(study: ContinualStudy) -> str:
    return " ".join(block for block in pair_blocks(study) if isinstance(block, str))


def test_the_report_says_which_pairs_share(done: Done) -> None:
    _, study = done
    found = grids(study)
    a, b, c = study.tasks[0]
    overlaps = study.trainings["classic"]["masks"]
    noise_ceilings = found["Noise ceilings of masks: the same task trained again"]
    assert noise_ceilings.header == ("layer", a, b, c)
    assert noise_ceilings.rows[-1] == ("pooled", *(overlaps.noise_ceiling(name).short() for name in (a, b, c)))
    nulls = found["Verdicts: do masks of classic overlap beyond chance?"]
    verdict = null_verdict(study.beyond_chance("classic", a, c), aligned=True, effective_sample_size=None)
    assert nulls.rows[1][:2] == (f"{a} and {c}", verdict.answer)
    assert nulls.rows[1][-1] == verdict.brief
    contrasts = found["Verdicts: which pair shares more? (masks of classic)"]
    assert contrasts.rows[0][0] == f"1. {a} and {b} against {a} and {c}"
    assert len(contrasts.rows) == 3
    by_layer = found["Verdicts by layer: which pair shares more? (masks of classic)"]
    assert [row[0] for row in by_layer.rows] == ["fc1", "fc2", "out"]
    assert "corrected by noise ceilings" in told(study)
    every = [overlaps.noise_ceiling(name, layer) for name in (a, b, c) for layer in (None, *overlaps.layers)]
    few = sum(not noise_ceiling.low > 0 for noise_ceiling in every)
    assert few > 0
    assert f"Of 12 noise ceilings of masks {few} are not shown to be above chance" in told(study)
    assert told(study).count("they get no verdicts") == 1
    assert "and there are 12" in told(study)


def test_without_noise_ceilings_contrasts_are_beyond_chance(done: Done) -> None:
    _, study = done
    plain = replace(study, plan=replace(PLAN, vary="all"), trainings={})
    a, b, c = study.tasks[0]
    row = grids(plain)["Verdicts: which pair shares more? (masks of classic)"].rows[0]
    difference = study.beyond_chance("classic", a, b) - study.beyond_chance("classic", a, c)
    verdict = contrast_verdict(
        difference, same_rows=True, aligned=True, noise_taken_out=None, effective_sample_size=None
    )
    assert (row[1], row[-1]) == (verdict.answer, verdict.brief)
    assert "--vary training, which gives noise ceilings" in told(plain)
    assert not any(title.startswith("NoiseCeilings") for title in grids(plain))


def test_what_cannot_be_said(done: Done) -> None:
    _, study = done
    assert "take 3 seeds" in told(replace(study, plan=replace(PLAN, seeds=2), trainings={}))
    facts = json.loads(json.dumps(study.facts))
    facts[1]["tasks"][1]["angle"] = 7.0
    other = replace(study, facts=tuple(facts))
    assert not other.same_tasks
    assert "Each seed has its own tasks or order of tasks" in told(other)
    assert not any(title.startswith("Verdicts") for title in grids(other))
    apart = replace(study, plan=replace(PLAN, scenario="partitioned", max_angle=180.0))
    rows = grids(apart)["Verdicts: which pair shares more? (masks of classic)"].rows
    assert {row[1] for row in rows} == {"inconclusive"}
    assert all("different source rows" in row[-1] for row in rows)
    single = replace(study, runs={"classic": tuple(replace(r, overlap=None) for r in study.runs["classic"])})
    with pytest.raises(UsageError, match="no overlaps"):
        single.beyond_chance("classic", "a", "b")


def test_only_known_words_vary() -> None:
    with pytest.raises(UsageError, match="vary must be one of all, training, got 'tasks'"):
        replace(PLAN, vary="tasks")
    assert [PLAN.world(seed) for seed in (0, 3)] == [0, 0]
    assert [replace(PLAN, vary="all").world(seed) for seed in (0, 3)] == [0, 3]
