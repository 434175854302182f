"""The study of localisation: from the command to verdicts, what it refuses, and how often it is wrong under a null."""

from __future__ import annotations

import copy
import json
import math
import re
import sys

import numpy as np
import pytest
import torch
from processes import command, ended, started
from safetensors.torch import load_file, save_file
from scipy import stats
from torch import nn

import commonweight
from commonweight import Footprint, change_footprint
from commonweight.base.errors import NotComparableError, UsageError
from commonweight.base.text import silent, time_words
from commonweight.cli.main import run as run_command
from commonweight.data.reviews import reviews
from commonweight.data.table import open_table
from commonweight.footprints import by_structure
from commonweight.interventions.graft_reset import Swappable
from commonweight.interventions.measure import row_scores
from commonweight.interventions.sets import Sets, only, top_set
from commonweight.models.identity import hash_files
from commonweight.studies.compare.options import ColumnOptions, MeasureOptions
from commonweight.studies.demo.encoder import encode_reviews, make_start, make_tokenizer, save, train
from commonweight.studies.localise.cells import BY_CONSTRUCTION, Cell, Scored, plan_cells
from commonweight.studies.localise.halves import halves
from commonweight.studies.localise.outlook import localise_outlook
from commonweight.studies.localise.over_seeds import SeedLocalisation, SeedMean, localise_over_seeds
from commonweight.studies.localise.page import figures
from commonweight.studies.localise.plan import LocaliseOptions
from commonweight.studies.localise.results import gather, read_localisation
from commonweight.verdicts.localised import SetClaim, judge_sets

