"""Fusion by its formulas: plain lists, plain loops, float64. Imports nothing of the package."""

import math


def average(models, weights):
    """Σ w θ, entry by entry; every model is a list of numbers."""
    fused = []
    for k in range(len(models[0])):
        terms = []
        for i in range(len(models)):
            terms.append(weights[i] * models[i][k])
        fused.append(math.fsum(terms))
    return fused


def task_arithmetic(base, models, weights, scale):
    """θ_b + λ Σ w (θ - θ_b)."""
    fused = []
    for k in range(len(base)):
        task_vector = 0.0
        for i in range(len(models)):
            task_vector += weights[i] * (models[i][k] - base[k])
        fused.append(base[k] + scale * task_vector)
    return fused


def fisher_units(fishers, normalize):
    """What each Fisher is divided by: its root mean square, its mean, or 1."""
    units = []
    for fisher in fishers:
        if normalize == "norm":
            units.append(math.sqrt(math.fsum(f * f for f in fisher) / len(fisher)))
        elif normalize == "trace":
            units.append(math.fsum(fisher) / len(fisher))
        else:
            units.append(1.0)
    return units


def fisher_average(models, fishers, weights, floor, normalize):
    """Σ w max(F/u, ε) θ / Σ w max(F/u, ε), and how many entries are at the floor in all models."""
    units = fisher_units(fishers, normalize)
    fused = []
    dead = 0
    for k in range(len(models[0])):
        above = 0.0
        below = 0.0
        is_dead = True
        for i in range(len(models)):
            scaled = fishers[i][k] / units[i]
            if scaled > floor:
                is_dead = False
            counted = weights[i] * max(scaled, floor)
            above += counted * models[i][k]
            below += counted
        fused.append(above / below)
        dead += is_dead
    return fused, dead


def norm_of_difference(a, b):
    return math.sqrt(math.fsum((a[k] - b[k]) ** 2 for k in range(len(a))))


def triangle(steps):
    """All (i, j, k) / steps with i + j + k = steps."""
    points = set()
    for i in range(steps + 1):
        for j in range(steps + 1):
            for k in range(steps + 1):
                if i + j + k == steps:
                    points.add((i / steps, j / steps, k / steps))
    return points
