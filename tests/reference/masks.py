"""Masks and task similarity by their definitions: plain lists, plain loops. Imports nothing of the package."""

import math


def jaccard_by_chance(masks_a, masks_b):
    """Expected kept-by-both over expected kept-by-either, each summed over layers, for independent masks."""
    both = 0.0
    either = 0.0
    for a, b in zip(masks_a, masks_b, strict=True):
        n = len(a)
        d_a = sum(a) / n
        d_b = sum(b) / n
        both += n * d_a * d_b
        either += n * (1 - (1 - d_a) * (1 - d_b))
    return both / either if either else math.nan


def kept_by_both(a, b):
    count = 0
    for k in range(len(a)):
        if a[k] and b[k]:
            count += 1
    return count


def bhattacharyya(mean, variance, other_mean, other_variance, steps=20001, reach=12.0):
    """The integral of sqrt(p q) of two normal densities, by the trapezium rule."""
    low = min(mean - reach * math.sqrt(variance), other_mean - reach * math.sqrt(other_variance))
    high = max(mean + reach * math.sqrt(variance), other_mean + reach * math.sqrt(other_variance))
    width = (high - low) / (steps - 1)
    total = 0.0
    for k in range(steps):
        x = low + k * width
        p = math.exp(-((x - mean) ** 2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)
        q = math.exp(-((x - other_mean) ** 2) / (2 * other_variance)) / math.sqrt(2 * math.pi * other_variance)
        total += math.sqrt(p * q) * width * (0.5 if k in {0, steps - 1} else 1.0)
    return total


def softmax(values, temperature):
    powers = [math.exp(value / temperature) for value in values]
    return [power / sum(powers) for power in powers]
