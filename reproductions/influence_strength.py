"""How strong should the influence of prior tasks be? β of the transfer and of the initialised approach, on MNIST.

Five tasks of 20,000 images each, rotated and permuted, as in ``similarity_helps.py``; the prior task is the most
similar one by probing. The defaults of the library are chosen from this table, on these seeds: it says which β serves
best here, and is no test of the choice.

    python reproductions/influence_strength.py --data ../shared/data/mnist --work runs/influence-strength

The same command goes on where it stopped. Writes ``reproductions/results/influence_strength.json`` and ``.md``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from similarity_helps import RESULTS, table

from commonweight.studies.continual.plan import Plan
from commonweight.studies.continual.run import run_study
from commonweight.text import to_markdown

NAME = "influence_strength"
STRENGTHS = {"transfer": (0.1, 0.25, 0.5, 0.75), "initialised": (0.25, 0.5, 0.75, 0.9)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("runs/influence-strength"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=20_000)
    options = parser.parse_args()
    start = time.time()

    def note(sentence: str) -> None:
        print(f"{time.time() - start:7.0f} s  {sentence}", file=sys.stderr, flush=True)

    record, tables = {}, []
    for scenario in ("rotated", "permuted"):
        plan = Plan(
            data=str(options.data),
            scenario=scenario,
            tasks=5,
            approaches=("classic", *(f"{kind}-probed-beta{beta}" for kind, many in STRENGTHS.items() for beta in many)),
            seeds=options.seeds,
            rows=options.rows,
            inference=(),
        )
        study = run_study(options.work / scenario, plan, note=note)
        record[scenario] = json.loads(study.to_json().replace(str(options.data), "mnist"))
        tables.append(table(scenario, study))
    (RESULTS / f"{NAME}.json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (RESULTS / f"{NAME}.md").write_text(to_markdown(tables), encoding="utf-8")
    print(to_markdown(tables))


if __name__ == "__main__":
    main()
