"""The merge check: laws of merging, planted conflicts, refusals, and the command from checkpoints to a recipe."""

from __future__ import annotations

import copy
import json
import re
import sys
from dataclasses import replace

import pytest
import torch
import yaml
from processes import command, ended, started
from safetensors.torch import load_file, save_file

import commonweight
from commonweight import Footprint
from commonweight.base.errors import UsageError
from commonweight.base.text import silent
from commonweight.cli.main import run as run_command
from commonweight.data.reviews import reviews
from commonweight.data.table import open_table
from commonweight.interventions.measure import row_scores
from commonweight.models.load import load_model
from commonweight.studies.compare.options import ColumnOptions, MeasureOptions
from commonweight.studies.compare.prepare import prepare
from commonweight.studies.demo.encoder import encode_reviews, make_start, make_tokenizer, save, train
from commonweight.studies.localise.cells import Scored
from commonweight.studies.localise.halves import halves
from commonweight.studies.merge_check.answer import answer
from commonweight.studies.merge_check.layers import layers_of, outside_counts
from commonweight.studies.merge_check.page import figures, items
from commonweight.studies.merge_check.plan import MergeCheckOptions, Places, Trial, groups
from commonweight.studies.merge_check.recipe import write_recipe
from commonweight.studies.merge_check.results import read_merge_check
from commonweight.studies.merge_check.run import checked

NETS = """
from torch import nn

class Abs(nn.Module):
    def forward(self, x):
        return x.abs()

def net():
    return nn.Sequential(nn.Linear(8, 16), Abs(), nn.Linear(16, 16), Abs(), nn.Linear(16, 2))
"""


@pytest.fixture(scope="module")
def nets(tmp_path_factory):
    """A start, a network that learned something, and copies of it, in a folder with rows for each."""
    folder = tmp_path_factory.mktemp("nets")
    (folder / "merge_nets.py").write_text(NETS)
    sys.path.insert(0, str(folder))
    from merge_nets import net

    torch.manual_seed(0)
    start = net()
    save_file(start.state_dict(), folder / "start.safetensors")
    x = torch.randn(3000, 8)
    y = (x[:, :4].abs().sum(1) > x[:, 4:].abs().sum(1)).long()
    model = copy.deepcopy(start)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for step in range(400):
        batch = torch.arange(step * 50, step * 50 + 50) % 2000
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
        optimizer.step()
    for number, name in enumerate(("A", "B", "C")):
        part = slice(2000 + 300 * number, 2300 + 300 * number)
        rows = zip(x[part].tolist(), y[part].tolist(), strict=True)
        lines = [json.dumps({"x": inputs, "label": label}) for inputs, label in rows]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")

    def noisy(seed):
        generator = torch.Generator().manual_seed(seed)
        return {
            name: weight + 0.01 * torch.randn(weight.shape, generator=generator)
            for name, weight in model.state_dict().items()
        }

    near, opposite = noisy(2), noisy(2)
    for name in ("0.weight", "0.bias"):  # |−z| is |z|: as good a network, and the mean of both knows nothing
        opposite[name] = -opposite[name]
    files = {"model": noisy(1), "same": noisy(1), "near": near, "opposite": opposite}
    for name, state in files.items():
        save_file({key: weight.contiguous() for key, weight in state.items()}, folder / f"{name}.safetensors")
    yield folder
    sys.path.remove(str(folder))


def check(folder, run, files, **changes):
    """Check merges of networks, given by the names of their files."""
    options = MergeCheckOptions(
        depth=1,
        draws=5,
        resamples=400,
        measure=MeasureOptions(folds=2, columns=ColumnOptions(input_column=("x",))),
        checkpoints=tuple(str(folder / f"{each}.safetensors") for each in (*files.values(), "start")),
    )
    return commonweight.merge_check(
        dict.fromkeys(files, "merge_nets:net"),
        {name: folder / f"{name}.jsonl" for name in files},
        "merge_nets:net",
        run,
        replace(options, **changes),
    )


