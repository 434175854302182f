"""Squares that are too small for float32 become 0, and that is said."""

import warnings

import pytest
import torch
from diagonal_fisher.small import examples, small_mlp

import commonweight


def tiny(x, y, scale=1e-25):
    return [(x[:4] * scale, y[:4]), (x[4:8] * scale, y[4:8])]


@pytest.mark.parametrize("folds", [1, 2])
def test_squares_that_became_0_are_said(folds):
    x, y = examples()
    with pytest.warns(UserWarning, match=r"squares of gradients below 1e-45 are 0 in float32: of 0\.weight up to 100%"):
        found = commonweight.fisher(small_mlp().float(), tiny(x.float(), y), folds=folds)
    assert not found["0.weight"].any()
    assert found["0.bias"].any()


@pytest.mark.parametrize(("dtype", "scale"), [(torch.float32, 1.0), (torch.float32, 1e-10), (torch.float64, 1e-25)])
def test_nothing_is_said_where_nothing_is_lost(dtype, scale):
    x, y = examples()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = commonweight.fisher(small_mlp().to(dtype), tiny(x.to(dtype), y, scale))
    assert found["0.weight"].any()
