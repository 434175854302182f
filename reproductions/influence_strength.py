"""How strong should the influence of prior tasks be? β of the transfer and of the initialised approach, on MNIST.

Five tasks of 20,000 images each, rotated and permuted, as in ``similarity_helps.py``; the prior task is the most
similar one by probing. The defaults of the library are chosen from this table, on these seeds: it says which β serves
best here, and is no test of the choice.

    python reproductions/influence_strength.py --data ../shared/data/mnist --work runs/influence-strength

The same command goes on where it stopped. Writes ``reproductions/results/influence_strength.json`` and ``.md``.
"""

from __future__ import annotations

from on_mnist import Given, given, recorded
from records import read_record, write_record, write_tables
from similarity_helps import table

from commonweight.studies.continual.plan import Plan
from commonweight.studies.continual.run import run_study

NAME = "influence_strength"
STRENGTHS = {"transfer": (0.1, 0.25, 0.5, 0.75), "initialised": (0.25, 0.5, 0.75, 0.9)}


def measure(options: Given) -> dict:
    record = {}
    for scenario in ("rotated", "permuted"):
        plan = Plan(
            data=options.data,
            scenario=scenario,
            tasks=5,
            approaches=("classic", *(f"{kind}-probed-beta{beta}" for kind, many in STRENGTHS.items() for beta in many)),
            seeds=options.seeds,
            rows=options.rows,
            inference=(),
        )
        study = run_study(options.work / scenario, plan, note=options.note)
        record[scenario] = recorded(study, options.data)
    return record


def main() -> None:
    options = given(__doc__, "influence-strength", seeds=3)
    if not options.tables:
        write_record(NAME, measure(options))
    write_tables(NAME, [table(scenario, found) for scenario, found in read_record(NAME).items()])


if __name__ == "__main__":
    main()