def test_a_merge_of_a_model_with_itself_loses_nothing(nets, tmp_path):
    before = (nets / "model.safetensors").read_bytes()
    found = check(nets, tmp_path / "run", {"A": "model", "B": "same"})
    for method, scale in (("average", None), ("fisher", None), ("task_arithmetic", 0.5)):
        merge = found.find(("A", "B"), method, scale)
        assert merge.mean().value == pytest.approx(0, abs=1e-4 if method == "fisher" else 1e-6)
        assert merge.mean("accuracy").value == 0
    assert found.find(("A", "B"), "average").mean().value == 0
    assert found.find(("A", "B"), "task_arithmetic", 0.3).mean().value < -0.01
    assert found.conflicting == []
    (pair,) = found.beside.pairs
    assert (pair.cosine, pair.signs, pair.distance) == (pytest.approx(1), pytest.approx(1), 0)
    assert pair.same_data == pytest.approx(1)
    assert 0.8 < pair.own_data < 1
    assert (nets / "model.safetensors").read_bytes() == before


def test_a_planted_conflict_is_found_and_confirmed(nets, tmp_path):
    found = check(nets, tmp_path / "run", {"A": "model", "B": "opposite"})
    assert found.best.mean().high < -0.1
    (layer,) = found.conflicting
    assert layer.asked.layer == "0"
    assert layer.gain.low > 0.1
    assert layer.beyond_random.low > 0
    (pair,) = found.beside.pairs
    assert pair.cosine < 0.9
    assert "Layers confirmed to conflict: 0 (back to" in (tmp_path / "run" / "study.md").read_text()


def test_without_a_conflict_no_layer_is_confirmed(nets, tmp_path):
    found = check(nets, tmp_path / "run", {"A": "model", "B": "near"})
    assert abs(found.best.mean().value) < 0.02
    assert found.conflicting == []
    assert "No layer is confirmed to conflict." in " ".join((tmp_path / "run" / "study.md").read_text().split())


def test_the_order_of_models_changes_nothing(nets, tmp_path, monkeypatch):
    models = {"A": "model", "B": "opposite", "C": "near"}
    found = check(nets, tmp_path / "run", models)
    other = check(nets, tmp_path / "other", dict(reversed(models.items())))
    assert found.to_json() == other.to_json()
    assert found.models == ("A", "B", "C")
    assert {each.members for each in found.merges} == {("A", "B"), ("A", "C"), ("B", "C"), ("A", "B", "C")}
    assert len(found.merges) == 4 * 6
    assert len(found.shortlist) == 4 * 3
    assert found.find("AC", "average").mean().value > found.find("AB", "average").mean().value
    means = [each.mean().value for each in found.merges]
    assert means == sorted(means, reverse=True)
    changes = found.find("ABC", "average").changes["log-likelihood"]
    assert found.find("ABC", "average").mean().value == pytest.approx(sum(each.value for each in changes.values()) / 3)
    assert found.best_pair.members == ("A", "C")
    assert "; the best pair is A + C: " in answer(found).answer
    assert len(answer(found).table.rows) == 4 * 3 + 1
    monkeypatch.setattr("commonweight.studies.merge_check.answer.MOST_ROWS", 2)
    cut = answer(found).table
    assert len(cut.rows) == 3
    assert found.best.name in {row[0] for row in cut.rows}
    assert cut.title.endswith("10 more in study.md")


