"""What do the similarities of tasks measure? Angles of rotated MNIST and sizes of permuted patches as the truth.

Nine tasks each: rotations from 0 to 180 degrees, and central patches of 0 to 28 pixels whose pixels are permuted. A
classic supermask network (784-300-300-10, per-task batch norm, Adam 1e-3, one epoch of 20,000 images) learns all; then
the similarity by the means of the first batch norm, by those of every batch norm, and by probing (new images
through each prior task's mask) is correlated, rank by rank, with the truth, over every task and each of those before
it; beside it the Jaccard indices of the masks. Score starts are independent, and once more shared.

    python reproductions/what_similarity_measures.py --data ../shared/data/mnist --work runs/what-similarity

The same command goes on where it stopped. Writes ``what_similarity_measures.json``, ``.md`` and ``.png`` into
``reproductions/results/``; with ``--tables`` the latter two anew from the JSON.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from on_mnist import estimate, given, recorded
from records import RESULTS, read_record, write_record, write_tables

from commonweight.base.estimate import Estimate
from commonweight.base.text import Grid
from commonweight.report.files import COLORS, new_figure
from commonweight.studies.continual.metrics import rank_correlation
from commonweight.studies.continual.plan import Plan
from commonweight.studies.continual.run import run_study
from commonweight.studies.run import results

if TYPE_CHECKING:
    from pathlib import Path

NAME = "what_similarity_measures"


def plan(data: str, scenario: str, starts: str, seeds: int, rows: int) -> Plan:
    return Plan(
        data=data,
        scenario=scenario,
        tasks=9,
        approaches=("classic",),
        seeds=seeds,
        score_initialisation=starts,
        rows=rows,
        inference=(),
    )


def of_masks(study) -> dict[str, dict]:
    """Rank correlation of the masks' overlap with the truth; of flipped bits where score initialisations are shared."""
    runs = study.runs["classic"]
    found = {}
    for layer in runs[0].overlap.layers:
        values = []
        for run, facts in zip(runs, study.facts, strict=True):
            earlier = np.tril_indices(len(facts["names"]), -1)
            truth = np.array(facts["truth"], dtype=np.float64)
            values.append(rank_correlation(run.overlap.by_layer[layer][earlier], truth[earlier]))
        found[layer] = results.recorded(Estimate.over_seeds(values))
    return found


def draw(rows, path: Path) -> None:
    """One panel per kind of tasks and score initialisations, a dot with its interval per measure and layer."""
    panels = list(dict.fromkeys(row[:2] for row in rows))
    figure = new_figure(3.4 * len(panels), 3.6)
    for ax, panel in zip(figure.subplots(1, len(panels), sharex=True, sharey=True), panels, strict=True):
        shown = [row[2:] for row in rows if row[:2] == panel]
        measures = list(dict.fromkeys(measure for measure, _, _ in shown))
        for place, (measure, _, found) in enumerate(shown):
            color = COLORS[measures.index(measure)]
            ax.errorbar([found.value], [place], xerr=[found.half_width()], fmt="o", color=color, capsize=2)
        ax.axvline(0, color="0.6", linewidth=0.8)
        ax.set_yticks(range(len(shown)), [f"{measure}, {layer}" for measure, layer, _ in shown])
        ax.set_ylim(len(shown) - 0.5, -0.5)
        ax.set_title(f"{panel[0]}, {panel[1]} starts", fontsize="medium")
        ax.spines[["top", "right"]].set_visible(False)
    figure.supxlabel("rank correlation with the truth (mean and 95 % interval over seeds)", fontsize="medium")
    figure.savefig(path, dpi=120)


def main() -> None:
    options = given(__doc__, "what-similarity")
    if not options.tables:
        record = {}
        for scenario in ("rotated", "patch"):
            for starts in ("independent", "shared"):
                study = run_study(
                    options.work / f"{scenario}-{starts}",
                    plan(options.data, scenario, starts, options.seeds, options.rows),
                    note=options.note,
                )
                found = recorded(study, options.data)
                found["rank_correlation_of_masks"] = of_masks(study)
                record[f"{scenario}, {starts} score initialisations"] = found
        write_record(NAME, record, indent=None)
    rows = []
    for each in read_record(NAME).values():
        of = (each["plan"]["scenario"], each["plan"]["score_initialisation"])
        measures = each["approaches"]["classic"]["rank_correlation_with_truth"]
        measures |= {"Jaccard index of masks": each["rank_correlation_of_masks"]}
        rows += [
            (*of, measure, layer, estimate(found))
            for measure, layers in measures.items()
            for layer, found in layers.items()
        ]
    head = ("tasks", "score initialisations", "measure", "layer", "rank correlation with the truth")
    written = tuple((*row[:-1], row[-1].short()) for row in rows)
    draw(rows, RESULTS / f"{NAME}.png")
    write_tables(NAME, [Grid("Spearman's rank correlation (means over seeds, 95 % intervals)", head, written)])


if __name__ == "__main__":
    main()
