"""Slow, loop-only second versions of the measures of continual learning. Imports nothing of the package."""

from __future__ import annotations


def average_accuracy(R: list[list[float]]) -> float:
    total = 0.0
    for j in range(len(R)):
        total += R[len(R) - 1][j]
    return total / len(R)


def backward_transfer(R: list[list[float]]) -> float:
    last, total = len(R) - 1, 0.0
    for j in range(last):
        total += R[last][j] - R[j][j]
    return total / last


def forgetting(R: list[list[float]]) -> float:
    last, total = len(R) - 1, 0.0
    for j in range(last):
        best = R[j][j]
        for row in range(j, last):
            if R[row][j] > best:
                best = R[row][j]
        total += best - R[last][j]
    return total / last


def curve_area(steps: list[int], values: list[float]) -> float:
    area = 0.0
    for k in range(1, len(steps)):
        area += (steps[k] - steps[k - 1]) * (values[k] + values[k - 1]) / 2
    return area / (steps[-1] - steps[0])
