"""Runs on Dask: any number of workers gives what one process gives, and a worker that dies loses nothing."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from functools import partial

import numpy as np
import psutil
import pytest
from studies.continual_parts import small_plan

from commonweight import Footprint, OverlapTable
from commonweight.base.errors import UsageError
from commonweight.data.reviews import reviews
from commonweight.data.table import open_table
from commonweight.footprints import files
from commonweight.models.load import load_model
from commonweight.models.options import LoadOptions
from commonweight.studies.compare.compare import compare
from commonweight.studies.compare.measure import measure_item
from commonweight.studies.compare.options import MeasureOptions
from commonweight.studies.compare.page import items
from commonweight.studies.continual.run import run_study
from commonweight.studies.demo.encoder import make_start, make_tokenizer, save
from commonweight.studies.run.cluster import do_all
from commonweight.studies.run.hold import waited_for
from commonweight.studies.run.status import status_of


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """Two models and two data sets."""
    folder = tmp_path_factory.mktemp("cluster")
    for seed, name in enumerate(("one", "two")):
        save(make_start(seed), make_tokenizer(), folder / name)
    for domain in ("films", "food"):
        lines = [json.dumps({"text": r["text"], "label": r["label"]}) for r in reviews(30, domain=domain)]
        (folder / f"{domain}.jsonl").write_text("\n".join(lines) + "\n")
    return [str(folder / name) for name in ("one", "two")], [str(folder / f"{d}.jsonl") for d in ("films", "food")]


@pytest.fixture(scope="module")
def alone(asked, tmp_path_factory):
    return compare(*asked, tmp_path_factory.mktemp("alone") / "run")


def without_times(run):
    record = json.loads((run / "run.json").read_text())
    return {key: value for key, value in record.items() if key not in {"seconds", "command", "table_of", "seal"}}


def test_workers_give_what_one_process_gives(asked, alone, tmp_path):
    said = []
    found = compare(*asked, tmp_path / "run", scheduler="local:2", note=said.append)
    assert set(found.measured) == set(alone.measured)
    assert found.skipped == ()
    assert [sentence for sentence in said if sentence.startswith("4 items for 2 workers of tcp://127.0.0.1")]
    assert without_times(tmp_path / "run") == without_times(alone.folder)
    for mine, theirs in zip(found.table.records("layer"), alone.table.records("layer"), strict=True):
        assert mine[:5] == theirs[:5]
        assert np.isclose(mine.value, theirs.value, atol=1e-6, equal_nan=True)
    again = compare(*asked, tmp_path / "run", scheduler="local:2")  # starts no worker
    assert (again.measured, again.is_new) == ((), False)


def is_worker(process):
    try:
        return "spawn_main" in " ".join(process.cmdline())
    except psutil.NoSuchProcess:  # it ended meanwhile, or waits to be reaped
        return False


def test_a_worker_that_is_killed_loses_nothing(asked, alone, tmp_path):
    run = tmp_path / "run"
    killed = []

    def kill():
        while not killed and not (run / "overlap.json").exists():
            workers = [each for each in psutil.Process().children(recursive=True) if is_worker(each)]
            if list(run.glob("footprints/*/.*.partial")) and workers:
                os.kill(workers[-1].pid, signal.SIGKILL)
                killed.append(workers[-1].pid)
            time.sleep(0.01)

    killer = threading.Thread(target=kill)
    killer.start()
    found = compare(*asked, run, scheduler="local:2")
    killer.join()
    assert killed
    assert found.table.counts == alone.table.counts
    np.testing.assert_allclose(found.table.pooled, alone.table.pooled, atol=1e-6)
    assert OverlapTable.load(run).names == alone.table.names


def test_seeds_of_a_continual_study_are_items(tmp_path):
    plan = small_plan(seeds=2, inference_rows=20)
    one = run_study(tmp_path / "one", plan)
    many = run_study(tmp_path / "many", plan, scheduler="local:2")
    assert json.loads(many.to_json()) == json.loads(one.to_json())


def test_the_error_of_an_item_ends_the_run(tmp_path):
    reading = partial(Footprint.load, tmp_path / "none")  # a function that workers can import
    with pytest.raises(UsageError, match="expected the folder of a footprint"):
        do_all("local:1", {"a": reading})


def test_workers_of_another_version_are_refused(monkeypatch):
    monkeypatch.setattr("commonweight.studies.run.cluster.__version__", "9")
    with pytest.raises(UsageError, match=r"has commonweight .*, expected 9 as here; install it there"):
        do_all("local:1", {"a": partial(print)})


@pytest.mark.parametrize("scheduler", ["locals", "local:0", "nowhere.json", "tcp//x", __file__])
def test_what_names_no_scheduler_is_refused(scheduler):
    with pytest.raises(UsageError, match="scheduler must be local, local:N, an address such as tcp://host:8786"):
        do_all(scheduler, {"a": partial(print)})


def test_an_item_that_a_former_worker_finished_meanwhile_is_done(asked, tmp_path, monkeypatch):
    models, (data, _) = asked
    source, place = (models[0], LoadOptions()), tmp_path / "footprint"
    item = partial(measure_item, source, load_model(*source).identity, open_table(data), MeasureOptions(folds=1), place)
    take = files.take_place
    monkeypatch.setattr("commonweight.studies.compare.measure._last_loaded", load_model)  # each has its own

    def second(*arguments, **asked):
        monkeypatch.setattr(files, "take_place", take)
        item()  # all of it, while the first has yet to give its folder the name
        take(*arguments, **asked)

    monkeypatch.setattr(files, "take_place", second)
    item()
    assert Footprint.load(place).count == 30
    assert [each.name for each in tmp_path.iterdir()] == ["footprint"]


AT_WORK, MOST = threading.Semaphore(0), []


def count_at_work():
    AT_WORK.release()
    time.sleep(0.05)
    MOST.append(AT_WORK._value)
    AT_WORK.acquire()


def test_a_worker_with_several_threads_does_one_item_at_a_time():
    from dask.distributed import LocalCluster

    with LocalCluster(n_workers=1, threads_per_worker=3, processes=False, dashboard_address="127.0.0.1:0") as cluster:
        inside = cluster.scheduler.address
        assert cluster.workers[0].state.nthreads == 3
        do_all(inside, dict.fromkeys("abc", count_at_work))
    assert MOST == [1, 1, 1]


def test_an_item_waits_for_a_predecessor_that_still_works_in_its_folder(tmp_path):
    order, inside = [], threading.Event()

    def predecessor():
        with waited_for(tmp_path / "seed-0"):
            inside.set()
            time.sleep(0.2)
            order.append("predecessor")

    thread = threading.Thread(target=predecessor)
    thread.start()
    inside.wait()
    with waited_for(tmp_path / "seed-1"):  # another seed does not wait
        order.append("other seed")
    with waited_for(tmp_path / "seed-0"):
        order.append("retry")
    thread.join()
    assert order == ["other seed", "predecessor", "retry"]


def test_nothing_to_do_takes_no_scheduler():
    do_all("nowhere", {})


def test_the_state_of_a_run_is_read_off_its_files(alone, tmp_path):
    found = status_of(alone.folder, items(alone.folder))
    assert found.answer.answer == "4 of 4 items are done, 0 at work, 0 missing. The run is complete. Time left: none."
    places = {name: tmp_path / name / "footprint.json" for name in "abc"}
    for index, name in enumerate("ab"):
        places[name].parent.mkdir()
        places[name].write_text("{}")
        os.utime(places[name], (1000.0 + 60 * index,) * 2)
    found = status_of(tmp_path, places)
    assert found.answer.answer == "2 of 3 items are done, 0 at work, 1 missing. Time left: about 60 s."
    assert found.csv == "item,state\nc,missing\na,done\nb,done\n"
    assert json.loads(found.json)["seconds_left"] == 60
    assert found.to_markdown().count("| c | missing |") == 1
    (tmp_path / f".c.{'0' * 8}-123-{'0' * 8}.partial").mkdir()
    assert status_of(tmp_path, places).answer.table.rows[0] == ("c", "at work")