def test_a_run_is_read_gone_on_with_and_refused_for_another_question(nets, tmp_path, capfd):
    run, models = tmp_path / "run", {"A": "model", "B": "opposite"}
    found = check(nets, run, models)
    assert read_merge_check(run).to_json() == found.to_json()
    assert [name for name, _ in figures(run)] == ["merges"]
    assert all(place.exists() for place in items(run).values())
    (run / "scores" / "measuring" / "A&B.json").unlink()
    assert check(nets, run, models).to_json() == found.to_json()
    with pytest.raises(UsageError, match=r"holds a run of something else: settings.depth was 1, is now 2"):
        check(nets, run, models, depth=2)
    with pytest.raises(UsageError, match="holds a run of something else"):
        check(nets, run, {"A": "model", "B": "near"})
    recipe = json.loads((run / "recipe.json").read_text())
    assert (recipe["method"], recipe["scale"]) == (found.best.trial.method, found.best.trial.scale)
    assert list(recipe["models"]) == list(recipe["weights"]) == ["A", "B"]
    assert recipe["models"]["A"] != recipe["models"]["B"]
    assert (recipe["no_mergekit"] is None) == (run / "mergekit.yaml").exists() is False
    assert run_command(["report", str(run)]) == 0
    assert run_command(["status", str(run)]) == 0
    assert run_command(["figures", str(run), "--format", "svg", "-o", str(tmp_path / "paper")]) == 0
    assert (tmp_path / "paper" / "merges.svg").is_file()
    capfd.readouterr()


def test_parameters_that_are_left_out_stay_those_of_each_parent(nets, tmp_path):
    measure = MeasureOptions(folds=2, exclude=("0",), columns=ColumnOptions(input_column=("x",)))
    found = check(nets, tmp_path / "run", {"A": "model", "B": "opposite"}, measure=measure)
    assert found.find("AB", "average").mean().value == pytest.approx(0, abs=0.02)
    assert found.beside.own == {"A": ("0.weight", "0.bias"), "B": ("0.weight", "0.bias")}
    assert any("0.weight" in sentence for sentence in found.beside.beware)


def test_labels_that_look_inverted_are_said(nets, tmp_path):
    rows = [json.loads(line) for line in (nets / "B.jsonl").read_text().splitlines()]
    lines = [json.dumps({"x": row["x"], "label": 1 - row["label"]}) for row in rows]
    (nets / "inverted.jsonl").write_text("\n".join(lines) + "\n")
    found = check(nets, tmp_path / "run", {"A": "model", "inverted": "near"})
    (said,) = [sentence for sentence in found.beside.beware if "labels that are inverted" in sentence]
    assert said.startswith("The model of inverted gives the label of")


def test_refusals(nets, tmp_path):
    with pytest.raises(UsageError, match="expected at least two models to merge, got 1"):
        check(nets, tmp_path / "run", {"A": "model"})
    asked = {"A": "merge_nets:net", "B": "merge_nets:net"}, "merge_nets:net", tmp_path / "run"
    files = tuple(str(nets / f"{each}.safetensors") for each in ("model", "near", "start"))
    options = MergeCheckOptions(checkpoints=files)
    data = {name: nets / f"{name}.jsonl" for name in "ABC"}
    with pytest.raises(UsageError, match="the model 'B' has no data set of its name"):
        commonweight.merge_check(asked[0], {"A": data["A"]}, *asked[1:], options)
    with pytest.raises(UsageError, match="the data set 'C' is named after no model, and there are A, B"):
        commonweight.merge_check(asked[0], data, *asked[1:], options)
    with pytest.raises(UsageError, match=r"must be different numbers, at least one, got 0\.5, 0\.5"):
        MergeCheckOptions(scales=(0.5, 0.5))
    assert not (tmp_path / "run").exists()


