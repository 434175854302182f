"""What a study of continual learning is said to take beforehand, and what it then takes."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from studies.continual_parts import network, small_plan, stream_of

from commonweight.base import IntegrityError, UsageError
from commonweight.base.folders import SPARE
from commonweight.base.records import sealed
from commonweight.base.text import size_words, to_markdown
from commonweight.studies.continual import training
from commonweight.studies.continual.approaches import read_approach
from commonweight.studies.continual.outlook import ContinualOutlook, network_needs
from commonweight.studies.continual.plan import Plan, SeedFolder, seed_folders
from commonweight.studies.continual.results import gather
from commonweight.studies.continual.run import run_study, study_outlook
from commonweight.supermasks import files

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import torch

LARGE = small_plan(
    scenario="rotated",
    rows=101,  # a last batch of one row
    hidden=(400, 300),
    seeds=2,
    approaches=("classic-double", "transfer", "initialised-probed"),
    inference=(),
    inference_rows=Plan.inference_rows,
)
SMALL = small_plan(scenario="rotated", rows=100, inference_batches=(1, 4))
Done = tuple["Path", Plan, ContinualOutlook]


@pytest.fixture(scope="module", params=[{}, {"keep_scores": False, "density": 0.3}], ids=["scores", "bits"])
def done(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Done:
    plan, place = replace(LARGE, **request.param), tmp_path_factory.mktemp("outlook")
    expected = study_outlook(place / "run", plan)
    assert list(place.iterdir()) == []  # a dry run leaves nothing behind
    run_study(place / "run", plan)
    return place / "run", plan, expected


def steps(found: ContinualOutlook) -> int:
    return sum(each.missing_steps for each in found.pieces.values())


def size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def test_the_disk_is_what_was_said(done: Done) -> None:
    run, plan, expected = done
    assert list(expected.pieces) == ["classic", "classic-double", "transfer", "initialised-probed"]
    for name, each in expected.pieces.items():
        folder = run / "seed-1" / name
        assert size(folder / "network") == pytest.approx(each.network, rel=0.05)
        assert size(folder / "masks") + size(folder / "activity") == pytest.approx(each.footprints, rel=0.1)
        assert size(folder) == pytest.approx(each.of_a_seed, rel=0.2)
    assert sum(size(folder.path) for folder in seed_folders(run, plan)) == pytest.approx(expected.disk, rel=0.2)
    assert expected.meanwhile == expected.pieces["classic"].network


def test_the_steps_are_exactly_what_was_said(done: Done) -> None:
    run, plan, expected = done
    study = gather(plan, seed_folders(run, plan))
    for name, each in expected.pieces.items():
        assert each.steps == tuple(found.steps for found in study.runs[name])
        assert each.steps[0] + each.steps_before[0] == study.budget(name)
    assert {name: each.steps[0] for name, each in expected.pieces.items()} == {
        "classic": 6, "classic-double": 12, "transfer": 6, "initialised-probed": 6,
    }  # fmt: skip
    assert steps(expected) == 60


def test_what_is_there_already_is_not_counted(done: Done) -> None:
    run, plan, expected = done
    again = study_outlook(run, plan)
    assert (steps(again), again.disk, again.meanwhile) == (0, 0, 0)
    assert again.pieces["transfer"].there == (True, True)
    grown = study_outlook(run, replace(plan, seeds=3, approaches=("transfer-random",)))
    each = expected.pieces["classic"]
    assert list(grown.pieces) == [*expected.pieces, "transfer-random"]
    assert steps(grown) == 60 // 2 + 3 * 6  # a third seed of all, and the new approach of all seeds
    assert grown.disk == (len(expected.pieces) + 3) * each.of_a_seed


@pytest.mark.parametrize("optimiser", ["adam", "rmsprop"])
@pytest.mark.parametrize("kind", ["classic", "transfer"])
def test_the_memory_of_a_training_is_what_was_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimiser: str, kind: str
) -> None:
    plan = replace(SMALL, optimiser=optimiser, approaches=("classic", "transfer"))
    expected = study_outlook(tmp_path / "run", plan)
    stream = stream_of(plan)
    needs = network_needs(plan, stream)
    net = network(stream, plan)
    training.learn(net, stream[0], read_approach("classic"), {}, plan, 0)
    before = sum(each.nbytes for each in (*net.parameters(), *net.buffers()))
    assert before == needs.weights + expected.pieces[kind].finished // plan.tasks
    optimisers: list[torch.optim.Optimizer] = []
    original = training._OPTIMISERS[optimiser]

    def keep(*given: object, **options: object) -> torch.optim.Optimizer:
        optimisers.append(original(*given, **options))
        return optimisers[0]

    held: list[int] = []
    step: Callable[..., bool] = training.torch.isfinite

    def watched(loss: torch.Tensor) -> bool:  # between the steps, where there are no gradients
        state = [each.nbytes for of in optimisers[0].state.values() for each in of.values() if each.ndim]
        now = sum(each.nbytes for each in (*net.parameters(), *net.buffers()))
        held.append(now - before + sum(state))
        return step(loss)

    monkeypatch.setattr(training, "_OPTIMISERS", {optimiser: keep})
    monkeypatch.setattr(training.torch, "isfinite", watched)
    alphas = {name: {stream.names[0]: 1.0} for name in ("fc1.weight", "fc2.weight")} if kind == "transfer" else {}
    training.learn(net, stream[1], read_approach(kind), alphas, plan, 0)
    assert held[-1] + needs.scores == expected.pieces[kind].training


def test_the_network_is_stored_as_was_said(tmp_path: Path) -> None:
    plan = SMALL
    needs = network_needs(plan, stream_of(plan))
    net = network(stream_of(plan), plan)
    net.save(tmp_path / "empty")
    net.add_task("a")
    net.save(tmp_path / "one")
    empty, one = (files.read_tensors(tmp_path / name, files.read_record(tmp_path / name)) for name in ("empty", "one"))
    assert sum(each.nbytes for each in empty.values()) == needs.frozen
    assert sum(each.nbytes for each in one.values()) == needs.frozen + needs.scores + needs.statistics


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scenario": "partitioned", "tasks": 6}, "10 classes"),
        ({"rows": 99999}, "give a smaller rows"),
        ({"inference_batches": (60,)}, "at least one batch of 60"),
        ({"scenario": "permuted", "approaches": ("transfer-oracle",)}, "the prior oracle needs tasks whose similarity"),
        ({"outputs": 4}, "outputs must be at least 10"),
        ({"model": "nothing_there:build", "hidden": Plan.hidden}, "no Python module 'nothing_there'"),
        ({"device": "abacus"}, "device must be"),
        ({"data": "absent"}, "absent"),
    ],
)
def test_a_dry_run_refuses_what_a_run_refuses(tmp_path: Path, changes: dict, message: str) -> None:
    plan = replace(SMALL, **changes)
    said = []
    for refuses in (study_outlook, run_study):
        with pytest.raises(UsageError, match=message) as refused:
            refuses(tmp_path / "run", plan)
        said.append(str(refused.value))
    assert said[0] == said[1]
    assert not (tmp_path / "run").exists()


def test_a_folder_with_something_else_is_refused(done: Done, tmp_path: Path) -> None:
    run, plan, _ = done
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("")
    (tmp_path / "kind").mkdir()
    record = {"format": "commonweight-run", "version": 3, "study": "shortcuts", "asked": {}, "grown": {}}
    (tmp_path / "kind" / "run.json").write_text(json.dumps(sealed(record)))
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "run.json").write_text(json.dumps({"format": "commonweight-continual", "version": 1}))
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "run.json").write_text("{")
    for folder, asked, message in (
        (run, replace(plan, batch_size=9), r"something else: batch_size was 50, is now 9\. Choose another"),
        (tmp_path / "other", plan, "is not empty and holds no run.json"),
        (tmp_path / "kind", plan, "holds a run of another kind, shortcuts"),
        (tmp_path / "old", plan, "not a commonweight-run record of version 3.*measure again"),
        (tmp_path / "damaged", plan, "is not JSON"),
    ):
        for refuses in (study_outlook, run_study):
            with pytest.raises((UsageError, IntegrityError), match=message):
                refuses(folder, asked)


def test_a_run_that_saved_no_network_takes_another_plan(done: Done, tmp_path: Path) -> None:
    run, plan, expected = done
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text((run / "run.json").read_text())
    assert steps(study_outlook(tmp_path / "run", replace(plan, batch_size=25))) == 2 * steps(expected)
    assert not SeedFolder(tmp_path / "run" / "seed-0", 0).path.exists()


def test_a_run_without_room_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = study_outlook(tmp_path / "run", SMALL)
    needed = expected.disk + expected.meanwhile + SPARE
    usage = type(shutil.disk_usage(tmp_path))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**12, 0, needed - 1))
    with pytest.raises(UsageError, match=r"run needs 0\.02 GB of disk, and 0\.02 GB are free there; make room"):
        run_study(tmp_path / "run", SMALL)
    assert not (tmp_path / "run" / "run.json").exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**12, 0, needed))
    run_study(tmp_path / "run", SMALL)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**12, 0, 0))
    run_study(tmp_path / "run", SMALL)  # nothing is missing


def test_all_of_it_is_shown(done: Done) -> None:
    expected = done[2]
    text = to_markdown(expected.blocks())
    each = expected.pieces["transfer"]
    row = f"| transfer | 6 | 12 | 12 | {size_words(each.training)} | {size_words(each.finished)} |"
    assert f"{row} {size_words(each.of_a_seed)} | {size_words(2 * each.of_a_seed)} | 0 of 2 |" in text
    for part in (
        size_words(expected.disk),
        size_words(max(expected.memory.values())),
        "Nothing was measured or written",
        "3 tasks",
    ):
        assert part in text
    uneven = replace(each, steps=(6, 7), steps_before=(6, 6))
    assert "| 6 to 7 | 12 to 13 | 13 |" in to_markdown(replace(expected, pieces={"transfer": uneven}).blocks())


def test_few_trainings_give_no_noise_ceilings(tmp_path: Path) -> None:
    def said(**given: object) -> str:
        return to_markdown(study_outlook(tmp_path / "run", replace(SMALL, **given)).blocks())

    assert "take 3 seeds at least" in said(vary="training", seeds=2)
    assert "take 3 seeds" not in said(vary="training", seeds=3)
    assert "take 3 seeds" not in said(seeds=2)
