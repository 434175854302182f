"""Every number of small examples, under names that no redesign changes.

    PYTHONPATH=tests python tests/golden/golden.py record   # write numbers.json beside this file
    PYTHONPATH=tests python tests/golden/golden.py check    # compare with it, to 1e-12

A redesign records before its first commit and checks after its last one.
"""

from __future__ import annotations

import json
import sys
import tempfile
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from diagonal_fisher.small import examples, in_batches, small_mlp
from footprints.masked import inputs, trained
from overlaps.folded import fisher as folded
from overlaps.folded import squares
from studies.continual_parts import small_plan
from studies.shortcut_texts import tiny_plan
from torch import nn

import commonweight
from commonweight.data.reviews import reviews
from commonweight.studies.compare.compare import compare
from commonweight.studies.compare.options import CompareOptions, MeasureOptions
from commonweight.studies.continual.run import run_study as run_continual
from commonweight.studies.demo.demo import DemoSize, run_demo
from commonweight.studies.demo.encoder import make_start, make_tokenizer, save
from commonweight.studies.shortcuts.run import run_study as run_shortcuts

GOLDEN = Path(__file__).with_name("numbers.json")
CLOSE = 1e-12
TYPES = ("empirical", "exact", "mc")


def flat(value):
    if hasattr(value, "replicates"):
        return [value.value, value.low, value.high, *value.replicates]
    if isinstance(value, torch.Tensor):
        value = value.detach().double().numpy()
    return np.asarray(value, dtype=np.float64).reshape(-1).tolist()


def of_table(name, table, found):
    """Everything a table of overlaps derives."""
    for level in (table, table.roll_up(1)):
        depth = f"{name}/{'full' if level is table else 'depth 1'}"
        found[f"{depth}/pooled"] = flat(level.pooled)
        found[f"{depth}/layer mean"] = flat(level.layer_mean)
        for layer in level.layers:
            found[f"{depth}/{layer}/raw"] = flat(level.by_layer[layer])
            found[f"{depth}/{layer}/share"] = flat(level.trace_share[layer])
        if level.masks is not None:
            for word, levels in (("density", level.density), ("chance", level.chance), ("beyond", level.corrected)):
                found[f"{depth}/{word}"] = flat(levels.pooled)
                for layer in level.layers:
                    found[f"{depth}/{layer}/{word}"] = flat(levels.by_layer[layer])
        if level.resampled is None:
            continue
        found[f"{depth}/ceiling"] = flat(level.noise_ceiling.pooled)
        for layer in level.layers:
            found[f"{depth}/{layer}/ceiling"] = flat(level.noise_ceiling.by_layer[layer])
        for a, b in combinations(level.names, 2):
            for of in ("raw", "corrected", "null", "above_null"):
                found[f"{depth}/{a} {b}/{of}"] = flat(level.estimate(of, a, b))
                found[f"{depth}/{a} {b}/{of}/layer mean"] = flat(level.estimate(of, a, b, total="layer_mean"))
                for layer in level.layers:
                    found[f"{depth}/{a} {b}/{layer}/{of}"] = flat(level.estimate(of, a, b, layer))
    found[f"{name}/distance"] = flat(table.alignment.distance)
    found[f"{name}/effective"] = flat(list(table.effective_sample_size.values()))


def of_footprint(name, footprint, found):
    for parameter in footprint.tensors:
        found[f"{name}/{parameter}"] = flat(footprint.tensors[parameter])
    for k, fold in enumerate(footprint.folds):
        found[f"{name}/fold {k}"] = [float(fold.count), *(float(fold.tensors[p].double().sum()) for p in fold.tensors)]


def fishers(found):
    x, y = examples(24)
    rows = torch.arange(24) * 7
    batch = {"input": x, "labels": y, "source_row": rows}
    model = small_mlp()
    for words in TYPES:
        footprint = commonweight.fisher(model, in_batches(batch, 5), fisher_type=words, folds=4, loss="classification")
        of_footprint(f"fisher/{words}", footprint, found)
    conv = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 3)).double()
    with torch.no_grad():
        for parameter in conv.parameters():
            parameter.copy_(torch.linspace(-0.5, 0.5, parameter.numel()).sin().reshape(parameter.shape))
    images = torch.sin(torch.arange(8 * 36.0)).reshape(8, 1, 6, 6).double()
    of_footprint("fisher/conv", commonweight.fisher(conv, [(images, torch.arange(8) % 3)]), found)