def test_groups_layers_and_as_many_weights_outside():
    assert groups(["B", "A"]) == [("A", "B")]
    assert groups("CAB") == [("A", "B"), ("A", "C"), ("B", "C"), ("A", "B", "C")]
    names = ["e.layer.0.q.weight", "e.layer.0.k.bias", "e.layer.1.q.weight", "e.word"]
    assert {key: len(found) for key, found in layers_of(names, 3).items()} == {"e.layer.0": 2, "e.layer.1": 1, "e": 1}
    sizes = {"a": 7, "b": 3, "c": 11}
    assert outside_counts(sizes, ["a"]) == {"b": 1, "c": 6}
    assert sum(outside_counts(sizes, ["b"]).values()) == 3
    assert outside_counts({"a": 8, "b": 3}, ["a"]) == {}
    assert Trial("task_arithmetic", 0.3).label == "λ 0.3"


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    """Two fine-tuned encoders, one with a head of three classes, their start, and rows of each."""
    folder = tmp_path_factory.mktemp("encoders")
    tokenizer, start = make_tokenizer(), make_start(0)
    save(start, tokenizer, folder / "start")
    for name in ("films", "food"):
        model = copy.deepcopy(start)
        train(model, encode_reviews(tokenizer, reviews(600, domain=name)), steps=40, seed=0)
        save(model, tokenizer, folder / name)
        write_rows(folder / f"{name}.jsonl", [row["label"] for row in reviews(80, domain=name, start=600)], name)
    config = copy.deepcopy(start.config)
    config.num_labels = 3
    torch.manual_seed(1)
    three = type(start)(config)
    own = {key: weight for key, weight in model.state_dict().items() if not key.startswith("classifier")}
    three.load_state_dict(own, strict=False)
    save(three, tokenizer, folder / "three")
    write_rows(folder / "three.jsonl", [number % 3 for number in range(80)], "food")
    return folder


def write_rows(place, labels, domain):
    texts = [row["text"] for row in reviews(80, domain=domain, start=600)]
    lines = [json.dumps({"text": text, "label": label}) for text, label in zip(texts, labels, strict=True)]
    place.write_text("\n".join(lines) + "\n")


def arguments_of(folder, *names):
    given = ["merge-check", "--initialisation", str(folder / "start"), "--draws", "2", "--resamples", "400"]
    for name in names:
        given += [f"{name}={folder / name}", "--data", f"{name}={folder / name}.jsonl"]
    return [*given, "--folds", "2", "--quiet"]


def test_the_command_answers_on_one_screen_and_writes_the_merge(encoders, tmp_path, capfd):
    run, merged = tmp_path / "run", tmp_path / "merged"
    arguments = [*arguments_of(encoders, "films", "food"), "--merge-heads", "-o", str(run), "--write", str(merged)]
    assert run_command([*arguments, "--dry-run"]) == 0
    expected = capfd.readouterr().out
    assert not run.exists()
    assert re.search(r"time to measure and score \(from a short probe\) +about \d", expected)
    assert run_command(arguments) == 0
    networks = {
        str(file.relative_to(run / "scores").with_suffix("")): len(Scored.load(file.with_suffix("")).scores["films"])
        for file in (run / "scores").rglob("*.json")
    }
    networks["measuring/layers"] = 15  # at most 5 layers, each with 2 random sets
    assert re.search(rf"networks to score, at most +{sum(networks.values())}\n", expected)
    shown = capfd.readouterr().out
    assert "Will these models merge?" in shown
    assert "films + food: average" in shown
    assert "Beware: Whether the models were trained on these rows" in " ".join(shown.split())
    assert max(map(len, shown.splitlines())) <= 80
    for name in ("study.md", "study.json", "study.csv", "report.html", "recipe.json", "figures/merges.svg"):
        assert (run / name).is_file()
    found = read_merge_check(run)
    recipe = json.loads((run / "recipe.json").read_text())
    assert recipe["method"] == found.best.trial.method
    assert recipe["not_merged"] == {"films": [], "food": []}
    fused = load_model(str(merged))
    for name in ("films", "food"):
        _, measuring = halves(open_table(str(encoders / f"{name}.jsonl")))
        scores = row_scores(fused.model, prepare(fused, measuring, ColumnOptions(), note=silent).batches, fused.task)
        expected = found.parents["log-likelihood"][name].value + found.best.changes["log-likelihood"][name].value
        assert scores.log_likelihood.mean() == pytest.approx(expected, abs=1e-4)
    fusion = json.loads((merged / "fusion.json").read_text())
    assert (fusion["method"], fusion["parameters"].get("scale")) == (recipe["method"], recipe["scale"])
    assert [each["weights"] for each in fusion["models"]] == [each["weights"] for each in recipe["models"].values()]
    asked = checked(
        [f"{name}={encoders / name}" for name in ("films", "food")],
        [f"{name}={encoders / name}.jsonl" for name in ("films", "food")],
        str(encoders / "start"),
        tmp_path / "another",
        MergeCheckOptions(measure=MeasureOptions(folds=2)),
        write=None,
        note=silent,
    )
    assert asked.parents.own("films") == ["classifier.weight", "classifier.bias"]
    specs = {**asked.specs, "initialisation": asked.initialisation}

    def recipe_of(*trial):
        one = replace(found, merges=(found.find(("films", "food"), *trial),))
        return write_recipe(Places(tmp_path), asked.parents, specs, asked.question, one)

    assert recipe_of("fisher") == "mergekit has no average weighted by Fishers"
    assert not (tmp_path / "mergekit.yaml").exists()
    for trial, weight in ((("average",), 0.5), (("task_arithmetic", 0.3), 0.3)):
        assert recipe_of(*trial) == ""
        kit = yaml.safe_load((tmp_path / "mergekit.yaml").read_text())
        recipe = json.loads((tmp_path / "recipe.json").read_text())
        assert {each["model"] for each in kit["models"]} == {str(encoders / name) for name in ("films", "food")}
        for each, own in zip(kit["models"], recipe["weights"].values(), strict=True):
            assert each["parameters"]["weight"] == own * (recipe["scale"] or 1) == weight
        assert (kit["dtype"], recipe["no_mergekit"]) == ("float32", None)
    assert (kit["merge_method"], kit["base_model"]) == ("task_arithmetic", str(encoders / "start"))
    assert kit["parameters"] == {"normalize": False}
    weights = load_file(merged / "model.safetensors")
    assert weights.keys() == load_file(encoders / "films" / "model.safetensors").keys()
    assert Footprint.load(run / "fishers" / "films" / "food").kind == "fisher"