OPTIONS = LocaliseOptions(
    fractions=(0.05, 0.002), primary=0.002, draws=3, resamples=400, measure=MeasureOptions(folds=2)
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Two trained encoders, their start, and rows of each."""
    folder = tmp_path_factory.mktemp("localise")
    tokenizer, start = make_tokenizer(), make_start(0)
    save(start, tokenizer, folder / "start")
    for name in ("films", "food"):
        model = copy.deepcopy(start)
        train(model, encode_reviews(tokenizer, reviews(1200, domain=name)), steps=80, seed=0)
        save(model, tokenizer, folder / name)
        rows = reviews(160, domain=name, start=1200)
        lines = [json.dumps({"text": row["text"], "label": row["label"]}) for row in rows]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def finished(place):
    before = hash_files(sorted(place.glob("*/*.safetensors")))
    found = localise(place, place / "run")
    assert hash_files(sorted(place.glob("f*/*.safetensors"))) | before == before
    return found


def localise(place, run, options=OPTIONS, **other):
    asked = {
        "models": {name: place / name for name in ("films", "food")},
        "data": {name: place / f"{name}.jsonl" for name in ("films", "food")},
        "initialisation": place / "start",
    }
    return commonweight.localise(**(asked | other), run=run, options=options)


def test_several_processes_find_what_one_finds(place, finished, tmp_path):
    data = [f"--data={name}={place / f'{name}.jsonl'}" for name in ("films", "food")]
    asked = [f"{name}={place / name}" for name in ("films", "food")]
    asked += ["--initialisation", place / "start", *data, "--fractions", "0.002", "--primary", "0.002"]
    asked += ["--draws", "3", "--folds", "2", "--resamples", "400", "--no-report", "-o", tmp_path / "run"]
    leader, follower = ended(started(2, command, "localise", *asked))
    assert leader.code == follower.code == 0, leader.err
    assert (follower.out, follower.err) == ("", "")
    found = read_localisation(tmp_path / "run")
    assert [each.outcome for each in found.verdicts] == [each.outcome for each in finished.verdicts]
    same = [each for each in finished.measured if each.fraction in {None, 0.002}]
    for mine, theirs in zip(found.measured, same, strict=True):
        assert (mine.model, mine.fraction, mine.way, mine.name, mine.which, mine.metric) == (
            theirs.model, theirs.fraction, theirs.way, theirs.name, theirs.which, theirs.metric,
        )  # fmt: skip
        assert mine.score.value == pytest.approx(theirs.score.value, abs=1e-6)


def test_every_cell_is_there(finished):
    cells = {(each.model, each.fraction, each.way, each.name, each.which) for each in finished.measured}
    for model, other in (("films", "food"), ("food", "films")):
        for way in ("graft", "reset"):
            assert {(model, 0.05, way, model, which) for which in ("set", "random")} <= cells
        for name in ("films∩food", f"only {model}", f"only {other}"):
            assert (model, 0.002, "reset", name, "set") in cells
    for each in finished.measured:
        if each.metric == "accuracy":
            assert 0 <= each.score.value <= 1
            assert each.score.low <= each.score.value <= each.score.high
    assert len(finished.verdicts) == 7
    assert {each.family for each in finished.verdicts} == {7}


def test_shares_are_those_of_the_scores(finished):
    for metric in ("accuracy", "log-likelihood"):
        model, base = (finished.find("films", None, way, metric=metric).score.value for way in ("model", "base"))
        for way, end, sign in (("graft", base, 1), ("reset", model, -1)):
            cell = finished.find("films", 0.05, way, "films", "set", metric)
            assert cell.difference.value == pytest.approx(sign * (cell.score.value - end))
            if not cell.share.reason:
                assert cell.share.value == pytest.approx(cell.difference.value / (model - base))


def test_the_base_is_the_start_with_the_models_head(place, finished):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model, start = (AutoModelForSequenceClassification.from_pretrained(place / name) for name in ("films", "start"))
    _, measuring = halves(open_table(str(place / "films.jsonl")))
    tokens = AutoTokenizer.from_pretrained(place / "start")(measuring.column("text"), padding=True, return_tensors="pt")
    labels = torch.tensor([
        int(label) if isinstance(label, int) else model.config.label2id[label] for label in measuring.column("label")
    ])
    for way, network in (("model", model), ("base", start)):
        with torch.no_grad():
            scores = network.eval()(**tokens).logits.log_softmax(-1)[torch.arange(len(labels)), labels]
        found = finished.find("films", None, way, metric="log-likelihood")
        assert found.score.value == pytest.approx(float(scores.mean()), abs=1e-5)


def test_a_run_is_written_read_and_gone_on_with(place, finished, capfd):
    run = place / "run"
    for name in ("study.md", "study.json", "study.csv", "answer.json", "figures/curves.svg"):
        assert (run / name).is_file()
    record = json.loads((run / "study.json").read_text())
    assert [each["outcome"] for each in record["verdicts"]] == [each.outcome for each in finished.verdicts]
    again = read_localisation(run)
    assert again.to_json() == finished.to_json()
    assert [name for name, _ in figures(run)] == ["curves"]
    sets = [Footprint.load(run / "sets" / "0.05" / name) for name in ("films", "food")]
    assert 0 < commonweight.jaccard_index(*sets) < 1
    assert "bert.encoder.layer.0.attention.head.0" in by_structure(sets[0], "head").layers
    (run / "scores" / "food" / "0.05.json").unlink()
    assert localise(place, run).to_json() == finished.to_json()
    with pytest.raises(UsageError, match=r"holds a run of something else: settings.draws was 3, is now 4"):
        localise(place, run, LocaliseOptions(**{**vars(OPTIONS), "draws": 4}))
    assert run_command(["show", str(run), "--format", "csv"]) == 0
    assert capfd.readouterr().out.startswith(
        "model,data,fraction,way,name,which,draws,statistics,metric,quantity,value"
    )
    assert run_command(["report", str(run)]) == 0
    assert (run / "report.html").is_file()


def test_a_dry_run_says_what_the_run_took(place, finished):
    named = [[f"{name}={place / name}{end}" for name in ("films", "food")] for end in ("", ".jsonl")]
    expected = localise_outlook(*named, str(place / "start"), place / "other", OPTIONS, silent)
    assert not (place / "other").exists()
    scored = [Scored.load(file.with_suffix("")) for file in (place / "run" / "scores").rglob("*.json")]
    networks = sum(len(next(iter(each.scores.values()))) for each in scored)
    networks += sum(  # those that would be there if every set had sets that match it
        OPTIONS.draws * (2 if name == model else 1)
        for model, fractions in finished.facts.items()
        for sets in fractions.values()
        for name, each in sets.items()
        if each.unmatched
    )
    assert expected.facts["networks to score, at most"] == str(networks)
    shards = [file for file in (place / "run" / "footprints").rglob("*.safetensors") if "rows-" not in file.name]
    assert sum(each.nbytes for shard in shards for each in load_file(shard).values()) == expected.disk
    again = localise_outlook(*named, str(place / "start"), place / "run", OPTIONS, silent)
    assert (again.disk, again.facts["networks to score, at most"]) == (0, "0")


def test_the_command_answers_on_one_screen(place, capfd):
    arguments = ["localise", f"films={place / 'films'}", "--initialisation", str(place / "start")]
    arguments += ["--data", f"films={place / 'films.jsonl'}", "--data", f"other={place / 'food.jsonl'}"]
    options = ["--map", "change", "--fractions", "0.05", "--primary", "0.05", "--draws", "2", "--resamples", "400"]
    arguments += [*options, "-o", str(place / "alone"), "--quiet"]
    assert run_command([*arguments, "--dry-run"]) == 0
    shown = capfd.readouterr().out
    assert re.search(r"networks to score, at most +8\n", shown)
    assert re.search(r"time to measure and score \(from a short probe\) +about \d", shown)
    assert not (place / "alone").exists()
    assert run_command(arguments) == 0
    shown = capfd.readouterr().out
    assert "Do the weights that the size of the change names hold what films learned?" in shown
    said = "With 5 % of the weights in a set, none of 2 claims is shown to hold (suffices, is necessary)."
    assert said in " ".join(shown.split())
    assert max(map(len, shown.splitlines())) <= 80
    found = read_localisation(place / "alone")
    assert found.facts["films"][0.05]["films"].unmatched == BY_CONSTRUCTION
    assert found.find("films", 0.05, "reset", "films", "set", data="other") is not None
    assert BY_CONSTRUCTION in found.verdicts[0].reason


@pytest.fixture(scope="module")
def trainings(tmp_path_factory):
    """Three trainings of a small network with batch norm: start, network, and what a localisation found, by folder."""
    place = tmp_path_factory.mktemp("trainings")
    (place / "normed.py").write_text(
        "from torch import nn\n\n\ndef net():\n"
        "    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))\n"
    )
    sys.path.insert(0, str(place))
    from normed import net

    torch.manual_seed(0)
    x = 5 * torch.randn(300, 6)
    y = (x.sum(1) > 0).long()
    rows = zip(x.tolist(), y.tolist(), strict=True)
    (place / "A.jsonl").write_text("".join(json.dumps({"x": inputs, "label": label}) + "\n" for inputs, label in rows))
    every = {}
    for seed in range(3):
        folder = place / str(seed)
        folder.mkdir()
        torch.manual_seed(seed)
        start = net()
        model = copy.deepcopy(start)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
        for _ in range(30):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
        for name, each in (("A", model), ("start", start)):
            save_file(each.state_dict(), folder / f"{name}.safetensors")
        options = LocaliseOptions(
            fractions=(0.2,),
            primary=0.2,
            draws=2,
            resamples=400,
            measure=MeasureOptions(folds=1, columns=ColumnOptions(input_column=("x",))),
            checkpoints=tuple(str(folder / f"{name}.safetensors") for name in ("A", "start")),
        )
        asked = {"models": {"A": "normed:net"}, "data": {"A": place / "A.jsonl"}, "initialisation": "normed:net"}
        every[folder] = start, model, localise(place, folder / "run", options, **asked)
    yield every
    sys.path.remove(str(place))


def test_networks_with_batch_norm_are_scored_with_statistics_anew_too(trainings):
    folder, (start, model, found) = next(iter(trainings.items()))
    assert read_localisation(folder / "run").to_json() == found.to_json()
    both = [
        found.find("A", None, "base", metric="log-likelihood", statistics=each) for each in ("stored", "re-estimated")
    ]
    choosing, measuring = halves(open_table(str(folder.parent / "A.jsonl")))
    received = start[0](torch.tensor(choosing.column("x"))).detach()
    inputs, labels = (torch.tensor(measuring.column(name)) for name in ("x", "label"))
    base = copy.deepcopy(start).eval()
    base[1].load_state_dict({**start[1].state_dict(), **dict(model[1].named_buffers())})
    for cell in both:
        scores = base(inputs).log_softmax(-1)[torch.arange(len(labels)), labels]
        assert cell.score.value == pytest.approx(float(scores.detach().mean()), abs=1e-5)
        base[1].running_mean, base[1].running_var = received.mean(0), received.var(0)
    assert both[0].score.value != pytest.approx(both[1].score.value, abs=1e-3)
    text = " ".join((folder / "run" / "study.md").read_text().split())
    assert "| share anew |" in text
    assert "re-estimated on the choosing rows, after each graft and reset" in text
    assert {each.family for each in found.verdicts} == {2}


def test_a_dry_run_counts_the_passes_of_batch_norms(trainings, monkeypatch):
    folder = next(iter(trainings))
    options = LocaliseOptions(
        fractions=(0.2,),
        primary=0.2,
        draws=2,
        measure=MeasureOptions(folds=1, columns=ColumnOptions(input_column=("x",))),
        checkpoints=tuple(str(folder / f"{name}.safetensors") for name in ("A", "start")),
    )
    for name, seconds in (("probe_scores", 1.0), ("probe", 0.0), ("_seconds_per_set", 0.0)):
        monkeypatch.setattr(f"commonweight.studies.localise.outlook.{name}", lambda *_, seconds=seconds: seconds)
    data = [f"A={folder.parent / 'A.jsonl'}"]
    facts = localise_outlook(["A=normed:net"], data, "normed:net", folder / "none", options, silent).facts
    rows = 2 * 150 + 150  # scored twice, and once for the statistics of the one batch norm
    expected = f"about {time_words(rows * int(facts['networks to score, at most']))}"
    assert facts["time to measure and score (from a short probe)"] == expected


def test_runs_of_several_trainings_speak_of_models_trained_like_these(trainings, place, finished, capfd):
    runs = [folder / "run" for folder in trainings]
    found = localise_over_seeds(runs)
    alone = [each for _, _, each in trainings.values()]
    for verdict, *of_each in zip(found.verdicts, *(each.verdicts for each in alone), strict=True):
        for name, need in verdict.asked.needs.items():
            numbers = [each.asked.needs[name] for each in of_each]
            if any(each.reason for each in numbers):
                assert need.reason.startswith("in training ")
                assert verdict.outcome == "inconclusive"
            else:
                expected = stats.ttest_1samp([each.value for each in numbers], 0)
                assert need.low == pytest.approx(expected.confidence_interval(0.95).low)
                assert need.p_above_0() == pytest.approx(expected.pvalue if need.value > 0 else 1)
    clear, wide = SeedMean((0.3, 0.31, 0.29)), SeedMean((0.3, 0.6, 0.1))
    claims = [SetClaim("suffices", "A", {"set − matched": need}, SeedMean((0.8, 0.82, 0.81))) for need in (clear, wide)]
    assert [each.outcome for each in judge_sets(claims)] == ["suffices", "inconclusive"]
    (gain,) = [
        numbers["difference"]
        for each, numbers in found.measured()
        if (each.way, each.statistics, each.metric) == ("model", "stored", "log-likelihood")
    ]
    values = [each.find("A", None, "model", metric="log-likelihood").difference.value for each in alone]
    interval = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (gain.low, gain.high) == (pytest.approx(interval.low), pytest.approx(interval.high))
    assert run_command(["show", *map(str, runs)]) == 0
    shown = " ".join(capfd.readouterr().out.split())
    assert "names hold what models trained like A learn? Over 3 trainings, with 20 % of the weights in a set" in shown
    assert run_command(["show", *map(str, runs), "--format", "csv"]) == 0
    assert ",score," in capfd.readouterr().out
    with pytest.raises(UsageError, match="expected runs of at least 3 training seeds, got 2"):
        localise_over_seeds(runs[:2])
    with pytest.raises(UsageError, match="hold one and the same training of A"):
        localise_over_seeds([runs[0], runs[1], runs[0]])
    with pytest.raises(UsageError, match=r"holds a run of something else: settings\.[a-z_]+ was"):
        localise_over_seeds([*runs, place / "run"])
    with pytest.raises(UsageError, match="holds no finished localisation"):
        localise_over_seeds([*runs, place])


def test_refusals(place, tmp_path):
    with pytest.raises(UsageError, match="the model 'films' has no data set of its name"):
        localise(place, tmp_path / "run", data={"food": place / "food.jsonl"})
    with pytest.raises(UsageError, match="expected one or two models, got 3"):
        localise(place, tmp_path / "run", models={name: place / name for name in ("films", "food", "run")})
    with pytest.raises(UsageError, match=r"must be one of the fractions, 0\.01, 0\.05, 0\.2, got 0\.3"):
        LocaliseOptions(primary=0.3)
    with pytest.raises(UsageError, match=r"no file .*films/optimizer\.pt; give optimizer\.pt of a Trainer"):
        localise(place, tmp_path / "run", options=LocaliseOptions(map="adam_v"))
    other = nn.Linear(2, 2)
    with pytest.raises(NotComparableError, match="no parameter has name and shape in common"):
        Swappable.of(other, make_start(0))
    assert not (tmp_path / "run").exists()


def test_halves_keep_rows_of_one_source_and_copies_together(tmp_path):
    lines = [json.dumps({"text": f"text {number % 40}", "label": 0}) for number in range(80)]
    (tmp_path / "copies.jsonl").write_text("\n".join(lines) + "\n")
    choosing, measuring = halves(open_table(str(tmp_path / "copies.jsonl")))
    assert len(choosing) + len(measuring) == 80
    assert not set(choosing.column("text")) & set(measuring.column("text"))
    lines = [json.dumps({"text": f"text {number}", "label": 0, "source_row": number % 40}) for number in range(80)]
    (tmp_path / "sources.jsonl").write_text("\n".join(lines) + "\n")
    choosing, measuring = halves(open_table(str(tmp_path / "sources.jsonl")))
    assert not set(choosing.source_rows) & set(measuring.source_rows)
    (tmp_path / "one.jsonl").write_text(json.dumps({"text": "alone", "label": 0}) + "\n")
    with pytest.raises(UsageError, match="half of one is empty"):
        halves(open_table(str(tmp_path / "one.jsonl")))


# In memory: two networks and maps of one's own


def trained(seed):
    """A start, a network that learned a direction of its own, and rows to measure it on."""
    torch.manual_seed(seed)
    start = nn.Sequential(nn.Linear(30, 200), nn.ReLU(), nn.Linear(200, 2))
    model = copy.deepcopy(start)
    direction = torch.randn(30)
    x = torch.randn(900, 30)
    y = (x @ direction > 0).long()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[:500]), y[:500]).backward()
        optimizer.step()
    return start, model, (x[500:], y[500:])


def judged(maps, networks, fraction, draws=5):
    """Localise networks in memory with some maps."""
    options = LocaliseOptions(fractions=(fraction,), primary=fraction, draws=draws, resamples=400)
    sets = Sets({name: top_set(each, fraction) for name, each in maps.items()})
    scored = {}
    for name, (start, model, rows) in networks.items():
        pair = Swappable.of(model, start)
        planned = plan_cells(name, sets, change_footprint(model, start), options, draws)
        nothing = only(sets.own[name], sets.own[name])
        ends = {
            "base": (Cell("graft", "", "set"), lambda nothing=nothing: nothing),
            "model": (Cell("reset", "", "set"), lambda nothing=nothing: nothing),
        }
        parts = {}
        for fraction_or_none, cells in (
            (None, ends),
            (fraction, {cell.key: (cell, s) for cell, s in planned.cells.items()}),
        ):
            scores = {}
            for key, (cell, make) in cells.items():
                with getattr(pair, cell.way)(make()):
                    scores[key] = row_scores(model, [rows])
            parts[fraction_or_none] = Scored({name: tuple(range(len(rows[0])))}, {name: scores}, planned.facts)
        scored[name] = parts
    return gather(options, options.deciding(), list(networks), scored)


def test_a_map_of_random_numbers_is_rarely_taken_for_one_that_holds_something():
    """With intervals at 95 % and Holm over seven claims, at most one run in twenty may claim anything."""
    claims, runs, every = 0, 12, []
    for seed in range(runs):
        networks = {"A": trained(seed), "B": trained(100 + seed)}
        generator = torch.Generator().manual_seed(seed)
        maps = {
            name: Footprint(
                "saliency",
                {key: torch.rand(each.shape, generator=generator) for key, each in model.named_parameters()},
                1,
            )
            for name, (_, model, _) in networks.items()
        }
        found = judged(maps, networks, 0.2)
        assert not any(facts.unmatched for of in found.facts.values() for facts in of[0.2].values())
        claims += any(each.outcome != "inconclusive" for each in found.verdicts)
        every.append(found)
    assert all(each.outcome == "inconclusive" for each in SeedLocalisation(tuple(every)).verdicts)
    assert claims <= 2  # of 12 at a rate of .05 more than two come up twice in a hundred


def test_a_planted_map_is_found():
    """Only half of the units changed; the map that names them suffices and is necessary, the others hold nothing."""
    start, model, rows = trained(0)
    with torch.no_grad():
        half = torch.arange(200) < 100
        for name in ("0.weight", "0.bias"):
            learned, first = model.get_parameter(name), start.get_parameter(name)
            learned[~half] = first[~half] + 0.2 * torch.randn_like(first[~half])
        model[2].weight[:, ~half] = 0
    planted = {
        "0.weight": half[:, None].expand(200, 30).float(),
        "0.bias": half.float(),
        "2.weight": half.expand(2, 200).float(),
        "2.bias": torch.ones(2),
    }
    count = sum(int(each.sum()) for each in planted.values()) / sum(each.numel() for each in planted.values())
    options = {"A": (start, model, rows)}
    found = judged({"A": Footprint("saliency", planted, 1)}, options, count)
    graft = found.find("A", count, "graft", "A", "set", "accuracy")
    assert graft.share.value > 0.5
    assert found.find("A", count, "reset", "A", "set", "log-likelihood").share.value > 0.5
    assert np.isfinite(graft.share.low)
    assert not math.isnan(found.find("A", None, "model").difference.value)
