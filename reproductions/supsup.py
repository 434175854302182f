"""SupSup on permuted MNIST: mean accuracy over 5 and 10 permutations, and how often the permutation is inferred.

The network of SupSup's notebook: 784-300-300-100 with ReLU, without batch norm and biases, signed constant weights, a
mask of scores of at least 0, RMSprop with learning rate 1e-4, batches of 128, one epoch, pixels with mean 0 and
standard deviation 1. Published: 92.37 % on 5 permutations and all of 250 inferences right (notebook of
https://github.com/RAIVNLab/supsup); 96.31 % on 10 permutations, as reported for SupSup by the WSN paper (Kang et al.
2022, Table 1; https://proceedings.mlr.press/v162/kang22b.html), whose network, epochs and heads are its own.

    python reproductions/supsup.py --data ../shared/data/mnist --work runs/supsup

The same command goes on where it stopped. Writes ``reproductions/results/supsup.json``, ``.md`` and figures.
"""

from __future__ import annotations

from collections import OrderedDict

from on_mnist import Given, estimate, given, keep_figures, recorded
from records import RESULTS, read_record, write_record, write_tables
from torch import nn

from commonweight.base.text import Grid
from commonweight.studies.continual.plan import Plan
from commonweight.studies.continual.run import run_study

NAME = "supsup"
PUBLISHED = {5: ("92.37 % (SupSup's notebook)", "100 % of 250"), 10: ("96.31 % (reported by WSN)", "–")}
INFERRED = ("one_shot", "binary", "lowest_entropy")


def network() -> nn.Module:
    """The network of SupSup's notebook."""
    layers = OrderedDict(flatten=nn.Flatten())
    for number, (width, units) in enumerate(((784, 300), (300, 300), (300, 100)), start=1):
        layers[f"fc{number}"] = nn.Linear(width, units, bias=False)
        if number < 3:
            layers[f"relu{number}"] = nn.ReLU()
    return nn.Sequential(layers)


def plan(data: str, tasks: int, epochs: int, seeds: int) -> Plan:
    return Plan(
        data=data,
        scenario="permuted",
        tasks=tasks,
        approaches=("classic",),
        seeds=seeds,
        model="supsup:network",
        epochs=epochs,
        optimiser="rmsprop",
        learning_rate=1e-4,
        normalise="standard",
        inference=INFERRED,
        inference_rows=50,
        inference_batches=(1, 50),
    )


def measure(options: Given) -> dict:
    record = {}
    for tasks, epochs in ((5, 1), (10, 1), (10, 5)):
        folder = f"{tasks}-tasks-{epochs}-epochs"
        study = run_study(options.work / folder, plan(options.data, tasks, epochs, options.seeds), note=options.note)
        keep_figures(study, options.work / folder, RESULTS / NAME / folder, ("curves", "overlap-classic"))
        name = f"{tasks} permutations, {epochs} epoch{'s' if epochs > 1 else ''}"
        record[name] = recorded(study, options.data)
    return record


def table(record: dict) -> Grid:
    rows = []
    for name, study in record.items():
        accuracy, inferred = PUBLISHED[study["plan"]["tasks"]]
        found = study["approaches"]["classic"]
        rows.append((
            name,
            accuracy,
            estimate(found["average_accuracy"]).short(),
            inferred,
            *(estimate(found["task_inferred"]["1"][method]["task"]).short() for method in INFERRED),
        ))
    head = ("run", "published", "mean accuracy", "published inference", *(f"{m}, 1 image" for m in INFERRED))
    title = "SupSup on permuted MNIST (means over seeds, 95 % intervals; inference from one image, 50 images a task)"
    return Grid(title, head, tuple(rows))


def main() -> None:
    options = given(__doc__, NAME)
    if not options.tables:
        write_record(NAME, measure(options))
    write_tables(NAME, [table(read_record(NAME))])


if __name__ == "__main__":
    main()
