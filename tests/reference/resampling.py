"""Half-samples, jackknife and permutation nulls by their definitions: plain lists, plain loops.

A footprint is a list of folds; a fold is ``(count, values)`` with ``values`` a flat list of means over its examples.
Imports nothing of the package.
"""

import itertools
import math


def total(folds, chosen):
    """Sum over the chosen folds of count * mean."""
    values = [0.0] * len(folds[0][1])
    for k in chosen:
        count, means = folds[k]
        for p in range(len(values)):
            values[p] += count * means[p]
    return values


def product(f, g):
    return math.fsum(math.sqrt(f[p]) * math.sqrt(g[p]) for p in range(len(f)))


def raw(a, b, chosen):
    f, g = total(a, chosen), total(b, chosen)
    return ratio(product(f, g), product(f, f), product(g, g))


def ratio(ab, aa, bb):
    return ab / math.sqrt(aa) / math.sqrt(bb) if aa > 0 and bb > 0 else math.nan


def crossed(a, b, designs, left_out=None, multiplied=product):
    """The overlap of different parts: a sum over splits and ordered pairs of parts, over what it could be at most."""
    products = []
    most = []
    for parts in designs:
        for one, other in itertools.permutations(parts, 2):
            f = total(a, [k for k in one if k != left_out])
            g = total(b, [k for k in other if k != left_out])
            products.append(multiplied(f, g))
            most.append(math.sqrt(sum(f) * sum(g)))
    return math.fsum(products) / math.fsum(most) if math.fsum(most) > 0 else math.nan


def corrected(a, b, designs, left_out=None):
    return ratio(crossed(a, b, designs, left_out), crossed(a, a, designs, left_out), crossed(b, b, designs, left_out))


def noise_ceiling(a, halves, left_out=None):
    return crossed(a, a, halves, left_out)


def jackknife(value, replicates, quantile):
    """Low and high: value -+ quantile * sqrt((K - 1) / K * sum of squared deviations)."""
    K = len(replicates)
    mean = sum(replicates) / K
    squares = 0.0
    for each in replicates:
        squares += (each - mean) ** 2
    width = quantile * math.sqrt((K - 1) / K * squares)
    return value - width, value + width


def permuted_product(f, g, rows, columns, what):
    """The mean of the product over every permutation of f's entries, rows or columns, one by one."""
    x = [math.sqrt(value) for value in f]
    y = [math.sqrt(value) for value in g]
    moved = {"entries": rows * columns, "rows": rows, "columns": columns}[what]
    found = []
    for order in itertools.permutations(range(moved)):
        dot = 0.0
        for r in range(rows):
            for c in range(columns):
                if what == "entries":
                    source = order[r * columns + c]
                elif what == "rows":
                    source = order[r] * columns + c
                else:
                    source = r * columns + order[c]
                dot += x[source] * y[r * columns + c]
        found.append(dot)
    return math.fsum(found) / len(found)


def null(a, b, halves, shape, what, left_out=None):
    """What the corrected overlap of one parameter would be if one of the two halves were permuted."""

    def permuted(f, g):
        return permuted_product(f, g, *shape, what)

    above = crossed(a, b, halves, left_out, permuted)
    return ratio(above, crossed(a, a, halves, left_out), crossed(b, b, halves, left_out))
