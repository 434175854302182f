"""Small pages of every kind, for tests of what they hold and of how a browser shows them."""

import torch
from overlaps.folded import fisher, squares

from commonweight.base.text import Grid
from commonweight.footprints.footprint import Footprint
from commonweight.overlaps.table.table import overlap
from commonweight.report.answer import Answer
from commonweight.report.html import Overlaps, Page
from commonweight.report.overlap import result

EVIL = """</script><script>alert(1)</script><img src=x onerror=alert(2)>"'&\u2028`${alert(3)}`{{7*7}}"""
"""A name that tries everything."""

LAYERS = {"body.0.weight": (6, 5), "body.0.bias": (6,), "body.1.weight": (6, 6), "head.weight": (2, 6)}


def folded(count=3, shapes=None):
    """A table of Fishers with folds, of which the first two are alike."""
    shapes = shapes or LAYERS
    names = [f"model {number}" for number in range(count)]
    first = fisher(squares, shapes, seed=0)
    return overlap({
        name: first if number == 1 else fisher(squares, shapes, seed=number) for number, name in enumerate(names)
    })


def masks(count, layers, seed=0):
    """A table of masks."""
    generator = torch.Generator().manual_seed(seed)
    names = [f"block.{number // 4}.part.{number % 4}.weight" for number in range(layers)]
    return overlap({
        f"task {task}": Footprint("supermask", {name: torch.rand(8, 4, generator=generator) < 0.5 for name in names}, 8)
        for task in range(count)
    })


def bare(table):
    """The page of a table without its text, which takes long where there are many pairs."""
    answer = Answer("What do they share?", "Little.", Grid("Nothing", ("", ""), ()))
    return Page(answer, [Overlaps("all", [table])])


def page_of(table, **parts):
    """The page of one table, with all its text."""
    found = result(table)
    return Page(
        found.answer, [Overlaps("all", [table])], blocks=found.blocks, origin={"Run": {"study": "test"}}, **parts
    )


def evil_page():
    """A page all of whose names try to run a script."""
    shapes = {f"{EVIL.replace('.', '')}.weight": (4, 3), "head.weight": (2, 3)}
    table = overlap({f"{EVIL}{name}": fisher(squares, shapes, seed=seed) for seed, name in enumerate("ab")})
    answer = Answer(EVIL, EVIL, Grid(EVIL, (EVIL, EVIL), ((EVIL, "1"),)), (EVIL,), (EVIL,))
    grid = Grid(EVIL, (EVIL, EVIL), ((EVIL, "1"),), ((EVIL, "1"),))
    return Page(answer, [Overlaps(EVIL, [table])], blocks=[EVIL, grid], origin={EVIL: {EVIL: EVIL}})