def test_heads_are_merged_only_if_they_share_an_initialisation_and_mean_the_same(nets, encoders, tmp_path, capfd):
    place = ["--merge-heads", "-o", str(tmp_path / "run")]
    assert run_command([*arguments_of(encoders, "three", "films"), *place]) == 3
    assert "the heads of 'films' and 'three' do not mean the same" in " ".join(capfd.readouterr().err.split())
    assert run_command([*arguments_of(encoders, "films", "food"), "--exclude", "classifier", *place]) == 3
    assert "classifier.weight, classifier.bias do not share" in " ".join(capfd.readouterr().err.split())
    with pytest.raises(UsageError, match="which weights are the head of A is not known"):
        check(nets, tmp_path / "run", {"A": "model", "B": "near"}, merge_heads=True)
    assert not (tmp_path / "run").exists()


def test_heads_of_their_own_are_kept_and_said(encoders, tmp_path, capfd):
    run = tmp_path / "run"
    arguments = arguments_of(encoders, "three", "films")
    assert run_command([*arguments, "-o", str(run), "--write", str(tmp_path / "merged")]) == 3
    assert "do not mean the same" in capfd.readouterr().err
    assert not run.exists()
    assert run_command([*arguments, "-o", str(run), "--no-report"]) == 0
    found = read_merge_check(run)
    assert found.beside.own["films"] == found.beside.own["three"] == ("classifier.weight", "classifier.bias")
    shown = " ".join(capfd.readouterr().out.split())
    assert "Beware: Not merged: classifier.weight, classifier.bias." in shown
    assert not (run / "fishers" / "films" / "three").exists()
    (pair,) = found.beside.pairs
    assert 0 < pair.same_data <= 1
    shared = [*arguments, "-o", str(tmp_path / "shared"), "--no-report"]
    leader, follower = ended(started(2, command, *shared))
    assert leader.code == follower.code == 0, leader.err
    assert (follower.out, follower.err) == ("", "")
    assert not (tmp_path / "shared" / "fishers" / "films" / "three").exists()
    same = read_merge_check(tmp_path / "shared")
    assert (same.best.members, same.best.trial) == (found.best.members, found.best.trial)
    assert same.best.mean().value == pytest.approx(found.best.mean().value, abs=1e-6)
    assert same.beside.pairs[0].own_data == pytest.approx(pair.own_data, abs=1e-6)
