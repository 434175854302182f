"""The figure of two_curves.py: Fisher overlaps above, supermasks and similarities of tasks below, against depth."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.lines import Line2D
from two_curves_found import ARMS, LAYERS, MASKS, NORMS, PAIRS, SIMILARITIES, STARTS, Found

from commonweight.report.curves import DepthCurve, plot_depth
from commonweight.report.files import new_figure

if TYPE_CHECKING:
    from pathlib import Path

COLORS = dict(zip(PAIRS, ("#9ecae1", "#4292c6", "#54278f", "#d95f0e", "#a50f15", "0.45"), strict=True))
BENEATH = {
    "ewc": "as published, but shorter",
    "independent": "no shared initialisation: not to be read as sharing",
    "untrained": "control: what is there before anything is learned",
}


def draw(found: Found, path: Path) -> None:
    figure = new_figure(18, 9.2)
    axes = figure.subplots(3, 5, sharey="row", gridspec_kw={"height_ratios": (3, 1, 3)})

    def curves(measure, layers, null=None, dotted=("8 px", "26 px")) -> list[DepthCurve]:
        return [
            DepthCurve(
                pair,
                {layer: measure(pair, layer) for layer in layers},
                COLORS[pair],
                "--" if pair == "random labels" else "-",
                None if null is None or pair not in dotted else {layer: null(pair, layer) for layer in layers},
            )
            for pair in PAIRS
        ]

    for column, arm in enumerate(("ewc", "sequence", "apart", "independent", "untrained")):
        top, below = axes[0][column], axes[1][column]
        plot_depth(
            curves(
                lambda p, k, a=arm: found.fisher("corrected", a, p, k),
                LAYERS,
                lambda p, k, a=arm: found.fisher("null", a, p, k).value,
            ),
            top,
        )
        plot_depth(curves(lambda p, k, a=arm: found.share(a, p, k), LAYERS), below)
        top.set_title(f"{ARMS[arm]}\n{BENEATH.get(arm, '')}", fontsize="medium")
    panels = [
        (f"{words}\n({starts} score initialisations)", LAYERS, lambda p, k, s=starts: found.mask(s, p, k))
        for starts, words in zip(STARTS, MASKS, strict=True)
    ]
    panels += [
        (
            f"{SIMILARITIES[name]}\n({starts} score initialisations)",
            NORMS,
            lambda p, k, s=starts, a=name: found.alike(s, a, p, k),
        )
        for starts, name in (("independent", "every_layer"), ("shared", "every_layer"), ("independent", "probed"))
    ]
    for ax, (title, layers, measure) in zip(axes[2], panels, strict=True):
        independent = (lambda p, k: found.coincidence(p, k).value) if title.startswith(MASKS[1]) else None
        plot_depth(curves(measure, layers, independent, ("26 px", "random labels")), ax)
        ax.set_title(title, fontsize="medium")
    axes[0][0].set_ylim(0, 1.05)
    axes[1][0].set_ylim(0, 1)
    axes[2][0].set_ylim(-0.05, 1.05)
    axes[0][0].set_ylabel("Fisher overlap within the layer, corrected")
    axes[1][0].set_ylabel("trace share")
    axes[2][0].set_ylabel("overlap, similarity")
    handles = [
        Line2D([], [], color=COLORS[pair], linestyle="--" if pair == "random labels" else "-", marker="o", markersize=3,
               label=pair)
        for pair in PAIRS
    ]  # fmt: skip
    handles.append(
        Line2D(
            [],
            [],
            color="0.3",
            linestyle=":",
            label="null: Fishers permuted (8, 26 px), bits flipped independently (26 px, random labels)",
        )
    )
    title = "MNIST and a second task: a permuted central square of so many pixels a side, or random labels"
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, title=title)
    figure.savefig(path, dpi=110, metadata={"Software": None})
