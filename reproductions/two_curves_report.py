"""The record of two_curves.py as tables."""

from __future__ import annotations

from two_curves_found import ARMS, LAYERS, MASKS, NORMS, PAIRS, QUESTIONS, STARTS, Found, contrasts, similar

from commonweight.base.estimate import Estimate, signed
from commonweight.base.text import Grid, to_markdown
from commonweight.verdicts.words import by_chance

WORDS = (
    "In the rows of Fisher overlaps a difference of corrected overlaps; a word stands behind it only where that of "
    "corrected − null, in the row below, excludes 0 on the same side, since layers and pairs differ in what permuted "
    "Fishers overlap by. Where both Fishers are of the same weights (both at the end; untrained) numbers stand without "
    "a word: a network shares all its weights with itself, and an untrained one has learned nothing. Nor is there a "
    "word for flipped bits: their chance level is not known.",
    "Inconclusive: independent initialisations have no shared initialisation; elsewhere one of the two differences "
    "does not exclude 0, or they exclude it on different sides. The record beside this file gives the reason of each.",
)


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


def report(record: dict) -> str:
    found, settings, seeds = Found(record), record["settings"], record["seeds"]
    told = ", ".join(f"{key.replace('_', ' ')} {value:g}" for key, value in settings.items())
    asked = contrasts(found)
    answers = {
        (name, question): each["answer"]
        for name, of in record["contrasts_over_seeds"].items()
        for question, each in of.items()
        if "answer" in each
    }

    def with_word(name: str, question: str, difference: Estimate) -> str:
        answer = answers.get((name, question))
        return signed(difference) + ("" if answer is None else f" ({answer})")

    rows: list[tuple[str, ...]] = []
    for name, of in asked.items():
        rows.append((name, *(with_word(name, question, each.difference) for question, each in of.items())))
        if name.startswith("Fisher"):
            rows.append((
                f"{name}: corrected − null",
                *(signed(each.beyond) for each in of.values() if each.beyond is not None),
            ))
    rows += [(name, *(signed(each) for each in of.values())) for name, of in similar(found).items()]
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
        by_chance(len(answers), "contrasts"),
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
            (f"{name}, share of bits", *(found.density(starts, layer, task).short() for layer in LAYERS))
            for task, name in zip(("first", *PAIRS), ("first task", *PAIRS), strict=True)
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