def overlaps(found):
    footprints = {name: folded(squares, seed=seed) for seed, name in enumerate("abc")}
    of_table("overlap", commonweight.overlap(footprints), found)
    plain = {"mlp": (small_mlp(), examples(16)), "other": (small_mlp(seed=2), examples(16, seed=3))}
    raw = {name: commonweight.fisher(model, [batch]) for name, (model, batch) in plain.items()}
    of_table("overlap/whole", commonweight.overlap(raw), found)
    anchor = {name: parameter.detach().clone() for name, parameter in small_mlp().named_parameters()}
    penalty = commonweight.ewc_penalty(small_mlp(seed=5), raw["mlp"], anchor, strength=3.0)
    found["ewc"] = flat(penalty)


def masks(found):
    for scores in ("independent", "shared"):
        net = trained(scores)
        prints = {task: commonweight.supermask_footprint(net, task) for task in "abc"}
        of_table(f"masks/{scores}", commonweight.overlap(prints), found)
        flips = {task: commonweight.supermask_footprint(net, task, flipped=True) for task in "abc"}
        of_table(f"masks/{scores}/flipped", commonweight.overlap(flips), found)
        activity = {task: commonweight.activity_footprint(net, task) for task in "abc"}
        of_table(f"activity/{scores}", commonweight.overlap(activity), found)
        every = {
            "first": commonweight.first_layer_similarity(activity),
            "every": commonweight.every_layer_similarity(activity),
            "probed": commonweight.probed_similarity(net, {task: [inputs(task)] for task in "abc"}),
        }
        for word, similarity in every.items():
            for layer in similarity.layers:
                found[f"similarity/{scores}/{word}/{layer}"] = flat(similarity.values[layer])
            for rule in ("most_similar", "softmax", "least_similar", "random", "previous", "mean"):
                alphas = commonweight.transfer_alphas(similarity, "c", rule)
                for layer, row in alphas.layers.items():
                    found[f"alphas/{scores}/{word}/{rule}/{layer}"] = [row.get("a", 0.0), row.get("b", 0.0)]


def fusions(found):
    models = []
    for seed in (1, 2, 3):
        model = small_mlp()
        with torch.no_grad():
            for k, parameter in enumerate(model.parameters()):
                parameter += 0.02 * torch.sin(torch.arange(parameter.numel()) * (seed + k)).reshape(parameter.shape)
        models.append(model)
    prints = [commonweight.fisher(model, [examples(16)]) for model in models]
    asked = {
        "average": {},
        "weighted": {"weights": [0.5, 0.3, 0.2]},
        "task_arithmetic": {"method": "task_arithmetic", "base": small_mlp(), "scale": 0.7},
        "fisher": {"method": "fisher", "footprints": prints},
    }
    for word, options in asked.items():
        fused = commonweight.fuse(models, **options, note=lambda _: None)
        for name, parameter in fused.named_parameters():
            found[f"fuse/{word}/{name}"] = flat(parameter)


def coverage(found):
    sys.path.insert(0, str(Path(__file__).parents[2] / "reproductions"))
    from coverage_regimes import REGIMES, SETTINGS
    from interval_coverage import one

    for name, (n, K) in {name: (n, K) for name, n, K in SETTINGS}.items():
        regime = REGIMES[name]
        if regime.trainings:
            continue
        values, effective, ceiling = one(regime, n, K, np.random.default_rng([3]))
        for (of, what), estimate in values.items():
            found[f"coverage/{name}/{of}/{what}"] = flat(estimate)
        found[f"coverage/{name}/facts"] = [effective, ceiling]


