"""Elastic weight consolidation over plain lists, one weight at a time."""


def penalty(weights, fisher, anchor, strength):
    """Equation 3 of Kirkpatrick et al. (2017), without the loss: lists of floats of one length."""
    total = 0.0
    for weight, importance, start in zip(weights, fisher, anchor, strict=True):
        total += strength / 2 * importance * (weight - start) ** 2
    return total


def gradient(weights, fisher, anchor, strength):
    return [strength * f * (w - start) for w, f, start in zip(weights, fisher, anchor, strict=True)]
