"""A whole study on the embedded digits: what it leaves behind, going on with it, and what it refuses."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from studies.continual_parts import small_plan

from commonweight import Footprint, overlap
from commonweight.base import IntegrityError, UsageError
from commonweight.base.records import sealed
from commonweight.studies.continual.plan import Plan, seed_folders
from commonweight.studies.continual.results import gather
from commonweight.studies.continual.run import run_study
from commonweight.studies.continual.training import multitask_fc
from commonweight.studies.demo.demo import CONTINUAL, run_continual_demo
from commonweight.studies.run.hold import held
from commonweight.supermasks.network import SupermaskNetwork

if TYPE_CHECKING:
    from pathlib import Path

    from commonweight.studies.continual.results import ContinualStudy

PLAN = small_plan(
    scenario="rotated",
    rows=300,
    hidden=(16, 12),
    seeds=2,
    approaches=("classic", "classic-double", "transfer", "transfer-random", "initialised-probed", "transfer-oracle"),
    inference_rows=4,
    inference_batches=(1, 4),
)
NOT_INFERRED = {"inference": (), "inference_rows": Plan.inference_rows, "inference_batches": Plan.inference_batches}
Done = tuple["Path", "ContinualStudy"]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    run = tmp_path_factory.mktemp("continual") / "run"
    return run, run_study(run, PLAN)


def test_everything_lies_where_it_should(done: Done) -> None:
    run, study = done
    assert json.loads((run / "run.json").read_text())["status"] == "complete"
    for seed, names in enumerate(study.tasks):
        for approach in study.runs:
            folder = run / f"seed-{seed}" / approach
            net = SupermaskNetwork.load(folder / "network", multitask_fc(64, 10, (16, 12)))
            assert net.tasks == names
            assert all(map(net.is_finished, names))
            for name in names:
                mask = Footprint.load(folder / "masks" / name)
                assert np.array_equal(mask["fc1.weight"], net.mask(name, "fc1.weight"))
                activity = Footprint.load(folder / "activity" / name)
                means = net.statistics(name)["bn2"].mean
                assert any(np.array_equal(vector, means) for vector in activity.tensors.values())
            prints = {name: Footprint.load(folder / "masks" / name) for name in names}
            assert np.array_equal(overlap(prints).pooled, study.runs[approach][seed].overlap.pooled)
    json.loads((run / "study.json").read_text(), parse_constant=pytest.fail)  # no nan in it


def test_nothing_is_forgotten_as_measured(done: Done) -> None:
    _, study = done
    for approach in study.runs:
        assert set(study.backward_transfer(approach).replicates) == {0.0}
        assert set(study.forgetting(approach).replicates) == {0.0}
        for run in study.runs[approach]:
            assert np.isnan(run.R[np.triu_indices(3, 1)]).all()
            assert np.isfinite(run.R[np.tril_indices(3)]).all()


def test_seeds_are_paired_between_approaches_and_different_from_each_other(done: Done) -> None:
    _, study = done
    first = {approach: [run.R[0, 0] for run in runs] for approach, runs in study.runs.items()}
    del first["classic-double"]
    assert len({tuple(values) for values in first.values()}) == 1
    assert first["classic"][0] != first["classic"][1]
    weights = [
        {json.loads((done[0] / f"seed-{seed}" / a / "tasks" / "2.json").read_text())["weights_sha256"] for a in first}
        for seed in (0, 1)
    ]
    assert len(weights[0]) == len(weights[1]) == 1
    assert weights[0] != weights[1]
    later = {approach: tuple(run.R[2, 2] for run in runs) for approach, runs in study.runs.items()}
    assert len(set(later.values())) > 1


def test_alphas_are_of_prior_tasks_only(done: Done) -> None:
    _, study = done
    for approach, runs in study.runs.items():
        for run, names in zip(runs, study.tasks, strict=True):
            has_priors = not approach.startswith("classic")
            assert [alphas is not None for alphas in run.alphas] == [False, has_priors, has_priors]
            for index, alphas in enumerate(run.alphas):
                for layer, row in alphas.layers.items() if alphas else ():
                    assert set(row) <= set(names[:index])
                    assert sum(row.values()) == pytest.approx(1) or not any(row.values())
                    assert alphas.reasons[layer]


def test_the_oracle_takes_the_nearest_angle(done: Done) -> None:
    _, study = done
    for run, facts in zip(study.runs["transfer-oracle"], study.facts, strict=True):
        nearest = facts["names"][int(np.argmax(np.array(facts["truth"])[2, :2]))]
        assert all(row[nearest] == 1 for row in run.alphas[2].layers.values())


def test_the_budget_counts_the_classic_run_where_the_similarity_needs_it(done: Done) -> None:
    _, study = done
    single = study.budget("classic")
    assert single == 3 * 6
    assert study.budget("classic-double") == study.budget("transfer") == 2 * single
    assert study.budget("transfer-random") == study.budget("initialised-probed") == single
    assert study.gain("classic").replicates == (0.0, 0.0)


def test_inference_is_measured_in_both_ways(done: Done) -> None:
    _, study = done
    for approach in study.runs:
        for size in (1, 4):
            for method in PLAN.inference:
                score = study.runs[approach][0].inference[size][method]
                if (size, method) == (1, "nearest_statistics"):
                    assert np.isnan(score.task)
                else:
                    assert 0 <= score.accuracy_wrong_task_0 <= score.accuracy <= 1
                    assert 0 <= score.task <= 1
    assert {len(runs) for runs in study.runs.values()} == {2}


def test_the_same_command_does_nothing_again(done: Done) -> None:
    run, study = done
    stamps = {path: path.stat().st_mtime_ns for path in run.rglob("network/*")}
    said: list[str] = []
    again = run_study(run, PLAN, note=said.append)
    assert {path: path.stat().st_mtime_ns for path in run.rglob("network/*")} == stamps
    assert said == []
    assert again.to_json() == study.to_json()


class StopError(Exception):
    pass


@pytest.mark.parametrize("after", [2, 5])
def test_an_interrupted_run_goes_on_to_the_same_result(tmp_path: Path, after: int) -> None:
    plan = replace(PLAN, seeds=1, approaches=("classic", "transfer"))
    said: list[str] = []

    def stop(sentence: str) -> None:
        said.append(sentence)
        if len(said) == after:
            raise StopError

    with pytest.raises(StopError):
        run_study(tmp_path / "stopped", plan, note=stop)
    found = run_study(tmp_path / "stopped", plan, note=said.append)
    assert len(said) == 6  # every task was learned once
    assert found.to_json() == run_study(tmp_path / "whole", plan).to_json()


def test_a_record_without_its_network_is_learned_again(tmp_path: Path) -> None:
    plan = replace(PLAN, seeds=1, approaches=("classic",))
    whole = run_study(tmp_path / "run", plan)
    folder = tmp_path / "run" / "seed-0" / "classic"
    (folder / "tasks" / "1.json").write_text('{"half')
    (folder / "inference.json").unlink()
    shutil.rmtree(folder / "network")
    assert run_study(tmp_path / "run", plan).to_json() == whole.to_json()


def test_more_seeds_and_approaches_are_added_and_fewer_change_nothing(tmp_path: Path) -> None:
    small = replace(PLAN, seeds=1, approaches=("classic",))
    run_study(tmp_path / "run", small)
    grown = run_study(tmp_path / "run", replace(PLAN, seeds=2, approaches=("transfer-random",)))
    assert list(grown.runs) == ["classic", "transfer-random"]
    assert len(grown.runs["classic"]) == 2
    again = run_study(tmp_path / "run", small)
    assert again.to_json() == grown.to_json()


def test_another_plan_is_refused(done: Done) -> None:
    run, _ = done
    with pytest.raises(UsageError, match=r"holds a run of something else: beta was None, is now 0.1. Choose another"):
        run_study(run, replace(PLAN, beta=0.1))
    with pytest.raises(UsageError, match="tasks was 3, is now 2"):
        run_study(run, replace(PLAN, tasks=2))


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("")
    with pytest.raises(UsageError, match=r"not empty and holds no run\.json"):
        run_study(tmp_path, PLAN)
    record = {"format": "commonweight-run", "version": 3, "study": "shortcuts", "asked": {}, "grown": {}}
    (tmp_path / "run.json").write_text(json.dumps(sealed(record)))
    with pytest.raises(UsageError, match="a run of another kind, shortcuts"):
        run_study(tmp_path, PLAN)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(IntegrityError, match=r"is not JSON .*: it was damaged; choose another folder"):
        run_study(tmp_path, PLAN)


def test_two_processes_do_not_mix(tmp_path: Path) -> None:
    with held(tmp_path / "run") as hold:
        hold.share()
        with pytest.raises(UsageError, match="another process works in"):
            run_study(tmp_path / "run", PLAN)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scenario": "partitioned", "tasks": 6}, "10 classes"),
        ({"scenario": "permuted"}, "oracle needs tasks whose similarity is known, and permuted has none"),
        ({"rows": 5000}, "fewer|smaller rows"),
        ({"data": "./nowhere"}, "nowhere"),
        ({"outputs": 3}, "outputs must be at least 10"),
        ({"device": "cudaa"}, "device"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(tmp_path: Path, change, message) -> None:
    with pytest.raises(UsageError, match=message):
        run_study(tmp_path / "run", replace(PLAN, **change))
    assert not (tmp_path / "run").exists()


def test_shared_starts_compare_the_bits_that_flipped(tmp_path: Path) -> None:
    plan = replace(PLAN, seeds=1, approaches=("classic",), score_initialisation="shared", **NOT_INFERRED)
    study = run_study(tmp_path / "run", plan)
    table = study.runs["classic"][0].overlap
    name = study.tasks[0][0]
    assert Footprint.load(tmp_path / "run" / "seed-0" / "classic" / "masks" / name).metadata["flipped"]
    assert table.density.pooled.max() < 0.4  # few bits flipped, where a mask keeps half


@pytest.mark.parametrize("scenario", ["permuted", "partitioned", "patch"])
def test_every_scenario(tmp_path: Path, scenario: str) -> None:
    plan = replace(
        PLAN, scenario=scenario, seeds=1, rows=60, approaches=("transfer-probed-one_prior", "initialised-mean"),
        inference=("lowest_entropy",), inference_batches=(2,), keep_scores=False,
    )  # fmt: skip
    study = run_study(tmp_path / "run", plan)
    assert list(study.runs) == ["transfer-probed-one_prior", "initialised-mean"]
    assert [list(alphas.layers) for alphas in study.runs["transfer-probed-one_prior"][0].alphas[1:]] == [[""], [""]]
    known = study.rank_correlation("initialised-mean", "probed", "bn1").replicates[0]
    assert np.isnan(known) == (study.facts[0]["truth"] is None)


SMALL = replace(
    PLAN, scenario="rotated", seeds=1, rows=60, tasks=2, approaches=("classic",), inference=("lowest_entropy",)
)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Done:
    run = tmp_path_factory.mktemp("small") / "run"
    return run, run_study(run, SMALL)


def test_a_single_task(tmp_path: Path) -> None:
    study = run_study(tmp_path / "run", replace(PLAN, tasks=1, seeds=1, approaches=("classic", "classic-double")))
    assert study.average_accuracy("classic").value < 1
    assert np.isnan(study.gain("classic-double").value)


def test_what_is_missing_or_damaged_is_said(done: Done, tmp_path: Path) -> None:
    run = shutil.copytree(done[0], tmp_path / "copy")
    record = run / "seed-0" / "classic" / "tasks" / "0.json"
    record.write_text("{")
    with pytest.raises(IntegrityError, match="damaged"):
        gather(PLAN, seed_folders(run, PLAN))
    record.unlink()
    with pytest.raises(UsageError, match="not there yet"):
        gather(PLAN, seed_folders(run, PLAN))
    with pytest.raises(UsageError, match="no approach 'novel'"):
        done[1].average_accuracy("novel")


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "tasks" / "1.json").write_text("{"),
        lambda folder: (folder / "tasks" / "1.json").unlink(),
        lambda folder: (folder / "tasks" / "0.json").write_text("{}"),
        lambda folder: (folder / "tasks" / "1.json").write_bytes(b""),
        lambda folder: (folder / "network" / "supermasks.json").write_text("{"),
        lambda folder: (folder / "overlap.json").write_text("{"),
        lambda folder: (folder / "overlap.json").unlink(),
        lambda folder: (folder / "similarity-probed.json").unlink(),
        lambda folder: (folder / "inference.json").write_text("[]"),
        lambda folder: next((folder / "masks").glob("*/footprint.json")).write_text("{"),
        lambda folder: shutil.rmtree(next((folder / "masks").glob("[!.]*"))),
    ],
)
@pytest.mark.parametrize("finished", [True, False])
def test_what_is_missing_or_damaged_is_made_again(small: Done, tmp_path: Path, change: Any, finished: bool) -> None:
    run = shutil.copytree(small[0], tmp_path / "copy")
    folder = run / "seed-0" / "classic"
    change(folder)
    if not finished:
        (folder / "inference.json").unlink()
    again = run_study(run, SMALL)
    assert again.to_json() == small[1].to_json()
    assert run_study(run, SMALL, note=pytest.fail).to_json() == small[1].to_json()


def test_a_network_of_the_users_own_is_part_of_the_question(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (
        "from torch import nn\nfrom ownacts import Act\n\n\n"
        "def build():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10, bias=False), Act())\n"
    )
    act = "from torch import nn\n\n\nclass Act(nn.Module):\n    def forward(self, x):\n        return x\n"
    (tmp_path / "ownbuilt.py").write_text(text)
    (tmp_path / "ownacts.py").write_text(act)
    plan = replace(SMALL, hidden=Plan.hidden, model="ownbuilt:build")
    before = run_study(tmp_path / "run", plan)
    (tmp_path / "ownacts.py").write_text(act.replace("return x", "return -x"))
    with pytest.raises(UsageError, match="holds a run of something else: model_sha256 was"):
        run_study(tmp_path / "run", plan)
    (tmp_path / "ownacts.py").write_text(act)
    assert run_study(tmp_path / "run", plan).to_json() == before.to_json()


def test_the_demonstration_made_smaller(tmp_path: Path) -> None:
    assert CONTINUAL.tasks == 5
    small = replace(CONTINUAL, tasks=2, seeds=1, epochs=1, rows=100, approaches=("classic",), **NOT_INFERRED)
    assert list(run_continual_demo(tmp_path / "run", plan=small).runs) == ["classic"]