def comparison(found):
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        tiny_plan(folder)
        save(make_start(1), make_tokenizer(), folder / "other")
        for domain in ("films", "food"):
            lines = [json.dumps({"text": r["text"], "label": r["label"]}) for r in reviews(48, domain=domain)]
            (folder / f"{domain}.jsonl").write_text("\n".join(lines) + "\n")
        result = compare(
            [str(folder / "encoder"), str(folder / "other")],
            [str(folder / "films.jsonl"), str(folder / "food.jsonl")],
            folder / "run",
            CompareOptions(measure=MeasureOptions(folds=4)),
        )
        of_table("compare", result.table, found)


def studies(found):
    with tempfile.TemporaryDirectory() as place:
        study = run_shortcuts(Path(place) / "run", tiny_plan(Path(place), seeds=2))
        rule = study.plan.fisher_types[0]
        for of in ("raw", "corrected"):
            for word, read in (("cells", study.cells), ("contrasts", study.contrasts)):
                for pair, each in read(rule, None, of).items():
                    for name, estimate in each.items():
                        found[f"shortcuts/{of}/{word}/{' '.join(pair)}/{name}"] = flat(estimate)
        found["shortcuts/scores"] = [
            float(score["accuracy"])
            for each in study.scores
            for m in sorted(each)
            for d, score in sorted(each[m].items())
        ]
        for seed, walks in enumerate(study.paths):
            for walk in walks:
                points = [float(p) for p in walk["points"]]
                found[f"shortcuts/walk {seed} {walk['from']} {walk['to']}"] = points
        tasks = run_continual(
            Path(place) / "continual", small_plan(approaches=("classic", "transfer"), seeds=2, inference_batches=(5,))
        )
        for approach in tasks.runs:
            found[f"continual/{approach}/R"] = flat([run.R for run in tasks.runs[approach]])
            for word in ("average_accuracy", "backward_transfer", "forgetting", "area", "gain"):
                found[f"continual/{approach}/{word}"] = flat(getattr(tasks, word)(approach))
            for seed, run in enumerate(tasks.runs[approach]):
                of_table(f"continual/{approach}/{seed}/masks", run.overlap, found)
                for similarity, values in run.similarity.items():
                    for layer in values.layers:
                        found[f"continual/{approach}/{seed}/{similarity}/{layer}"] = flat(values.values[layer])


def demonstration(found):
    with tempfile.TemporaryDirectory() as place:
        demo = run_demo(Path(place) / "demo", size=DemoSize(600, 200, 60, 4))
        of_table("demo", demo.comparison.table, found)
        for model, scores in demo.scores.items():
            for domain, score in scores.items():
                found[f"demo/{model}/{domain}"] = [score.accuracy, score.loss]


PARTS = (fishers, overlaps, masks, fusions, coverage, comparison, studies, demonstration)


def numbers(parts=PARTS):
    """Name -> the numbers."""
    found = {}
    torch.set_num_threads(1)
    for part in parts:
        part(found)
    return found


def differences(found, golden):
    """What is not as recorded: names on one side only, lengths, and values farther apart than ``CLOSE``."""
    said = [f"only recorded: {name}" for name in golden.keys() - found.keys()]
    said += [f"not recorded: {name}" for name in found.keys() - golden.keys()]
    for name in sorted(golden.keys() & found.keys()):
        now, then = (np.array(values, dtype=np.float64) for values in (found[name], golden[name]))
        if now.shape != then.shape or not np.allclose(now, then, rtol=CLOSE, atol=CLOSE, equal_nan=True):
            said.append(f"{name}: was {then[:4]}, is {now[:4]}")
    return said


def main():
    found = numbers()
    if sys.argv[1:] == ["record"]:
        lines = (
            f"{json.dumps(name)}: {json.dumps([None if x != x else x for x in found[name]])}" for name in sorted(found)
        )
        GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
        print(f"{len(found)} names, {sum(map(len, found.values()))} numbers")
        return
    said = differences(found, json.loads(GOLDEN.read_text(encoding="utf-8")))
    print("\n".join(said) or f"all {len(found)} as recorded")
    sys.exit(bool(said))


if __name__ == "__main__":
    main()
