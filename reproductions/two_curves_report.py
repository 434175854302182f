"""What two_curves.py found, as tables and a record; every number derived from the tables of the run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from two_curves_found import (
    ARMS,
    LAYERS,
    MASKS,
    NORMS,
    PAIRS,
    QUESTIONS,
    STARTS,
    Contrast,
    Found,
    contrasts,
    similar,
)

import commonweight
from commonweight.base.estimate import Estimate, signed
from commonweight.base.records import without_nan
from commonweight.base.text import Grid, to_markdown
from commonweight.verdicts.words import by_chance

if TYPE_CHECKING:
    from commonweight.overlaps.table.table import OverlapTable

WORDS = (
    "In the rows of Fisher overlaps a difference of corrected overlaps; a word stands behind it only where that of "
    "corrected − null, in the row below, excludes 0 on the same side, since layers and pairs differ in what permuted "
    "Fishers overlap by. Where both Fishers are of the same weights (both at the end; untrained) numbers stand without "
    "a word: a network shares all its weights with itself, and an untrained one has learned nothing. Nor is there a "
    "word for flipped bits: their chance level is not known.",
    "Inconclusive: independent initialisations have no shared initialisation; elsewhere one of the two differences "
    "does not exclude 0, or they exclude it on different sides. The record beside this file gives the reason of each.",
)


def told_with_word(asked: Contrast) -> str:
    return signed(asked.difference) + ("" if asked.verdict is None else f" ({asked.verdict.answer})")


def protocol(settings: dict, seeds: int) -> Grid:
    """Set what was done beside what Kirkpatrick et al. (2017) state for their figure 2C (table S1)."""
    rows = (
        ("training images of each task", "60,000 (MNIST)", f"{settings['rows']:,}"),
        ("epochs of each task", "100", str(settings["epochs"])),
        ("hidden layers", "6 of 100 ReLU units", "6 of 100 ReLU units"),
        ("learning rate", "0.001", f"{settings['rate']:g}"),
        ("momentum", "not stated", f"{settings['momentum']:g}"),
        ("batch size", "not stated", str(settings["batch_size"])),
        ("strength λ of the penalty", "not stated", f"{settings['strength']:g}"),
        ("images of a Fisher", "not stated", f"{settings['test_rows']:,} test images, 8 folds"),
        ("biases", "not stated", "learned, start at 0; in their layer's Fisher"),
        ("seeds", "not stated", str(seeds)),
    )
    return Grid("The protocol (published: Kirkpatrick et al. 2017, figure 2C)", ("", "published", "here"), rows)


def report(found: Found, settings: dict, seeds: int) -> str:
    told = ", ".join(f"{key.replace('_', ' ')} {value:g}" for key, value in settings.items())
    asked = contrasts(found)
    rows: list[tuple[str, ...]] = []
    for name, of in asked.items():
        rows.append((name, *(told_with_word(each) for each in of.values())))
        if name.startswith("Fisher"):
            rows.append((f"{name}: corrected − null", *(signed(each.beyond) for each in of.values())))
    rows += [(name, *(signed(each) for each in of.values())) for name, of in similar(found).items()]
    words = sum(each.verdict is not None for of in asked.values() for each in of.values())
    blocks: list = [
        f"Means over {seeds} seeds ± half a 95 % interval over seeds: other trainings, permutations of the square, and "
        f"choices of images. Overlaps of a layer are normalised within it. Settings: {told}.",
        protocol(settings, seeds),
        Grid(
            "What was published (above 0 in the first column, and in the third), and what was found",
            ("", *QUESTIONS),
            tuple(rows),
        ),
        *WORDS,
        by_chance(words, "contrasts"),
    ]
    for arm in ("ewc", "one network", "sequence", "apart"):
        for of, name in (("corrected", "Corrected overlap"), ("above_null", "Corrected − null")):
            rows = [(pair, *(signed(found.learned(of, arm, pair, layer)) for layer in LAYERS)) for pair in PAIRS]
            blocks.append(Grid(f"{name}, {ARMS[arm]}, less that of the untrained start", ("", *LAYERS), tuple(rows)))
    for arm, words in ARMS.items():
        rows = [
            (f"{pair}, {name}", *(measure(arm, pair, layer).short() for layer in LAYERS))
            for name, measure in (
                ("corrected", lambda a, p, k: found.fisher("corrected", a, p, k)),
                ("corrected − null", lambda a, p, k: found.fisher("above_null", a, p, k)),
                ("noise ceiling", found.noise_ceiling),
                ("trace share", found.share),
            )
            for pair in PAIRS
        ]
        blocks += [Grid(f"Fisher overlap: {words}", ("", *LAYERS), tuple(rows)), f"Alignment: {found.alignment(arm)}."]
    for starts, words in zip(STARTS, MASKS, strict=True):
        rows = [(pair, *(found.mask(starts, pair, layer).short() for layer in LAYERS)) for pair in PAIRS]
        if starts == "shared":
            rows += [
                (f"{pair}, if flips were independent", *(found.coincidence(pair, layer).short() for layer in LAYERS))
                for pair in PAIRS
            ]
        rows += [
            (f"{name}, share of bits", *(found.density(starts, layer, at).short() for layer in LAYERS))
            for at, name in enumerate(("first task", *PAIRS))
        ]
        blocks.append(Grid(f"{words}, {starts} score initialisations", ("", *LAYERS), tuple(rows)))
    for starts in STARTS:
        rows = [
            (f"{pair}, {name}", *(found.alike(starts, similarity, pair, norm).short() for norm in NORMS))
            for similarity, name in (("every_layer", "batch-norm means"), ("probed", "probed"))
            for pair in PAIRS
        ]
        title = (
            f"Similarity of tasks, {starts} score initialisations (that of the first layer is bn1 of batch-norm means)"
        )
        blocks.append(Grid(title, ("", *NORMS), tuple(rows)))
    rows = []
    for arm in ("ewc", "sequence", "apart", "independent"):
        for pair in PAIRS:
            each = found.accuracy[arm][pair]
            cells = (
                Estimate.over_seeds([one[key] for one in each]).short() if key in each[0] else "–"
                for key in ("first, alone", "first, after second", "second")
            )
            rows.append((f"{ARMS[arm]}, {pair}", *cells))
    blocks.append(Grid("Accuracy", ("", "first task, alone", "first, after second", "second"), tuple(rows)))
    rows = [
        (
            pair,
            *(Estimate.over_seeds([e[pair] for e in found.accuracy[f"masks, {s} starts"]]).short() for s in STARTS),
        )
        for pair in ("first", *PAIRS)
    ]
    blocks.append(Grid("Accuracy of masks", ("", *(f"{starts} starts" for starts in STARTS)), tuple(rows)))
    return to_markdown(blocks)


def record(found: Found, settings: dict, digest: str, seeds: int) -> dict:
    """Every number per seed, with intervals over folds where there are any."""

    def plain(value: Estimate) -> dict:
        return {"value": value.value, "low": value.low, "high": value.high}

    def of_contrast(asked: Contrast) -> dict:
        return (
            plain(asked.difference)
            | ({} if asked.beyond is None else {"corrected_minus_null": plain(asked.beyond)})
            | ({} if asked.verdict is None else {"answer": asked.verdict.answer, "reason": asked.verdict.brief})
        )

    def of_table(table: OverlapTable) -> dict:
        per_layer = {}
        for layer in LAYERS:
            per_layer[layer] = {
                of: plain(table.estimate(of, "first", "second", layer)) for of in ("raw", "corrected", "above_null")
            } | {
                "null": float(table.null.strictest.by_layer[layer][0, 1]),
                "null_permutes": str(table.null.which(layer)[0, 1]),
                "noise_ceilings": table.noise_ceiling.by_layer[layer].tolist(),
                "trace_shares": table.trace_share[layer].tolist(),
            }
        return {
            "layers": per_layer,
            "pooled": {of: plain(table.estimate(of, "first", "second")) for of in ("raw", "corrected")},
            "effective_sample_size": list(table.effective_sample_size.values()),
            "weight_distance": float(table.alignment.distance[0, 1]),
            "alignment": table.alignment.reading("first", "second"),
        }

    return without_nan({
        "settings": settings,
        "data_sha256": digest,
        "seeds": seeds,
        "versions": {"torch": torch.__version__, "commonweight": commonweight.__version__},
        "contrasts_over_seeds": {
            name: {question: of_contrast(each) for question, each in of.items()}
            for name, of in contrasts(found).items()
        }
        | {name: {question: plain(each) for question, each in of.items()} for name, of in similar(found).items()},
        "accuracy": found.accuracy,
        "fisher": {
            arm: {pair: [of_table(table) for table in of_seeds] for pair, of_seeds in pairs.items()}
            for arm, pairs in found.fishers.items()
        },
        "masks": {
            starts: {
                pair: {
                    layer: [
                        {
                            "jaccard": float(t.by_layer[layer][0, at]),
                            "beyond_chance": float(t.corrected.by_layer[layer][0, at]),
                            "densities": t.density.by_layer[layer][[0, at]].tolist(),
                        }
                        for t in tables
                    ]
                    for layer in LAYERS
                }
                for at, pair in enumerate(PAIRS, 1)
            }
            for starts, tables in found.masks.items()
        },
        "similarity": {
            starts: {
                name: {
                    pair: {norm: [float(t.values[norm][at, 0]) for t in tables] for norm in tables[0].layers}
                    for at, pair in enumerate(PAIRS, 1)
                }
                for name, tables in of.items()
            }
            for starts, of in found.similarity.items()
        },
    })
